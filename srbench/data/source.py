"""The data seam: what a dataset split is, whatever it was read from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


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
    def said(self) -> list[object]:
        """What hashes of a list of samples are made of: id and label, and the ratings where there are some."""
        return [self.id, self.label] if self.ratings is None else [self.id, self.label, list(self.ratings)]


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
        kind: What a network is asked for, a name of `srbench.tasks`; data that say nothing are of the usual kind.
    """

    name: str
    spec: str
    split: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...] | None
    unit: str = "image"
    note: str = ""
    paired: bool = False
    factor: int | None = None
    kind: str = "classification"

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

    @abstractmethod
    def stamp(self, index: int) -> tuple[int, int]:
        """Return (size in bytes, modification time in ns) of what sample `index` is read from, for cache keys."""

    def read_lr(self, index: int) -> Tensor | None:
        """Decode the real LR partner of sample `index`, or return None where LR is made by the degradation."""
        return None

    @property
    def labelled(self) -> bool:
        """Whether the data say what a network is to answer: labels or ratings."""
        return self.classes is not None or any(sample.ratings is not None for sample in self.samples)


def sample_list_sha256(samples: tuple[Sample, ...]) -> str:
    """Hash the ids and labels of a sample list, in order."""
    digest = hashlib.sha256()
    for number, sample in enumerate(samples):  # one by one, as one text of many samples is large
        digest.update(("," if number else "[").encode() + json.dumps(sample.said, separators=(",", ":")).encode())
    digest.update(b"]" if samples else b"[]")
    return digest.hexdigest()
