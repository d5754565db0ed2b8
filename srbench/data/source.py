"""Defines `Source`, the interface of every opened dataset split."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, overload

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.imaging.decode import StoredImage


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a split.

    Attributes:
        id: Stable name, unique in the source, never a path of the machine ("n01440764/0a1b.jpg").
        label: Index into the source's `classes`, or None where there are no labels.
        ratings: Of image quality: the share of the raters that gave each rating, the lowest first, in all 1; else None.
    """

    id: str
    label: int | None = None
    ratings: tuple[float, ...] | None = None

    @property
    def hash_fields(self) -> list[object]:
        """What hashes of a list of samples are made of: id and label, and the ratings where there are some."""
        return [self.id, self.label] if self.ratings is None else [self.id, self.label, list(self.ratings)]


class SampleList(Sequence[Sample]):
    """Many samples in a tenth of the memory: they lie in columns, and a `Sample` is made when it is asked for."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        ids: Sequence[str],
        labels: Sequence[int | None] | None = None,
        ratings: Sequence[tuple[float, ...] | None] | None = None,
    ) -> None:
        """Take the ids and, in their order, what else there is of each sample."""
        self._ids = pa.array(ids, pa.string())
        self._labels = None if labels is None else pa.array(labels, pa.int32())
        self._ratings = None if ratings is None else pa.array(ratings, pa.list_(pa.float64()))

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> SampleList:
        """Take samples, in their order."""
        whole = tuple(samples)
        return cls(
            [sample.id for sample in whole],
            [sample.label for sample in whole],
            [sample.ratings for sample in whole],
        )

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> SampleList: ...

    def __getitem__(self, index: int | slice) -> Sample | SampleList:
        """Return one sample, or a list of some."""
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        position = int(index)
        label = None if self._labels is None else self._labels[position].as_py()
        ratings = None if self._ratings is None else self._ratings[position].as_py()
        return Sample(self._ids[position].as_py(), label, None if ratings is None else tuple(ratings))

    def __iter__(self) -> Iterator[Sample]:
        """Yield every sample; faster than asking for one after another."""
        for first in range(0, len(self), 1024):
            ids, labels, ratings = (
                repeat(None) if column is None else column.slice(first, 1024).to_pylist()
                for column in (self._ids, self._labels, self._ratings)
            )
            for id_, label, rated in zip(ids, labels, ratings, strict=False):
                yield Sample(id_, label, None if rated is None else tuple(rated))

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of samples."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def take(self, positions: ArrayLike) -> SampleList:
        """Return the samples at `positions`, in that order; the same object where these are all, in their order."""
        wanted = np.asarray(positions, dtype=np.int64)
        if len(wanted) == len(self) and (wanted == np.arange(len(self))).all():
            return self
        some = SampleList(())
        some._ids, some._labels, some._ratings = (
            None if column is None else column.take(pa.array(wanted))
            for column in (self._ids, self._labels, self._ratings)
        )
        return some


class Source(ABC):
    """A dataset split: a fixed list of samples and a way to read each.

    Attributes:
        name: Short name for task ids and tables ("photos", "demo").
        spec: The SPEC that opens it again ("folder:photos").
        split: Name of the split ("all", "train", "val", "test").
        samples: Every sample, sorted by id.
        classes: Class names by label, or None where there are no labels. Folders named by wnid keep the wnid here.
        unit: What one sample is, for tables: "image" or "patch".
        note: A caution that must stand wherever the numbers appear, or "".
        paired: Whether `read_lr` gives real LR images; HR then keeps its own geometry, which the LR fits.
        factor: HR side / LR side of real pairs, else None.
        small: Whether the images are LR as they are, so that there is no HR; `read` then gives LR.
        task_type: What a network is asked for, a name of `srbench.task_types`.
        has_targets: Whether `read_stored` says something about places in the image: a mask, boxes.
    """

    name: str
    spec: str
    split: str
    samples: Sequence[Sample]
    classes: tuple[str, ...] | None
    unit: str = "image"
    note: str = ""
    paired: bool = False
    factor: int | None = None
    small: bool = False
    task_type: str = "classification"
    has_targets: bool = False

    @property
    def channels(self) -> int:
        """Channels of the data: 3, or 1 where every image is grey."""
        return 3

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """Decode sample `index` as `(3, H, W)`, RGB, uint8.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` and say how many channels it is stored with: those of the data, if nothing knows more.

        Where `has_targets`, the result carries what the data say about places in the image, in its own pixels; see
        `srbench.data.targets` for the two forms.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """
        from srbench.imaging.decode import StoredImage

        return StoredImage(self.read(index), self.channels)

    @abstractmethod
    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return for each sample at `indices` what its pixels depend on, for cache keys: the hash of a file's bytes."""

    def read_lr(self, index: int) -> Tensor | None:
        """Decode the real LR partner of sample `index`, or return None where LR is made by the degradation."""
        return None

    @property
    def labelled(self) -> bool:
        """Whether the data say what a network is to answer: labels, ratings, masks or boxes."""
        return (
            self.has_targets or self.classes is not None or any(sample.ratings is not None for sample in self.samples)
        )


class StoredSource(Source):
    """A source that knows how each image is stored, and gives its pixels out of that."""

    @abstractmethod
    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index`, and say how it is stored; see `Source.read_stored`.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """

    def read(self, index: int) -> Tensor:
        """Decode sample `index` as `(3, H, W)`, RGB, uint8.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """
        return self.read_stored(index).pixels


def sample_list_sha256(samples: Iterable[Sample]) -> str:
    """Hash the ids and labels of a sample list, in order."""
    digest = hashlib.sha256(b"[")
    for number, sample in enumerate(samples):  # one by one, as one text of many samples is large
        digest.update(("," if number else "").encode() + json.dumps(sample.hash_fields, separators=(",", ":")).encode())
    digest.update(b"]")
    return digest.hexdigest()
