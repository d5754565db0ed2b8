"""The paired bootstrap of IoU: images are resampled, and what a draw is worth comes from its summed counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.metrics.dense import dice, iou, mean_iou, pixel_accuracy
from srbench.metrics.stats.bootstrap import BOOTSTRAP_DRAWS, resample_counts


@dataclass(frozen=True)
class IouBootstrap:
    """Resampled figures of several methods on the same images.

    Attributes:
        mean: Mean IoU of each draw and method, `(draws, m)`.
        accuracy: Pixel accuracy of each draw and method, `(draws, m)`.
        iou: IoU of each draw, method and class, `(draws, m, K)`, float32, nan where a draw has no such class.
        dice: F1 of the pixels likewise.
    """

    mean: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    iou: NDArray[np.float32]
    dice: NDArray[np.float32]


def bootstrap_iou(counts: NDArray[np.float64], *, draws: int = BOOTSTRAP_DRAWS, seed: int) -> IouBootstrap:
    """Resample images, paired over the methods.

    Args:
        counts: `(m, 3, n, K)`: hits, labelled and predicted pixels of each method, image and class.
        draws: Number of draws.
        seed: Seed of the draws, those of `bootstrap_means` for the same n.

    Raises:
        UsageError: If the shape is another one, or there is no image.
    """
    if counts.ndim != 4 or counts.shape[1] != 3 or not counts.shape[2]:
        raise UsageError(f"expected counts of shape (methods, 3, images, classes), got {counts.shape}")
    methods, _, n, classes = counts.shape
    columns = counts.transpose(2, 0, 1, 3).reshape(n, -1)
    mean, accuracy = np.empty((draws, methods)), np.empty((draws, methods))
    single = [np.empty((draws, methods, classes), dtype=np.float32) for _ in range(2)]
    done = 0
    for block in resample_counts(n, draws, seed=seed, values_per_draw=columns.shape[1]):
        rows = slice(done, done + len(block))
        summed = (block @ columns).reshape(len(block), methods, 3, classes).transpose(2, 0, 1, 3)
        mean[rows], accuracy[rows] = mean_iou(summed), pixel_accuracy(summed)
        single[0][rows], single[1][rows] = iou(summed), dice(summed)
        done += len(block)
    return IouBootstrap(mean, accuracy, *single)
