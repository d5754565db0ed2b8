"""Which samples keep their pixels in the records, for galleries, and the pixels themselves while a pass runs.

The selection is a fixed rule, the same for every method of a task. It looks at the original and bilinear alone. So it
does not favour a method, and a method that is added later keeps the same samples as those that are already there.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.hr_cache import HRStore
from srbench.evaluation.batches import Batch
from srbench.evaluation.plan import PlannedCell
from srbench.evaluation.rows import CellRows
from srbench.imaging.resample import to_uint8
from srbench.records.schema import BASELINE

KEPT = 12
LOST_CLASSES, EXTREMES = 6, 2
MAX_SIDE = 640  # of COCO; larger images are passed over, so that a cell keeps some MB at most
COLUMNS = ("position", "label", "pred", "psnr")  # of the samples, all that the choice looks at
LIKELY_CLASSES = 64  # at most this many classes have a candidate, so that candidates take some MB a cell
# Of images that wait until it is known which samples may be kept. A GPU must not be waited for after each batch; on a
# CPU what waits only lies in the way of the next batch.
PENDING_BYTES = {"cuda": 2**31, "cpu": 0}

Images = dict[int, dict[str, NDArray[np.uint8]]]  # position -> "hr", "lr" or "sr" -> (H, W, C), RGB, uint8

_NOWHERE = np.iinfo(np.int64).max


class ThumbnailSelector:
    """Selects the samples of a task and classifier that keep their pixels, while samples come in any order.

    At most `KEPT` are selected: one sample of each of the six classes whose F1 falls most from the original to bilinear
    (the first that bilinear alone gets wrong, or else the first), the two of the lowest and the two of the highest PSNR
    under bilinear, and then those whose ids have the smallest hashes.

    Attributes:
        n_samples: How many samples it has been updated with.
    """

    def __init__(self, hr_store: HRStore, hashed: Sequence[int] | None = None) -> None:
        """Begin without samples.

        Args:
            hr_store: The HR images, for their sizes.
            hashed: What `smallest_hashes` returns for it, where that is known.
        """
        self._small = _small(hr_store)
        self._hashed = list(smallest_hashes(hr_store) if hashed is None else hashed)
        self.n_samples = 0
        self._labelled = True
        self._lowest: list[tuple[float, int]] = []  # PSNR under bilinear and position
        self._highest: list[tuple[float, int]] = []
        # by class: the position of its first sample, and of the first that bilinear alone gets wrong
        self._first = self._first_lost = np.empty(0, dtype=np.int64)
        # by class, for original and bilinear: twice the hits, and its samples plus its predictions
        self._hits = self._sizes = np.empty((2, 0), dtype=np.int64)

    def update(
        self,
        position: NDArray[np.integer],
        *,
        label: NDArray[np.integer] | None,
        original: NDArray[np.integer] | None,
        bilinear: NDArray[np.integer] | None,
        psnr: NDArray[np.floating] | None,
    ) -> None:
        """Count samples in.

        Args:
            position: `(N,)`, each counted once.
            label: `(N,)`, or None without labels.
            original: `(N,)`, what the classifier takes the originals for, or None without a classifier.
            bilinear: `(N,)`, the same of bilinear's images.
            psnr: `(N,)`, dB, of bilinear's images, or None where there is none.
        """
        self.n_samples += len(position)
        small = self._small[position]
        if psnr is not None:
            known = np.flatnonzero(small & ~np.isnan(psnr))
            ascending = known[np.lexsort((position[known], psnr[known]))]
            extremes = dict.fromkeys([*ascending[:EXTREMES].tolist(), *ascending[-EXTREMES:].tolist()])
            self._update_extremes([(float(psnr[place]), int(position[place])) for place in extremes])
        if label is None or original is None or bilinear is None:
            self._labelled = False
        elif small.any():
            self._update_classes(*(values[small].astype(np.int64) for values in (position, label, original, bilinear)))

    def update_from_records(self, original: pd.DataFrame, bilinear: pd.DataFrame) -> None:
        """Count stored samples in.

        Args:
            original: Samples of the original, `COLUMNS` at least.
            bilinear: Samples of frozen bilinear, in the same order.
        """
        label, of_original, of_bilinear = (
            None if column.isna().any() else column.to_numpy(dtype=np.int64)
            for column in (original["label"], original["pred"], bilinear["pred"])
        )
        position, psnr = bilinear["position"].to_numpy(), bilinear["psnr"].to_numpy()
        self.update(position, label=label, original=of_original, bilinear=of_bilinear, psnr=psnr)

    def selected(self) -> list[int]:
        """Return the positions of the samples to keep, ascending, among those that were counted in."""
        wanted = [
            *self._of_lost_classes(LOST_CLASSES),
            *(position for _, position in (*self._lowest, *self._highest)),
            *self._hashed,
        ]
        return sorted(list(dict.fromkeys(wanted))[:KEPT])

    def candidates(self) -> frozenset[int]:
        """Return the positions that are likely to be selected in the end; one that drops out never comes back.

        A sample can be selected without having been a candidate only where its class becomes one of the worst late, or
        has no sample that bilinear alone gets wrong.
        """
        extremes = (position for _, position in (*self._lowest, *self._highest))
        return frozenset((*self._of_lost_classes(LIKELY_CLASSES), *extremes, *self._hashed))

    @classmethod
    def joined(cls, parts: Sequence[ThumbnailSelector]) -> ThumbnailSelector:
        """Join selectors of one task that have counted in different samples, unless one has counted in all."""
        whole = next((part for part in parts if part.n_samples == len(part._small)), None)
        if whole is not None:
            return whole
        first, *others = parts
        for other in others:
            first._join(other)
        return first

    def _join(self, other: ThumbnailSelector) -> None:
        self.n_samples += other.n_samples
        self._labelled &= other._labelled
        self._update_extremes([*other._lowest, *(pair for pair in other._highest if pair not in other._lowest)])
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

    def _update_extremes(self, pairs: list[tuple[float, int]]) -> None:
        self._lowest = heapq.nsmallest(EXTREMES, self._lowest + pairs)
        self._highest = heapq.nlargest(EXTREMES, self._highest + pairs)

    def _update_classes(
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
        """Return one sample for each of the `count` classes whose F1 falls most, the worst first."""
        if not self._labelled:
            return []
        present = np.flatnonzero(self._first != _NOWHERE)
        original, bilinear = self._hits[:, present] / self._sizes[:, present]
        fall = bilinear - original
        worst = present[np.argsort(fall, kind="stable")[: min(count, int((fall < 0).sum()))]]
        lost = self._first_lost[worst]
        return np.where(lost != _NOWHERE, lost, self._first[worst]).tolist()


class ThumbnailBuffer:
    """Holds images of a pass until it is known which samples may be kept, and the pixels of those that may."""

    def __init__(
        self, selectors: Mapping[str | None, ThumbnailSelector], kept: dict[Path, Images], max_bytes: int
    ) -> None:
        """Begin without images.

        Args:
            selectors: By classifier, what selects the samples; updated as cells are computed.
            kept: Where pixels go, by the folder of the cell.
            max_bytes: What the waiting images may take before they should be flushed.
        """
        self._selectors, self._kept, self._max_bytes = selectors, kept, max_bytes
        self._pending: list[tuple[list[PlannedCell], NDArray[np.int64], dict[str, Tensor]]] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the images that wait take as much memory as they may."""
        return self._bytes >= self._max_bytes

    def add(self, cells: Sequence[PlannedCell], sr: Tensor, batch: Batch) -> None:
        """Add a batch of one method, `(N, 3, H, W)`, RGB, float32, [0, 1], as these cells' classifiers see it."""
        cells = [cell for cell in cells if cell.scored.id in self._selectors]
        if not cells or not keeps_pixels(cells[0]) or batch.hr is None or max(batch.hr.shape[-2:]) > MAX_SIDE:
            return
        images = {"sr": sr}
        if cells[0].loaded is None:
            if batch.lr is None:
                return
            images = {"hr": batch.hr, "lr": batch.lr}
        self._pending.append((cells, batch.positions, images))
        self._bytes += sum(image.nbytes for image in images.values())

    def flush(self, cells: Sequence[PlannedCell], rows: Mapping[Path, CellRows]) -> None:
        """Update the selectors with what was computed since, and keep or drop the pixels that wait."""
        if not self._pending:
            return
        for classifier, selector in self._selectors.items():
            ours = [cell for cell in cells if cell.scored.id == classifier and cell.key.input_size is None]
            original = next((cell for cell in ours if cell.loaded is None), None)
            bilinear = next((cell for cell in ours if cell.loaded and cell.loaded.name == BASELINE), None)
            if original is not None and bilinear is not None:
                of_original, of_bilinear = (rows[cell.folder].new_columns(COLUMNS) for cell in (original, bilinear))
                selector.update(
                    of_original["position"],
                    label=of_original.get("label"),
                    original=of_original.get("pred"),
                    bilinear=of_bilinear.get("pred"),
                    psnr=of_bilinear.get("psnr"),
                )
        candidates = {classifier: selector.candidates() for classifier, selector in self._selectors.items()}
        for takers, positions, images in self._pending:
            for row, position in enumerate(positions.tolist()):
                folders = [cell.folder for cell in takers if position in candidates[cell.scored.id]]
                if folders:
                    pixels = {name: to_pixels(image[row : row + 1]) for name, image in images.items()}
                    for folder in folders:
                        self._kept.setdefault(folder, {})[position] = pixels
        self._pending, self._bytes = [], 0
        for cell in cells:
            for position in self._kept.get(cell.folder, {}).keys() - candidates.get(cell.scored.id, frozenset()):
                del self._kept[cell.folder][position]


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image `(1, C, H, W)`, float, [0, 1] as `(H, W, C)`, uint8, on the CPU."""
    return to_uint8(image)[0].permute(1, 2, 0).cpu().numpy()


def keeps_pixels(cell: PlannedCell) -> bool:
    """Say whether a cell stores images: torch's at the protocol's own size; LR is stored with the original."""
    if cell.key.input_size is not None or cell.key.runtime is not None:
        return False
    return cell.loaded is None or cell.loaded.cls.info.output == "hr"


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
