"""The image that `srbench bench` decodes where it times the way from files."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from srbench.imaging.resample import resize, to_uint8


def image_file(folder: Path, size: tuple[int, int]) -> Path:
    """Write a JPEG whose spectrum falls as a photograph's does, so that it takes as long to decode as one."""
    draws = torch.Generator().manual_seed(0)
    image, side = torch.full((1, 3, *size), 0.5), 2
    while side < 2 * max(size):
        octave = torch.randn(1, 3, side, side, generator=draws)
        image += 0.5 / side**0.75 * resize(octave, size, "bilinear")
        side *= 2
    path = folder / f"{size[0]}x{size[1]}.jpg"
    Image.fromarray(to_uint8(image)[0].permute(1, 2, 0).numpy()).save(path, quality=90)
    return path
