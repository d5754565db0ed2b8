"""Which input sizes a task has: the shortest sides, in pixels, of the images that a network behind receives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from srbench.data.hr_cache import HRStore
from srbench.evaluation.options import SWEEP
from srbench.imaging.sizes import sweep
from srbench.protocol import Protocol

SMALL_SIDE = 256  # pixels; images that are small by nature are swept up to it at least


def sr_side(hr_store: HRStore, protocol: Protocol) -> int:
    """Return the protocol's own input size: the shortest side of SR, the median where images differ in size."""
    return _median([min(protocol.sr_size(height, width)) for height, width in hr_store.shapes.tolist()])


def lr_side(hr_store: HRStore, protocol: Protocol) -> int:
    """Return the shortest side of LR, the median where images differ in size."""
    if hr_store.lr_shapes is not None:
        return _median([min(shape) for shape in hr_store.lr_shapes.tolist()])
    return _median([min(protocol.lr.lr_size(height, width)) for height, width in hr_store.shapes.tolist()])


def further_sizes(asked: Sequence[int | str], *, low: int, high: int, own: int) -> tuple[int, ...]:
    """Return the input sizes beside the protocol's own, ascending, each once.

    Args:
        asked: Sizes in pixels, and "sweep" for those from just above `low` to `high`.
        low: LR side.
        high: SR side.
        own: The protocol's own size: that of SR, or what the network insists on.
    """
    sizes = {size for each in asked for size in (sweep(low, high) if each == SWEEP else (int(each),))}
    return tuple(sorted(sizes - {own}))


def square(image: Tensor, side: int) -> Tensor:
    """Return the square of this side in the middle of `(N, C, H, W)`, whose shortest side it is."""
    top, left = ((each - side) // 2 for each in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def _median(sides: Sequence[int]) -> int:
    return int(np.median(sides))
