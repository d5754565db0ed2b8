"""Scenes, made: textured shapes of four classes on scikit-image's photographs, with their boxes and their mask.

No download is needed, and scenes are the same to the byte everywhere: the photographs are the demo's (pixels pinned by
hash), draws come from one seed, and all arithmetic is on integers.

How a scene is made, and why:

- The ground is a window of 96 x 96 pixels of a photograph. Each photograph is cut across its longer side into a half
  for train and a quarter each for test and val, so that no pixel is learned from and tested on.
- One to five shapes lie on it that do not touch: disc, square, triangle or cross, 12 to 40 pixels wide. What tells them
  apart is their outline; at a quarter of the side it is three to ten pixels wide, so LR costs detections, of the small
  ones most.
- A shape is filled with a window of another photograph, from the band of the same split, shifted to be lighter or
  darker than the ground under it. So neither colour nor texture betrays the class, and shapes can be seen at all.
- Outlines are drawn at four times the resolution, as a camera would see them. A pixel belongs to a shape where half of
  it is covered; the box is that of these pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.boxes import Rows, box_rows
from srbench.data.dataset import DatasetInfo
from srbench.data.source import Sample, Source
from srbench.data.synthetic import demo
from srbench.imaging.decode import StoredImage

DEMO_DET = DatasetInfo(
    name="demo-det",
    opener="open_demo_det",
    description="textured shapes on scikit-image's photographs, with boxes; ships with srbench",
    splits=("test", "train", "val"),
    labels="boxes",
    protocol="dense-x4",
    task_type="detection",
)

DEMO_SEG = DatasetInfo(
    name="demo-seg",
    opener="open_demo_seg",
    description="the same scenes with a class for each pixel; ships with srbench",
    splits=("test", "train", "val"),
    labels="masks",
    protocol="dense-x4",
    task_type="segmentation",
)

GROUND = "ground"  # what is no shape, the first class of a mask
CLASSES = ("disc", "square", "triangle", "cross")
SIDE = 96  # pixels, of a scene
SCENES = {"train": 1200, "val": 60, "test": 200}
NOTE = "{}: made scenes of four shapes on 11 photographs, a demonstration; the real figures come from photographs"

_SEED = 20201130
_REVISION = 1  # goes up whenever the pixels change under the same ids, so that cached crops are not mistaken for them
_STREAMS = {"train": 0, "val": 1, "test": 2}  # of random numbers
_BANDS = {"train": (0, 2), "test": (2, 3), "val": (3, 4)}  # quarters of the longer side
_MOST, _SMALLEST, _LARGEST = 5, 12, 40  # shapes of a scene, and their width in pixels
_APART = 2  # pixels between two shapes, at least
_TRIES = 20
_FINE = 4  # parts of a pixel, along each side
_SHIFT = (45, 90)  # levels by which a shape is lighter or darker than the ground under it

Pixels = NDArray[np.uint8]
Covered = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    Attributes:
        pixels: `(3, 96, 96)`, RGB, uint8.
        mask: 0 for the ground, else 1 + the index of the class, `(96, 96)` uint8.
        boxes: Rows of `srbench.data.boxes`.
    """

    pixels: Pixels
    mask: Pixels
    boxes: Rows


