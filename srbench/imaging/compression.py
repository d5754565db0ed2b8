"""Lossy codecs as a degradation: one image to bytes and back, by Pillow."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from srbench.errors import UsageError
from srbench.imaging.resample import to_uint8
from srbench.protocol import Codec

# Pillow's names of the codecs. One thread: AVIF's bytes may depend on how many there are.
_FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {"jpeg": ("JPEG", {}), "webp": ("WEBP", {}), "avif": ("AVIF", {"max_threads": 1})}
)


def encode(pixels: NDArray[np.uint8], codec: Codec, quality: int) -> bytes:
    """Encode `(H, W, 3)`, RGB, or `(H, W)`, grey, uint8, at a quality from 1 to 100, colour at half the resolution.

    Raises:
        UsageError: If this Pillow lacks the codec.
    """
    name, options = _FORMATS[codec]
    if codec != "jpeg" and not features.check(codec):
        raise UsageError(f"this Pillow cannot write {name}; install Pillow 11.3 or newer, or take the codec jpeg")
    with io.BytesIO() as stream:
        Image.fromarray(pixels).save(stream, name, quality=quality, **options)
        return stream.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode what `encode` has made to `(H, W, 3)`, RGB, or `(H, W)`, grey, uint8."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image if image.mode == "L" else image.convert("RGB"))


def compress(images: Tensor, codec: Codec, quality: int) -> Tensor:
    """Send `(N, 1 or 3, H, W)`, RGB or grey, float, through a codec: clamped, rounded to 8 bits, of the same dtype.

    Three equal channels stay equal, also where a codec knows no grey images and rounds its colours.
    """
    out = []
    for image in to_uint8(images).cpu():
        pixels = image.permute(1, 2, 0).numpy()
        grey = len(image) == 1 or bool((image[0] == image[1]).all() and (image[1] == image[2]).all())
        decoded = decode(encode(np.ascontiguousarray(pixels[..., 0] if grey else pixels), codec, quality))
        if grey and decoded.ndim == 3:
            decoded = np.rint(decoded.astype(np.float64).mean(axis=2)).astype(np.uint8)
        planes = decoded[None] if decoded.ndim == 2 else np.moveaxis(decoded, 2, 0)
        out.append(torch.from_numpy(np.broadcast_to(planes, image.shape).copy()))
    return torch.stack(out).to(images.device, images.dtype) / 255
