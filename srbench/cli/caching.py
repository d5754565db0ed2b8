"""`srbench cache`: what is in the cache, how large it is, and what is removed from it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Annotated

import typer

from srbench.cli.terminal import show, table
from srbench.files.atomic import age_s
from srbench.files.caches import KINDS, CacheEntry, cache_entries, parse_size, prune, written_size
from srbench.files.paths import cache_dir

_DAY_S = 86400.0


def cache(
    keep: Annotated[
        str | None,
        typer.Option(help="Remove what was used longest ago until so much is left, such as 20GB; 0 empties it."),
    ] = None,
    unused_for: Annotated[
        float | None, typer.Option(help="Remove only what was not used for so many days; without --keep, all of it.")
    ] = None,
) -> None:
    """Show what is in the cache and how large it is; with --keep or --unused-for, remove some of it first."""
    if keep is not None or unused_for is not None:
        limit = 0 if keep is None else parse_size(keep, "--keep")
        removed, in_use = prune(keep=limit, unused_for_s=(unused_for or 0.0) * _DAY_S)
        typer.echo(f"removed {_counted(removed)}")
        if in_use and unused_for is None:
            typer.echo(f"{_counted(in_use)} were used within the last hour and stay, since a run may need them")
    entries = cache_entries()
    names = [*KINDS, *sorted({entry.kind for entry in entries} - set(KINDS))]
    rows = []
    for name in names:
        ours = [entry for entry in entries if entry.kind == name]
        if ours:
            days = age_s(max(entry.used for entry in ours)) / _DAY_S
            size = written_size(sum(entry.size for entry in ours))
            rows.append((name, size, str(len(ours)), f"{days:.1f}", KINDS.get(name, "left by an older srbench")))
    if rows:
        show([table(("folder", "size", "entries", "days since use", "what it holds"), rows)])
    root = cache_dir()
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = written_size(shutil.disk_usage(nearest).free)
    typer.echo(f"{root}: {written_size(sum(entry.size for entry in entries))}; {free} are free there")


def _counted(entries: Sequence[CacheEntry]) -> str:
    counted = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    return f"{counted}, {written_size(sum(entry.size for entry in entries))}"
