"""What a call of `upscale` returns, and how a terminal shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Guess:
    """One class that a classifier names, with its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Upscaled:
    """One picture that was enlarged.

    Attributes:
        source: The file it was read from.
        target: The file it was written to.
        name: What tables and messages call it.
        lr_size: (height, width) of the source, upright.
        sr_size: (height, width) of the result.
        before: What the classifier takes the source for, the likeliest first; () without a classifier.
        after: What it takes the result for.
        notes: What became of the picture beside being enlarged, one sentence each.
        written: False where the result was there already, made in the same way from the same file.
    """

    source: Path
    target: Path
    name: str
    lr_size: tuple[int, int]
    sr_size: tuple[int, int]
    before: tuple[Guess, ...] = ()
    after: tuple[Guess, ...] = ()
    notes: tuple[str, ...] = ()
    written: bool = True


@dataclass(frozen=True)
class UpscaleResult:
    """What a call of `upscale` did.

    Attributes:
        images: The pictures, in the order of the call.
        problems: A sentence for each picture that was left out, or that the classifier could not be asked about.
        method: Name of the method.
        weights: Label of its weights, or None.
        factor: Enlargement.
        classifier: Id of the classifier, or None.
        notes: What should be known about the call beside that, one sentence each.
    """

    images: tuple[Upscaled, ...]
    problems: tuple[str, ...]
    method: str
    weights: str | None
    factor: float
    classifier: str | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return what was done in one sentence."""
        written = [image for image in self.images if image.written]
        by = f"by {self.method}, weights {self.weights}" if self.weights else f"by {self.method}"
        text = f"enlarged {len(written)} images x{self.factor:g} {by}"
        if len(written) == 1:
            (one,) = written
            (height, width), (tall, wide) = one.lr_size, one.sr_size
            text = f"enlarged {one.name} from {width} x {height} to {wide} x {tall} pixels {by}: {one.target}"
        there = len(self.images) - len(written)
        parts = [text, f"{there} were there already"] if there else [text]
        asked = [image for image in self.images if image.before]
        if len(asked) > 1:
            changed = sum(image.before[0].name != image.after[0].name for image in asked)
            parts.append(f"{self.classifier} decides otherwise than before on {changed} of {len(asked)}")
        return "; ".join(parts)


def render(result: UpscaleResult) -> list[Table]:
    """Return a table for each picture that a classifier was asked about: its likeliest classes before and after."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    tables = []
    for image in result.images:
        if not image.before:
            continue
        table = Table(box=box.SIMPLE_HEAD, title=Text(f"{image.name}: {result.classifier}"), title_justify="left")
        table.add_column("#", justify="right")
        for when in ("before", "after"):
            table.add_column(when, overflow="fold")
            table.add_column("probability", justify="right")
        for rank, (before, after) in enumerate(zip(image.before, image.after, strict=True), 1):
            row = (str(rank), before.name, f"{before.probability:.3f}", after.name, f"{after.probability:.3f}")
            table.add_row(*map(Text, row))
        tables.append(table)
    return tables