class ShapesSource(Source):
    """One split of the scenes; a scene is drawn when it is read."""

    has_targets = True

    def __init__(self, split: str, info: DatasetInfo) -> None:
        """Name the scenes of a split, for the dataset of this row."""
        self.name = self.spec = info.name
        self.task_type = info.task_type
        self.split = split
        self.classes = CLASSES
        self.unit = "scene"
        self.note = NOTE.format(info.name)
        first = sum(SCENES[name] for name in _STREAMS if _STREAMS[name] < _STREAMS[split])  # no id is in two splits
        self.samples = tuple(Sample(f"{first + number:04d}") for number in range(SCENES[split]))

    def read(self, index: int) -> Tensor:
        """Return scene `index` as `(3, 96, 96)`, RGB, uint8."""
        return torch.from_numpy(draw_scene(self.split, index).pixels)

    def read_stored(self, index: int) -> StoredImage:
        """Return scene `index` with its boxes."""
        scene = draw_scene(self.split, index)
        return StoredImage(torch.from_numpy(scene.pixels), 3, scene.boxes)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return (bytes of the scene, revision of the set): its pixels depend on nothing else."""
        return [(3 * SIDE * SIDE, _REVISION)] * len(indices)


class MaskedShapesSource(ShapesSource):
    """One split of the scenes with a class for each pixel."""

    def __init__(self, split: str, info: DatasetInfo) -> None:
        """Name the scenes of a split, for the dataset of this row."""
        super().__init__(split, info)
        self.classes = (GROUND, *CLASSES)

    def read_stored(self, index: int) -> StoredImage:
        """Return scene `index` with its mask."""
        scene = draw_scene(self.split, index)
        return StoredImage(torch.from_numpy(scene.pixels), 3, scene.mask)


def open_demo_seg(split: str | None = None) -> MaskedShapesSource:
    """Open a split of the scenes with their masks, "test" where None.

    Raises:
        UsageError: If there is no split of that name.
        SrbenchError: If scikit-image lacks a photograph or ships other pixels.
    """
    return MaskedShapesSource(DEMO_SEG.choose_split(split), DEMO_SEG)


def open_demo_det(split: str | None = None) -> ShapesSource:
    """Open a split of the scenes with their boxes, "test" where None.

    Raises:
        UsageError: If there is no split of that name.
        SrbenchError: If scikit-image lacks a photograph or ships other pixels.
    """
    return ShapesSource(DEMO_DET.choose_split(split), DEMO_DET)


def draw_scene(split: str, index: int) -> Scene:
    """Draw one scene of a split."""
    rng = np.random.default_rng([_SEED, _STREAMS[split], index])
    names = tuple(demo.PHOTOGRAPHS)
    ground = index % len(names)
    pixels = _window(names[ground], split, SIDE, rng).astype(np.int64)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    free = np.ones((SIDE, SIDE), dtype=bool)
    edges, labels = [], []
    for _ in range(int(rng.integers(1, _MOST + 1))):
        label = int(rng.integers(0, len(CLASSES)))
        covered = _placed(label, free, rng)
        texture = names[(ground + int(rng.integers(1, len(names)))) % len(names)]
        fill = _window(texture, split, SIDE, rng).astype(np.int64)
        shift = int(rng.integers(*_SHIFT))
        if covered is None:
            continue
        inside = 2 * covered >= _FINE**2
        pixels = _filled(pixels, covered, fill, inside, shift)
        mask[inside] = 1 + label
        rows, columns = np.nonzero(inside)
        edges.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        labels.append(label)
    return Scene(pixels.astype(np.uint8), mask, box_rows(edges, labels))


def _window(name: str, split: str, side: int, rng: np.random.Generator) -> Pixels:
    """Return a square of a photograph, from the band of a split."""
    photograph = demo.photograph(name)
    height, width = photograph.shape[-2:]
    longer = max(height, width)
    first, last = (longer * quarter // 4 for quarter in _BANDS[split])
    along = int(rng.integers(first, last - side + 1))
    across = int(rng.integers(0, min(height, width) - side + 1))
    top, left = (across, along) if width >= height else (along, across)
    return photograph[:, top : top + side, left : left + side].numpy()


def _placed(label: int, free: NDArray[np.bool_], rng: np.random.Generator) -> Covered | None:
    """Return how much of each pixel a new shape covers, in sixteenths; None where no room was found.

    The pixels of the shape and those around it are taken out of `free`.
    """
    for _ in range(_TRIES):
        width = int(rng.integers(_SMALLEST, _LARGEST + 1))
        top, left = (int(rng.integers(1, SIDE - width)) for _ in range(2))
        around = slice(max(0, top - _APART), top + width + _APART), slice(max(0, left - _APART), left + width + _APART)
        if not free[around].all():
            continue
        free[around] = False
        fine = _outline(label, width * _FINE)
        covered = np.zeros((SIDE, SIDE), dtype=np.int64)
        covered[top : top + width, left : left + width] = fine.reshape(width, _FINE, width, _FINE).sum(axis=(1, 3))
        return covered
    return None


def _outline(label: int, side: int) -> NDArray[np.bool_]:
    """Return which of the `side` x `side` points a shape of that width covers."""
    row, column = np.mgrid[:side, :side]
    # Twice the distance from the middle, so that it is a whole number.
    down, right = 2 * row + 1 - side, 2 * column + 1 - side
    if CLASSES[label] == "disc":
        return down**2 + right**2 <= side**2
    if CLASSES[label] == "square":
        return np.ones((side, side), dtype=bool)
    if CLASSES[label] == "triangle":  # its tip above
        return np.abs(right) <= row + 1
    return (3 * np.abs(down) <= side) | (3 * np.abs(right) <= side)


def _filled(pixels: Covered, covered: Covered, fill: Covered, inside: NDArray[np.bool_], shift: int) -> Covered:
    """Blend a shape into the ground, `(3, H, W)`, lighter than it by `shift` or, on light ground, darker."""
    count = int(inside.sum())
    under, own = int(pixels[:, inside].sum()) // (3 * count), int(fill[:, inside].sum()) // (3 * count)
    level = under + shift if under < 128 else under - shift
    # Half of the texture's contrast leaves room for light and dark.
    shown = np.clip((fill - own) // 2 + level, 0, 255)
    whole = _FINE**2
    blended: Covered = (pixels * (whole - covered) + shown * covered + whole // 2) // whole
    return blended
