"""Which samples keep their pixels in the records, for galleries: a fixed rule, the same for every method of a task.

The rule sees the oracle and bilinear alone. So it does not favour a method, and a method that is added later keeps
the same samples as those that are already there.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.data.hr_cache import HRStore
from srbench.evaluation.loaded_methods import LoadedMethod

KEPT = 12
LOST_CLASSES, EXTREMES = 6, 2
MAX_SIDE = 512  # larger images are passed over, so that a cell keeps a few MB at most
COLUMNS = ("position", "label", "pred", "psnr")  # of the samples, all that the choice looks at
LIKELY_CLASSES = 64  # of so many a sample is among the candidates, so that their pixels take some MB a cell at most

_NOWHERE = np.iinfo(np.int64).max


class ThumbnailSelector:
    """Of a task and classifier, the samples to keep; they are chosen while they are seen, in any order.

    At most `KEPT`: one sample of each of the six classes whose F1 falls most from the original to bilinear (the first
    that bilinear alone gets wrong, or else the first), the two of the lowest and the two of the highest PSNR under
    bilinear, and then those whose ids have the smallest hashes.

    Attributes:
        seen: How many samples were seen.
    """

    def __init__(self, hr_store: HRStore, hashed: Sequence[int] | None = None) -> None:
        """Begin with nothing seen.

        Args:
            hr_store: The HR images, for their sizes.
            hashed: What `smallest_hashes` says of it, where that is known.
        """
        self._small = _small(hr_store)
        self._hashed = list(smallest_hashes(hr_store) if hashed is None else hashed)
        self.seen = 0
        self._labelled = True
        self._lowest: list[tuple[float, int]] = []  # PSNR under bilinear and position
        self._highest: list[tuple[float, int]] = []
        # by class: of the samples of it, the first, and the first that bilinear alone gets wrong
        self._first = self._first_lost = np.empty(0, dtype=np.int64)
        # by class, for original and bilinear: twice the hits, and the samples of it with those taken for it
        self._hits = self._sizes = np.empty((2, 0), dtype=np.int64)

    def see(
        self,
        position: NDArray[np.integer],
        *,
        label: NDArray[np.integer] | None,
        original: NDArray[np.integer] | None,
        bilinear: NDArray[np.integer] | None,
        psnr: NDArray[np.floating] | None,
    ) -> None:
        """Take note of samples.

        Args:
            position: `(N,)`, each seen once.
            label: `(N,)`, or None without labels.
            original: `(N,)`, what the classifier takes the originals for, or None without a classifier.
            bilinear: `(N,)`, the same of bilinear's images.
            psnr: `(N,)`, dB, of bilinear's images, or None where there is none.
        """
        self.seen += len(position)
        small = self._small[position]
        if psnr is not None:
            known = np.flatnonzero(small & ~np.isnan(psnr))
            ascending = known[np.lexsort((position[known], psnr[known]))]
            extremes = dict.fromkeys([*ascending[:EXTREMES].tolist(), *ascending[-EXTREMES:].tolist()])
            self._see_extremes([(float(psnr[place]), int(position[place])) for place in extremes])
        if label is None or original is None or bilinear is None:
            self._labelled = False
        elif small.any():
            self._see_classes(*(values[small].astype(np.int64) for values in (position, label, original, bilinear)))

    def see_all(self, original: pd.DataFrame, bilinear: pd.DataFrame) -> None:
        """Take note of all samples as they are stored.

        Args:
            original: Samples of the oracle, `COLUMNS` at least.
            bilinear: Samples of frozen bilinear, in the same order.
        """
        label, of_original, of_bilinear = (
            None if column.isna().any() else column.to_numpy(dtype=np.int64)
            for column in (original["label"], original["pred"], bilinear["pred"])
        )
        position, psnr = bilinear["position"].to_numpy(), bilinear["psnr"].to_numpy()
        self.see(position, label=label, original=of_original, bilinear=of_bilinear, psnr=psnr)

    def chosen(self) -> list[int]:
        """Return the positions of the samples to keep, ascending, among those that were seen."""
        wanted = [
            *self._of_lost_classes(LOST_CLASSES),
            *(position for _, position in (*self._lowest, *self._highest)),
            *self._hashed,
        ]
        return sorted(list(dict.fromkeys(wanted))[:KEPT])

    def candidates(self) -> frozenset[int]:
        """Return the positions that are likely to be chosen when all have been seen; those not seen any more drop out.

        Only a class that is not among the worst for a long time, or has no sample that bilinear alone gets wrong, can
        be chosen without having been a candidate.
        """
        extremes = (position for _, position in (*self._lowest, *self._highest))
        return frozenset((*self._of_lost_classes(LIKELY_CLASSES), *extremes, *self._hashed))

    @classmethod
    def joined(cls, parts: Sequence[ThumbnailSelector]) -> ThumbnailSelector:
        """Return one choice for several of a task, of which each has seen other samples, or one has seen all."""
        whole = next((part for part in parts if part.seen == len(part._small)), None)
        if whole is not None:
            return whole
        first, *others = parts
        for other in others:
            first._join(other)
        return first

    def _join(self, other: ThumbnailSelector) -> None:
        self.seen += other.seen
        self._labelled &= other._labelled
        self._see_extremes([*other._lowest, *(pair for pair in other._highest if pair not in other._lowest)])
        classes = max(len(self._first), len(other._first))
        self._grow(classes)
        other._grow(classes)
        self._first = np.minimum(self._first, other._first)
        self._first_lost = np.minimum(self._first_lost, other._first_lost)
        self._hits, self._sizes = self._hits + other._hits, self._sizes + other._sizes

    def _grow(self, classes: int) -> None:
        more = classes - len(self._first)
        if more > 0:
            self._first, self._first_lost = (
                np.pad(places, (0, more), constant_values=_NOWHERE) for places in (self._first, self._first_lost)
            )
            self._hits, self._sizes = (np.pad(counts, ((0, 0), (0, more))) for counts in (self._hits, self._sizes))

    def _see_extremes(self, pairs: list[tuple[float, int]]) -> None:
        self._lowest = heapq.nsmallest(EXTREMES, self._lowest + pairs)
        self._highest = heapq.nlargest(EXTREMES, self._highest + pairs)

    def _see_classes(
        self,
        position: NDArray[np.int64],
        label: NDArray[np.int64],
        original: NDArray[np.int64],
        bilinear: NDArray[np.int64],
    ) -> None:
        self._grow(1 + max(int(values.max()) for values in (label, original, bilinear)))
        classes = len(self._first)
        lost = (original == label) & (bilinear != label)
        np.minimum.at(self._first, label, position)
        np.minimum.at(self._first_lost, label[lost], position[lost])
        support = np.bincount(label, minlength=classes)
        for side, predicted in enumerate((original, bilinear)):
            self._hits[side] += 2 * np.bincount(label[predicted == label], minlength=classes)
            self._sizes[side] += support + np.bincount(predicted, minlength=classes)

    def _of_lost_classes(self, count: int) -> list[int]:
        """Return a sample of each of the classes whose F1 falls most, the worst first; ties in order of class."""
        if not self._labelled:
            return []
        present = np.flatnonzero(self._first != _NOWHERE)
        original, bilinear = self._hits[:, present] / self._sizes[:, present]
        fall = bilinear - original
        worst = present[np.argsort(fall, kind="stable")[: min(count, int((fall < 0).sum()))]]
        lost = self._first_lost[worst]
        return np.where(lost != _NOWHERE, lost, self._first[worst]).tolist()


def keeps_pixels(contender: LoadedMethod | None) -> bool:
    """Say whether a cell stores images; those that a classifier gets at LR size are the oracle's (None)."""
    return contender is None or contender.cls.info.output == "hr"


def smallest_hashes(hr_store: HRStore) -> list[int]:
    """Return the positions of the `KEPT` samples whose ids have the smallest hashes, the smallest first."""
    small = _small(hr_store)
    hashes = (
        (hashlib.sha256(sample.id.encode()).digest(), position)
        for position, sample in enumerate(hr_store.samples)
        if small[position]
    )
    return [position for _, position in heapq.nsmallest(KEPT, hashes)]  # no list of all of them is made


def _small(hr_store: HRStore) -> NDArray[np.bool_]:
    return np.asarray((hr_store.shapes <= MAX_SIDE).all(axis=1))
