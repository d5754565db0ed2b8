"""Rated patches, made: `iqa`, photographs with distortions of known severity, and the ratings that follow from it.

It needs no download and is the same everywhere: the photographs are the demo's (decoded pixels pinned by hash), all
draws come from one seed, and the JPEG step is the quantisation of the format's baseline, computed here, so that no
version of a codec moves a pixel. The ratings are nobody's. They stand in for those of a data set such as AVA, so that
training, scores and tables of image quality can be run and tested; what correlates here says nothing about people.

How it is made, and why:

- A patch is 96 x 96 pixels at native size and colour, from the rougher positions of a photograph: on an empty sky no
  blur can be seen. Each photograph is cut across its longer side into a band for train, one for test, one for val,
  which share no pixel. Test positions lie half a patch apart; a position comes up several times, treated otherwise.
- Distortions come in the order of a camera: Gaussian blur of sigma 0.5 + 3 b pixels, Gaussian noise of sigma 0.02 +
  0.18 n of the range, JPEG of quality 75 - 68 j, for severities b, n, j in (0, 1]. So the mildest of each can just be
  seen. One sample in twelve has none, half have one, the others two or three.
- The severity in all is s = 1 - (1 - b)(1 - n)(1 - j): distortions add up, but never to more than one.
- The mean of the ratings falls as m = 9.5 - 8.5 s. Their histogram over 1..10 is a normal density of that mean, of
  standard deviation 1 + 2 s (1 - s) (people agree on what is very good and very bad), normalised over the ten ratings.

Weak distortions are drawn as often as strong ones. At half the side most of the noise and of the mild blur is gone, so
LR costs correlation, which is what methods are there to win back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from srbench.data.dataset import DatasetInfo
from srbench.data.source import Sample, Source
from srbench.data.synthetic import demo

if TYPE_CHECKING:
    from torch import Tensor

IQA = DatasetInfo(
    name="iqa",
    opener="open_iqa",
    description="scikit-image's photographs, blurred, noisy, as JPEG; histograms of ratings",
    splits=("test", "train", "val"),
    labels="ratings",
    protocol="iqa",
    task_type="iqa",
)

PATCH = 96  # pixels
PER_PHOTOGRAPH = {"train": 1080, "val": 30, "test": 48}
# Value at a severity of 0, and what a severity of 1 adds to it.
SIGMA, NOISE, QUALITY = (0.5, 3.0), (0.02, 0.18), (75.0, -68.0)
RATINGS = 10
NOTE = (
    "iqa: ratings made from known distortions of 11 photographs, a demonstration; intervals are over patches, and"
    " nobody has rated anything"
)

_SEED = 20180808
_REVISION = 3  # goes up whenever the pixels change under the same ids, so that cached crops are not mistaken for them
_STREAMS = {"train": 0, "val": 1, "test": 2}  # of random numbers
_STEPS = {"train": 8, "val": 12, "test": PATCH // 2}  # pixels between neighbouring positions
_TEST_BAND = PATCH + PATCH // 2  # room for two positions half a patch apart
_KEPT = 60  # per cent of the positions that stay, the flattest leaving first
_PRISTINE, _SINGLE = 1 / 12, 7 / 12  # cumulative shares: none, none or one; the others have two or three

# Quantisation of the luma and of the chroma at quality 50 (ITU-T T.81, annex K).
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32),
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distortion:
    """How badly a patch is treated; each severity is in [0, 1], 0 is not at all.

    Attributes:
        blur: Of a Gaussian blur, its sigma in pixels by `SIGMA`.
        noise: Of Gaussian noise, its sigma in units of the range [0, 1] by `NOISE`.
        jpeg: Of JPEG, its quality by `QUALITY`.
    """

    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0

    @property
    def severity(self) -> float:
        """Severity in all, [0, 1]: 1 - (1 - blur)(1 - noise)(1 - jpeg)."""
        return 1 - (1 - self.blur) * (1 - self.noise) * (1 - self.jpeg)

    @property
    def name(self) -> str:
        """What it consists of, such as "blur-jpeg"; "pristine" where nothing is."""
        parts = [part for part in ("blur", "noise", "jpeg") if getattr(self, part) > 0]
        return "-".join(parts) or "pristine"


def ratings_of(severity: float) -> tuple[float, ...]:
    """Return the share of each rating 1..10 at a severity in [0, 1]; they sum to one. See the module's text."""
    mean, spread = 9.5 - 8.5 * severity, 1 + 2 * severity * (1 - severity)
    density = [math.exp(-((rating - mean) ** 2) / (2 * spread**2)) for rating in range(1, RATINGS + 1)]
    total = math.fsum(density)
    return tuple(share / total for share in density)


def draw_distortion(generator: np.random.Generator) -> Distortion:
    """Draw which distortions a patch has, and how severe each is; always the same number of draws."""
    share, count, order = generator.random(), generator.random(), generator.permutation(3)
    severities = 0.04 + 0.96 * generator.random(3)
    n = 0 if share < _PRISTINE else 1 if share < _SINGLE else 2 if count < 2 / 3 else 3
    if n > 1:
        severities = severities * 0.7  # several of them at full strength would all end at the lowest rating
    kept = [float(severities[index]) if index in order[:n] else 0.0 for index in range(3)]
    return Distortion(*kept)


