"""From a decoded image to HR: shortest side, centre crop, modulo crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from srbench.errors import UnreadableImageError
from srbench.protocol import Geometry

# Pillow refuses to open larger images; an extreme aspect ratio must not become one by resizing either.
_MAX_PIXELS = 178_956_970

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_TENSOR = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


@dataclass(frozen=True)
class Placement:
    """Where HR lies in a decoded image: the image is resized, then a window of it is kept.

    Attributes:
        source: Height and width of the decoded image, pixels.
        resized: Height and width after resizing.
        top: First row of the window.
        left: First column of the window.
        rows: Height of HR.
        columns: Width of HR.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int


def placement(height: int, width: int, geometry: Geometry, *, name: str = "the image") -> Placement:
    """Return where HR lies in an image of this height and width, pixels.

    Sizes and offsets round as torchvision's `Resize(int)` and `CenterCrop` do.

    Args:
        height: Height of the decoded image.
        width: Its width.
        geometry: Shortest side, then centre crop, then crop to a multiple, from the top left.
        name: What error messages call the image.

    Raises:
        UnreadableImageError: If the crop does not fit into it, or nothing is left of it.
    """
    resized = (height, width)
    if geometry.resize is not None:
        resized = resized_size(height, width, geometry.resize)
        if resized[0] * resized[1] > _MAX_PIXELS and resized != (height, width):
            raise UnreadableImageError(
                f"{name} is {height} x {width} pixels, too long for a shortest side of {geometry.resize}:"
                f" it would become {resized[0]} x {resized[1]}"
            )
    rows, columns = resized
    top = left = 0
    if geometry.crop is not None:
        if rows < geometry.crop or columns < geometry.crop:
            raise UnreadableImageError(
                f"{name} is {rows} x {columns} pixels after resizing, smaller than the centre crop of {geometry.crop}"
            )
        top, left = round((rows - geometry.crop) / 2.0), round((columns - geometry.crop) / 2.0)
        rows = columns = geometry.crop
    kept = rows - rows % geometry.modulo, columns - columns % geometry.modulo
    if not all(kept):
        raise UnreadableImageError(
            f"{name} is {rows} x {columns} pixels; nothing is left of it"
            f" when it is cropped to a multiple of {geometry.modulo}"
        )
    return Placement((height, width), resized, top, left, *kept)


def crop_hr(image: Tensor, geometry: Geometry, *, name: str = "the image") -> Tensor:
    """Bring `(3, H, W)`, RGB, uint8 to the geometry's `(3, h, w)`, RGB, uint8.

    Args:
        image: A decoded image.
        geometry: As in `placement`, with the kernel of its resize.
        name: What error messages call it.

    Raises:
        UnreadableImageError: If the crop does not fit into it, or nothing is left of it.
    """
    return place_image(image, placement(image.shape[-2], image.shape[-1], geometry, name=name), geometry)


def place_image(image: Tensor, placed: Placement, geometry: Geometry) -> Tensor:
    """Resize `(3, H, W)`, RGB, uint8, by the geometry's kernel, and keep the window."""
    window = _resize(image, placed.resized, geometry)
    return window[:, placed.top : placed.top + placed.rows, placed.left : placed.left + placed.columns].contiguous()


def resized_size(height: int, width: int, shortest: int) -> tuple[int, int]:
    """Return (height, width) in pixels once the shortest side is `shortest`; the long side is rounded down."""
    if height <= width:
        return shortest, int(shortest * width / height)
    return int(shortest * height / width), shortest


def _resize(image: Tensor, size: tuple[int, int], geometry: Geometry) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    if geometry.engine == "tensor":
        return functional.resize(image, list(size), interpolation=_TENSOR[geometry.kernel], antialias=True)
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    resized = pixels.resize((size[1], size[0]), _PILLOW[geometry.kernel])
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
