"""Some samples of a dataset: chosen by position, or by class with `SPEC?classes=a,b` or `SPEC?classes=FILE`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.data.source import Sample, SampleList, Source
from srbench.errors import DataError, UnknownNameError, UsageError
from srbench.files.paths import user_path
from srbench.files.regular import read_regular

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.imaging.decode import StoredImage

_KEY = "?classes="


class SelectedSource(Source):
    """Some samples of another source, which reads them."""

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        *,
        name: str | None = None,
        spec: str | None = None,
        split: str | None = None,
        classes: tuple[str, ...] | None = None,
        samples: Sequence[Sample] | None = None,
    ) -> None:
        """Keep the samples at `indices`, in that order. What is None stays as the source has it.

        Args:
            source: Where the samples are read.
            indices: Positions in the source.
            name: Another short name.
            spec: Another SPEC.
            split: Another name of the split.
            classes: Other class names; `samples` then holds their labels.
            samples: One sample for each index, with another id or label.
        """
        self._source, self._indices = source, tuple(indices)
        self.name, self.spec = name or source.name, spec or source.spec
        self.split, self.classes = split or source.split, classes or source.classes
        self.unit, self.note, self.paired, self.factor = source.unit, source.note, source.paired, source.factor
        self.small, self.task_type, self.has_targets = source.small, source.task_type, source.has_targets
        listed = source.samples if isinstance(source.samples, SampleList) else SampleList.of(source.samples)
        self.samples = samples if samples is not None else listed.take(self._indices)

    @property
    def channels(self) -> int:
        """Channels of the data: 3, or 1 where every image is grey."""
        return self._source.channels

    def read(self, index: int) -> Tensor:
        """Decode sample `index` as `(3, H, W)`, RGB, uint8."""
        return self._source.read(self._indices[index])

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` and say how many channels it is stored with."""
        return self._source.read_stored(self._indices[index])

    def read_lr(self, index: int) -> Tensor | None:
        """Decode the real LR partner as `(3, h, w)`, RGB, uint8, if there is one."""
        return self._source.read_lr(self._indices[index])

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return what the pixels of samples depend on."""
        return self._source.stamps([self._indices[index] for index in indices])


def split_spec(spec: str) -> tuple[str, str | None]:
    """Return the SPEC without its classes, and what stands behind "?classes=", or None."""
    head, key, argument = spec.rpartition(_KEY)
    return (head, argument) if key else (spec, None)


def select_classes(source: Source, argument: str, *, spec: str) -> SelectedSource:
    """Keep some classes of a source, in the source's order; labels count these classes alone.

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
    path = user_path(argument)
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
    classes = tuple(name for name in source.classes if name in set(names))
    new_label = {source.classes.index(name): position for position, name in enumerate(classes)}
    kept = [(index, sample) for index, sample in enumerate(source.samples) if sample.label in new_label]
    if not kept:
        raise DataError(f"--data {spec}: the split {source.split!r} holds no image of these classes")
    # Two subsets of equally many classes must not pass for one another, in the cache or in a table.
    digest = hashlib.sha256("\n".join(classes).encode()).hexdigest()[:4]
    return SelectedSource(
        source,
        [index for index, _ in kept],
        name=f"{source.name}-{len(classes)}-classes-{digest}",
        spec=f"{source.spec}{_KEY}{argument}",
        classes=classes,
        samples=SampleList.of(
            dataclasses.replace(sample, label=new_label[sample.label]) for _, sample in kept if sample.label is not None
        ),
    )


def _names_in(path: Path, spec: str) -> list[str]:
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {spec}: {path.name} cannot be read as text ({error}); give one class a line") from None
    return [name for line in lines if (name := line.split("\t")[0].strip())]
