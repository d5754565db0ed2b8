"""The site in a real browser: nothing is fetched or cut off, the search finds, links to rows lead there."""

from __future__ import annotations

import pytest
from record_factory import write_board
from test_report_browser import CHROMIUM, SCHEMES, WIDTHS, assert_fits, browser, opened, sync_api
from test_report_page import NASTY, nasty_records, save_board

from srbench.report import site

__all__ = ["browser", "sync_api"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    write_board(root / "mine")
    save_board(root / "mine")
    nasty_records(root / "nasty")
    site.write_site([root / "mine", f"{NASTY[1]}={root / 'nasty'}"], root / "site")
    return root / "site"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen_nor_cut(browser, pages, width, scheme):
    for file in sorted(pages.rglob("index.html")):
        with opened(browser, file, width=width, scheme=scheme) as page:
            assert_fits(page)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(int(part) for part in ground[4:-1].split(",")) > 384) == (scheme == "light")


def test_the_search_finds_rows_and_stands_in_the_address(browser, pages):
    shown = "() => Array.from(document.querySelectorAll('tr[data-entry]:not([hidden])')).map(each => each.innerText)"
    with opened(browser, pages / "index.html") as page:
        count = len(page.evaluate(shown))
        page.fill("input[type=search]", "ESRGAN demo")
        found = page.evaluate(shown)
        assert len(found) == 1 < count and "esrgan (demo-x4)" in found[0]
        assert page.locator("[data-name]:visible").count() == 1
        address = page.url
        page.fill("input[type=search]", "")
        assert len(page.evaluate(shown)) == count
        page.select_option("select[name=dataset]", "set5")
        assert len(page.evaluate(shown)) == 3
        page.evaluate("address => { location.hash = address.split('#')[1]; }", address)
        page.wait_for_function("document.querySelectorAll('tr[data-entry]:not([hidden])').length === 1")
        link = page.locator("tr[data-entry]:visible a").get_attribute("href")
    with opened(browser, pages / link.partition("#")[0]) as page:
        page.evaluate("anchor => { location.hash = anchor; }", link.partition("#")[2])
        assert page.locator("tr:target").inner_text().startswith(("1", "2")) and page.locator("tr:target").is_visible()
        page.locator("tr:target a.anchor").click()
        assert page.url.endswith(link.partition("#")[2])
