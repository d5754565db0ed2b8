"""Metrics of one restored image against HR: mean squared error, PSNR and SSIM.

The functions stay on the device and never wait for it, so that the pass that scores can call them for every batch.
Importing torch takes seconds, so those who only make tables do without: functions of tensors import it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from srbench.errors import ContractError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Channels = Literal["rgb", "y"]

# What an image counts at most in a mean of PSNR. An exact image has an infinite one; a mean without the exact images
# would rank a method by its worse ones alone. 100 dB is one grey level in one value of an RGB image of 226 x 226.
PSNR_CAP_DB = 100.0
# ITU-R BT.601, limited range, on inputs in [0, 1] (numerators of 1/255).
_LUMA_WEIGHTS = (65.481, 128.553, 24.966)
_LUMA_OFFSET = 16.0
# The window of Wang et al. (2004): 11 taps, sigma 1.5.
_SSIM_RADIUS = 5
_SSIM_SIGMA = 1.5
_SSIM_K1 = 0.01
_SSIM_K2 = 0.03
# Values filtered at a time: on a CPU what stays in its cache (4 times as fast), on an accelerator what fits easily.
_SSIM_CHUNK_CPU = 2**20
_SSIM_CHUNK_DEVICE = 2**27
# Rows or columns that one product makes: a larger matrix holds more zeros, a smaller one costs more calls.
_SSIM_BLOCK = 32


def to_y(rgb: Tensor) -> Tensor:
    """Turn (N, 3, H, W), RGB, float, [0, 1] into its luma (N, 1, H, W), float, [16/255, 235/255].

    BT.601 limited range, as MATLAB's `rgb2ycbcr` and the super-resolution literature; full-range luma is
    about 1.3 dB off.

    Args:
        rgb: The images.

    Raises:
        ContractError: If `rgb` is not a batch of three-channel images.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ContractError(
            f"expected RGB images of shape (N, 3, H, W) to take the luma of, got {tuple(rgb.shape)}; "
            "repeat grey images to three channels first"
        )
    rgb = full_precision(rgb)
    red, green, blue = rgb.unbind(dim=1)
    r, g, b = _LUMA_WEIGHTS
    return ((r * red + g * green + b * blue + _LUMA_OFFSET) / 255.0).unsqueeze(1)


def _full_range(luma: Tensor) -> Tensor:
    """Turn luma in [16/255, 235/255] into [0, 1]; that of three equal channels is the channel itself."""
    return (luma * 255.0 - _LUMA_OFFSET) / sum(_LUMA_WEIGHTS)


@dataclass(frozen=True)
class _Window:
    """What SSIM needs of HR alone, where x is HR less one half and m its mean under the window.

    Attributes:
        square: x^2, `(N, C, H, W)`.
        twice: 2 x, of the same shape.
        twice_mean: 2 m, `(N, C, H - 10, W - 10)`.
        spread: m^2 - c2, of that shape.
        twice_shifted: 2 (m + 1/2), of that shape.
        shifted_square: (m + 1/2)^2 + c1, of that shape.
    """

    square: Tensor
    twice: Tensor
    twice_mean: Tensor
    spread: Tensor
    twice_shifted: Tensor
    shifted_square: Tensor


