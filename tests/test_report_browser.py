"""The report in a real browser: nothing is fetched, headers sort, the slider moves, nothing is cut off."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from record_factory import write_board
from test_report_page import NASTY, drawn, keep_pixels, nasty_records, save_board

from srbench import evaluate, report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)")

WIDTHS, SCHEMES = (1400, 390), ("light", "dark")
# Elements whose box leaves the screen, except in boxes that scroll on their own and what is hidden for screen readers.
OUTSIDE = """() => Array.from(document.querySelectorAll("body *")).filter((element) => {
  if (element.closest(".scroll, .store, svg, .hidden, option, [hidden]")) return false;
  const box = element.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((element) => element.outerHTML.slice(0, 120))"""
# Text that its own box cuts off.
TEXT = "p, dd, dt, h1, h2, h3, h4, figcaption, figcaption span, th, td, li"
CUT = """() => Array.from(document.querySelectorAll("TEXT"))
  .filter((element) => element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1)
  .map((element) => element.outerHTML.slice(0, 120))""".replace("TEXT", TEXT)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        # The sandbox needs rights that containers rarely give.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A report with rows of every kind, pictures and two small figures."""
    root = tmp_path_factory.mktemp("report") / "out"
    write_board(root)
    save_board(root)
    keep_pixels(root / "records" / "photos-0.32", positions=(2, 5, 11), method_names=None)
    return _written(root)


def _written(root: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        shown = [drawn(), drawn("cost-macs", title=NASTY[1])]
        patch.setattr(report.figures, "draw_all", lambda board, cells: iter(shown))
        return report.write_report([root], progress=False)[0]


@contextmanager
def opened(browser, file: Path, *, width: int = 1400, scheme: str = "light", **options) -> Iterator:
    """Open a page; afterwards fail where it said something on the console or asked for anything but itself."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    said: list[str] = []
    asked: list[str] = []
    page = context.new_page()
    page.set_default_timeout(120_000)  # on a busy machine a browser is slow
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    try:
        yield page
    finally:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


def methods(page, group: int = 1, table: str = "table-0-0") -> list[str]:
    rows = f"table[data-table={table}] tbody:nth-of-type({group}) tr[data-method]"
    return page.eval_on_selector_all(rows, "rows => rows.map(row => row.dataset.method)")


def assert_fits(page) -> None:
    wide, screen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(CUT) == []


def pixels(locator) -> np.ndarray:
    with Image.open(io.BytesIO(locator.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen_nor_cut(browser, page_file, width, scheme):
    with opened(browser, page_file, width=width, scheme=scheme) as page:
        assert_fits(page)
        page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
        page.click("button[data-show=all] >> nth=0")
        assert_fits(page)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in ground[4:-1].split(",")) > 384) == (scheme == "light")
        # the box of a wide table scrolls by itself, and its first column stays in sight
        box = page.locator(".scroll").first
        box.evaluate("box => { box.scrollLeft = 10000; }")
        if width == 390:
            assert box.evaluate("box => box.scrollLeft") > 0
            name = page.locator("table.results tbody th.name").first.bounding_box()
            assert name["x"] >= 0
            assert_fits(page)


@pytest.mark.parametrize("width", WIDTHS)
def test_names_of_any_kind_fit(browser, tmp_path, width):
    nasty_records(tmp_path)
    keep_pixels(tmp_path, positions=(0, 1), method_names=None)
    with opened(browser, _written(tmp_path), width=width) as page:
        page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
        assert_fits(page)
        assert set(NASTY) <= set(page.locator("bdi").all_text_contents())


def test_headers_sort_by_click_and_by_key(browser, page_file):
    with opened(browser, page_file) as page:
        assert methods(page, 2) == ["esrgan", "bicubic", "bilinear"]
        head = page.locator("table[data-table=table-0-0] th[data-column=psnr]")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert methods(page, 2) == ["bicubic", "bilinear", "esrgan"]
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert methods(page, 2) == ["esrgan", "bilinear", "bicubic"]
        # missing values come last either way, the infinite one is the largest, and groups never mix
        assert methods(page, 1) == ["original", "none"]
        page.locator("table[data-table=table-0-0] th[data-column=method] button").click()
        assert methods(page, 2) == ["bicubic", "bilinear", "esrgan"] and methods(page, 3)[0] == "learned_resizer"
        assert page.locator("table[data-table=table-0-0] th[aria-sort=ascending]").count() == 1
        assert methods(page, 1, "table-1-1") == ["original"]


def test_columns_can_be_chosen(browser, page_file):
    with opened(browser, page_file) as page:
        board = page.locator(".board").first
        head = board.locator("th[data-column=ssim]")
        assert not head.is_visible() and not board.locator("td[data-column=ssim]").first.is_visible()
        board.locator("summary", has_text="Columns").click()
        board.locator("input[data-toggle=ssim]").check()
        assert head.is_visible() and board.locator("td[data-column=ssim]").first.is_visible()
        board.locator("input[data-toggle=accuracy]").uncheck()
        assert not board.locator("th[data-column=accuracy]").is_visible()
        board.locator("button[data-show=essential]").click()
        assert board.locator("th[data-column=accuracy]").is_visible() and not head.is_visible()


def test_filters_hide_what_is_not_chosen(browser, page_file):
    with opened(browser, page_file) as page:
        page.select_option("select[data-filter=track]", "adapted")
        assert page.locator("tbody[data-track=adapted]").is_visible()
        assert not page.locator("table[data-table=table-0-0] tbody[data-track=frozen]").is_visible()
        page.select_option("select[data-filter=track]", "*")
        page.select_option("select[data-filter=task]", "set5-x4")
        assert not page.locator("#task-0").is_visible() and page.locator("#task-1").is_visible()
        assert page.locator(".filters output").inner_text() == "1 of 2 tables"
        assert not page.locator(".gallery").first.is_visible()
        page.select_option("select[data-filter=task]", "*")
        page.select_option("select[data-filter=classifier]", "")
        assert not page.locator("table[data-table=table-0-0]").is_visible()
        assert page.locator("table[data-table=table-1-1]").is_visible()


def test_the_slider_moves_by_mouse_and_by_key(browser, page_file):
    with opened(browser, page_file) as page:
        stage, slider = page.locator(".stage"), page.locator(".slide input")
        shown = [page.locator(f"[data-under={side}]").inner_text().split("\n")[0] for side in ("left", "right")]
        assert shown[0] == "bicubic" and shown[1] not in ("bicubic", "original HR", "LR")
        page.select_option("[data-choose=left]", label="original HR")
        page.select_option("[data-choose=right]", label="bilinear")
        slider.scroll_into_view_if_needed()
        half = pixels(stage)
        box = slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
        assert 80 <= float(slider.input_value()) <= 97
        moved = pixels(stage)
        middle = slice(int(moved.shape[1] * 0.55), int(moved.shape[1] * 0.75))
        assert np.abs(half - moved)[:, middle].mean() > 3  # there the noise of bilinear gave way to the original
        before = float(slider.input_value())
        slider.press("ArrowRight")
        assert float(slider.input_value()) == before + 1
        slider.press("Home")
        assert stage.evaluate("stage => stage.style.getPropertyValue('--at')") == "0%"
        page.select_option("[data-choose=image]", "1")
        assert page.locator("[data-choose=right]").evaluate("each => each.selectedOptions[0].text") == "bilinear"
        assert np.abs(pixels(stage) - moved).mean() > 3


def test_pictures_and_maps_are_painted(browser, page_file):
    with opened(browser, page_file) as page:
        tile = page.locator(".gallery .tile", has_text="esrgan").first
        picture, heat = (pixels(tile.locator(f"svg >> nth={at}")) for at in (0, 1))
        assert picture.std() > 20
        # the map's colours run from black over magenta to yellow, never along grey
        assert heat.std() > 5 and (np.abs(heat[..., 0] - heat[..., 1]) > 20).mean() > 0.1
        crop = pixels(page.locator(".zoom svg").first)
        assert crop.std() > 5


def test_the_numbers_of_a_figure_can_be_saved(browser, page_file):
    with opened(browser, page_file) as page:
        with page.expect_download() as waiting:
            page.click("button[data-numbers=cost-latency]")
        assert waiting.value.suggested_filename == "cost-latency.json"
        assert Path(waiting.value.path()).read_text() == '{"x":[1,2.5]}'


def test_without_a_script_everything_but_the_slider_is_there(browser, page_file):
    with opened(browser, page_file, java_script_enabled=False) as page:
        assert page.locator("th[data-column=ssim]").first.is_visible()
        assert page.locator(".plate svg").first.is_visible() and page.locator(".tile svg").first.is_visible()
        assert not page.locator(".compare").is_visible() and not page.locator(".columns").first.is_visible()


def test_a_smuggled_script_does_not_run(browser, tmp_path, page_file):
    changed = tmp_path / "changed.html"
    text = page_file.read_text(encoding="utf-8")
    changed.write_text(text.replace("</main>", "<script>document.title = 'taken'</script></main>"), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(120_000)  # on a busy machine a browser is slow
    page.goto(changed.as_uri())
    assert page.title().startswith("srbench report")
    context.close()


def check_real_report(browser, folder: Path) -> None:
    """Open the report of evaluated images, with its real figures, everywhere."""
    path = report.write_report([folder], progress=False)[0]
    assert path.stat().st_size <= 5_000_000
    for width in WIDTHS:
        for scheme in SCHEMES:
            with opened(browser, path, width=width, scheme=scheme) as page:
                assert_fits(page)
                assert page.locator(".plate").count() >= 5 and page.locator(".gallery .tile").count() > 10
    with opened(browser, path) as page:
        before = methods(page, 2)
        page.locator("th[data-column=psnr] button").first.click()
        assert sorted(methods(page, 2)) == sorted(before)
        slider = page.locator(".slide input")
        slider.press("ArrowRight")
        assert float(slider.input_value()) == 51


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_report_of_the_demo(browser, tmp_path):
    evaluate(["bicubic", "lanczos", "learned_resizer"], data="demo", out=tmp_path, measure=False, progress=False)
    check_real_report(browser, tmp_path)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(900)
def test_the_report_of_photographs(browser, real, tmp_path):
    evaluate(
        ["bicubic", "lanczos"],
        data=f"folder:{real / 'photos'}",
        classifiers=[str(real / "weights" / "mobilenetv2_tfquant.toml")],
        protocol="clean",
        scales=[0.32],
        limit=60,
        out=tmp_path,
        measure=False,
        progress=False,
    )
    check_real_report(browser, tmp_path)
