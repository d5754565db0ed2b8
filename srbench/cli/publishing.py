"""`srbench site`, `pack` and `verify`: results are shown to others, and those of others are checked.

They parse, call Python and print; `srbench.cli` registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench.cli.terminal import Device, Plugins, waiting, weights_by_method
from srbench.errors import UsageError


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


def pack(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders that `srbench eval --out` wrote.")],
    out: Annotated[Path, typer.Option(help="File that ends in .zip.")],
) -> None:
    """Pack records and samples of a run, without pixels and paths, and the leaderboard that follows from them."""
    with waiting("reading records"):
        from srbench.report.entry.packing import pack as write

        board = write(folders, out)
    typer.echo(f"srbench: wrote {out} ({out.stat().st_size / 1e6:.1f} MB), which claims {len(board.rows)} rows")


def verify(
    entry: Annotated[Path, typer.Argument(metavar="ENTRY.zip", help="File that `srbench pack` wrote.")],
    data: Annotated[str | None, typer.Option(help="SPEC of the data, to score a share of the samples again.")] = None,
    share: Annotated[float | None, typer.Option(help="With --data: share of the samples; 0.1 if left out.")] = None,
    split: Annotated[str | None, typer.Option(help="With --data: name of the split.")] = None,
    protocol: Annotated[str | None, typer.Option(help="With --data: name of a preset, or a TOML file.")] = None,
    scale: Annotated[list[str] | None, typer.Option(help="With --data: LR side / HR side; repeatable.")] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option("--classifier", "--network", help="With --data: SPEC of the network behind; repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="With --data: METHOD=NAME or METHOD=FILE; repeatable.")
    ] = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Say whether the numbers of an entry follow from its samples, and with data whether the samples come again."""
    of_data = {
        "--share": share,
        "--split": split,
        "--protocol": protocol,
        "--scale": scale,
        "--classifier": classifier,
        "--weights": weights,
    }
    for option, value in of_data.items():
        if data is None and value:
            raise UsageError(f"{option} goes with --data alone; give the data too, or leave it out")
    with waiting("reading the entry"):
        from srbench.report.entry.checking import MOST_NAMED, opened
    with opened(entry) as checked:
        problems = list(checked.problems)
        typer.echo(f"srbench: {len(checked.cells)} records, {len(checked.board.rows)} rows; {checked.unchecked}")
        if data is not None and not problems:
            from srbench.protocol import parse_scale

            with waiting("loading torch, methods and classifiers"):
                from srbench.report.entry.rerun import rerun
            again = rerun(
                checked.cells,
                data,
                share=0.1 if share is None else share,
                split=split,
                protocol=protocol,
                scales=[parse_scale(text) for text in scale or []],
                classifiers=classifier or (),
                weights=weights_by_method(weights or []),
                device=device,
                plugins=plugin or (),
            )
            problems += again.problems
            for note in again.notes:
                typer.echo(f"srbench: note: {note}", err=True)
            typer.echo(f"srbench: scored {len(again.samples)} samples of {again.compared} cells again")
    for problem in problems[:MOST_NAMED]:
        typer.echo(f"srbench: wrong: {problem}", err=True)
    if problems:
        typer.echo(f"srbench: {len(problems)} things are not as the entry says", err=True)
        raise typer.Exit(1)
    typer.echo("srbench: every number of the claim follows from the samples")


COMMANDS: dict[str, Callable[..., Any]] = {"site": site, "pack": pack, "verify": verify}
