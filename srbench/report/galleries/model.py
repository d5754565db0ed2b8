"""What the page's galleries are made of, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.leaderboard import Row

Pixels = NDArray[np.uint8]
PLAIN = "bicubic"  # what an ordinary editor would do: the yardstick of the zoomed patches
DIRECT = "none"  # the control that hands LR to the classifier as it is; it keeps no pixels, LR has them


@dataclass(frozen=True)
class TaskImages:
    """What was kept of one task.

    Attributes:
        id: Id of the task.
        hr: Position -> original `(H, W, 3)`, RGB, uint8.
        lr: Position -> small image `(h, w, 3)`, RGB, uint8.
        networks: One for each classifier, in the board's order.
    """

    id: str
    hr: Mapping[int, Pixels]
    lr: Mapping[int, Pixels]
    networks: tuple[NetworkImages, ...]


@dataclass(frozen=True)
class NetworkImages:
    """The rows of one table that have pixels, with the samples at the kept positions.

    Attributes:
        classifier: Its id, or None.
        rows: Rows with pixels, in the board's order.
        positions: Kept positions, those of the classes that lose most from the original to bilinear first; classifiers
            keep different ones.
        sr: Key of a row -> position -> restored image.
        samples: Key of a row (and of the oracle's and of `DIRECT`) -> samples by position.
        overlays: Key of a row, and of the oracle -> position -> its image with what the network found drawn into it;
            none where the task type draws nothing.
        truths: Position -> the original with what the data say drawn into it.
        names: Index of a class -> its name.
        classes: The board's per-class table of this classifier.
    """

    classifier: str | None
    rows: tuple[Row, ...]
    positions: tuple[int, ...]
    sr: Mapping[Any, Mapping[int, Pixels]]
    samples: Mapping[Any, pd.DataFrame]
    names: Mapping[int, str]
    classes: pd.DataFrame
    overlays: Mapping[Any, Mapping[int, Pixels]] = field(default_factory=dict)
    truths: Mapping[int, Pixels] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """One embedded image."""

    id: str
    width: int
    height: int
    uri: str


@dataclass(frozen=True)
class Verdict:
    """What the classifier decided; `right` is None where nothing tells."""

    text: str
    confidence: float | None
    right: bool | None


@dataclass(frozen=True)
class Thumbnail:
    """A picture with what stands below it."""

    name: str
    mark: str
    picture: Picture
    verdict: Verdict | None
    psnr: str | None
    heat: Picture | None = None
    error: float | None = None
    remark: str | None = None


@dataclass(frozen=True)
class SampleStrip:
    """One sample: original, LR and every method."""

    sample_id: str
    label: str | None
    right: tuple[int, int] | None
    remarks: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Gallery:
    """The strips of one task and classifier.

    Attributes:
        task: Id of the task.
        classifier: Id of the classifier, or None.
        labelled: Whether the samples have class labels.
        strips: The samples.
        colours: Name and CSS colour of each class, where predictions are drawn into the images.
    """

    task: str
    classifier: str | None
    labelled: bool
    strips: tuple[SampleStrip, ...]
    colours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Crop:
    """A patch of a picture: x, y and side in its pixels."""

    name: str
    picture: Picture
    box: tuple[int, int, int]
    psnr: str | None


@dataclass(frozen=True)
class PatchPair:
    """The patches of one method's highest and lowest PSNR, each as (original, plain, method)."""

    task: str
    name: str
    mark: str
    plain: str
    highest: tuple[Crop, ...]
    lowest: tuple[Crop, ...]


@dataclass(frozen=True)
class Pictures:
    """Everything of the page that has pixels."""

    store: tuple[Picture, ...]
    galleries: tuple[Gallery, ...]
    patch_pairs: tuple[PatchPair, ...]
    notes: tuple[str, ...]
    heats: bool

    @property
    def judged(self) -> bool:
        """Whether a decision of a classifier stands below a picture."""
        strips = (strip for gallery in self.galleries for strip in gallery.strips)
        return any(thumbnail.verdict is not None for strip in strips for thumbnail in strip.thumbnails)

    @property
    def compare(self) -> dict[str, Any]:
        """What the slider needs: sizes by picture, and for each gallery its images with their versions."""
        return {
            "sizes": {picture.id: [picture.width, picture.height] for picture in self.store},
            "galleries": [
                {
                    "task": gallery.task,
                    "classifier": gallery.classifier or "",
                    "images": [
                        {
                            "name": " · ".join(filter(None, (strip.label, strip.sample_id))),
                            "versions": [
                                [_title(thumbnail), thumbnail.picture.id, _below(thumbnail)]
                                for thumbnail in strip.thumbnails
                            ],
                        }
                        for strip in gallery.strips
                    ],
                }
                for gallery in self.galleries
            ],
        }


@dataclass(frozen=True)
class Plan:
    """How much is shown: None is everything (of quality: lossless)."""

    quality: int | None
    heats: int | None
    methods: int | None
    images: int | None


def _title(thumbnail: Thumbnail) -> str:
    return f"{thumbnail.name} {thumbnail.mark}".strip()


def _below(thumbnail: Thumbnail) -> str:
    """The caption of a thumbnail as one line of text."""
    parts = []
    if thumbnail.verdict is not None:
        sign = {True: "✓ ", False: "✗ ", None: ""}[thumbnail.verdict.right]
        sure = "" if thumbnail.verdict.confidence is None else f" {thumbnail.verdict.confidence:.2f}"
        parts.append(f"{sign}{thumbnail.verdict.text}{sure}")
    parts += [text for text in (thumbnail.psnr, thumbnail.remark) if text]
    return " · ".join(parts)
