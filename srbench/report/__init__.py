"""The report: one HTML page that needs nothing beside it, and its figures as files."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from markupsafe import Markup

from srbench.compute.progress import track
from srbench.errors import UsageError
from srbench.files.atomic import check_out_dir, sweep_temporary, write_bytes, write_text
from srbench.files.paths import user_path
from srbench.files.turns import only_writer
from srbench.leaderboard import Leaderboard
from srbench.records.cells import StoredCell, find_records
from srbench.report import figures, galleries, inline, page, rendering
from srbench.report.boards import board_of
from srbench.report.drawn import Drawn

PAGE_FILE = "report.html"
FIGURES_FOLDER = "figures"
LIST_FILE = ".written.json"  # in the folder of the figures: which of its files are the report's
MOST_SVG = 400_000  # characters; a figure of more marks stands in the page as pixels
FIGURES_SHARE = 0.7  # of the page, so that pictures have a place too

_FIGURE = re.compile(r"[a-z0-9-]+\.(svg|png|json)")

__all__ = ["write_report"]


def write_report(
    folders: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    max_mb: float = 5.0,
    progress: bool = True,
) -> list[Path]:
    """Write the report of one or several folders of results; return its files, the page first.

    The intervals are those of the first folder's leaderboard.json where there is one: drawn with its seed.

    Args:
        folders: Folders that `srbench eval --out` wrote.
        out: Folder of the report, the first of `folders` if left out.
        max_mb: Size of the page in 10^6 bytes that pictures are fitted to.
        progress: Show a bar.

    Raises:
        UsageError: If a folder is missing or holds no record, `out` cannot be written, or `max_mb` is not positive.
        IncomparableError: If cells of one task were made under other conditions.
        RecordError: If the disk fails.
    """
    given = [user_path(folder) for folder in folders]
    if not given:
        raise UsageError("there is no folder to report on; give a directory that 'srbench eval --out' wrote")
    if not max_mb > 0:
        raise UsageError(f"the page's size must be positive, got {max_mb:g} MB; the default is 5")
    out = given[0] if out is None else user_path(out)
    stored, problems = find_records(given)
    check_out_dir(out)
    with only_writer(out, wait=True), track("reading and drawing", None, show=progress, unit="figures") as done:
        sweep_temporary(out)
        board, cells = board_of(stored, problems, given[0])
        shown = page.compose(board, cells)
        limit = int(max_mb * 1e6)
        paths: list[Path] = []
        figure_blocks: list[page.FigureBlock] = []
        for drawn in figures.draw_all(board, cells):
            files, block = _keep(drawn, out / FIGURES_FOLDER)
            paths += files
            figure_blocks.append(block)
            done(1)
        figure_blocks, left_out = _fitted(figure_blocks, int(limit * FIGURES_SHARE))
        shown = dataclasses.replace(shown, figure_blocks=tuple(figure_blocks), left_out=tuple(left_out))
        text = _with_pictures(shown, board, cells, limit)
        write_text(out / PAGE_FILE, text)
        _tidy(out / FIGURES_FOLDER, paths)
    return [out / PAGE_FILE, *paths]


# --- figures -----------------------------------------------------------------------------------------------------


def _keep(drawn: Drawn, folder: Path) -> tuple[list[Path], page.FigureBlock]:
    """Save a figure with its numbers; return its files, the SVG first, and what the page shows of it."""
    png = drawn.png()
    svg = drawn.svg()
    numbers = json.dumps(drawn.data, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    files = [folder / f"{drawn.name}.{end}" for end in ("svg", "png", "json")]
    write_text(files[0], inline.grounded_svg(svg, "#ffffff"))

    def write(file: BinaryIO) -> None:
        file.write(png)

    write_bytes(files[1], write)
    write_text(files[2], numbers)
    if len(svg) <= MOST_SVG:
        body = Markup(inline.inline_svg(svg, name=drawn.name, label=drawn.title))
    else:
        uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        body = Markup('<img src="{}" alt="{}">').format(uri, drawn.title)
    block = page.FigureBlock(
        drawn.name,
        drawn.section,
        drawn.task,
        drawn.classifier,
        drawn.title,
        drawn.caption,
        body,
        Markup(inline.script_json(dict(drawn.data))),
    )
    return files, block


def _tidy(folder: Path, paths: Sequence[Path]) -> None:
    """Remove the figures of an earlier report that this one does not have, and note down those of this one.

    What is not on the earlier report's list, or is no longer what it wrote, belongs to somebody else and stays.
    """
    now = {path.name: _sha256(path) for path in paths}
    before = _listed(folder)
    kept = {}
    for name, digest in before.items():
        path = folder / name
        if name in now or not path.is_file() or path.is_symlink():
            continue
        try:
            if _sha256(path) == digest:
                path.unlink()
        except OSError:
            kept[name] = digest  # perhaps the next time
    if now or before:
        write_text(folder / LIST_FILE, json.dumps(kept | now, indent=1) + "\n")


def _listed(folder: Path) -> dict[str, str]:
    """Names and hashes of the files that the last report left in a folder; none where that cannot be told."""
    try:
        listed = json.loads((folder / LIST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(listed, dict):
        return {}
    return {name: digest for name, digest in listed.items() if isinstance(digest, str) and _FIGURE.fullmatch(name)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fitted(figure_blocks: Sequence[page.FigureBlock], budget: int) -> tuple[list[page.FigureBlock], list[str]]:
    """Take the largest numbers out of the page, which their files hold too, until the figures fit."""
    size = sum(len(block.body) + len(block.data or "") for block in figure_blocks)
    dropped: set[str] = set()
    for block in sorted(figure_blocks, key=lambda block: -len(block.data or "")):
        if size <= budget:
            break
        size -= len(block.data or "")
        dropped.add(block.name)
    kept = [dataclasses.replace(block, data=None) if block.name in dropped else block for block in figure_blocks]
    if not dropped:
        return kept, []
    return kept, [
        f"for the page's size the numbers of {len(dropped)} figures are only in {FIGURES_FOLDER}/: "
        + ", ".join(f"{block.name}.json" for block in figure_blocks if block.name in dropped)
    ]


# --- pictures ----------------------------------------------------------------------------------------------------


def _with_pictures(shown: page.Page, board: Leaderboard, cells: Sequence[StoredCell], limit: int) -> str:
    """The page's text with as many pictures as its size allows."""
    tasks, problems = galleries.collect(board, cells)
    bare = len(rendering.render(shown).encode())
    if bare > limit:
        note = f"tables and figures alone take {bare / 1e6:.1f} MB, more than the {limit / 1e6:g} MB of --max-mb"
        shown = dataclasses.replace(shown, left_out=(*shown.left_out, note))
    text = ""
    for share in (1.0, 0.8, 0.5, 0.0):
        pictures = galleries.arrange(tasks, budget=int((limit - bare) * share), problems=problems)
        text = rendering.render(dataclasses.replace(shown, pictures=pictures))
        if len(text.encode()) <= limit:
            break
    return text
