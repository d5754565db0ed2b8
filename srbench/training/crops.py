"""How the images of a batch are cut, turned and mirrored, by draws that are made before the pixels are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.targets import cut_target, mirror_target, turn_target
from srbench.errors import UsageError
from srbench.training.images import ImageSet, Positions
from srbench.training.recipe import Recipe

_DRAWS_AGAIN = 7  # where a patch has too little detail


@dataclass(frozen=True)
class RawBatch:
    """A batch as the reading threads hand it over, on the CPU.

    Attributes:
        positions: Where the images are in the set.
        hr: `(N, 3, H, W)`, RGB, uint8, cropped.
        lr: `(N, 3, h, w)`, RGB, uint8, or None where LR is made by the degradation.
        flipped: `(N,)` bool, which images are to be mirrored.
        input_size: Shortest side at which a classifier is to see the images, pixels; None is their own.
        placed: What the data say about places in each image, cut, turned and mirrored with it; None where they say
            nothing about places.
        number: Number of the batch in the run, which says whose turn it is of several teachers.
    """

    positions: Positions
    hr: Tensor
    lr: Tensor | None
    flipped: NDArray[np.bool_]
    input_size: int | None = None
    number: int = 0
    placed: Sequence[NDArray[Any]] | None = None


def read_cropped(images: ImageSet, positions: Positions, recipe: Recipe, generator: np.random.Generator) -> RawBatch:
    """Read images, cut and turn them by the recipe's draws, and draw which of them are mirrored."""
    draws = generator.random((len(positions), 3))
    flipped = draws[:, 2] < (0.5 if recipe.augment.flip else 0.0)
    # What other settings need is drawn after that, so that none of them moves what a recipe without it has drawn.
    again = _DRAWS_AGAIN if recipe.min_detail and recipe.patch is not None else 0
    corners = np.concatenate([draws[:, None, :2], generator.random((len(positions), again, 2))], axis=1)
    turns = generator.integers(4, size=len(positions)) if recipe.augment.rotate else np.zeros(len(positions), np.int64)
    input_size = int(generator.choice(recipe.input_sizes)) if recipe.input_sizes else None
    if recipe.patch is None and not recipe.augment.shift and not turns.any():
        hr, lr = images.read(positions)
        return RawBatch(positions, hr, lr, flipped, input_size, placed=_mirrored(images.placed(positions), flipped, hr))
    crops = []
    previous, whole = -1, None
    for position, draws_of_one, quarters in zip(positions.tolist(), corners, turns.tolist(), strict=True):
        if whole is None or position != previous:
            previous, whole = position, _one(images, position)
        crops.append(_turned(_cropped(whole, recipe, draws_of_one), quarters))
    lr = None if not images.paired else torch.stack([crop.lr for crop in crops if crop.lr is not None])
    hr = torch.stack([crop.hr for crop in crops])
    placed = [crop.placed for crop in crops if crop.placed is not None]
    return RawBatch(positions, hr, lr, flipped, input_size, placed=_mirrored(placed or None, flipped, hr))


def _mirrored(
    placed: Sequence[NDArray[Any]] | None, flipped: NDArray[np.bool_], hr: Tensor
) -> Sequence[NDArray[Any]] | None:
    """Mirror what is said about places in the images that will be mirrored; these are on the device by then."""
    if placed is None:
        return None
    return [mirror_target(each, hr.shape[-1]) if flip else each for each, flip in zip(placed, flipped, strict=True)]


def detail(patch: Tensor) -> float:
    """Return the detail of a patch `(C, H, W)`, uint8, in [0, 1]: 0 is a wall, and a ramp has some.

    It is the larger of two means: the mean standard deviation of the columns, and that of the rows. idealo's
    image-super-resolution chooses its LR patches by it.
    """
    values = patch.float().div_(255)
    return max(float(values.std(dim=side, correction=0).mean()) for side in (-2, -1))


@dataclass(frozen=True)
class _Whole:
    """An image before it is cut: HR `(3, H, W)`, LR `(3, h, w)` or None, uint8; HR pixels an LR pixel; its target."""

    hr: Tensor
    lr: Tensor | None
    step: int
    placed: NDArray[Any] | None = None


@dataclass(frozen=True)
class _Crop:
    """What is cut of an image: HR, LR or None, and what the data say about places in it, or None."""

    hr: Tensor
    lr: Tensor | None
    placed: NDArray[Any] | None


def _one(images: ImageSet, position: int) -> _Whole:
    hr, lr = images.read(np.array([position]))
    placed = images.placed(np.array([position]))
    step = images.factor(position) if images.paired else 1
    return _Whole(hr[0], None if lr is None else lr[0], step, None if placed is None else placed[0])


def _cropped(whole: _Whole, recipe: Recipe, corners: NDArray[np.float64]) -> _Crop:
    """Cut at the first of the corners `(n, 2)` that has enough detail, or else at the one with the most."""
    best, most = None, -1.0
    for corner in corners:
        crop = _cut(whole, recipe, corner)
        if len(corners) == 1:
            return crop
        amount = detail(crop.hr)
        if amount > most:
            best, most = crop, amount
        if amount >= recipe.min_detail:
            break
    assert best is not None
    return best


def _cut(whole: _Whole, recipe: Recipe, corner: NDArray[np.float64]) -> _Crop:
    hr, lr, step = whole.hr, whole.lr, whole.step
    cuts = []
    for side, share in zip(hr.shape[-2:], corner, strict=True):
        kept = min(recipe.patch, side) if recipe.patch is not None else max(side - recipe.augment.shift, 1)
        kept -= kept % step  # a real LR pixel cannot be cut
        if kept == 0:
            raise UsageError(f"a patch of {recipe.patch} pixels is smaller than one LR pixel of these pairs ({step})")
        cuts.append((int(share * ((side - kept) // step + 1)) * step, kept))
    (top, rows), (left, columns) = cuts
    hr = hr[:, top : top + rows, left : left + columns]
    if lr is not None:
        lr = lr[:, top // step : (top + rows) // step, left // step : (left + columns) // step]
    placed = None if whole.placed is None else cut_target(whole.placed, top=top, left=left, rows=rows, columns=columns)
    return _Crop(hr, lr, placed)


def _turned(crop: _Crop, quarters: int) -> _Crop:
    """Turn HR and LR by quarters; by halves where the crop is not square, because a batch has one shape."""
    size = (crop.hr.shape[-2], crop.hr.shape[-1])
    quarters -= quarters % 2 if size[0] != size[1] else 0
    if not quarters:
        return crop
    return _Crop(
        torch.rot90(crop.hr, quarters, (-2, -1)),
        None if crop.lr is None else torch.rot90(crop.lr, quarters, (-2, -1)),
        None if crop.placed is None else turn_target(crop.placed, quarters, size),
    )
