"""A static site of many folders of results: an index, a page for each folder, and the same as JSON and CSV.

- `entries`: what is read of a folder, from its records or from what is committed of it.
- `pages`: the HTML of the index and of a folder's page.

It needs no server, and its pages fetch nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from srbench import __version__
from srbench.errors import RecordError, UsageError
from srbench.files.atomic import check_out_dir, write_json, write_text
from srbench.files.paths import user_path
from srbench.files.strict import read_json
from srbench.files.swap import replaced_folder
from srbench.records.made import MADE_FILE
from srbench.report.foreign_svg import harmless_svg
from srbench.report.inline import grounded_svg
from srbench.report.site.entries import Entry, read_entries, sheet
from srbench.report.site.pages import index_page, results_page

SCHEMA_VERSION = 1
INDEX_FILE = "index.json"

__all__ = ["write_site"]


def write_site(folders: Iterable[Path | str], out: Path | str) -> list[Entry]:
    """Write the site of folders of results; return what stands in it.

    The old site stays whole until the new one is finished.

    Args:
        folders: Folders that `srbench eval --out` wrote, that hold a committed leaderboard.json, or that hold such
            folders; NAME=DIR gives a folder another name.
        out: Folder of the site.

    Raises:
        UsageError: If a folder is missing or holds no results, two have one name, or `out` holds something else.
        RecordError: If a file is damaged, or the disk fails.
    """
    out = user_path(out)
    check_out_dir(out)
    _check_is_site(out)
    entries = read_entries(folders)
    for entry in entries:
        if out.resolve() in (entry.folder.resolve(), *entry.folder.resolve().parents):
            raise UsageError(f"{entry.folder} lies in {out}, which the site replaces; give another --out")
    with replaced_folder(out) as fresh:
        files = ["index.html", INDEX_FILE, "rows.csv"]
        for entry in entries:
            files += _write_entry(fresh / entry.slug, entry, entries)
        write_text(fresh / "index.html", index_page(entries))
        write_text(fresh / "rows.csv", sheet([(entry.name, entry.board) for entry in entries]))
        write_json(fresh / INDEX_FILE, _index(entries, files))
    return entries


def _write_entry(folder: Path, entry: Entry, entries: list[Entry]) -> list[str]:
    """Write the page of a folder, its numbers and figures; return the files, relative to the site."""
    figures = {name: harmless_svg(path.read_bytes(), origin=str(path)) for name, path in entry.figures.items()}
    write_text(folder / "index.html", results_page(entry, figures, entries))
    write_json(folder / "leaderboard.json", entry.board.to_json())
    write_text(folder / "leaderboard.csv", sheet([(entry.name, entry.board)]))
    write_json(folder / MADE_FILE, entry.made.to_json())
    for name, text in figures.items():
        write_text(folder / "figures" / f"{name}.svg", grounded_svg(text, "#ffffff"))
    named = [
        "index.html",
        "leaderboard.json",
        "leaderboard.csv",
        MADE_FILE,
        *(f"figures/{name}.svg" for name in figures),
    ]
    return [f"{entry.slug}/{name}" for name in named]


def _index(entries: list[Entry], files: list[str]) -> dict[str, Any]:
    """Return the content of index.json: where each folder's numbers are, and how they were made."""
    return {
        "srbench_site": SCHEMA_VERSION,
        "srbench": __version__,
        "results": [
            {
                "name": entry.name,
                "page": f"{entry.slug}/index.html",
                "leaderboard": f"{entry.slug}/leaderboard.json",
                "hardware": list(entry.hardware),
                "versions": dict(entry.versions),
                **entry.made.to_json(),
                "tasks": list(entry.board.tasks),
            }
            for entry in entries
        ],
        "files": files,
    }


def _check_is_site(out: Path) -> None:
    """Refuse to replace a folder that holds anything but a site.

    Raises:
        UsageError: If it does; the sentence names the first file.
    """
    found = sorted(str(path.relative_to(out).as_posix()) for path in out.rglob("*") if not path.is_dir())
    if not found:
        return
    try:
        index = read_json(out / INDEX_FILE)
        known = set(index["files"]) if index["srbench_site"] else set()
    except (RecordError, KeyError, TypeError):
        known = set()
    for name in found:
        if name not in known:
            raise UsageError(
                f"--out {out} holds {name}, which is no part of a site; the site replaces the whole folder, so"
                " choose another one"
            )
