"""One picture from its file to the file of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from srbench.errors import SrbenchError, UsageError
from srbench.files.atomic import write_content
from srbench.imaging.codecs import Pixels, check_target, encode, made_by, read_picture, size_of
from srbench.imaging.tiles import enlarged_side
from srbench.upscaling.engine import Engine, visible_pixels
from srbench.upscaling.plan import Job
from srbench.upscaling.results import Upscaled
from srbench.weights import file_sha256


def refuse_foreign(jobs: Sequence[Job], engine: Engine) -> None:
    """Refuse to write over files that this call did not make in the same way from the same picture.

    Raises:
        UsageError: Naming the first of them.
    """
    for job in jobs:
        if job.target.exists() and not _is_made(job, engine):
            raise UsageError(
                f"{job.target} exists already and was not made by this call from {job.source};"
                " choose another folder with --out, or name that file itself to write over it"
            )


def _is_made(job: Job, engine: Engine) -> bool:
    try:
        return made_by(job.target) == engine.made(file_sha256(job.source))
    except OSError:
        return False


def enlarge_file(
    job: Job, engine: Engine, counter: StepCounter, *, look: bool, again: bool, max_pixels: float
) -> tuple[Upscaled, Pixels | None, Pixels | None]:
    """Enlarge one picture; return what was done, and the colours before and after.

    Args:
        job: The picture.
        engine: What enlarges it.
        counter: Told of every tile.
        look: Whether the colours are wanted of a result that is there already.
        again: Whether such a result is made anew.
        max_pixels: Pictures that say that they have more pixels are not decoded.

    Raises:
        SrbenchError: If the picture cannot be read, enlarged or written; the message begins with its name.
    """
    if not again and job.target.exists() and _is_made(job, engine):
        lr, sr = (
            (visible_pixels(read_picture(path, job.name, max_pixels=math.inf)) for path in (job.source, job.target))
            if look
            else (None, None)
        )
        before, after = (size_of(path) or (0, 0) for path in (job.source, job.target))
        return Upscaled(job.source, job.target, job.name, before, after, written=False), lr, sr
    picture = read_picture(job.source, job.name, max_pixels=max_pixels)
    height, width = picture.pixels.shape[:2]
    size = (enlarged_side(height, engine.factor), enlarged_side(width, engine.factor))
    suffix = job.target.suffix.lower()
    check_target(suffix, size, job.name, opaque=picture.opaque)
    try:
        enlarged = engine.enlarge(picture, counter.tick)
        data = encode(enlarged, suffix, made=engine.made(picture.sha256))
    except MemoryError:
        raise SrbenchError(f"{job.name} would become {size[1]} x {size[0]} pixels, for which memory is short") from None
    except SrbenchError as error:
        raise type(error)(f"{job.name}: {error}") from error
    write_content(job.target, data)
    notes = tuple(f"{job.name} {note}" for note in picture.notes)
    image = Upscaled(job.source, job.target, job.name, (height, width), size, notes=notes)
    return image, visible_pixels(picture), enlarged.pixels


class StepCounter:
    """Counts the steps of one picture, never more than were announced, and makes up for those that did not come."""

    def __init__(self, advance: Callable[[int], None], total: int) -> None:
        """Take what moves the progress bar, and the steps that were announced for the picture."""
        self._advance, self._left = advance, total

    def tick(self) -> None:
        """Count one step."""
        if self._left:
            self._left -= 1
            self._advance(1)

    def finish(self) -> None:
        """Count the steps that did not come."""
        self._advance(self._left)
