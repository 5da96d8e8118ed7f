"""The page in a real browser: opened from disk, with an eye on the console and on the network."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
REQUIRE = 'ARMBENCH_REQUIRE_BROWSER'
SCREENSHOT = REPO / 'work_dirs' / 'report-screenshot.png'
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
    """The browser with the page just loaded, its logs from before taken away."""
    for kind in ('browser', 'performance'):
        browser.get_log(kind)
    browser.get('about:blank')  # or an address with another #part would not be loaded anew
    browser.get(page.as_uri())
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
    """Set filters as a hand would."""
    from selenium.webdriver.support.select import Select

    for name, value in values.items():
        Select(browser.find_element('css selector', f'#filters [name="{name}"]')).select_by_value(value)


def wait_for(browser: Any, script: str) -> None:
    """Wait until a script returns true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda one: one.execute_script(script))


def test_the_page_opens_without_a_request_or_a_word_on_the_console(opened: Any, page: Path) -> None:
    assert requests_of(opened) == [page.as_uri()]
    assert opened.get_log('browser') == []
    opened.execute_script("fetch('http://localhost:9/').catch(() => {})")
    assert any('Content Security Policy' in entry['message'] for entry in opened.get_log('browser'))
    assert requests_of(opened) == []


def test_a_request_would_be_noticed(browser: Any, tmp_path: Path) -> None:
    leaky = tmp_path / 'leaky.html'
    leaky.write_text('<!DOCTYPE html><link rel="icon" href="data:,"><img src="http://localhost:9/a.png" alt="">')
    requests_of(browser)
    browser.get(leaky.as_uri())
    assert requests_of(browser) == [leaky.as_uri(), 'http://localhost:9/a.png']
    assert browser.get_log('browser') != []


def test_every_plot_is_drawn(opened: Any, page: Path) -> None:
    shown = "return document.querySelectorAll('.js-plotly-plot').length"
    assert opened.execute_script(shown) == 1, 'the answer; the others lie folded'
    opened.execute_script('document.querySelector(\'nav a[href="#size"]\').click()')
    wait_for(opened, f'{shown} == 4')
    opened.execute_script("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true })")
    wait_for(opened, f'{shown} == {1 + 4 + 3 * 6}')
    plots = opened.execute_script(
        "return [...document.querySelectorAll('figure.plot .canvas')].map((canvas) => ({"
        "width: canvas.querySelector('svg.main-svg')?.getBoundingClientRect().width ?? 0,"
        "marks: canvas.querySelectorAll('.trace path, .points path, .bars path').length}))"
    )
    assert len(plots) == 1 + 4 + 3 * 6
    assert all(plot['width'] > 800 and plot['marks'] for plot in plots)
    assert opened.get_log('browser') == []
    SCREENSHOT.parent.mkdir(exist_ok=True)
    clip = {'x': 0, 'y': 0, 'width': 1280, 'height': 9000, 'scale': 0.5}
    shot = opened.execute_cdp_cmd('Page.captureScreenshot', {'captureBeyondViewport': True, 'clip': clip})
    SCREENSHOT.write_bytes(base64.b64decode(shot['data']))


def test_filters_show_what_they_say(opened: Any) -> None:
    every = shown_pictures(opened)
    assert (
        len(every) == opened.execute_script("return document.querySelectorAll('#pictures figure.picture').length") > 50
    )
    wanted: dict[str, str] = {}
    steps = {'subset': 'mix-object-tote test', 'class': 'object', 'run': 'second', 'kind': 'worst'}
    for name, value in steps.items():
        choose(opened, **{name: value})
        wanted[name] = value
        expected = [labels for labels in every if wanted.items() <= labels.items()]
        assert shown_pictures(opened) == expected != []
        said = opened.find_element('id', 'shown').text
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
