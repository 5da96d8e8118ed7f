"""The page in a real browser: opened from disk, with an eye on the console and on the network."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

REQUIRE = 'ARMBENCH_REQUIRE_BROWSER'
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    binary = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    driver = shutil.which('chromedriver')
    if not (binary and driver):
        missing = f'the browser test needs chromium and chromedriver, got {binary} and {driver}'
        if os.environ.get(REQUIRE):
            pytest.fail(f'{missing}, and {REQUIRE} is set')
        pytest.skip(f'{missing}; Debian has them as chromium and chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1280,1000'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Any]:
    """The browser with the page just loaded, after an empty one; in the end nothing may be on its console."""
    browser.get('about:blank')
    for kind in ('browser', 'performance'):
        browser.get_log(kind)
    browser.get(page.as_uri())
    waiting(browser, lambda one: one.execute_script("return document.readyState === 'complete'"))
    yield browser
    assert browser.get_log('browser') == []


def waiting(browser: Any, condition: Callable[[Any], object]) -> None:
    """Wait until a condition is true."""
    WebDriverWait(browser, 120).until(condition)


def test_the_page_asks_for_nothing_and_could_not(opened: Any, page: Path) -> None:
    def requests() -> list[str]:
        events = [json.loads(entry['message'])['message'] for entry in opened.get_log('performance')]
        urls = [event['params']['request']['url'] for event in events if event['method'] == 'Network.requestWillBeSent']
        return [url for url in urls if not url.startswith(('data:', 'blob:'))]

    assert requests() == [page.as_uri()]
    assert opened.get_log('browser') == []
    opened.execute_script("fetch('http://localhost:9/').catch(() => {})")
    said: list[str] = []
    waiting(opened, lambda one: said.extend(entry['message'] for entry in one.get_log('browser')) or said)
    assert 'Content Security Policy' in said[0]
    assert requests() == []


def test_a_part_is_drawn_when_a_link_opens_it(opened: Any) -> None:
    shown = "return document.querySelectorAll('.js-plotly-plot').length"
    assert opened.execute_script(shown) == 1, 'the answer; the others lie folded'
    opened.execute_script('document.querySelector(\'nav a[href="#operating"]\').click()')
    waiting(opened, lambda one: one.execute_script(shown) == 1 + 3 * 2)


@pytest.mark.parametrize('width', [1400, 420])
def test_every_plot_is_drawn_and_the_page_fits_its_window(opened: Any, width: int) -> None:
    screen = {'width': width, 'height': 1000, 'deviceScaleFactor': 1, 'mobile': False}
    opened.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    opened.execute_script("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true })")
    plots = (
        "return [...document.querySelectorAll('details.fold figure.plot .canvas')].map((canvas) => ({"
        "width: canvas.querySelector('svg.main-svg')?.getBoundingClientRect().width ?? 0,"
        "marks: canvas.querySelectorAll('.trace path, .points path, .hm image').length}))"
    )
    waiting(opened, lambda one: all(plot['marks'] for plot in one.execute_script(plots)))
    drawn = opened.execute_script(plots)
    sides = opened.execute_script(
        'const {scrollWidth, clientWidth} = document.documentElement; return [scrollWidth, clientWidth]'
    )
    opened.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    assert len(drawn) == 3 + 3 * 4 + 2  # two losses and the scores; four of each subset; corruptions of each run
    assert all(0.6 * min(width, 1216) < plot['width'] <= width for plot in drawn)
    assert sides[0] == sides[1] <= width


def test_filters_show_what_they_say(opened: Any) -> None:
    def shown() -> list[dict[str, str]]:
        figures = "[...document.querySelectorAll('#pictures figure.picture')]"
        return opened.execute_script(
            f'return {figures}.filter((figure) => figure.checkVisibility()).map((figure) => ({{...figure.dataset}}))'
        )

    every = shown()
    assert len(every) == 2 * (3 + 2 + 2)  # of each run; of two images there is no median
    wanted: dict[str, str] = {}
    for name, value in {'subset': 'mix-object-tote test', 'run': 'second', 'kind': 'worst'}.items():
        opened.find_element('css selector', f'#filters [name="{name}"] option[value="{value}"]').click()
        wanted[name] = value
        expected = [labels for labels in every if wanted.items() <= labels.items()]
        assert shown() == expected != []
        said = opened.find_element('id', 'shown').text
        assert said == f'{len(expected)} of {len(every)} pictures'
    for name in wanted:
        opened.find_element('css selector', f'#filters [name="{name}"] option').click()
    assert shown() == every


def test_print_fits_the_paper_and_the_screen_is_restored(opened: Any) -> None:
    width = "return document.querySelector('figure.plot svg.main-svg').getBoundingClientRect().width"
    before = opened.execute_script(width)
    opened.execute_script(
        f"window.addEventListener('beforeprint', () => {{ window.printed = (() => {{ {width} }})() }})"
    )
    pdf = base64.b64decode(opened.execute_cdp_cmd('Page.printToPDF', {'preferCSSPageSize': True})['data'])
    assert pdf.startswith(b'%PDF')
    assert opened.execute_script('return window.printed') == 680
    assert opened.execute_script(width) == before


def test_without_scripts_tables_and_pictures_remain(browser: Any, page: Path) -> None:
    expected = {'table': True, 'figure.picture img': True, 'noscript .banner': True}
    expected |= {'figure.plot': False, '#filters': False}
    browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': True})
    browser.get(page.as_uri())
    found = {selector: browser.find_elements('css selector', selector) for selector in expected}
    seen = {selector: any(element.is_displayed() for element in own) for selector, own in found.items()}
    browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': False})
    assert seen == expected
