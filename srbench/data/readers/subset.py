"""Fewer classes of a labelled dataset: `SPEC?classes=a,b` or `SPEC?classes=FILE`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from srbench.data.source import Sample, Source
from srbench.errors import DataError, UnknownNameError, UsageError

_KEY = "?classes="


class ClassSubset(Source):
    """The samples of some classes, whose labels count these classes alone."""

    def __init__(self, source: Source, classes: Sequence[str], *, argument: str) -> None:
        """Keep the samples of `classes`, which keep the source's order whatever order they are named in.

        Args:
            source: A labelled source.
            classes: Names of classes of it.
            argument: What stands behind "classes=" in the SPEC.
        """
        assert source.classes is not None
        wanted = set(classes)
        self.classes = tuple(name for name in source.classes if name in wanted)
        label = {source.classes.index(name): position for position, name in enumerate(self.classes)}
        self._source = source
        self._indices = tuple(index for index, sample in enumerate(source.samples) if sample.label in label)
        self.samples = tuple(
            Sample(source.samples[index].id, label[number])
            for index in self._indices
            if (number := source.samples[index].label) is not None
        )
        # Two subsets of equally many classes must not pass for one another, in the cache or in a table.
        digest = hashlib.sha256("\n".join(self.classes).encode()).hexdigest()[:4]
        self.name = f"{source.name}-{len(self.classes)}-classes-{digest}"
        self.spec = f"{source.spec}{_KEY}{argument}"
        self.split, self.unit, self.note = source.split, source.unit, source.note
        self.paired, self.factor, self.kind = source.paired, source.factor, source.kind

    @property
    def channels(self) -> int:
        """Channels of the data."""
        return self._source.channels

    def read(self, index: int) -> Tensor:
        """Decode sample `index` as `(3, H, W)`, RGB, uint8."""
        return self._source.read(self._indices[index])

    def read_lr(self, index: int) -> Tensor | None:
        """Decode the real LR partner, if there is one."""
        return self._source.read_lr(self._indices[index])

    def stamp(self, index: int) -> tuple[int, int]:
        """Return (size in bytes, modification time in ns)."""
        return self._source.stamp(self._indices[index])


def split_spec(spec: str) -> tuple[str, str | None]:
    """Return the SPEC without its classes, and what stands behind "?classes=", or None."""
    head, key, argument = spec.rpartition(_KEY)
    return (head, argument) if key else (spec, None)


def narrowed(source: Source, argument: str, *, spec: str) -> Source:
    """Keep some classes of a source.

    Args:
        source: The dataset.
        argument: Names joined by commas, or a file with one name a line; what follows a tab there is left out, so that
            wnids.txt and words.txt of Tiny ImageNet are such files.
        spec: The SPEC as it was given, for error messages.

    Raises:
        UsageError: If the source has no labels, or no class is named.
        UnknownNameError: If it has no such class.
        DataError: If the file cannot be read, or the split holds no image of these classes.
    """
    if source.classes is None:
        raise UsageError(f"--data {spec}: {source.spec} has no labels, so it has no classes to choose from")
    path = Path(argument).expanduser()
    if path.is_file():
        names = _names_in(path, spec)
        argument = path.name
    elif "/" in argument or path.suffix == ".txt":
        raise DataError(f"--data {spec}: there is no file {argument}; give a file with one class a line, or the names")
    else:
        names = [name.strip() for name in argument.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--data {spec} names no class; expected ?classes=n01440764,n02102040 or ?classes=FILE")
    for name in names:
        if name not in source.classes:
            raise UnknownNameError(f"class of {source.spec}", name, source.classes)
    subset = ClassSubset(source, names, argument=argument)
    if not subset.samples:
        raise DataError(f"--data {spec}: the split {source.split!r} holds no image of these classes")
    return subset


def _names_in(path: Path, spec: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {spec}: {path.name} cannot be read as text ({error}); give one class a line") from None
    return [name for line in lines if (name := line.split("\t")[0].strip())]
