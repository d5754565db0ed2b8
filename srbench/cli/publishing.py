"""Commands that show results to others.

They parse, call Python and print; `srbench.cli` registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench.cli.terminal import waiting


def site(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...",
            help="Folders that `srbench eval --out` wrote, folders with a leaderboard.json, or a folder of such;"
            " NAME=DIR gives one another name.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the site; an older site there is replaced as a whole.")],
) -> None:
    """Write a static site of many folders of results: an index with search, a page each, and the same as JSON, CSV."""
    with waiting("reading results"):
        from srbench.report.site import write_site

        entries = write_site(folders, out)
    rows = sum(len(entry.board.rows) for entry in entries)
    typer.echo(f"srbench: wrote {out / 'index.html'}: {len(entries)} folders, {rows} rows")


COMMANDS: dict[str, Callable[..., Any]] = {"site": site}
