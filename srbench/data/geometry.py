"""From a decoded image to HR: shortest side, centre crop, modulo crop."""

from __future__ import annotations

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


def crop_hr(image: Tensor, geometry: Geometry, *, name: str = "the image") -> Tensor:
    """Bring `(3, H, W)`, RGB, uint8 to the geometry's `(3, h, w)`, RGB, uint8.

    Sizes and offsets round as torchvision's `Resize(int)` and `CenterCrop` do.

    Args:
        image: A decoded image.
        geometry: Shortest side, then centre crop, then crop to a multiple, from the top left.
        name: What error messages call it.

    Raises:
        UnreadableImageError: If the crop does not fit into it, or nothing is left of it.
    """
    height, width = image.shape[-2:]
    if geometry.resize is not None:
        image = _resize(image, resized_size(height, width, geometry.resize), geometry, name)
    if geometry.crop is not None:
        image = _centre_crop(image, geometry.crop, name)
    if geometry.modulo > 1:
        rows, columns = (side - side % geometry.modulo for side in image.shape[-2:])
        if rows == 0 or columns == 0:
            raise UnreadableImageError(
                f"{name} is {_size(image)} pixels; nothing is left of it"
                f" when it is cropped to a multiple of {geometry.modulo}"
            )
        image = image[:, :rows, :columns]
    return image.contiguous()


def resized_size(height: int, width: int, shortest: int) -> tuple[int, int]:
    """Return (height, width) in pixels once the shortest side is `shortest`; the long side is rounded down."""
    if height <= width:
        return shortest, int(shortest * width / height)
    return int(shortest * height / width), shortest


def _resize(image: Tensor, size: tuple[int, int], geometry: Geometry, name: str) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    if size[0] * size[1] > _MAX_PIXELS:
        raise UnreadableImageError(
            f"{name} is {_size(image)} pixels, too long for a shortest side of {geometry.resize}:"
            f" it would become {size[0]} x {size[1]}"
        )
    if geometry.engine == "tensor":
        return functional.resize(image, list(size), interpolation=_TENSOR[geometry.kernel], antialias=True)
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    resized = pixels.resize((size[1], size[0]), _PILLOW[geometry.kernel])
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _centre_crop(image: Tensor, crop: int, name: str) -> Tensor:
    height, width = image.shape[-2:]
    if height < crop or width < crop:
        raise UnreadableImageError(
            f"{name} is {_size(image)} pixels after resizing, smaller than the centre crop of {crop}"
        )
    top, left = round((height - crop) / 2.0), round((width - crop) / 2.0)
    return image[:, top : top + crop, left : left + crop]


def _size(image: Tensor) -> str:
    return f"{image.shape[-2]} x {image.shape[-1]}"
