"""The demo task: patches of the photographs inside scikit-image, labelled by photograph.

It needs no download and is the same to the byte everywhere: PNG is lossless, the decoded pixels of every photograph
are pinned by hash, and all arithmetic is on integers. JPEGs are left out, because decoders differ in their last bit.

How the patches are made, and why:

- A class is a photograph. Each photograph is cut across its longer side into six bands - train, test, train, test,
  train, val - that share no pixel. Bands that alternate keep what is tested close to what was learned: with one block
  a split, the classifier would have to recognise the cat's ear from its nose.
- A patch is 48 x 48 pixels at native size, so at scale 0.32 its LR is 15 x 15. Neighbouring test patches lie half a
  patch apart in either direction, so two of them share at most half of their area.
- The flattest positions of each band are left out (sky, table, backdrop): a patch without texture looks the same in
  several photographs, is recognised by chance, and says nothing about super-resolution.
- Three quarters of the colour are taken out. At full colour a blurred patch still betrays its photograph by its hue
  alone and bilinear costs a classifier little; without any colour, the photographs of many objects become too hard
  even at full resolution. In between, texture decides, and the loss is what it is on ImageNet at this scale.

These choices were made by classifiers' accuracy at HR and after bilinear, on all splits, before any super-resolution
method was scored.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from srbench.data.dataset import DatasetInfo
from srbench.data.source import Sample, Source
from srbench.errors import SrbenchError
from srbench.imaging.decode import decode

DEMO = DatasetInfo(
    name="demo",
    opener="open_demo",
    description="patches of scikit-image's photographs; ships with srbench",
    splits=("test", "train", "val"),
    protocol="demo",
)

PATCH = 48  # pixels
NOTE = (
    "demo: a demonstration and CI set of patches of 11 photographs; intervals are over patches, not photographs;"
    " the real figures come from photographs"
)

# sha256 of the decoded (3, H, W) RGB uint8 pixels of every photograph.
PHOTOGRAPHS = {
    "astronaut": "9d1263ba0e684c996ad8d59ebeeb479d2608e2d7bb09a217aafcb77f1c5f9533",
    "brick": "1c00e6382c4ba8f28469908ec97c8781cbf3200e9f7fd97edf072574a6833735",
    "camera": "73f662d139b6f2db0eb8a022732e63b80fd3bb9237684244d3150ea90ff61a21",
    "cell": "cd4e56973c5a29d440db2df0e31f33ef3e8733cacc27127ae4fd06d83ed64f35",
    "chelsea": "9c717786308ef130d869e61afda7439c5a84e3624d7d1bc0500947db97a023f1",
    "coffee": "9b3e037f9cd32e3aa4673b24f51de4b8b0a6c6fc4c4f2c89d2dd5d63cc43e8f2",
    "coins": "47e3374272de377612d8a829d67c6d91a0d5cf887ae8988b8113ae6dde8aeae1",
    "grass": "135f8f97ed87c2ca28057c68b5757f32c34f527da33a870b7d84b7be4b34e4d2",
    "gravel": "f3b75a8ecda072ba08f1dfc6eab61fb839d0ec496af1f4332d7e5446a1e66963",
    "ihc": "a4aaac3f2e68b8230de4049ba798832eb51c99d35d98199f6bef3794e6560a0b",
    "text": "135d435b1ba4e5f932193edf39e78f272fe2a85335df678a0c2e36c06dde06af",
}


@dataclass(frozen=True)
class _Plan:
    step: int  # pixels between neighbouring positions
    patches: int  # of each photograph


_PLANS = {"train": _Plan(step=4, patches=320), "val": _Plan(step=6, patches=16), "test": _Plan(step=24, patches=24)}
_TEST_BAND = PATCH + PATCH // 2  # room for two positions half a patch apart
_KEPT = 60  # per cent of the positions that stay, the flattest leaving first
_REVISION = 1  # goes up whenever the pixels change under the same ids, so that cached crops are not mistaken for them


@dataclass(frozen=True)
class Position:
    """Where a patch lies.

    Attributes:
        photograph: Name of the photograph, which is the class.
        top: First row, pixels.
        left: First column, pixels.
    """

    photograph: str
    top: int
    left: int

    @property
    def id(self) -> str:
        """Stable id, sorted by photograph and position."""
        return f"{self.photograph}/{self.top:03d}-{self.left:03d}"


class DemoSource(Source):
    """One split of the demo task."""

    def __init__(self, split: str) -> None:
        """Choose the patches; decodes every photograph once in a process."""
        self.name = self.spec = "demo"
        self.split = split
        self.classes = tuple(PHOTOGRAPHS)
        self.unit = "patch"
        self.note = NOTE
        chosen = [(position, label) for label, name in enumerate(PHOTOGRAPHS) for position in _chosen(name, split)]
        chosen.sort(key=lambda pair: pair[0].id)
        self.positions = tuple(position for position, _ in chosen)
        self.samples = tuple(Sample(position.id, label) for position, label in chosen)

    def read(self, index: int) -> Tensor:
        """Return patch `index` as `(3, 48, 48)`, RGB, uint8."""
        position = self.positions[index]
        photograph = _muted(position.photograph)
        return photograph[:, position.top : position.top + PATCH, position.left : position.left + PATCH].clone()

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return (bytes of the patch, revision of the demo task): its pixels depend on nothing else."""
        return [(3 * PATCH * PATCH, _REVISION)] * len(indices)


