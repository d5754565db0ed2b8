"""The one tiler: windows that overlap, restored one by one and cut to their cores, which join without a seam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.imaging.resample import to_uint8

MARGIN = 32  # LR pixels that a tile sees beyond its core on every side, and that are thrown away
# Tiles begin where a pixel of the source and one of the result begin together. With a factor such as 5/2 that is every
# second one, if the sides are whole multiples of 2: so they are extended to that. With an odd factor there are few such
# places or none: then the best of the next ones is taken, and one that is this close (in pixels of the result) is it.
_DENOMINATOR, _ALIGNED, _CANDIDATES = 64, 1 / 256, 64

Pixels = NDArray[np.uint8]
Restore = Callable[[Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Span:
    """One tile along a side: the pixels it reads, how many they become, which of these are kept, and where they go."""

    read: slice
    size: int
    kept: slice
    filled: slice


def enlarged_side(side: int, factor: float) -> int:
    """Return how long a side becomes, pixels: rounded, halves upwards, at least 1."""
    return max(1, math.floor(side * factor + 0.5))


def canvas(size: tuple[int, int], factor: float) -> list[tuple[int, int]]:
    """Return, for both sides, what the source is extended to and what that becomes, pixels.

    A factor that is, on these sides, as good as p/q enlarges multiples of q to multiples of p; what was extended is cut
    off again.
    """
    step = Fraction(factor).limit_denominator(_DENOMINATOR)
    if step == 0 or abs(float(step) - factor) * max(size) >= 0.5:
        return [(side, enlarged_side(side, factor)) for side in size]
    multiples = [math.ceil(side / step.denominator) for side in size]
    return [(multiple * step.denominator, multiple * step.numerator) for multiple in multiples]


def tiled(
    pixels: Pixels,
    size: tuple[int, int],
    restore: Restore,
    *,
    tile: int | None,
    margin: int = MARGIN,
    multiple: int = 1,
    device: torch.device | str = "cpu",
    tick: Callable[[], None] | None = None,
) -> Pixels:
    """Bring `(H, W, C)` uint8 to `(*size, C)` uint8 by a function of `(1, C, h, w)`, float32, [0, 1].

    Each tile is restored with a margin that is then thrown away, and clamped and rounded to 8 bits at once, so that
    no more of the picture than a tile is ever in floating point.

    Args:
        pixels: The picture.
        size: Target (height, width) in pixels.
        restore: Maps a window and its target size to `(1, C, *size)`; what it returns may leave [0, 1].
        tile: Side of a tile's core, LR pixels; None takes the picture in one piece.
        margin: LR pixels around a core, or as many pixels of the result where that is smaller.
        multiple: LR pixels at whose multiples every tile begins and ends; see `window_multiple`.
        device: Where `restore` runs.
        tick: Called after every tile.
    """
    result = np.empty((*size, pixels.shape[2]), dtype=np.uint8)
    for rows, columns in _windows(pixels.shape[:2], size, tile, margin, multiple):
        window = np.ascontiguousarray(pixels[rows.read, columns.read].transpose(2, 0, 1))
        lr = torch.from_numpy(window)[None].to(device).float() / 255
        sr = restore(lr, (rows.size, columns.size))[..., rows.kept, columns.kept]
        result[rows.filled, columns.filled] = to_uint8(sr)[0].permute(1, 2, 0).cpu().numpy()
        if tick is not None:
            tick()
    return result


def tiled_batch(
    lr: Tensor, size: tuple[int, int], restore: Restore, *, tile: int, margin: int = MARGIN, multiple: int = 1
) -> Tensor:
    """Bring a batch `(N, C, h, w)`, any float range, to `(N, C, *size)` tile by tile, in floating point.

    Where `restore` sees no further than `margin` LR pixels, the result is the untiled one but for rounding.

    Args:
        lr: The batch; not written to.
        size: Target (height, width) in pixels.
        restore: Maps a window and its target size to `(N, C, *size)`.
        tile: Side of a tile's core, LR pixels.
        margin: LR pixels around a core that a tile sees.
        multiple: LR pixels at whose multiples every tile begins and ends; see `window_multiple`.
    """
    result: Tensor | None = None
    for rows, columns in _windows(lr.shape[-2:], size, tile, margin, multiple):
        sr = restore(lr[..., rows.read, columns.read].contiguous(), (rows.size, columns.size))
        if result is None:
            result = sr.new_empty((*sr.shape[:-2], *size))
        result[..., rows.filled, columns.filled] = sr[..., rows.kept, columns.kept]
    assert result is not None  # an image has at least one tile
    return result


def window_multiple(network: nn.Module) -> int:
    """Return the LR pixels at whose multiples tiles must begin and end for a network to see the same windows; 1 is any.

    Attention within windows cuts the image into a grid from its top left corner. A tile that begins elsewhere has
    another grid, and its result differs by many levels. spandrel's networks say how large their windows are in
    `window_size` or `split_size`; `tile_multiple` of a method is what else it needs.
    """
    sides = [1]
    for module in network.modules():
        for name in ("window_size", "split_size", "tile_multiple"):
            held = getattr(module, name, None)
            each = held if isinstance(held, list | tuple) else [held]
            sides += [side for side in each if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    return math.lcm(*sides)


def rounded_up(side: int, multiple: int) -> int:
    """Return the least multiple that is not below `side`."""
    return math.ceil(side / multiple) * multiple


def _windows(
    shape: Sequence[int], size: tuple[int, int], tile: int | None, margin: int, multiple: int
) -> Iterator[tuple[Span, Span]]:
    """Yield the rows and columns of every tile of an image of (height, width) `shape` that becomes `size`."""
    for rows in spans(shape[0], size[0], tile, margin, multiple):
        for columns in spans(shape[1], size[1], tile, margin, multiple):
            yield rows, columns


def spans(side: int, target: int, tile: int | None, margin: int, multiple: int = 1) -> list[Span]:
    """Return the tiles along a side of `side` pixels that becomes `target` pixels; their cores cover all of it once.

    Tile and margin are rounded up to `multiple`, so that every tile begins and ends at one of its multiples, or at the
    border of the image.
    """
    tile = None if tile is None else rounded_up(tile, multiple)
    if tile is None or tile >= side:
        return [Span(slice(0, side), target, slice(0, target), slice(0, target))]
    ratio = min(1.0, target / side)
    reach, choices = rounded_up(math.ceil(margin / ratio), multiple), math.ceil(_CANDIDATES / ratio) * multiple
    tiles = []
    for start, stop in pairwise([*range(0, side, tile), side]):
        filled = slice(_target_edge(start, side, target), _target_edge(stop, side, target))
        if filled.start == filled.stop:  # so few pixels in the result that this tile has none
            continue
        read = slice(
            _aligned(range(start - reach, start - reach - choices, -multiple), side, target),
            _aligned(range(stop + reach, stop + reach + choices, multiple), side, target),
        )
        first, last = _target_edge(read.start, side, target), _target_edge(read.stop, side, target)
        tiles.append(Span(read, last - first, slice(filled.start - first, filled.stop - first), filled))
    return tiles


def _target_edge(edge: int, side: int, target: int) -> int:
    """Return the edge between pixels of the result that is nearest to an edge between pixels of the source."""
    return (2 * edge * target + side) // (2 * side)


def _aligned(edges: range, side: int, target: int) -> int:
    """Return the first edge that falls onto one of the result, or else the one that misses it least."""
    best, least = 0, side
    for edge in edges:
        if not 0 < edge < side:
            return max(0, min(side, edge))  # the picture's own border always fits
        remainder = edge * target % side
        miss = min(remainder, side - remainder)
        if miss < least:
            best, least = edge, miss
        if miss <= _ALIGNED * side:
            break
    return best