class HrStatistics:
    """HR `(N, C, H, W)`, float, [0, 1], against which any number of SR are held; its own part is computed once."""

    def __init__(
        self, hr: Tensor, *, channels: Channels = "rgb", crop_border: int = 0, grey: Tensor | None = None
    ) -> None:
        """Take the original images.

        Args:
            hr: The original images; not written to, and not to be changed by others afterwards.
            channels: "rgb" takes every channel as it is, "y" the luma of `to_y`.
            grey: `(N,)` bool, on any device: which images are stored with one channel. Under "y" such an image is Y
                itself, in [0, 1], as MATLAB takes it; None is none.
            crop_border: Pixels shaved from each side; where nothing is left, every value is nan.

        Raises:
            ContractError: If `hr` is no batch of images.
            UsageError: If `channels` or `crop_border` is not one of the above.
        """
        if channels not in ("rgb", "y"):
            raise UsageError(f"expected channels 'rgb' or 'y', got {channels!r}")
        if crop_border < 0:
            raise UsageError(f"expected a crop_border of at least 0 pixels, got {crop_border}")
        if hr.ndim != 4:
            raise ContractError(f"expected hr of the shape (N, C, H, W), got {tuple(hr.shape)}")
        self._shape, self._channels, self._crop_border = hr.shape, channels, crop_border
        self._grey = None if grey is None else grey.to(hr.device).reshape(-1, 1, 1, 1)
        self._hr = self._compared(hr)
        self._windows: list[_Window] = []  # of each part of the batch, made by the first call of `ssim`

    def pair(self, sr: Tensor) -> ImagePair:
        """Hold `sr`, of the shape of HR, float, [0, 1], against HR; what several metrics share is computed once.

        Raises:
            ContractError: If `sr` has another shape.
        """
        return ImagePair(self, self._taken(sr), self._hr)

    def mse(self, sr: Tensor) -> Tensor:
        """Mean squared error of each image of `sr`, of the shape of HR, float, [0, 1]: (N,), float64, data range 1.

        Raises:
            ContractError: If `sr` has another shape.
        """
        return self.pair(sr).mse

    def ssim(self, sr: Tensor) -> Tensor:
        """SSIM of each image of `sr`, of the shape of HR, float, [0, 1]: (N,), float64; see `ssim_per_image`.

        No gradient passes through it.

        Raises:
            ContractError: If `sr` has another shape.
        """
        return self.pair(sr).ssim

    def _ssim(self, sr: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            count = len(sr)
            if min(sr.shape[-2:]) < 2 * _SSIM_RADIUS + 1:
                return torch.full((count,), math.nan, dtype=torch.float64, device=sr.device)
            budget = _SSIM_CHUNK_CPU if sr.device.type == "cpu" else _SSIM_CHUNK_DEVICE
            step = max(1, budget // (4 * sr[:1].numel())) if count else 1
            if not self._windows:
                self._windows = [_window_of(part) for part in self._hr.split(step)]
            parts = [_ssim_chunk(part, window) for part, window in zip(sr.split(step), self._windows, strict=True)]
            return torch.cat(parts).double()

    def _taken(self, sr: Tensor) -> Tensor:
        if sr.ndim != 4 or sr.shape != self._shape:
            raise ContractError(
                f"expected sr of the shape (N, C, H, W) of hr, {tuple(self._shape)}, got {tuple(sr.shape)}; "
                "return to the HR size before scoring"
            )
        return self._compared(sr)

    def _compared(self, image: Tensor) -> Tensor:
        """Return the pixels that are compared, in full precision."""
        height, width = image.shape[-2:]
        border = self._crop_border
        rows = slice(border, max(border, height - border))
        columns = slice(border, max(border, width - border))
        image = image[..., rows, columns]
        if self._channels == "rgb":
            return full_precision(image)
        luma = to_y(image)
        return luma if self._grey is None else luma.where(~self._grey, _full_range(luma))


@dataclass(frozen=True)
class ImagePair:
    """A batch of SR against its HR, as far as the protocol compares them.

    Attributes:
        statistics: HR with what was computed of it alone.
        sr: The compared pixels of SR `(N, C, H, W)`, float32 or float64, [0, 1], on the device.
        hr: Those of HR, of the same shape.
    """

    statistics: HrStatistics
    sr: Tensor
    hr: Tensor

    @cached_property
    def mse(self) -> Tensor:
        """Mean squared error of each image: (N,), float64, data range 1."""
        difference = self.sr - self.hr
        return (difference * difference).mean(dim=(1, 2, 3)).double()

    @property
    def psnr(self) -> Tensor:
        """PSNR of each image in dB: (N,), float64, inf where it is exact."""
        return psnr_from_mse(self.mse)

    @property
    def ssim(self) -> Tensor:
        """SSIM of each image: (N,), float64; see `ssim_per_image`. No gradient passes through it."""
        return self.statistics._ssim(self.sr)


def mse_per_image(
    sr: Tensor, hr: Tensor, *, channels: Channels = "rgb", crop_border: int = 0, grey: Tensor | None = None
) -> Tensor:
    """Mean squared error of each image of (N, C, H, W), float, [0, 1]: (N,), float64, data range 1.

    Args:
        sr: The restored images. For "y" the convention is SR rounded to 8 bits; the caller has done that.
        hr: The original images, of the same shape.
        channels: "rgb" takes every channel as it is, "y" the luma of `to_y`.
        crop_border: Pixels shaved from each side; where nothing is left, the value is nan.
        grey: Which images are stored with one channel; see `HrStatistics`.

    Raises:
        ContractError: If the shapes differ or are not those of a batch of images.
        UsageError: If `channels` or `crop_border` is not one of the above.
    """
    return HrStatistics(hr, channels=channels, crop_border=crop_border, grey=grey).mse(sr)


def psnr_from_mse(mse: Tensor) -> Tensor:
    """PSNR in dB of each mean squared error of (N,), data range 1: (N,), inf where the error is zero."""
    return -10.0 * mse.log10()


@dataclass(frozen=True)
class PooledPsnr:
    """The mean over batches of the PSNR of the pooled error.

    Attributes:
        value: Mean in dB over the batches, each at `PSNR_CAP_DB` at most; inf where every batch is without error.
        n: Number of complete batches.
        n_images: Number of images in them.
        n_infinite: Number of batches without any error.
    """

    value: float
    n: int
    n_images: int
    n_infinite: int


def psnr_pooled(mse: NDArray[np.floating], batch_size: int) -> PooledPsnr:
    """Mean over consecutive batches of the PSNR of their pooled error (`darionet-2021`'s convention).

    Pooling the error before the logarithm gives another number than the mean over images, over a decibel lower
    on photographs. The incomplete last batch is left out.

    Args:
        mse: Per-image mean squared errors (n,), data range 1, in sample order, of images of one size.
        batch_size: Images in a batch.

    Raises:
        UsageError: If `batch_size` is below one or there is no complete batch.
    """
    if batch_size < 1:
        raise UsageError(f"expected a batch size of at least 1 for the pooled PSNR, got {batch_size}")
    values = np.asarray(mse, dtype=np.float64)
    n = len(values) // batch_size
    if n == 0:
        raise UsageError(
            f"a PSNR pooled over batches of {batch_size} needs at least {batch_size} images, got {len(values)}; "
            "take more images or a protocol whose PSNR is per image"
        )
    pooled = values[: n * batch_size].reshape(n, batch_size).mean(axis=1)
    with np.errstate(divide="ignore"):
        psnr = -10.0 * np.log10(pooled)
    infinite = np.isinf(psnr)
    value = float(np.minimum(psnr, PSNR_CAP_DB).mean()) if not infinite.all() else math.inf
    return PooledPsnr(value=value, n=n, n_images=n * batch_size, n_infinite=int(infinite.sum()))


def ssim_per_image(sr: Tensor, hr: Tensor, *, channels: Channels = "rgb", crop_border: int = 0) -> Tensor:
    """SSIM of each image of (N, C, H, W), float, [0, 1]: (N,), float64; over RGB the mean of the channels.

    The mean of the map where the whole 11 x 11 window lies inside the image, equal to scikit-image's
    `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)`.
    Averaging the padded border too, as some libraries do, gives lower values.

    Args:
        sr: The restored images; for "y" rounded to 8 bits by the caller.
        hr: The original images, of the same shape.
        channels: "rgb" takes every channel as it is, "y" the luma of `to_y`.
        crop_border: Pixels shaved from each side first. Where a side under 11 is left, the value is nan.

    Raises:
        ContractError: If the shapes differ or are not those of a batch of images.
        UsageError: If `channels` or `crop_border` is not one of the above.
    """
    return HrStatistics(hr, channels=channels, crop_border=crop_border).ssim(sr)


def full_precision(values: Tensor) -> Tensor:
    """Half precision would decide the second decimal of a PSNR; float64 is left as it is."""
    import torch

    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _window_of(hr: Tensor) -> _Window:
    # Variances as E[x^2] - E[x]^2 lose digits where x is far from zero; they do not change under a shift.
    image = hr - 0.5
    mean = _gaussian_valid(image)
    shifted = mean + 0.5
    return _Window(
        square=image * image,
        twice=image * 2.0,
        twice_mean=mean * 2.0,
        spread=mean * mean - _SSIM_K2**2,
        twice_shifted=shifted * 2.0,
        shifted_square=shifted * shifted + _SSIM_K1**2,
    )


def _ssim_chunk(sr: Tensor, hr: _Window) -> Tensor:
    """SSIM (N,) of two batches (N, C, H, W), float, [0, 1], both sides at least 11.

    Every map is passed over as seldom as possible, since on a CPU that is what takes the time.
    """
    import torch

    maps = sr.new_empty((3, *sr.shape))
    image = torch.sub(sr, 0.5, out=maps[0])
    torch.addcmul(hr.square, image, image, out=maps[1])
    torch.mul(image, hr.twice, out=maps[2])
    mean, squares, products = _gaussian_valid(maps).unbind(0)
    # twice the covariance plus c2, and both variances plus c2
    structure = products.sub_(mean * hr.twice_mean).add_(_SSIM_K2**2)
    variances = squares.addcmul_(mean, mean, value=-1.0).sub_(hr.spread)
    # back from the shift: (a + 1/2) (b + 1/2), and the same for the squares
    mean.add_(0.5)
    numerator = structure.mul_((mean * hr.twice_shifted).add_(_SSIM_K1**2))
    denominator = variances.mul_(torch.addcmul(hr.shifted_square, mean, mean))
    return numerator.div_(denominator).mean(dim=(1, 2, 3))


def _gaussian_valid(maps: Tensor) -> Tensor:
    """Filter the last two dimensions with the SSIM window, where it lies inside: each side loses 5 pixels.

    No convolution: neither TF32 nor autocast, which would take effect inside it, can lower the precision. A CPU
    multiplies by small matrices, which takes a third of the time of sums of shifted copies, unless the process lets it
    multiply in less than float32.
    """
    import torch

    if maps.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest":
        with torch.autocast("cpu", enabled=False):
            return _by_products(maps)
    return _by_sums(maps)


def _by_products(maps: Tensor) -> Tensor:
    """Filter `(..., H, W)` on a CPU by products of blocks with the matrix of the window."""
    import torch

    height, width = maps.shape[-2:]
    rows_out, columns_out = height - 2 * _SSIM_RADIUS, width - 2 * _SSIM_RADIUS
    matrix = _window_matrix(maps.dtype)
    lines = maps.reshape(-1, width)
    along = lines.new_empty(len(lines), columns_out)
    for block, taken, window in _blocks(columns_out, matrix):
        torch.mm(lines[:, taken], window.T, out=along[:, block])
    planes = along.view(-1, height, columns_out)
    filtered = planes.new_empty(len(planes), rows_out, columns_out)
    for block, taken, window in _blocks(rows_out, matrix):
        torch.bmm(window.expand(len(planes), -1, -1), planes[:, taken], out=filtered[:, block])
    return filtered.view(*maps.shape[:-2], rows_out, columns_out)


def _blocks(count: int, matrix: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield which outputs each product makes, from which inputs, and its part of the matrix."""
    for start in range(0, count, _SSIM_BLOCK):
        size = min(_SSIM_BLOCK, count - start)
        reach = size + 2 * _SSIM_RADIUS
        yield slice(start, start + size), slice(start, start + reach), matrix[:size, :reach]


@cache
def _window_matrix(dtype: torch.dtype) -> Tensor:
    """Return the matrix that filters so many inputs that `_SSIM_BLOCK` outputs are left."""
    import torch

    taps = _window_taps()
    window = torch.tensor([*taps[:0:-1], *taps], dtype=dtype)
    matrix = torch.zeros(_SSIM_BLOCK, _SSIM_BLOCK + 2 * _SSIM_RADIUS, dtype=dtype)
    for row in range(_SSIM_BLOCK):
        matrix[row, row : row + len(window)] = window
    return matrix


def _by_sums(maps: Tensor) -> Tensor:
    """Filter `(..., H, W)` by sums of shifted copies."""
    taps = _window_taps()
    for dim in (-2, -1):
        size = maps.shape[dim] - 2 * _SSIM_RADIUS
        filtered = maps.narrow(dim, _SSIM_RADIUS, size) * taps[0]
        for offset in range(1, _SSIM_RADIUS + 1):
            pair = maps.narrow(dim, _SSIM_RADIUS - offset, size) + maps.narrow(dim, _SSIM_RADIUS + offset, size)
            filtered = filtered.add_(pair, alpha=taps[offset])
        maps = filtered
    return maps


def _window_taps() -> list[float]:
    """Return the weights of the window from its middle outwards."""
    taps = [math.exp(-0.5 * (offset / _SSIM_SIGMA) ** 2) for offset in range(_SSIM_RADIUS + 1)]
    total = taps[0] + 2.0 * sum(taps[1:])
    return [tap / total for tap in taps]
