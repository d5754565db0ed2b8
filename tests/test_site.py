"""The site of many results: its numbers are the leaderboards', its names are text, the old one stays till the end."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from record_factory import write_board
from test_report_page import NASTY, Node, nasty_records, number, parse, save_board
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import RecordError, UsageError
from srbench.files import swap
from srbench.report import site
from srbench.report.foreign_svg import harmless_svg
from srbench.report.page_table import row_anchor

RESULTS = Path(__file__).resolve().parent.parent / "results"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">{}</svg>'


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """What `srbench eval --out` writes: records of every kind of row and their leaderboard."""
    root = tmp_path_factory.mktemp("run") / "mine"
    write_board(root)
    save_board(root)
    return root


@pytest.fixture(scope="module")
def committed(run_folder) -> Path:
    """A folder as it is committed: the leaderboard, how it was made, a figure, no records."""
    folder = run_folder.parent / "committed"
    folder.mkdir()
    shutil.copyfile(run_folder / "leaderboard.json", folder / "leaderboard.json")
    made = {"command": "srbench eval --all", "commits": ["a" * 40], "torch": ["2.9.1"], "dates": ["2026-01-02"]}
    (folder / "made.json").write_text(json.dumps({**made, "devices": ["NVIDIA H100, 2 threads a process"]}))
    (folder / "cost-latency.svg").write_text(SVG.format('<path d="M0 0L9 9" style="stroke: #12345a"/>'))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ids(page: Node) -> list[str]:
    found = [child.attributes["id"] or "" for child in everything(page) if "id" in child.attributes]
    assert len(found) == len(set(found))
    return found


def everything(node: Node) -> list[Node]:
    inner = [child for child in node.children if isinstance(child, Node)]
    return [each for child in inner for each in (child, *everything(child))]


def test_the_committed_results_are_a_site(tmp_path):
    out = tmp_path / "site"
    entries = {entry.name: entry for entry in site.write_site([RESULTS], out)}
    folders = {path.parent.name for path in RESULTS.glob("*/leaderboard.json")}
    assert set(entries) == folders and len(folders) >= 8
    index = parse(out / "index.html")
    listed = json.loads((out / "index.json").read_text())
    assert {each["name"] for each in listed["results"]} == folders and set(listed["files"]) == set(tree(out))
    anchors = {name: set(ids(parse(out / entries[name].slug / "index.html"))) for name in folders}
    for link in index.find("a"):
        target = link.attributes["href"] or ""
        path, _, anchor = target.partition("#")
        if path.endswith("/index.html"):
            assert not anchor or anchor in anchors[path.split("/")[0]], target
    for name in folders:
        source = json.loads((RESULTS / name / "leaderboard.json").read_text())
        beside = json.loads((out / name / "leaderboard.json").read_text())
        for ours, theirs in zip(beside["rows"], source["rows"], strict=True):
            known = set(ours) & set(theirs)
            assert {"accuracy", "psnr", "ci", "rank"} <= known
            assert {key: ours[key] for key in known} == {key: theirs[key] for key in known}
        made = json.loads((RESULTS / name / "made.json").read_text())
        assert json.loads((out / name / "made.json").read_text()) == made
        for row in entries[name].board.rows:
            assert row_anchor(row) in anchors[name]
    rated = [each for each in index.find("tr", data_entry="iqa") if "learned_resizer" in each.text]
    assert "0.7128" in rated[0].text and "SRCC" in rated[0].text  # a board that does not name its task type


def test_a_run_and_what_is_committed_of_it_show_the_same_numbers(run_folder, committed, tmp_path):
    site.write_site([run_folder, committed], tmp_path / "site")
    shown = []
    for name in ("mine", "committed"):
        page = parse(tmp_path / "site" / name / "index.html")
        rows = {row.attributes["id"]: row for row in page.find("tr") if "data-method" in row.attributes}
        assert len(rows) == 12
        shown.append(
            {
                key: [(cell.attributes["data-column"], number(cell.attributes.get("data-value")))
                      for cell in row.find("td") if "data-column" in cell.attributes]
                for key, row in rows.items()
            }
        )  # fmt: skip
        assert [link.attributes["href"] for link in page.find("a", **{"class": "anchor"})]
    assert shown[0] == shown[1]
    boards = [json.loads((tmp_path / "site" / name / "leaderboard.json").read_text()) for name in ("mine", "committed")]
    assert boards[0]["rows"] == boards[1]["rows"]
    # the same task elsewhere is linked from both
    text = next(parse(tmp_path / "site" / "mine" / "index.html").find("section", **{"class": "versions"})).text
    assert "committed" in text and "NVIDIA H100" in text and "torch 2.9.1" in text


def test_folders_go_by_hardware_and_the_newest_library_comes_first(committed, tmp_path):
    made = json.loads((committed / "made.json").read_text())
    folders = []
    for name, device, torch in (
        ("a", "cpu (x), 1 thread a process", "2.9.1"),
        ("b", "NVIDIA H100, 2 threads a process", "2.9.1"),
        ("c", "cpu (x), 8 threads a process", "2.10.0"),
    ):
        shutil.copytree(committed, tmp_path / name)
        (tmp_path / name / "made.json").write_text(json.dumps({**made, "devices": [device], "torch": [torch]}))
        folders.append(tmp_path / name)
    entries = site.write_site(folders, tmp_path / "site")
    assert [entry.name for entry in entries] == ["b", "c", "a"]
    index = parse(tmp_path / "site" / "index.html")
    shelves = list(index.find("section", **{"class": "shelf"}))
    assert [next(shelf.find("h2")).text for shelf in shelves] == ["NVIDIA H100", "cpu (x)"]
    assert ["torch 2.10.0" in title.text for title in shelves[1].find("h3")] == [True, False]


def test_names_are_text_and_no_formula(tmp_path):
    root = tmp_path / "=cmd|' C calc'!A0"
    nasty_records(root)
    out = tmp_path / "site"
    (entry,) = site.write_site([f"{NASTY[1]}={root}"], out)
    assert entry.name == NASTY[1]
    for page in (out / "index.html", out / entry.slug / "index.html"):
        tags = [each.tag for each in everything(parse(page))]
        assert tags.count("script") == 1 and "img" not in tags and "b" not in tags
        assert NASTY[1] in parse(page).text
    site.write_site([root], tmp_path / "other")
    rows = list(csv.reader(io.StringIO((tmp_path / "other" / "rows.csv").read_text())))
    assert rows[1][0] == "'" + root.name
    assert all(cell[:1] not in "=@" or not cell for row in rows for cell in row)


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path d="M0 0" onload="alert(1)"/>',
        '<a xlink:href="javascript:alert(1)"><path d="M0 0"/></a>',
        '<image href="https://example.org/x.png"/>',
        '<use xlink:href="other.svg#x"/>',
        "<foreignObject><p>alert(1)</p></foreignObject>",
        "<style>@import 'https://example.org/x.css';</style>",
        '<path d="M0 0" style="fill: url(https://example.org/x)"/>',
        '<path d="M0 0" fill="\\75rl(https://example.org/x)"/>',
        '<animate attributeName="href" to="javascript:alert(1)"/>',
    ],
)
def test_figures_of_others_run_and_fetch_nothing(inside):
    cleaned = harmless_svg(SVG.format(inside + '<path d="M1 2" style="fill: url(#own)"/>').encode(), origin="x.svg")
    assert "alert" not in cleaned and "example.org" not in cleaned and "other.svg" not in cleaned
    assert 'd="M1 2"' in cleaned and "url(#own)" in cleaned


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + SVG.format("<text>&b;</text>").encode(),
        b"no svg at all",
        b"<html><body/></html>",
        (SVG.format("") * 2).encode(),
        SVG.format("<g>" * 100_000 + "</g>" * 100_000).encode(),
        b" " * 5_000_000,
        SVG.format("").encode("utf-16"),
    ],
)
def test_what_is_no_figure_is_refused_in_a_sentence(content):
    with pytest.raises(RecordError, match=r"^x\.svg .*(;|leave)"):
        harmless_svg(content, origin="x.svg")


# --- the folder is replaced as a whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", [True, False])
def test_a_run_that_stops_leaves_the_old_site_whole(run_folder, committed, tmp_path, monkeypatch, exchange):
    out = tmp_path / "site"
    site.write_site([run_folder], out)
    before = tree(out)
    if not exchange:
        monkeypatch.setattr(swap, "_exchanged", lambda first, second: False)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(site, "index_page", stop)
        with pytest.raises(KeyboardInterrupt):
            site.write_site([committed], out)
    assert tree(out) == before and [path.name for path in tmp_path.iterdir()] == ["site"]
    # what a killed run has left is removed, and does not get into the new site
    left = tmp_path / ".site.new" / "folder"
    left.mkdir(parents=True)
    (left / "torn.html").write_text("torn")
    site.write_site([committed], out)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert not (out / "mine").exists() and not (out / "torn.html").exists() and (out / "committed").is_dir()


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "old.txt").write_text("old")
    monkeypatch.setattr(swap, "_exchanged", lambda first, second: False)
    rename = Path.rename

    def failing(self, target):
        if self.name == "folder":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(RecordError, match="free some space"), swap.replaced_folder(tmp_path / "site") as fresh:
        (fresh / "new.txt").write_text("new")
    assert tree(tmp_path / "site") == {"old.txt": b"old"}


def test_a_folder_of_something_else_is_never_replaced(committed, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex, which is no part of a site"):
        site.write_site([committed], tmp_path)
    site.write_site([committed], tmp_path / "site")
    (tmp_path / "site" / "CNAME").write_text("example.org")
    with pytest.raises(UsageError, match="CNAME"):
        site.write_site([committed], tmp_path / "site")
    with pytest.raises(UsageError, match="holds"):
        site.write_site([committed], committed.parent)
    assert (tmp_path / "thesis.tex").read_text() == "years of work" and (committed / "made.json").is_file()


# --- what is given ---------------------------------------------------------------------------------------------------


def call(*words: object):
    result = CliRunner().invoke(app, ["site", *map(str, words)])
    said = result.output + (result.stderr if result.stderr_bytes else "")
    assert "Traceback" not in said
    return result.exit_code, said


def test_what_is_wrong_is_said_in_a_sentence(committed, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(committed, tmp_path / "committed")
    out = ("--out", tmp_path / "site")
    assert call(tmp_path / "nosuch", *out)[0] == 2
    code, said = call(tmp_path / "empty", *out)
    assert code == 2 and "neither records nor leaderboard.json" in said
    code, said = call(committed, tmp_path / "committed", *out)
    assert code == 2 and "both called 'committed'" in said and "NAME=" in said
    code, said = call(committed, f"other={tmp_path / 'committed'}", *out)
    assert code == 0 and "2 folders, 24 rows" in said


@pytest.mark.parametrize(
    "spoil",
    [
        lambda board: board["tasks"]["photos-0.32"]["dataset"].pop("note"),
        lambda board: board["tasks"]["photos-0.32"]["classifiers"]["net"].pop("mean"),
        lambda board: board["tasks"]["photos-0.32"]["protocol"]["fields"]["lr"].update(scale="half"),
        lambda board: board["tasks"]["photos-0.32"]["protocol"]["fields"].update(lr=3),
        lambda board: board["tasks"]["photos-0.32"]["dataset"].update(task_type="nosuch"),
        lambda board: board["tasks"]["photos-0.32"].update(code="1"),
        lambda board: board["tasks"].pop("set5-x4"),
        lambda board: board["bootstrap"].clear(),
        lambda board: board["rows"][0].update(accuracy="high"),
    ],
)
def test_a_leaderboard_that_does_not_hold_together_is_named(committed, tmp_path, spoil):
    shutil.copytree(committed, tmp_path / "bad")
    board = json.loads((tmp_path / "bad" / "leaderboard.json").read_text())
    spoil(board)
    (tmp_path / "bad" / "leaderboard.json").write_text(json.dumps(board))
    code, said = call(tmp_path / "bad", "--out", tmp_path / "site")
    assert code == 1 and "leaderboard.json" in said and not (tmp_path / "site").exists()