def open_demo(split: str | None = None) -> DemoSource:
    """Open a split of the demo task, "test" where None.

    Raises:
        UsageError: If there is no split of that name.
        SrbenchError: If scikit-image lacks a photograph or ships other pixels.
    """
    return DemoSource(DEMO.choose_split(split))


def _chosen(name: str, split: str) -> list[Position]:
    plan = _PLANS[split]
    photograph = _muted(name)
    height, width = photograph.shape[-2:]
    positions = [
        Position(name, *((across, along) if width >= height else (along, across)))
        for start, stop in _bands(max(height, width), split)
        for along in range(start, stop - PATCH + 1, plan.step)
        for across in range(0, min(height, width) - PATCH + 1, plan.step)
    ]
    candidates = roughest(photograph, positions, PATCH, kept=max(plan.patches, len(positions) * _KEPT // 100))
    return [candidates[number * len(candidates) // plan.patches] for number in range(plan.patches)]


def roughest(photograph: Tensor, positions: list[Position], side: int, *, kept: int) -> list[Position]:
    """Return the `kept` positions with the most texture, in their order; a patch has `side` pixels a side."""
    roughness = _roughness(photograph, positions, side)
    by_roughness = sorted(range(len(positions)), key=lambda index: (-roughness[index], index))
    return [positions[index] for index in sorted(by_roughness[:kept])]


def _bands(length: int, split: str) -> Iterator[tuple[int, int]]:
    room = length - 2 * _TEST_BAND - PATCH
    edge = 0
    for number, (role, size) in enumerate((("test", _TEST_BAND), ("test", _TEST_BAND), ("val", PATCH))):
        train = room * (number + 1) // 3 - room * number // 3
        for band_role, band_size in (("train", train), (role, size)):
            if band_role == split:
                yield edge, edge + band_size
            edge += band_size


def _roughness(photograph: Tensor, positions: list[Position], side: int) -> list[int]:
    """Return the sum of absolute differences between neighbouring pixels within each position, on the green channel."""
    green = photograph[1].to(torch.int64)
    top = torch.tensor([position.top for position in positions])
    left = torch.tensor([position.left for position in positions])
    down = _box_sums(green.diff(dim=0).abs(), top, left, side - 1, side)
    right = _box_sums(green.diff(dim=1).abs(), top, left, side, side - 1)
    return (down + right).tolist()


def _box_sums(values: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Return the sum of `(H, W)` int64 over the box at each `(N,)` position, `(N,)` int64."""
    table = torch.nn.functional.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    bottom, right = top + height, left + width
    return table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]


@cache
def _muted(name: str) -> Tensor:
    """Return a photograph with muted colours, `(3, H, W)`, RGB, uint8."""
    wide = photograph(name).to(torch.int64)
    luma = (77 * wide[0] + 150 * wide[1] + 29 * wide[2]) >> 8
    return ((3 * luma + wide) >> 2).to(torch.uint8)


@cache
def photograph(name: str) -> Tensor:
    """Return a photograph in its own colours, `(3, H, W)`, RGB, uint8.

    Raises:
        SrbenchError: If it is missing or its pixels are not the pinned ones.
    """
    path = _data_folder() / f"{name}.png"
    if not path.is_file():
        raise SrbenchError(
            f"the demo task needs {path.name} of scikit-image's data folder, which this installation lacks;"
            " reinstall scikit-image (0.24 or later) from a wheel"
        )
    pixels = decode(path, path.name)
    digest = hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()
    if digest != PHOTOGRAPHS[name]:
        raise SrbenchError(
            f"scikit-image ships another {path.name} than the demo task is made of (sha256 of its pixels"
            f" {digest[:12]}..., expected {PHOTOGRAPHS[name][:12]}...); install a version from 0.24 on that has it"
        )
    return pixels


def _data_folder() -> Path:
    # find_spec does not run scikit-image's own code, which takes long and knows how to download.
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SrbenchError("the demo task is made of scikit-image's photographs; install scikit-image 0.24 or later")
    return Path(spec.submodule_search_locations[0]) / "data"
