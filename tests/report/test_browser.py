"""The page in a real browser: opened from disk, with an eye on the console and on the network."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
REQUIRE = 'ARMBENCH_REQUIRE_BROWSER'
SCREENSHOTS = REPO / 'work_dirs'
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which('chromedriver')
    if not (binary and driver):
        missing = f'the browser test needs chromium and chromedriver, got {binary} and {driver}'
        if os.environ.get(REQUIRE):
            pytest.fail(f'{missing}, and {REQUIRE} is set')
        pytest.skip(f'{missing}; Debian has them as chromium and chromium-driver')
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1280,1000'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The browser with the page just loaded, its logs from before taken away.

    The page before goes first: what still ran in it, as a plot that is resized, may write to the console later.
    """
    browser.get('about:blank')
    for kind in ('browser', 'performance'):
        browser.get_log(kind)
    browser.get(page.as_uri())
    waiting(browser, lambda one: one.execute_script("return document.readyState === 'complete'"))
    return browser


def requests_of(browser: Any) -> list[str]:
    """Every address that was asked for, data inside the page left out."""
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    urls = [event['params']['request']['url'] for event in events if event['method'] == 'Network.requestWillBeSent']
    return [url for url in urls if not url.startswith(('data:', 'blob:'))]


def shown_pictures(browser: Any) -> list[dict[str, str]]:
    """The labels of the pictures that can be seen."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#pictures figure.picture')]"
        '.filter((figure) => figure.checkVisibility()).map((figure) => ({...figure.dataset}))'
    )


def choose(browser: Any, **values: str) -> None:
    """Set filters, each with the event that a hand would cause; all is done when this returns."""
    for name, value in values.items():
        browser.execute_script(
            'const chosen = document.querySelector(`#filters [name="${arguments[0]}"]`); chosen.value = arguments[1];'
            "chosen.dispatchEvent(new Event('change', { bubbles: true }))",
            name,
            value,
        )


def waiting(browser: Any, condition: Callable[[Any], object]) -> None:
    """Wait until a condition is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 120).until(condition)


def test_the_page_opens_without_a_request_or_a_word_on_the_console(opened: Any, page: Path) -> None:
    assert requests_of(opened) == [page.as_uri()]
    assert opened.get_log('browser') == []
    opened.execute_script("fetch('http://localhost:9/').catch(() => {})")
    said: list[str] = []
    waiting(opened, lambda one: said.extend(entry['message'] for entry in one.get_log('browser')) or said)
    assert 'Content Security Policy' in said[0]
    assert requests_of(opened) == []


def unfold(browser: Any, parts: str = 'details.fold') -> list[dict[str, float]]:
    """Open parts of the page; width and number of marks of each plot in them, when all are drawn."""
    browser.execute_script(f"document.querySelectorAll('{parts}').forEach((fold) => {{ fold.open = true }})")
    plots = (
        f"return [...document.querySelectorAll('{parts} figure.plot .canvas')].map((canvas) => ({{"
        "width: canvas.querySelector('svg.main-svg')?.getBoundingClientRect().width ?? 0,"
        "marks: canvas.querySelectorAll('.trace path, .points path, .hm image').length}))"
    )
    waiting(browser, lambda one: all(plot['marks'] for plot in one.execute_script(plots)))
    return browser.execute_script(plots)


def test_every_plot_is_drawn(opened: Any) -> None:
    shown = "return document.querySelectorAll('.js-plotly-plot').length"
    assert opened.execute_script(shown) == 1, 'the answer; the others lie folded'
    opened.execute_script('document.querySelector(\'nav a[href="#operating"]\').click()')
    waiting(opened, lambda one: one.execute_script(shown) == 1 + 3 * 2)
    plots = unfold(opened)
    assert len(plots) == 3 + 3 * 4 + 2  # two losses and the scores; four of each subset; corruptions of each run
    assert all(plot['width'] > 800 for plot in plots)
    assert opened.get_log('browser') == []


@pytest.mark.parametrize('width', [1400, 420])
def test_the_page_fits_its_window(opened: Any, width: int) -> None:
    screen = {'width': width, 'height': 1000, 'deviceScaleFactor': 1, 'mobile': False}
    opened.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    try:
        plots = unfold(opened)
        sides = opened.execute_script(
            'const page = document.documentElement; return [page.scrollWidth, page.clientWidth]'
        )
        assert sides[0] == sides[1] <= width
        assert all(0.6 * min(width, 1216) < plot['width'] <= width for plot in plots)
        shot = opened.execute_cdp_cmd('Page.captureScreenshot', {'captureBeyondViewport': True})
        SCREENSHOTS.mkdir(exist_ok=True)
        (SCREENSHOTS / f'report-{width}.png').write_bytes(base64.b64decode(shot['data']))
        assert opened.get_log('browser') == []
    finally:
        opened.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_filters_show_what_they_say(opened: Any) -> None:
    every = shown_pictures(opened)
    assert len(every) == 2 * 3 * 3 * 2  # runs, subsets, kinds, and two pictures of each
    wanted: dict[str, str] = {}
    steps = {'subset': 'mix-object-tote test', 'run': 'second', 'kind': 'worst'}
    for name, value in steps.items():
        choose(opened, **{name: value})
        wanted[name] = value
        expected = [labels for labels in every if wanted.items() <= labels.items()]
        assert shown_pictures(opened) == expected != []
        said = opened.execute_script("return document.getElementById('shown').textContent")
        assert said == f'{len(expected)} of {len(every)} pictures'
    choose(opened, **dict.fromkeys(steps, ''))
    assert shown_pictures(opened) == every
    assert opened.get_log('browser') == []


def test_print_fits_the_paper_and_the_screen_is_restored(opened: Any) -> None:
    width = "return document.querySelector('figure.plot svg.main-svg').getBoundingClientRect().width"
    before = opened.execute_script(width)
    opened.execute_script(
        "window.addEventListener('beforeprint', () => { window.printed = (() => { " + width + ' })() })'
    )
    pdf = base64.b64decode(opened.execute_cdp_cmd('Page.printToPDF', {'preferCSSPageSize': True})['data'])
    assert pdf.startswith(b'%PDF')
    assert opened.execute_script('return window.printed') == 680
    assert opened.execute_script(width) == before


def test_without_scripts_tables_and_pictures_remain(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': True})
    try:
        browser.get(page.as_uri())
        seen = {
            selector: any(element.is_displayed() for element in browser.find_elements('css selector', selector))
            for selector in ('table', 'figure.picture img', 'noscript .banner', 'figure.plot', '#filters')
        }
    finally:
        browser.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': False})
    assert seen == {
        'table': True,
        'figure.picture img': True,
        'noscript .banner': True,
        'figure.plot': False,
        '#filters': False,
    }