def distort(image: NDArray[np.uint8], distortion: Distortion, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, add noise to, and compress an image `(3, H, W)`, RGB, uint8, both sides multiples of 8; the same shape."""
    from scipy.ndimage import gaussian_filter1d

    pixels = image.astype(np.float64)
    noise = generator.standard_normal(image.shape)
    if distortion.blur:
        for axis in (1, 2):
            pixels = gaussian_filter1d(pixels, _value(SIGMA, distortion.blur), axis=axis, mode="nearest", truncate=4.0)
    if distortion.noise:
        pixels = pixels + 255 * _value(NOISE, distortion.noise) * noise
    pixels = np.rint(pixels.clip(0, 255))
    if distortion.jpeg:
        pixels = quantised(pixels, _value(QUALITY, distortion.jpeg))
    return pixels.astype(np.uint8)


def _value(line: tuple[float, float], severity: float) -> float:
    return line[0] + line[1] * severity


def quantised(image: Floats, quality: float) -> Floats:
    """Return what baseline JPEG without subsampling leaves of an image `(3, H, W)`, RGB, [0, 255], whole numbers.

    The lossless half of the format (Huffman codes) changes no pixel and is left out.

    Args:
        image: Both sides multiples of 8.
        quality: 1 to 100, scaling the tables as libjpeg does.
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    basis = _cosines()
    blocks = _to_ycc(image) - 128
    height, width = image.shape[1:]
    blocks = blocks.reshape(3, height // 8, 8, width // 8, 8)
    coefficients = np.einsum("ui,cyixj,vj->cyxuv", basis, blocks, basis, optimize=True)
    for channel, table in enumerate((_LUMA, _CHROMA, _CHROMA)):
        steps = np.floor(np.array(table, dtype=np.float64).reshape(8, 8) * scale + 0.5).clip(1, 255)
        coefficients[channel] = np.rint(coefficients[channel] / steps) * steps
    pixels = np.einsum("ui,cyxuv,vj->cyixj", basis, coefficients, basis, optimize=True).reshape(3, height, width)
    return _to_rgb(np.rint(pixels + 128).clip(0, 255))


class IqaSource(Source):
    """One split of the rated patches."""

    def __init__(self, split: str) -> None:
        """Choose the patches and their distortions; nothing is distorted before it is read."""
        self.name = self.spec = "iqa"
        self.split, self.task_type, self.unit, self.note = split, "iqa", "patch", NOTE
        self.classes = None
        self.positions: list[demo.Position] = []
        self.distortions: list[Distortion] = []
        samples = []
        count = PER_PHOTOGRAPH[split]
        for photograph, name in enumerate(demo.PHOTOGRAPHS):
            positions = _positions(name, split)
            generator = np.random.default_rng([_SEED, _STREAMS[split], photograph])
            order = generator.permutation(len(positions))
            for number in range(count):
                self.positions.append(positions[order[number % len(positions)]])
                self.distortions.append(draw_distortion(generator))
                ratings = ratings_of(self.distortions[-1].severity)
                samples.append(Sample(f"{name}/{number:03d}-{self.distortions[-1].name}", ratings=ratings))
        self.samples = tuple(samples)

    def read(self, index: int) -> Tensor:
        """Return patch `index` as it was treated, `(3, 96, 96)`, RGB, uint8."""
        position = self.positions[index]
        photograph = demo.photograph(position.photograph)
        patch = photograph[:, position.top : position.top + PATCH, position.left : position.left + PATCH].numpy()
        generator = np.random.default_rng([_SEED, 10 + _STREAMS[self.split], index])
        return torch.from_numpy(distort(patch, self.distortions[index], generator))

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return (bytes of the patch, revision of the set): its pixels depend on nothing else."""
        return [(3 * PATCH * PATCH, _REVISION)] * len(indices)


def open_iqa(split: str | None = None) -> IqaSource:
    """Open a split of the rated patches, "test" where None.

    Raises:
        UsageError: If there is no split of that name.
        SrbenchError: If scikit-image lacks a photograph or ships other pixels.
    """
    return IqaSource(IQA.choose_split(split))


@cache
def _positions(name: str, split: str) -> list[demo.Position]:
    """Return the rougher positions of a split's band of a photograph."""
    photograph = demo.photograph(name)
    height, width = photograph.shape[-2:]
    longer = max(height, width)
    bands = {
        "train": (0, longer - _TEST_BAND - PATCH),
        "test": (longer - _TEST_BAND - PATCH, longer - PATCH),
        "val": (longer - PATCH, longer),
    }
    start, stop = bands[split]
    positions = [
        demo.Position(name, *((across, along) if width >= height else (along, across)))
        for along in range(start, stop - PATCH + 1, _STEPS[split])
        for across in range(0, min(height, width) - PATCH + 1, _STEPS[split])
    ]
    return demo.roughest(photograph, positions, PATCH, kept=max(1, len(positions) * _KEPT // 100))


@cache
def _cosines() -> Floats:
    """Return the orthonormal basis of the discrete cosine transform of 8, `(8, 8)`, frequency first."""
    u, i = np.mgrid[:8, :8]
    basis = np.cos((2 * i + 1) * u * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis


def _to_ycc(rgb: Floats) -> Floats:
    red, green, blue = rgb
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.rint(np.stack([luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402])).clip(0, 255)


def _to_rgb(ycc: Floats) -> Floats:
    luma, blue, red = ycc[0], 1.772 * (ycc[1] - 128), 1.402 * (ycc[2] - 128)
    green = -(0.299 * red + 0.114 * blue) / 0.587
    return np.rint(np.stack([luma + red, luma + green, luma + blue])).clip(0, 255)
