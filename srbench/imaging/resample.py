"""Every resampling kernel, once; degradations, baselines and the return to HR size share them.

Three kernels are called "bicubic" in the literature. Here `antialias=True` is Keys' with a = -0.5 (MATLAB's and
Pillow's, also when enlarging), `antialias=False` is a = -0.75 (OpenCV's), and `pillow_bicubic` is Pillow on 8 bits,
which clamps between its two passes.

Every kernel computes in float32 at least, whatever the precision of the run: a bfloat16 image is widened first, and
autocast and TF32 are off inside. Weights rounded to 8 bits would no longer sum to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.compute.numerics import full_precision
from srbench.errors import ContractError

_LANCZOS_SUPPORT = 3.0


class Matrices(nn.Module):
    """The matrices that stand for `resize` in an exported graph: constants, equal in every runtime.

    A run of the network with `as_matrices` makes those that it needs; a trace of it then finds them as buffers.
    """

    def of(self, source: int, target: int, kernel: str, *, antialias: bool, border: str) -> Tensor:
        """Return the `(target, source)` matrix, float32, of one direction; the arguments are those of `resize`."""
        name = f"{kernel}_{'wide' if antialias else 'plain'}_{border}_{source}_to_{target}"
        if name not in self._buffers:
            self.register_buffer(name, resize_matrix(source, target, kernel, antialias=antialias, border=border))
        return getattr(self, name)


_matrices: ContextVar[Matrices | None] = ContextVar("matrices", default=None)


@contextmanager
def as_matrices(matrices: Matrices) -> Iterator[None]:
    """Have `resize` multiply by constant matrices inside the block, which are taken from `matrices` or added to it."""
    before = _matrices.set(matrices)
    try:
        yield
    finally:
        _matrices.reset(before)


def resize_matrix(source: int, target: int, kernel: str, *, antialias: bool, border: str = "clamp") -> Tensor:
    """Return what `resize` does to one direction, `(target, source)` float32: its responses to the unit vectors."""
    # float32, so that the weights are to the last bit those that an image meets
    unit = torch.eye(source)[None, None]
    return _resize(unit, (target, source), kernel, antialias=antialias, border=border)[0, 0]


def resize(
    image: Tensor, size: tuple[int, int], kernel: str, *, antialias: bool = True, border: str = "clamp"
) -> Tensor:
    """Resample `(N, C, H, W)`, any float dtype and range, to `(N, C, *size)` of that dtype; it may overshoot the range.

    Args:
        image: The batch.
        size: Target (height, width) in pixels.
        kernel: "nearest", "area", "bilinear", "bicubic" or "lanczos".
        antialias: Widen the kernel when shrinking; for "bicubic" it also chooses a = -0.5 over a = -0.75. It has no
            meaning for "nearest" and "area"; "lanczos" is always widened.
        border: "clamp" renormalises the kernel at the border, "symmetric" mirrors the image there, as MATLAB does.

    Raises:
        ValueError: If the kernel or the border is unknown.
    """
    if _is_half(image):
        return resize(image.float(), size, kernel, antialias=antialias, border=border).to(image.dtype)
    matrices = _matrices.get()
    if matrices is not None:
        rows, columns = (
            matrices.of(source, target, kernel, antialias=antialias, border=border)
            for source, target in zip(image.shape[-2:], size, strict=True)
        )
        # Along rows first, as torch does: antialiased bilinear and bicubic then come out equal to the last bit. Else a
        # value halfway between two levels of 8 bits may be rounded the other way, and logits move by a hundredth.
        return rows @ (image @ columns.T)
    return _resize(image, size, kernel, antialias=antialias, border=border)


def _resize(image: Tensor, size: tuple[int, int], kernel: str, *, antialias: bool, border: str) -> Tensor:
    if border == "symmetric":
        return _resize_symmetric(image, size, kernel, antialias=antialias)
    if border != "clamp":
        raise ValueError(f"border must be 'clamp' or 'symmetric', got {border!r}")
    if kernel == "nearest":
        return F.interpolate(image, size=size, mode="nearest-exact")
    if kernel == "area":
        return F.interpolate(image, size=size, mode="area")
    if kernel in {"bilinear", "bicubic"}:
        return F.interpolate(image, size=size, mode=kernel, antialias=antialias, align_corners=False)
    if kernel == "lanczos":
        return _lanczos(image, size)
    raise ValueError(f"kernel must be nearest, area, bilinear, bicubic or lanczos, got {kernel!r}")


def pillow_bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample `(N, 3, H, W)`, RGB, float, [0, 1], to `(N, 3, *size)` on 8 bits by Pillow's bicubic.

    Raises:
        ContractError: Inside `as_matrices`.
    """
    from PIL import Image

    if _matrices.get() is not None:
        raise ContractError("Pillow's bicubic runs in Pillow, on 8 bits, and no matrix does the same")

    planes = to_uint8(image).permute(0, 2, 3, 1).cpu().numpy()
    height, width = size
    out = [
        torch.from_numpy(_writable(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)))
        for plane in planes
    ]
    return torch.stack(out).permute(0, 3, 1, 2).to(image.device, image.dtype).contiguous() / 255


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur `(N, C, H, W)` by a Gaussian of `sigma` pixels, cut at 4 sigma, the border mirrored; the dtype stays."""
    radius = min(max(1, math.ceil(4 * sigma)), image.shape[-1] - 1, image.shape[-2] - 1)
    if sigma == 0 or radius < 1:
        return image
    padded = F.pad(image, (radius, radius, radius, radius), mode="reflect")
    return gaussian_filter(padded, radius, sigma)


def gaussian_filter(image: Tensor, radius: int, sigma: float, *, padding: int = 0) -> Tensor:
    """Filter `(N, C, H, W)` with `2 * radius + 1` taps of a Gaussian in each direction; the dtype stays.

    Args:
        image: The batch; each side loses `2 * (radius - padding)` pixels.
        radius: Where the Gaussian is cut, pixels.
        sigma: Its standard deviation, pixels.
        padding: Zeros around the image, pixels.
    """
    if _is_half(image):
        return gaussian_filter(image.float(), radius, sigma, padding=padding).to(image.dtype)
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    channels = image.shape[1]
    columns = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    with full_precision(image.device):
        image = F.conv2d(image, columns, padding=(0, padding), groups=channels)
        return F.conv2d(image, rows, padding=(padding, 0), groups=channels)


def to_uint8(image: Tensor) -> Tensor:
    """Clamp [0, 1] floats and round them to 0..255 (half to even), uint8."""
    return image.clamp(0, 1).mul_(255).round_().to(torch.uint8)


def _writable(image: object) -> object:
    import numpy as np

    return np.array(image)


def _resize_symmetric(image: Tensor, size: tuple[int, int], kernel: str, *, antialias: bool) -> Tensor:
    # Mirror by a number of source pixels that maps to a whole number of target pixels, resample, cut that off again:
    # inside the padding the kernel never meets a border, so the result is MATLAB's.
    pads, cuts, targets = [], [], []
    for side, target in zip(image.shape[-2:], size, strict=True):
        step = side // math.gcd(side, target)
        reach = math.ceil(4 * max(1.0, side / target))
        pad = step * math.ceil(reach / step)
        pads.append(pad)
        cuts.append(pad * target // side)
        targets.append(target + 2 * (pad * target // side))
    padded = _mirror(_mirror(image, pads[0], dim=-2), pads[1], dim=-1)
    out = _resize(padded, (targets[0], targets[1]), kernel, antialias=antialias, border="clamp")
    return out[..., cuts[0] : cuts[0] + size[0], cuts[1] : cuts[1] + size[1]]


def _mirror(image: Tensor, pad: int, *, dim: int) -> Tensor:
    side = image.shape[dim]
    index = torch.arange(-pad, side + pad, device=image.device) % (2 * side)
    return image.index_select(dim, torch.where(index < side, index, 2 * side - 1 - index))


def _is_half(image: Tensor) -> bool:
    return image.dtype in (torch.bfloat16, torch.float16)


def _lanczos(image: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (
        torch.from_numpy(_lanczos_weights(source, target)).to(image)
        for source, target in zip(image.shape[-2:], size, strict=True)
    )
    with full_precision(image.device):
        return rows @ image @ columns.T


@lru_cache(maxsize=64)
def _lanczos_weights(source: int, target: int) -> NDArray[np.float64]:
    """Return the `(target, source)` matrix of Lanczos-3 resampling, widened when shrinking, rows summing to one."""
    ratio = source / target
    stretch = max(1.0, ratio)
    centres = (np.arange(target) + 0.5) * ratio - 0.5
    distance = (np.arange(source)[None, :] - centres[:, None]) / stretch
    taps = np.sinc(distance) * np.sinc(distance / _LANCZOS_SUPPORT) * (np.abs(distance) < _LANCZOS_SUPPORT)
    return taps / taps.sum(axis=1, keepdims=True)
