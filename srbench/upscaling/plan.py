"""What a call enlarges: every picture with the place of its result; calls that would lose a file are refused."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.data.scan import Scan, scan
from srbench.errors import UsageError
from srbench.files.atomic import check_out_dir
from srbench.files.paths import user_path
from srbench.imaging.codecs import WRITABLE, size_of
from srbench.imaging.tiles import MARGIN, canvas, spans


@dataclass(frozen=True)
class Job:
    """A picture to be enlarged: where it is, where it goes, and what messages call it."""

    source: Path
    target: Path
    name: str


def check_numbers(factor: float, tile: int | None) -> None:
    """Refuse a factor or a tile that no picture can have.

    Raises:
        UsageError: Saying what may be given.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"--factor takes a number above 0, such as 4 or 2.5, got {factor:g}")
    if tile is not None and tile < 1:
        raise UsageError(
            f"--tile takes a side in LR pixels of at least 1, such as 128, got {tile}; leave it out for none"
        )


@dataclass(frozen=True)
class Plan:
    """What a call enlarges.

    Attributes:
        jobs: The pictures, in the order of the call.
        alone: Whether it is one picture whose target is named itself.
        notes: What was left out of folders, one sentence each.
    """

    jobs: tuple[Job, ...]
    alone: bool
    notes: tuple[str, ...]


def plan_jobs(images: Sequence[Path | str], out: Path | str) -> Plan:
    """Pair every picture with its target.

    Raises:
        UsageError: If there is nothing to enlarge, or a result would be written over an input or over another one.
    """
    given = list(dict.fromkeys(user_path(image) for image in images))
    if not given:
        raise UsageError("no image was named; give files, or folders of them")
    for path in given:
        if not path.exists():
            raise UsageError(f"there is no image or folder {path}; check the path")
    target = user_path(out)
    folder = str(out).endswith(("/", os.sep)) or target.is_dir() or not target.suffix
    alone = len(given) == 1 and not given[0].is_dir() and not folder
    if alone and target.suffix.lower() not in WRITABLE:
        raise UsageError(
            f"--out {out}: images are written as {', '.join(WRITABLE)}, not {target.suffix};"
            " for a folder of that name end it in /"
        )
    if not folder and not alone and target.suffix.lower() in WRITABLE:
        raise UsageError(f"--out {out} is the name of one image, but several may be written; give a folder")
    check_out_dir(target.parent if alone else target)
    jobs: list[Job] = []
    notes: list[str] = []
    for path in given:
        if path.is_dir():
            files = _scan(path, target)
            jobs += [
                Job(path / file, target / Path(file).parent / _file_name(Path(file)), file) for file in files.images
            ]
            notes += [f"{path}: {files.note}"] if files.note else []
        else:
            jobs.append(Job(path, target if alone else target / _file_name(path), path.name))
    _refuse_losses(jobs)
    return Plan(tuple(jobs), alone, tuple(notes))


def _scan(path: Path, out: Path) -> Scan:
    """Look into a folder of pictures; refuse one that is empty, or that the results would be written into."""
    if not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"the folder {path} cannot be read; check its permissions")
    if out.resolve().is_relative_to(path.resolve()):
        raise UsageError(
            f"--out {out} lies inside the folder {path}, so that a second call would enlarge the results too;"
            " choose another place with --out DIR"
        )
    files = scan(path)
    if not files.images:
        raise UsageError(f"the folder {path} holds no images; give files, or a folder that does")
    return files


def _file_name(path: Path) -> str:
    """Return the name of a result in a folder: the source's own where its format can be written, else as PNG."""
    return path.name if path.suffix.lower() in WRITABLE else f"{path.stem}.png"


def _refuse_losses(jobs: Sequence[Job]) -> None:
    """Refuse to write over an input, two results to one place, or a file where a folder is."""
    inputs = {_identity(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target.exists() and _identity(job.target) in inputs:
            raise UsageError(f"{job.target} is an input and would be written over; choose another place with --out")
        if job.target.is_dir():
            raise UsageError(f"{job.target} is a folder, but {job.name} would be written there; choose another --out")
        resolved = job.target.resolve()
        if resolved in taken:
            raise UsageError(f"{taken[resolved]} and {job.source} would both become {job.target}; use two calls")
        taken[resolved] = job.source


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return what two names of one file share."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def count_steps(source: Path, factor: float, tile: int | None, multiple: int = 1) -> int:
    """Return how many steps the progress bar takes for a file; tiles are rounded up to `multiple`."""
    size = size_of(source) if tile is not None else None
    if size is None:
        return 1
    return math.prod(len(spans(side, target, tile, MARGIN, multiple)) for side, target in canvas(size, factor))
