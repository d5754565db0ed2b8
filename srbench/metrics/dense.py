"""Metrics of maps of classes: counts for each image, and IoU and accuracy from their sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srbench.errors import ContractError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -1  # class of pixels that nobody has labelled


def confusion_counts(prediction: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Count for each image how often a class was taken for each other one: `(N, K * K)`, int32, on the device.

    Entry `t * K + p` counts the pixels of class t that were taken for p.

    Args:
        prediction: `(N, H, W)`, whole numbers, class of each pixel, below K.
        target: `(N, H, W)`, whole numbers, true class of each pixel, or `IGNORED`.
        n_classes: Number of classes, K.

    Raises:
        ContractError: If the shapes differ.
    """
    import torch

    if prediction.shape != target.shape:
        raise ContractError(
            f"expected a map of classes of the shape of the mask, {tuple(target.shape)}, got {tuple(prediction.shape)}"
        )
    cells = n_classes * n_classes
    true = target.flatten(1).long()
    pairs = torch.where(true == IGNORED, cells, true * n_classes + prediction.flatten(1).long())
    counts = torch.zeros(len(pairs), cells + 1, dtype=torch.int32, device=pairs.device)
    ones = torch.ones((), dtype=torch.int32, device=pairs.device).expand_as(pairs)
    return counts.scatter_add_(1, pairs, ones)[:, :cells]  # unlike bincount it does not wait for a GPU


def class_counts(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return hits, labelled pixels and predicted pixels of each class: `(3, n, K)`, float64.

    Args:
        confusion: `(n, K * K)`, rows as `confusion_counts` returns them.

    Raises:
        UsageError: If a row holds no square matrix.
    """
    size = round(confusion.shape[1] ** 0.5)
    if confusion.ndim != 2 or size * size != confusion.shape[1]:
        raise UsageError(f"expected rows of square confusion matrices, got shape {confusion.shape}")
    square = confusion.reshape(len(confusion), size, size)
    hits = square.diagonal(axis1=1, axis2=2)
    return np.stack([hits, square.sum(axis=2), square.sum(axis=1)]).astype(np.float64)


def iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of each class, nan where neither mask nor map has it.

    Args:
        counts: `(3, ..., K)`: hits, labelled pixels, predicted pixels, summed over images.
    """
    hits, labelled, predicted = counts
    union = labelled + predicted - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def mean_iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of `iou` over the classes that mask or map has, `(...)`; nan where there is none."""
    each = iou(counts)
    known = ~np.isnan(each)
    total, number = np.where(known, each, 0.0).sum(axis=-1), known.sum(axis=-1)
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def pixel_accuracy(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the labelled pixels whose class is right, `(...)`; nan where there is none."""
    hits, labelled = counts[0].sum(axis=-1), counts[1].sum(axis=-1)
    return np.divide(hits, labelled, out=np.full_like(hits, np.nan), where=labelled > 0)


def dice(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 of the pixels of each class, also called Dice, nan where neither mask nor map has it."""
    hits, labelled, predicted = counts
    both = labelled + predicted
    return np.divide(2 * hits, both, out=np.full_like(hits, np.nan), where=both > 0)
