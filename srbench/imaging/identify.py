"""Which resize a user's own pipeline does: known images go in, and what comes out is held against every known resize.

A hypothesis is a kernel, antialiasing, a grid and a rounding. Its prediction is fitted to the result by one gain and
one offset a channel, which are the pipeline's scale, mean and standard deviation, in RGB and in BGR.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srbench.errors import DataError

Floats = NDArray[np.float64]
Grid = Literal["half-pixel", "align_corners", "corner"]
Rounding = Literal["none", "clamped", "8 bits, rounded", "8 bits, truncated", "8 bits between the passes (Pillow)"]

_KERNELS: Mapping[str, tuple[float, Callable[[Floats], Floats]]] = {  # support and values, in source pixels
    "bilinear": (1.0, lambda x: np.maximum(0, 1 - np.abs(x))),
    "bicubic, a = -0.5": (2.0, lambda x: _keys(x, -0.5)),
    "bicubic, a = -0.75": (2.0, lambda x: _keys(x, -0.75)),
    "lanczos, 3 lobes": (3.0, lambda x: np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3)),
    "lanczos, 4 lobes": (4.0, lambda x: np.sinc(x) * np.sinc(x / 4) * (np.abs(x) < 4)),
    "hamming": (1.0, lambda x: np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)) * (np.abs(x) < 1)),
}
_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic, a = -0.5": Image.Resampling.BICUBIC,
    "lanczos, 3 lobes": Image.Resampling.LANCZOS,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
}
_GRIDS: tuple[Grid, ...] = ("half-pixel", "align_corners", "corner")
# Largest and mean difference that is still the same resize, in steps of 8 bits. A library that rounds computes in
# integers, so some values fall on the other side; one that does not differs in the last digits of float32.
_EXACT, _ROUNDED = (0.02, 0.005), (1.6, 0.35)
_MEANS = {
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "Inception's mean and std": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "CLIP's mean and std": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "no mean, no std: [0, 1]": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "no mean, no std: [0, 255]": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "Caffe's mean, no std": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True)
class Identified:
    """What a pipeline does.

    Attributes:
        kernel: Such as "bicubic, a = -0.5".
        antialias: Whether the kernel is widened when shrinking; None where the pipeline enlarges, which shows nothing.
        grid: "half-pixel" (centres of pixels), "align_corners", or "corner": half a pixel off.
        rounding: What is done to the values before they are normalised.
        order: "RGB" or "BGR".
        mean: Mean that is subtracted, by channel of the output, of a range of [0, 1].
        std: What is divided by then.
        largest: Largest difference from the prediction, in steps of 8 bits.
    """

    kernel: str
    antialias: bool | None
    grid: Grid
    rounding: Rounding
    order: Literal["RGB", "BGR"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    largest: float

    @property
    def normalisation(self) -> str:
        """Name the mean and the std, or give the numbers."""
        for name, (mean, std) in _MEANS.items():
            for order, step in (("RGB", 1), ("BGR", -1)):
                if np.allclose(self.mean, mean[::step], atol=3e-3) and np.allclose(self.std, std[::step], rtol=0.01):
                    wrong = order != self.order and len(set(mean)) > 1
                    return f"{name}, in the order {order} on {self.order} channels: wrong" if wrong else name
        numbers = [", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std)]
        return f"mean ({numbers[0]}), std ({numbers[1]}), which no known network has"

    def lines(self) -> list[tuple[str, str]]:
        """Return what is found, as pairs of a word and its value."""
        antialias = {None: "not seen: the pipeline enlarges", True: "yes", False: "no"}[self.antialias]
        offset = {
            "half-pixel": "none (centres of pixels)",
            "align_corners": "the outer pixels lie on each other (align_corners)",
            "corner": "half a pixel off (the corners of pixels are taken for their centres)",
        }
        return [
            ("kernel", self.kernel),
            ("antialias", antialias),
            ("offset", offset[self.grid]),
            ("rounding", self.rounding),
            ("channel order", self.order),
            ("scale", self.normalisation),
            ("largest difference", f"{self.largest:.3g} steps of 8 bits"),
        ]


def test_images(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Return the images that are sent, `(height, width, 3)`, RGB, uint8: noise, smooth colours, lines and dots.

    Every channel differs from the others, and values reach both ends, so that clamping and channel order show.
    """
    random = np.random.default_rng(20240229)
    noise = random.integers(0, 256, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    smooth = np.stack([255 * (0.5 + 0.5 * np.sin(9 * x + 5 * y + k) * np.cos(4 * y * (k + 1))) for k in range(3)], -1)
    drawn = np.zeros((height, width, 3))
    for channel in range(3):
        drawn[:: 5 + channel, :, channel] = 255
        drawn[:, :: 7 + channel, channel] = 160
    return [image.round().astype(np.uint8) for image in (noise.astype(float), smooth, drawn)]


test_images.__test__ = False  # type: ignore[attr-defined]  # its name is no test's


def identify(images: Sequence[NDArray[np.uint8]], results: Sequence[NDArray[np.generic]]) -> Identified | None:
    """Return what turned the images into the results, or None where no known resize does.

    Args:
        images: What was sent, `(H, W, 3)`, RGB, uint8.
        results: What came back, `(h, w, 3)`, `(3, h, w)` or either with a batch of one, any type and range.

    Raises:
        DataError: If a result is no image, or all of them keep their size, so that nothing was resized.
    """
    outputs = [_as_image(result) for result in results]
    if len({output.shape for output in outputs}) > 1:
        raise DataError("the pipeline returned images of several sizes for images of one size; expected one size")
    source, target = images[0].shape[:2], outputs[0].shape[:2]
    if source == target:
        raise DataError(
            f"the pipeline returned images of {target[0]} x {target[1]} pixels as they were sent, so nothing was"
            " resized; choose another size with --size HxW"
        )
    found: list[tuple[float, Identified]] = []
    for kernel, antialias, grid, rounding, predicted in _hypotheses(images, target):
        for order, step in (("RGB", 1), ("BGR", -1)):
            fit = _fit([image[..., ::step] for image in predicted], outputs)
            if fit is None:
                continue
            gain, offset, largest, mean = fit
            bounds = _ROUNDED if rounding.startswith("8 bits") else _EXACT
            if largest > bounds[0] or mean > bounds[1]:
                continue
            std = 1 / (gain * 255)
            seen = Identified(
                kernel,
                antialias,
                grid,
                rounding,
                "RGB" if order == "RGB" else "BGR",
                tuple(float(value) for value in -offset * std),
                tuple(float(value) for value in std),
                largest,
            )
            found.append((mean, seen))
    if not found:
        return None
    least = min(mean for mean, _ in found)
    # the first of those that nothing tells apart is the simplest
    return next(seen for mean, seen in found if mean <= least + 1e-4)


def _as_image(result: NDArray[np.generic]) -> Floats:
    pixels = np.asarray(result)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 3 and pixels.shape[2] != 3 and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not np.issubdtype(pixels.dtype, np.number):
        raise DataError(
            f"a result has shape {np.asarray(result).shape}; expected an RGB image, (H, W, 3) or (3, H, W) numbers"
        )
    if not np.isfinite(pixels.astype(np.float64)).all():
        raise DataError("a result holds NaN or infinity; expected finite pixels")
    return pixels.astype(np.float64)


def _hypotheses(
    images: Sequence[NDArray[np.uint8]], target: tuple[int, int]
) -> Iterator[tuple[str, bool | None, Grid, Rounding, list[Floats]]]:
    """Yield kernel, antialias, grid, rounding and the predictions, `(h, w, 3)`, 0..255; simpler ones first."""
    source = images[0].shape[:2]
    shrinks = target[0] < source[0] or target[1] < source[1]
    for grid in _GRIDS:
        kernels: list[tuple[str, bool | None]] = [("nearest", None)]
        for kernel in _KERNELS:
            kernels += [(kernel, False), (kernel, True)] if shrinks else [(kernel, None)]
        if grid == "half-pixel":
            kernels.append(("area", None))
        for kernel, antialias in kernels:
            rows, columns = (
                _matrix(kernel, bool(antialias), grid, *sides) for sides in zip(source, target, strict=True)
            )
            exact = [_resized(image.astype(np.float64), rows, columns) for image in images]
            for rounding in ("none", "clamped", "8 bits, rounded", "8 bits, truncated"):
                yield kernel, antialias, grid, rounding, [_rounded(image, rounding) for image in exact]
    for kernel, filter_ in _PILLOW.items():
        predicted = [
            np.asarray(Image.fromarray(image).resize((target[1], target[0]), filter_)).astype(np.float64)
            for image in images
        ]
        yield kernel, True if shrinks else None, "half-pixel", "8 bits between the passes (Pillow)", predicted


def _resized(image: Floats, rows: Floats, columns: Floats) -> Floats:
    return np.moveaxis(rows @ np.moveaxis(image, -1, 0) @ columns.T, 0, -1)


def _rounded(image: Floats, rounding: str) -> Floats:
    if rounding == "none":
        return image
    clamped = image.clip(0, 255)
    if rounding == "clamped":
        return clamped
    return clamped.round() if rounding == "8 bits, rounded" else np.floor(clamped + 1e-6)


def _fit(predicted: Sequence[Floats], outputs: Sequence[Floats]) -> tuple[Floats, Floats, float, float] | None:
    """Return gain and offset of each channel, and the largest and mean difference that is left, in steps of 8 bits."""
    x = np.concatenate([image.reshape(-1, 3) for image in predicted])
    y = np.concatenate([image.reshape(-1, 3) for image in outputs])
    centred = x - x.mean(0)
    variance = (centred**2).mean(0)
    gain = (centred * (y - y.mean(0))).mean(0) / variance
    if (gain <= 1e-9).any():
        return None
    offset = y.mean(0) - gain * x.mean(0)
    left = np.abs((y - offset) / gain - x)
    return gain, offset, float(left.max()), float(left.mean())


@lru_cache(maxsize=256)
def _matrix(kernel: str, antialias: bool, grid: Grid, source: int, target: int) -> Floats:
    """Return the `(target, source)` matrix of one direction."""
    step = (source - 1) / max(target - 1, 1) if grid == "align_corners" else source / target
    places = np.arange(target) * step
    centres = places + (0.5 * step - 0.5 if grid == "half-pixel" else 0.0)
    matrix = np.zeros((target, source))
    if kernel == "nearest":
        # the pixel that the corner lies in, else the nearest
        picked = (
            np.round(centres) if grid == "align_corners" else np.floor(centres + (0.5 if grid == "half-pixel" else 0))
        )
        matrix[np.arange(target), picked.clip(0, source - 1).astype(int)] = 1
        return matrix
    if kernel == "area":
        edges = np.arange(target + 1) * step
        for row, (low, high) in enumerate(itertools.pairwise(edges)):
            covered = np.minimum(np.arange(1, source + 1), high) - np.maximum(np.arange(source), low)
            matrix[row] = covered.clip(0)
        return matrix / matrix.sum(1, keepdims=True)
    support, values = _KERNELS[kernel]
    stretch = max(1.0, step) if antialias else 1.0
    if antialias or kernel == "hamming":  # the kernel ends at the border and is normalised
        weights = values((np.arange(source)[None, :] - centres[:, None]) / stretch)
        return weights / weights.sum(1, keepdims=True)
    for tap in range(-int(support), int(support) + 1):  # the border pixel is repeated
        at = np.floor(centres) + tap
        np.add.at(matrix, (np.arange(target), at.clip(0, source - 1).astype(int)), values(at - centres))
    return matrix / matrix.sum(1, keepdims=True)


def _keys(x: Floats, a: float) -> Floats:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
