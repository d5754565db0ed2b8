"""The report's page: its numbers are the leaderboard's, its names cannot break it, its size is kept."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from record_factory import commit, make_record, make_samples, predictions, write_board
from typer.testing import CliRunner

from srbench import leaderboard, report
from srbench.cli import app
from srbench.errors import UsageError
from srbench.leaderboard import tables, texts
from srbench.metrics.catalogue import metric
from srbench.records.cells import find_records
from srbench.records.samples import SAMPLE_COLUMNS, samples_frame
from srbench.records.schema import DatasetPart, TimingPart
from srbench.records.thumbnails import THUMBNAILS_FILE, write_thumbnails
from srbench.report import best, galleries, inline
from srbench.report.drawn import INK, Drawn
from srbench.report.galleries.selection import shown_rows
from srbench.report.rendering import _options

NASTY = (
    "<img src=x onerror=alert(1)>",
    "a\"b'c&amp;d</script><script>alert(2)</script>",
    "🦜 parrot",
    "שלום עולם",
    "long_" * 60,
)
VOID = {"meta", "link", "input", "br", "img", "wbr", "hr", "base", "col", "source"}
DRAWS = 40


class Node:
    """An element of a parsed page."""

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def find(self, tag: str, **wanted: str) -> Iterator[Node]:
        for child in self.children:
            if isinstance(child, Node):
                given = {name.replace("_", "-"): value for name, value in wanted.items()}
                if child.tag == tag and all((child.attributes.get(key) or "") == text for key, text in given.items()):
                    yield child
                yield from child.find(tag, **wanted)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Tree(HTMLParser):
    """A strict reader: an element that is closed out of order is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Node("", {}, None)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.at.children.append(Node(tag, dict(attrs), self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}> at {self.getpos()}"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def parse(path: Path) -> Node:
    tree = Tree()
    tree.feed(path.read_text(encoding="utf-8"))
    assert tree.at is tree.root, f"<{tree.at.tag}> is never closed"
    return tree.root


def drawn(name: str = "cost-latency", *, title: str = "Latency", data: dict | None = None, marks: int = 3) -> Drawn:
    figure = Figure(figsize=(4, 3), facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for side in axes.spines.values():
        side.set_color(INK)
    axes.plot(range(marks), range(marks), "o", label=title, clip_on=True)
    axes.set_title(title, color=INK)
    return Drawn(name, "cost", None, "net", title, f"caption of {title}", figure, data or {"x": [1, 2.5]})


@pytest.fixture
def figures(monkeypatch):
    """Replace the figures by a few quick ones; what is put into the list is drawn."""
    shown: list[Drawn] = [drawn(), drawn("cost-macs", title="MACs")]
    monkeypatch.setattr(report.figures, "draw_all", lambda board, cells: iter(shown))
    return shown


@pytest.fixture
def folder(tmp_path, figures):
    """Records of every kind of row, and their leaderboard."""
    root = tmp_path / "out"
    write_board(root)
    save_board(root)
    return root


def save_board(root: Path, *, seed: int = 3) -> None:
    cells, problems = find_records([root])
    tables.write(leaderboard.build(cells, draws=DRAWS, seed=seed, warnings=problems), root)


def write(*folders: Path, **options: Any) -> Node:
    paths = report.write_report(folders, progress=False, **options)
    return parse(paths[0])


def rows_of(root: Node) -> dict[tuple[str, ...], Node]:
    found = {}
    for table in root.find("table", **{"class": "results"}):
        for row in table.find("tr"):
            if "data-method" in row.attributes:
                key = tuple(row.attributes[f"data-{name}"] or "" for name in KEY)
                assert key not in found
                found[key] = row
    return found


KEY = ("task", "classifier", "method", "weights", "track")


def number(text: str | None) -> float | None:
    return None if text is None else float(text)


def stored(value: Any) -> float | None:
    return math.inf if value == "inf" else value


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_number_is_the_one_of_leaderboard_json(folder):
    root = write(folder)
    board = json.loads((folder / "leaderboard.json").read_text())
    assert board["bootstrap"] == {"draws": DRAWS, "seed": 3, "level": 0.95}
    rows = rows_of(root)
    expected = {tuple(row[name] or "" for name in KEY): row for row in board["rows"] if row["status"] == "ok"}
    assert set(rows) == set(expected) and len(rows) == 10
    columns = {column.name: column for column in tables.columns() if not column.name.endswith("_ci")}
    seen, intervals = 0, 0
    for key, entry in expected.items():
        cells = {cell.attributes["data-column"]: cell for cell in rows[key].find("td")}
        for name in columns:
            if name == "method":
                continue
            if name not in cells:
                # the column is left out of this table because no row has a value
                peers = [row for other, row in expected.items() if other[:2] == key[:2]]
                assert all((peer[name] if columns[name].metric else peer.get(name)) is None for peer in peers)
                continue
            seen += entry[name] is not None
            assert number(cells[name].attributes.get("data-value")) == stored(entry[name]), (key, name)
            ends = [number(cells[name].attributes.get(f"data-{end}")) for end in ("low", "high")]
            assert ends == (entry["ci"].get(name) or [None, None])
            if ends[0] is not None:
                intervals += 1
                small = next(cells[name].find("small")).text
                found = [float(text) for text in re.findall(r"[-+]?\d+\.?\d*", small)]
                assert found == pytest.approx(ends, abs=0.5 * 10 ** -metric(name).interval_digits + 1e-9)
        assert set(cells) == {head.attributes["data-column"] for head in heads(rows[key])} - {"method"}
    assert seen > 130 and intervals > 40


def heads(row: Node) -> list[Node]:
    table = row
    while table.tag != "table":
        assert table.parent is not None
        table = table.parent
    return list(table.find("th", scope="col"))


def test_what_is_shown_is_the_value_rounded(folder):
    for row in rows_of(write(folder)).values():
        for cell in row.find("td"):
            value, text = cell.attributes.get("data-value"), cell.text.partition("[")[0].strip()
            if value is None:
                assert text == texts.MISSING
            elif cell.attributes["data-column"] in ("accuracy", "psnr", "cross_entropy") and value != "inf":
                assert float(text) == pytest.approx(float(value), abs=0.0051)


def test_rows_without_a_result_stand_apart_with_their_reason(folder):
    root = write(folder)
    failed = next(root.find("table", **{"class": "failed"}))
    found = [
        (row.attributes["data-method"], row.attributes["data-status"]) for row in failed.find("tr") if row.attributes
    ]
    assert found == [("darionet", "error"), ("lanczos", "skipped")]
    assert "out of memory" in failed.text and "it is not for this task" in failed.text


def test_groups_keep_controls_tracks_and_ranked_rows_apart(folder):
    root = write(folder)
    table = next(root.find("table", data_table="table-0-0"))
    groups = {}
    for body in table.find("tbody"):
        title = next(body.find("th", scope="rowgroup")).text
        groups[title] = [row.attributes["data-method"] for row in body.find("tr") if "data-method" in row.attributes]
    assert groups == {
        "Reference points, never ranked": ["original", "none"],
        "Frozen track: the classifier is untouched": ["esrgan", "bicubic", "bilinear"],
        "Adapted track: the classifier was trained too": ["retrained", "learned_resizer"],
    }
    marks = {row.attributes["data-method"]: row.text for row in table.find("tr") if "data-method" in row.attributes}
    assert "oracle" in marks["original"] and "control †" in marks["none"] and "control † ‡" in marks["retrained"]
    order = {head.attributes["data-column"]: head.attributes["aria-sort"] for head in table.find("th", scope="col")}
    assert order.pop("accuracy") == "descending" and set(order.values()) == {"none"}


def test_the_head_says_under_what_conditions(folder):
    text = next(write(folder).find("section", id="task-0")).text
    for part in (
        *("photos, all: 60 images, 4 classes", "clean, scale 0.32", "cpu (synthetic)", "0" * 12, "torch 2.6.0"),
        *("2026-01-02, 03:04 UTC", f"{DRAWS} draws, seed 3", "lr.kernel", "bicubic"),
        next(iter(find_records([folder])[0])).record.protocol.fingerprint,
    ):
        assert part in text, part


# --- bold ------------------------------------------------------------------------------------------------------------


def two_methods(root: Path, first: float, second: float, *, n: int = 60) -> None:
    labels = np.arange(n) % 4
    hr = predictions(labels, 0.95, seed=0)
    for seed, (method, accuracy) in enumerate(
        [("original", 0.95), ("bilinear", 0.4), ("bicubic", second), ("lanczos", first)]
    ):
        role = "control" if method == "original" else "baseline"
        mse = np.full(n, 0.004) * np.random.default_rng(seed).uniform(0.5, 1.5, n)
        preds = predictions(labels, accuracy, seed=0)
        commit(root, make_record(method, role=role, n=n), make_samples(labels, preds, hr_preds=hr, mse=mse, seed=seed))


def bold(root: Node, column: str) -> list[str]:
    return [
        row.attributes["data-method"] or ""
        for row in rows_of(root).values()
        for cell in row.find("td", data_column=column)
        if list(cell.find("strong"))
    ]


def test_the_best_is_bold_only_where_it_is_better_by_more_than_chance(tmp_path, figures):
    for name, second, expected in (("clear", 0.5, ["lanczos"]), ("close", 0.78, []), ("tied", 0.8, [])):
        two_methods(tmp_path / name, 0.8, second)
        root = write(tmp_path / name)
        assert bold(root, "accuracy") == bold(root, "recovered_gap") == expected
        said = " ".join(line.text for line in root.find("p", **{"class": "finding"}))
        assert ("is more than chance" in said) == bool(expected)
        assert ("lanczos (0.800" in said and "are tied in accuracy" in said) == (not expected)
        assert ("exact McNemar p" in said) == bool(expected)
        assert bold(root, "total_time_s") == bold(root, "latency_ms") == []


def test_leads_are_paired_tests_by_hand(tmp_path):
    from scipy.stats import binomtest

    two_methods(tmp_path, 0.8, 0.65)
    cells, _ = find_records([tmp_path])
    board = leaderboard.build(cells, draws=200, seed=1)
    by_key = {row.key: cell for row in board.rows for cell in cells if cell.record.cell.method == row.method}
    found = {lead.column: lead for lead in best.leads(board.rows, by_key, bootstrap=board.bootstrap)}
    assert (found["accuracy"].best.method, found["accuracy"].second.method) == ("lanczos", "bicubic")
    frames = {cell.record.cell.method: cell.samples() for cell in cells}
    right = {name: (frame["pred"] == frame["label"]).to_numpy() for name, frame in frames.items()}
    only = [int((right[a] & ~right[b]).sum()) for a, b in (("lanczos", "bicubic"), ("bicubic", "lanczos"))]
    p = binomtest(only[0], sum(only)).pvalue
    assert found["accuracy"].test == f"exact McNemar p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    assert found["accuracy"].significant == (p < 0.05)
    difference = frames["lanczos"]["cross_entropy"] - frames["bicubic"]["cross_entropy"]
    low, high = (float(text) for text in re.findall(r"[-+]\d[\d.e-]*", found["cross_entropy"].test))
    assert low < difference.mean() < high < 0 and found["cross_entropy"].significant
    width = 1.96 * difference.std() / math.sqrt(len(difference))
    assert (high - low) / 2 == pytest.approx(width, rel=0.25)


# --- what names and records can do -----------------------------------------------------------------------------------


def nasty_records(root: Path) -> None:
    labels = np.arange(40) % len(NASTY)
    dataset = DatasetPart("<b>photos</b> & more", "folder:x", "all", "image", NASTY[0], "5" * 64, 40, 0, (), 0, NASTY)
    shared: dict[str, Any] = {"task": NASTY[1], "classifier": NASTY[0], "n": 40, "names": NASTY}
    for seed, (method, accuracy) in enumerate([("original", 0.9), ("bilinear", 0.4), *((name, 0.6) for name in NASTY)]):
        preds = predictions(labels, accuracy, seed=seed, classes=len(NASTY))
        samples = make_samples(labels, preds, mse=np.full(40, 0.01), ids=[f"{NASTY[at % 5]}/{at}" for at in range(40)])
        weights = None if method in ("original", "bilinear") else NASTY[seed % 5]
        role = "control" if method == "original" else "network" if weights else "baseline"
        record = make_record(method, role=role, weights=weights, **shared)
        commit(root, dataclasses.replace(record, dataset=dataset), samples)
    broken = make_record("broken", status="error", reason=NASTY[1], timing=TimingPart(), per_class=None, **{
        key: value for key, value in shared.items() if key != "names"})  # fmt: skip
    commit(root, broken, None)


def test_names_cannot_become_markup(tmp_path, figures):
    nasty_records(tmp_path)
    keep_pixels(tmp_path, positions=(0, 1), method_names=None)
    figures[:] = [drawn("nasty", title=NASTY[1], data={"name": NASTY[1]})]
    root = write(tmp_path)
    scripts = list(root.find("script"))
    assert [script.attributes.get("type") for script in scripts].count(None) == 1
    assert all(not name.startswith("on") for node in walk(root) for name in node.attributes)
    assert all(node.attributes.get("src", "data:").startswith("data:") for node in walk(root))
    methods = {row.attributes["data-method"] for row in rows_of(root).values()}
    assert set(NASTY) < methods
    data = next(root.find("script", id="data-nasty")).text
    assert "<" not in data and json.loads(data) == {"name": NASTY[1]}
    names = {bdi.text for bdi in root.find("bdi")}
    assert set(NASTY) <= names and "<b>photos</b> & more" in {bdi.text for bdi in root.find("bdi")}
    assert NASTY[1] in next(root.find("table", **{"class": "failed"})).text


def walk(node: Node) -> Iterator[Node]:
    for child in node.children:
        if isinstance(child, Node):
            yield child
            yield from walk(child)


def test_commands_and_options_are_set_as_code() -> None:
    line = "run `srbench list <b> --all` with --input-size 96"
    assert _options(line) == ("run <code>srbench list &lt;b&gt; --all</code> with <code>--input-size</code> 96")
    assert _options("a ` alone, --force") == "a ` alone, <code>--force</code>"


def test_damaged_records_are_named_on_the_page(folder):
    cells, _ = find_records([folder])
    by_method = {cell.record.cell.method: cell for cell in cells if cell.record.cell.task == "photos-0.32"}
    (by_method["bicubic"].folder / "record.json").write_text("{")
    (by_method["esrgan"].folder / "samples.parquet").write_bytes(b"PAR1 torn")
    (folder / "leaderboard.json").unlink()
    root = write(folder)
    warnings = next(root.find("section", **{"class": "warnings"})).text
    assert "bicubic@none" in warnings and "esrgan@demo-x4" in warnings
    assert {"bicubic", "esrgan"}.isdisjoint(
        row.attributes["data-method"] for key, row in rows_of(root).items() if key[0] == "photos-0.32"
    )
    assert ("photos-0.32", "net", "bilinear", "", "frozen") in rows_of(root)


def test_nothing_but_damaged_records_is_a_page_too(tmp_path, figures):
    broken = tmp_path / "records" / "t" / "c" / "m@none"
    broken.mkdir(parents=True)
    (broken / "record.json").write_text("{")
    figures.clear()
    root = write(tmp_path)
    assert "No record could be read" in root.text and "m@none" in root.text
    assert not list(root.find("table"))


def test_partial_rows_and_a_table_of_failures_alone(tmp_path, figures):
    labels = np.arange(20) % 4
    preds = predictions(labels, 0.5, seed=0)
    commit(tmp_path, make_record("bicubic", n=20, partial=True), make_samples(labels, preds))
    keep_pixels(tmp_path, positions=(0,))
    root = write(tmp_path)
    assert "partial, n = 20" in root.text and "Partial, never ranked" in root.text
    alone = make_record(
        "esrgan", task="other", status="error", reason="out of memory", timing=TimingPart(), per_class=None
    )
    commit(tmp_path / "b", alone, None)
    root = write(tmp_path / "b")
    assert "out of memory" in root.text and not rows_of(root)


def test_filters_are_offered_only_where_there_are_several(folder, tmp_path):
    found = [select.attributes.get("data-filter") for select in write(folder).find("select")]
    assert found == ["task", "classifier", "track"]
    two_methods(tmp_path / "one", 0.8, 0.5)
    assert not list(write(tmp_path / "one").find("form"))


# --- the file as a whole ---------------------------------------------------------------------------------------------


def test_the_page_is_alone_and_may_load_nothing(folder):
    paths = report.write_report([folder], progress=False)
    assert paths[0] == folder / "report.html"
    assert [path.name for path in folder.rglob("*.html")] == ["report.html"]
    text = paths[0].read_text(encoding="utf-8")
    root = parse(paths[0])
    policy = next(root.find("meta", http_equiv="Content-Security-Policy")).attributes["content"] or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "img-src data:" in policy
    for address in re.findall(r"(?:href|src)=\"([^\"]*)\"", text):
        assert address.startswith(("#", "data:")), address
    assert not re.search(r"url\((?!#)", text) and "@import" not in text
    targets = {node.attributes["id"] for node in walk(root) if "id" in node.attributes}
    for node in walk(root):
        link = node.attributes.get("href") or ""
        assert not link.startswith("#") or link[1:] in targets, link


def test_ids_are_unique_also_between_figures(folder):
    ids = [node.attributes["id"] for node in walk(write(folder)) if "id" in node.attributes]
    assert len(ids) == len(set(ids))


def test_figures_are_saved_and_inlined_in_the_page_s_ink(folder):
    paths = report.write_report([folder], progress=False)
    names = {path.name for path in paths[1:]}
    assert names == {f"{stem}.{end}" for stem in ("cost-latency", "cost-macs") for end in ("svg", "png", "json")}
    assert all(path.parent == folder / "figures" and path.is_file() for path in paths[1:])
    with Image.open(folder / "figures" / "cost-latency.png") as image:
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert 'fill="#ffffff"' in (folder / "figures" / "cost-latency.svg").read_text()
    assert json.loads((folder / "figures" / "cost-latency.json").read_text()) == {"x": [1, 2.5]}
    figure = next(parse(paths[0]).find("figure", id="figure-cost-latency"))
    svg = next(figure.find("svg"))
    assert svg.attributes["role"] == "img" and svg.attributes["aria-label"] == "Latency"
    assert "currentColor" in repr([node.attributes for node in walk(svg)])
    assert INK not in paths[0].read_text()
    clips = re.findall(r"url\(#([^)]*)\)", repr([node.attributes for node in walk(svg)]))
    assert clips and all(clip.startswith("cost-latency-") for clip in clips)


def test_figures_of_an_earlier_report_go_and_nothing_else(folder, figures):
    report.write_report([folder], progress=False)
    here = folder / "figures"
    (here / "mine.svg").write_text("<svg/>")
    (here / "cost-macs.svg").write_text("<svg>edited</svg>")
    listed = json.loads((here / ".written.json").read_text())
    (folder / "secret.json").write_text("{}")
    empty = hashlib.sha256(b"{}").hexdigest()
    (here / ".written.json").write_text(json.dumps({**listed, "../secret.json": empty}))
    figures[:] = [drawn()]
    report.write_report([folder], progress=False)
    left = {path.name for path in here.iterdir()}
    latency = {f"cost-latency.{end}" for end in ("svg", "png", "json")}
    assert left == {*latency, "mine.svg", "cost-macs.svg", ".written.json"} and (folder / "secret.json").exists()
    assert set(json.loads((here / ".written.json").read_text())) == latency
    (here / ".written.json").write_text("[")
    figures[:] = []
    report.write_report([folder], progress=False)
    assert {path.name for path in here.iterdir()} - {".written.json"} == {*latency, "mine.svg", "cost-macs.svg"}


def test_a_figure_of_very_many_marks_becomes_pixels(folder, figures, monkeypatch):
    monkeypatch.setattr(report, "MOST_SVG", 1000)
    figure = next(write(folder).find("figure", id="figure-cost-latency"))
    assert not list(figure.find("svg")) and next(figure.find("img")).attributes["alt"] == "Latency"


def test_numbers_that_do_not_fit_are_left_to_their_files(folder, figures):
    figures[:] = [drawn(), drawn("cost-macs", data={"x": list(range(40_000))})]
    root = write(folder, max_mb=0.2)
    assert not list(root.find("script", id="data-cost-macs")) and list(root.find("script", id="data-cost-latency"))
    assert "cost-macs.json" in next(root.find("footer")).text
    assert json.loads((folder / "figures" / "cost-macs.json").read_text())["x"][-1] == 39_999


def test_json_cannot_end_its_script():
    text = inline.script_json({"a": "</script><!-- & \u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


def test_svg_loses_scripts_and_handlers():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" viewBox="0 0 9 9" onload="x()"><script>x()</script>'
        '<style>*{color:red}</style><path id="a" clip-path="url(#c)" d="M 1.23456 0.5" style="fill: #12345a"/>'
        '<use href="#a"/></svg>'
    )
    text = inline.inline_svg(svg, name="n", label='say "x"')
    assert "script" not in text and "onload" not in text and "style>" not in text and "width" not in text
    assert 'id="n-a"' in text and "url(#n-c)" in text and 'href="#n-a"' in text
    assert "M 1.23 0.5" in text and "fill: currentColor" in text and "&quot;x&quot;" in text


# --- colours ---------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_is_legible_on_its_ground(scheme):
    css = (Path(report.__file__).parent / "assets" / "page.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, flags=re.S)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for name in ("ink", "quiet", "accent", "good", "bad", "caution"):
        for ground in ("ground", "tint"):
            ends = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 4.5, (name, ground)


# --- pictures --------------------------------------------------------------------------------------------------------


def smooth(random: np.random.Generator, side: int) -> np.ndarray:
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def keep_pixels(
    root: Path,
    *,
    positions: Sequence[int],
    side: int = 40,
    method_names: Sequence[str] | None = ("bilinear", "bicubic", "esrgan"),
) -> dict[tuple[str, int], np.ndarray]:
    """Keep pixels in every ok cell; return the restored ones (and the originals) by method and position."""
    random = np.random.default_rng(0)
    made: dict[tuple[str, int], np.ndarray] = {("original", at): smooth(random, side) for at in positions}
    small = side // 2
    lr = {at: np.asarray(Image.fromarray(made["original", at]).resize((small, small))) for at in positions}
    for cell in find_records([root])[0]:
        method = cell.record.cell.method
        if cell.record.status != "ok":
            continue
        if method == "original":
            images = {at: {"hr": made["original", at], "lr": lr[at]} for at in positions}
        elif method == "none":
            continue  # it has no pixels of its own
        elif method_names is None or method in method_names:
            for at in positions:
                noise = np.random.default_rng(len(method) + at).normal(0, 9, (side, side, 3))
                made[method, at] = np.clip(np.rint(made["original", at] + noise), 0, 255).astype(np.uint8)
            images = {at: {"sr": made[method, at]} for at in positions}
        else:
            continue
        write_thumbnails(cell.folder / THUMBNAILS_FILE, images, key="test")
    return made


@pytest.fixture
def kept(folder):
    """The folder with pixels of three samples, and what was kept."""
    labelled = folder / "records" / "photos-0.32"
    return folder, keep_pixels(labelled, positions=(2, 5, 11))


def pixels_of(root: Node, identity: str) -> np.ndarray:
    uri = next(root.find("image", id=identity)).attributes["href"] or ""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def test_galleries_show_the_kept_pixels_with_decision_and_psnr(kept):
    folder, made = kept
    root = write(folder)
    gallery = next(root.find("section", **{"class": "gallery scoped"}))
    strips = list(gallery.find("details"))
    assert len(strips) == 3
    frames = {
        cell.record.cell.method: cell.samples().set_index("position")
        for cell in find_records([folder])[0]
        if cell.record.status == "ok" and cell.record.cell.task == "photos-0.32"
    }
    names = ("ant", "bee", "cat", "dog")
    for strip in strips:
        at = next(position for position in (2, 5, 11) if f"s{position:05d}" in strip.text)
        tiles = {next(tile.find("b")).text.split(" ")[0]: tile for tile in strip.find("figure")}
        assert set(tiles) == {"original", "LR", "bilinear", "bicubic", "esrgan"}
        for method in ("original", "bilinear", "bicubic", "esrgan"):
            tile = tiles[method]
            shown = next(tile.find("use")).attributes["href"] or ""
            assert np.array_equal(pixels_of(root, shown[1:]), made[method, at])
            line = frames[method].loc[at]
            right = line["pred"] == line["label"]
            verdict = next(tile.find("span", **{"class": f"verdict {'right' if right else 'wrong'}"})).text
            assert ("✓" if right else "✗") in verdict and names[line["pred"]] in verdict
            assert f"{line['confidence']:.2f}" in verdict
            if method != "original":
                assert f"{line['psnr']:.1f} dB" in tile.text
                error = np.abs(made[method, at].astype(float) - made["original", at]).mean()
                cell = next(node for node in tile.find("span") if "data-error" in node.attributes)
                assert float(cell.attributes["data-error"] or "") == pytest.approx(error, rel=1e-5)


def test_maps_of_the_error_hold_its_values(kept):
    folder, made = kept
    root = write(folder)
    maps = list(root.find("svg", **{"class": "px heat"}))
    assert len(maps) == 9
    found = [pixels_of(root, (next(each.find("use")).attributes["href"] or "")[1:])[..., 0] for each in maps]
    for at in (2, 5, 11):
        error = np.abs(made["esrgan", at].astype(float) - made["original", at]).mean(axis=2)
        wanted = np.rint(np.minimum(error / 64, 1) * 255)
        assert any(np.abs(each - wanted).max() <= 1 for each in found)
    assert list(root.find("filter", id="heat")) and "48" in next(root.find("p", **{"class": "ticks"})).text


def test_each_distinct_image_is_embedded_once(kept):
    root = write(kept[0])
    uris = [image.attributes["href"] for image in root.find("image")]
    # three samples: original, LR, three methods, three maps
    assert len(uris) == len(set(uris)) == 3 * 8
    uses = [use.attributes.get("href") for use in root.find("use") if use.attributes.get("href", "").startswith("#px-")]
    assert len(uses) > len(uris)


def test_patches_are_those_of_the_extreme_psnr(kept):
    folder, made = kept
    root = write(folder)
    zooms = list(root.find("div", **{"class": "zoom scoped"}))
    assert len(zooms) == 1 and "esrgan" in zooms[0].text

    def psnr(at: int, x: int, y: int, method: str = "esrgan") -> float:
        part = (slice(y, y + 12), slice(x, x + 12))
        mse = ((made[method, at][part].astype(float) - made["original", at][part]) ** 2).mean()
        return 10 * math.log10(255**2 / mse)

    every = {psnr(at, x, y): (at, x, y) for at in (2, 5, 11) for x in (0, 12, 24) for y in (0, 12, 24)}
    for trio, extreme in zip(zooms[0].find("div", **{"class": "trio"}), (max(every), min(every)), strict=True):
        at, x, y = every[extreme]
        assert f"{extreme:.1f} dB" in trio.text and f"{psnr(at, x, y, 'bicubic'):.1f} dB" in trio.text
        boxes = {svg.attributes["viewbox"] for svg in trio.find("svg")}
        assert boxes == {f"{x} {y} 12 12"}


def test_classifiers_that_keep_other_samples_have_their_own_strips(tmp_path, figures):
    labels = np.arange(20) % 4
    for classifier, positions in (("net", (1, 2)), ("other", (2, 7))):
        for seed, method in enumerate(("original", "none", "bilinear")):
            role = "control" if method != "bilinear" else "baseline"
            samples = make_samples(labels, predictions(labels, 0.8 - 0.2 * seed, seed=seed), mse=np.full(20, 0.01))
            commit(tmp_path / classifier, make_record(method, role=role, n=20, classifier=classifier), samples)
        keep_pixels(tmp_path / classifier, positions=positions)
    galleries_of = list(write(tmp_path / "net", tmp_path / "other").find("section", **{"class": "gallery scoped"}))
    found = [sorted(re.findall(r"s000\d\d", gallery.text)) for gallery in galleries_of]
    assert found == [["s00001", "s00002"], ["s00002", "s00007"]]
    small = next(tile for tile in galleries_of[1].find("figure") if next(tile.find("b")).text == "LR")
    assert "straight to the classifier" in small.text and ("✓" in small.text or "✗" in small.text)


def test_the_slider_has_every_version(kept):
    data = json.loads(next(write(kept[0]).find("script", id="data-compare")).text)
    assert [len(image["versions"]) for image in data["galleries"][0]["images"]] == [5, 5, 5]
    assert {name for name, _, _ in data["galleries"][0]["images"][0]["versions"]} >= {"original HR", "LR", "bicubic"}
    assert all(
        picture in data["sizes"] for image in data["galleries"][0]["images"] for _, picture, _ in image["versions"]
    )


def test_pictures_give_way_to_the_page_s_size_and_the_page_says_so(kept):
    folder, _ = kept
    keep_pixels(folder / "records" / "photos-0.32", positions=range(12), side=120)
    whole = report.write_report([folder], progress=False)[0].stat().st_size
    assert "compressed" not in (folder / "report.html").read_text()
    base = report.write_report([folder], max_mb=0.001, progress=False)[0].stat().st_size
    for share in (0.6, 0.3, 0.08):
        limit = base + share * (whole - base)
        path = report.write_report([folder], max_mb=limit / 1e6, progress=False)[0]
        assert path.stat().st_size <= limit
        notes = next(parse(path).find("section", id="pictures")).text
        assert "compressed" in notes and "--max-mb" in notes
    assert "left out" in notes or "are shown for" in notes
    path = report.write_report([folder], max_mb=0.001, progress=False)[0]
    assert not list(parse(path).find("image")) and "every picture was left out" in path.read_text()
    assert "tables and figures alone take" in path.read_text() and rows_of(parse(path))


def test_damaged_pixels_are_named(kept):
    folder, _ = kept
    file = next(folder.rglob("bicubic@none/thumbnails.parquet"))
    file.write_bytes(b"PAR1 torn")
    assert "bicubic@none" in next(write(folder).find("section", id="pictures")).text


def test_without_pixels_the_page_says_so(folder):
    assert "There are no pictures in these records" in next(write(folder).find("section", id="pictures")).text


def test_without_labels_a_decision_is_held_against_the_original_s(tmp_path, figures):
    dataset = DatasetPart("set5", "images:set5", "all", "image", "", "6" * 64, 8, 0, (), 0, None)
    hr = np.arange(8) % 4
    for seed, (method, preds) in enumerate([("original", hr), ("bilinear", (hr + 1) % 4), ("bicubic", hr)]):
        samples = make_samples(preds, preds, hr_preds=hr, mse=np.full(8, 0.01 * seed)).assign(label=None)
        frame = samples_frame({name: samples[name] for name in SAMPLE_COLUMNS if name != "label"})
        role = "control" if method == "original" else "baseline"
        commit(tmp_path, make_record(method, role=role, n=8, dataset=dataset, per_class=None), frame)
    keep_pixels(tmp_path, positions=(0, 1))
    root = write(tmp_path)
    assert "There are no labels" in root.text
    counted = [node.text for node in root.find("span", **{"class": "tally"})]
    assert counted == ["1 of 2 as on the original"] * 2
    assert "class 1" in root.text
    heads = {head.attributes["data-column"] for head in root.find("th") if "data-column" in head.attributes}
    assert "agreement" in heads and "accuracy" not in heads


def test_grey_images_and_other_sizes_are_shown(folder):
    labelled = folder / "records" / "photos-0.32"
    keep_pixels(labelled, positions=(0,))
    for cell in find_records([labelled])[0]:
        if cell.record.cell.method == "bicubic":
            small = np.full((25, 25, 1), 90, np.uint8)
            write_thumbnails(cell.folder / THUMBNAILS_FILE, {0: {"sr": small}}, key="test")
    root = write(folder)
    strip = next(root.find("details", **{"class": "strip"}))
    tile = next(tile for tile in strip.find("figure") if next(tile.find("b")).text == "bicubic")
    assert next(tile.find("svg")).attributes["viewbox"] == "0 0 25 25"
    assert not list(tile.find("svg", **{"class": "px heat"}))


def test_the_plan_keeps_the_yardsticks(kept):
    folder, _ = kept
    cells, _ = find_records([folder])
    board = leaderboard.build(cells, draws=DRAWS)
    tasks, problems = galleries.collect(board, cells)
    assert problems == [] and len(tasks) == 1
    rows = shown_rows(tasks[0].networks[0], galleries.Plan(80, 0, 3, 2))
    assert [row.method for row in rows] == ["esrgan", "bicubic", "bilinear"]


# --- the command -----------------------------------------------------------------------------------------------------


def srbench(*words: object) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_the_command_writes_where_it_is_told(folder, tmp_path):
    done = srbench("report", folder)
    assert done.exit_code == 0 and str(folder / "report.html") in done.stdout and "2 figures" in done.stdout
    two_methods(tmp_path / "two", 0.8, 0.5, n=64)
    done = srbench("report", folder, tmp_path / "two", "--out", tmp_path / "both")
    assert done.exit_code == 2 and "cannot be ranked" in done.stderr
    other = tmp_path / "three"
    labels = np.arange(12) % 4
    for method in ("original", "bilinear"):
        samples = make_samples(labels, predictions(labels, 0.6, seed=1))
        commit(other, make_record(method, task="another", n=12), samples)
    done = srbench("report", folder, other, "--out", tmp_path / "both")
    assert done.exit_code == 0
    assert {key[0] for key in rows_of(parse(tmp_path / "both" / "report.html"))} == {
        "photos-0.32",
        "set5-x4",
        "another",
    }
    assert not (other / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["empty"], "there are no records in empty"),
        (["out", "--max-mb", "0"], "must be positive"),
        (["out", "--max-mb", "-1"], "must be positive"),
        (["out", "--out", "file/below"], "which is not a folder"),
    ],
)
def test_wrong_calls_are_one_sentence_and_exit_2(folder, monkeypatch, words, said):
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    Path("file").write_text("")
    done = srbench("report", *words)
    assert done.exit_code == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(Path().rglob("report.html"))


def test_no_folder_is_a_wrong_call():
    assert srbench("report").exit_code == 2
    with pytest.raises(UsageError, match="no folder"):
        report.write_report([], progress=False)
