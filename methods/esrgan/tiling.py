"""Large images in tiles that overlap and fade into each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def tiled(enlarge: Callable[[Tensor], Tensor], lr: Tensor, factor: int, *, tile: int, overlap: int) -> Tensor:
    """Enlarge `(N, C, h, w)`, any range, tile by tile, to `(N, C, factor x h, factor x w)`.

    Every output pixel is a weighted mean of tiles that have at least overlap / 2 LR pixels of context around it; the
    weights fall off linearly and sum to one. Where the network sees no further than overlap / 2, the result is the
    untiled one; where it sees further, what is left changes smoothly instead of in a step.

    Args:
        enlarge: The network, on one tile.
        lr: The batch; not written to.
        factor: Enlargement of the network.
        tile: Side of a tile's core, LR pixels.
        overlap: LR pixels that a tile sees around its core.
    """
    height, width = lr.shape[-2:]
    total: Tensor | None = None
    for rows, fade_rows in _spans(height, tile, overlap, factor):
        for columns, fade_columns in _spans(width, tile, overlap, factor):
            part = enlarge(lr[..., rows, columns].contiguous())
            if total is None:
                total = part.new_zeros((*part.shape[:-2], height * factor, width * factor))
            target = total[
                ...,
                rows.start * factor : rows.stop * factor,
                columns.start * factor : columns.stop * factor,
            ]
            target += part * (fade_rows.to(part)[:, None] * fade_columns.to(part)[None, :])
    assert total is not None
    return total


def _spans(side: int, tile: int, overlap: int, factor: int) -> list[tuple[slice, Tensor]]:
    """Return, for each tile along a side, the LR pixels it reads and the weights of the SR pixels it makes."""
    position = (torch.arange(side * factor, dtype=torch.float64) + 0.5) / factor

    def risen(edge: int) -> Tensor:
        if edge in (0, side):  # the image's own border is no seam
            return torch.full_like(position, float(edge == 0))
        if overlap == 0:
            return (position > edge).double()
        return ((position - edge) / overlap + 0.5).clamp(0, 1)

    edges = [*range(0, side, tile), side]
    spans = []
    for start, stop in pairwise(edges):
        read = slice(max(0, start - overlap), min(side, stop + overlap))
        # What has risen at one edge and not yet at the next telescopes to one over all tiles, however narrow they are.
        weight = risen(start) - risen(stop)
        spans.append((read, weight[read.start * factor : read.stop * factor]))
    return spans
