"""Pictures of the report: kept pixels beside each other, their errors, and patches; each distinct image once.

Numbers come from the exact pixels. What is embedded may be compressed, or left out, so that the page keeps its size;
the page then says so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, features

from srbench.errors import RecordError
from srbench.leaderboard import BASELINE, ORACLE, Leaderboard, Row, tables
from srbench.records.cells import StoredCell
from srbench.report.best import scored
from srbench.task_types.classification import class_name, class_names

PLAIN = "bicubic"  # what an ordinary editor would do: the yardstick of the zoomed patches
DIRECT = "none"  # the control that hands LR to the classifier as it is; it keeps no pixels, LR has them
HEAT_MAX = 64  # of 255; larger errors are rare, and a fixed end makes any two maps comparable
PATCH_SHARE, SMALLEST_PATCH = 4, 12
MOST_ZOOMED = 6
FEWER_METHODS, FEWER_IMAGES = (16, 12, 8), (8, 6, 4)
MOST_JUDGED = 4
SAFETY = 1.03  # encoding everything to find that it is too much takes seconds
TILE_BYTES = 750  # of markup around one picture
COLUMNS = ("position", "sample_id", "label", "pred", "hr_pred", "confidence", "psnr")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class TaskImages:
    """What was kept of one task.

    Attributes:
        task: Its id.
        hr: Position -> original `(H, W, 3)`, RGB, uint8.
        lr: Position -> small image `(h, w, 3)`, RGB, uint8.
        racks: One for each classifier, in the board's order.
    """

    task: str
    hr: Mapping[int, Pixels]
    lr: Mapping[int, Pixels]
    racks: tuple[NetworkImages, ...]


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
    tiles: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Gallery:
    """The strips of one task and classifier."""

    task: str
    classifier: str | None
    labelled: bool
    strips: tuple[SampleStrip, ...]


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
    zooms: tuple[PatchPair, ...]
    notes: tuple[str, ...]
    heats: bool

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
                            "versions": [[_title(tile), tile.picture.id, _below(tile)] for tile in strip.tiles],
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


# --- what was kept -----------------------------------------------------------------------------------------------


def collect(board: Leaderboard, cells: Sequence[StoredCell]) -> tuple[list[TaskImages], list[str]]:
    """Read the kept pixels and the samples that belong to them; return them and what could not be read."""
    by_key = scored(cells)
    problems: list[str] = []
    shelves: dict[str, tuple[dict[int, Pixels], dict[int, Pixels], list[NetworkImages]]] = {}
    for task, classifier, rows in tables.groups(board):
        hr, lr, racks = shelves.setdefault(task, ({}, {}, []))
        sr: dict[Any, Mapping[int, Pixels]] = {}
        samples: dict[Any, pd.DataFrame] = {}
        for row in rows:
            cell = by_key.get(row.key)
            if cell is None:
                continue
            try:
                kept = cell.thumbnails()
                if not kept and row.method != DIRECT:
                    continue
                if row.method == ORACLE:
                    hr.update({at: _rgb(images["hr"]) for at, images in kept.items() if "hr" in images})
                    lr.update({at: _rgb(images["lr"]) for at, images in kept.items() if "lr" in images})
                elif row.method != DIRECT:
                    sr[row.key] = {at: _rgb(images["sr"]) for at, images in kept.items() if "sr" in images}
                frame = cell.samples(COLUMNS)
                samples[row.key] = frame[frame["position"].isin(list(kept or hr))].set_index("position")
            except RecordError as error:
                problems.append(str(error))
        classes = board.per_class
        mine = classes[(classes["task"] == task) & (classes["classifier"] == classifier)]
        shown = tuple(row for row in rows if row.key in sr)
        positions = _ordered({at for images in sr.values() for at in images} & set(hr), mine, samples)
        if positions:
            names = class_names(by_key[row.key].record for row in rows if row.key in by_key)
            racks.append(NetworkImages(classifier, shown, positions, sr, samples, names, mine))
    return [TaskImages(task, hr, lr, tuple(racks)) for task, (hr, lr, racks) in shelves.items() if racks], problems


def _ordered(positions: Iterable[int], classes: pd.DataFrame, samples: Mapping[Any, pd.DataFrame]) -> tuple[int, ...]:
    """Positions in the order of how much F1 their class loses from the original to bilinear."""
    table = classes[(classes["method"] == BASELINE) & (classes["track"] == "frozen")]
    known = table.dropna(subset=[f"f1_delta_to_{ORACLE}"])
    falls = dict(zip(known["class_index"].astype(int), known[f"f1_delta_to_{ORACLE}"].astype(float), strict=True))

    def fall(at: int) -> float:
        label = next((_whole(frame.at[at, "label"]) for frame in samples.values() if at in frame.index), None)
        return math.inf if label is None else falls.get(label, math.inf)

    return tuple(sorted(positions, key=lambda at: (fall(at), at)))


def _rgb(image: NDArray[np.uint8]) -> Pixels:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


# --- how much of it fits -----------------------------------------------------------------------------------------


def arrange(shelves: Sequence[TaskImages], *, budget: int, problems: Sequence[str] = ()) -> Pictures:
    """Return as many pictures as fit into a number of characters, at the best quality that fits.

    Args:
        shelves: What `collect` returned.
        budget: Characters of the page that pictures may take.
        problems: Sentences to show with them.
    """
    encoder = _Encoder()
    for plan in _plans(shelves):
        if _estimate(shelves, plan, encoder) > budget:
            continue
        pictures = _arrange(shelves, plan, encoder, problems)
        tiles = sum(len(strip.tiles) for gallery in pictures.galleries for strip in gallery.strips)
        if sum(len(picture.uri) for picture in pictures.store) + tiles * TILE_BYTES <= budget:
            return pictures
    left = ["every picture was left out, so that the page keeps its size; --max-mb allows more"] if shelves else []
    return Pictures((), (), (), (*problems, *left), False)


def _plans(shelves: Sequence[TaskImages]) -> Iterator[Plan]:
    """Ever smaller selections: first quality goes, then maps of the error, then methods, then images."""
    images = max((len(shelf.hr) for shelf in shelves), default=0)
    methods = max((len(rack.rows) for shelf in shelves for rack in shelf.racks), default=0)
    yield Plan(None, None, None, None)
    for quality, heats in ((92, None), (80, None), (80, images // 2), (65, images // 2), (65, 2)):
        yield Plan(quality, heats, None, None)
    for fewer in (number for number in FEWER_METHODS if number < methods):
        yield Plan(65, 2, fewer, None)
    for count in (number for number in FEWER_IMAGES if number < images):
        yield Plan(65, 2 if count > 4 else 0, FEWER_METHODS[-1], count)
    yield Plan(65, 0, 4, 2)


def _estimate(shelves: Sequence[TaskImages], plan: Plan, encoder: _Encoder) -> int:
    """Characters that a plan would take, judged by a few methods on two samples of each task."""
    total = 0.0
    for shelf in shelves:
        shown, versions = _shown(shelf, plan), _versions(shelf, plan)
        total += sum(len(_positions(rack, plan)) * (len(_rows(rack, plan)) + 2) * TILE_BYTES for rack in shelf.racks)
        order = list(shown)
        judged = dict.fromkeys((order[0], order[len(order) // 2]))
        sizes: dict[str, list[int]] = {"original": [], "restored": [], "heat": []}
        for at in judged:
            originals = [shelf.hr[at], *([shelf.lr[at]] if at in shelf.lr else [])]
            sizes["original"].append(sum(len(encoder.picture(image, plan.quality).uri) for image in originals))
            having = [sr[at] for sr in versions.values() if at in sr]
            for sr in having[:: -(-len(having) // MOST_JUDGED) or 1]:
                sizes["restored"].append(len(encoder.picture(sr, plan.quality).uri))
                if any(shown.values()) and sr.shape == shelf.hr[at].shape:
                    sizes["heat"].append(len(encoder.picture(_heat(sr, shelf.hr[at]), plan.quality).uri))
        counts = {
            "original": len(shown),
            "restored": sum(len(sr) for sr in versions.values()),
            "heat": sum(shown[at] for sr in versions.values() for at in sr),
        }
        total += sum(counts[name] * sum(each) / len(each) for name, each in sizes.items() if each)
    return round(SAFETY * total)


def _positions(rack: NetworkImages, plan: Plan) -> tuple[int, ...]:
    return rack.positions[: plan.images]


def _shown(shelf: TaskImages, plan: Plan) -> dict[int, bool]:
    """Positions of a plan in any rack -> whether their errors are mapped."""
    found: dict[int, bool] = {}
    for rack in shelf.racks:
        for number, at in enumerate(_positions(rack, plan)):
            found[at] = found.get(at, False) or plan.heats is None or number < plan.heats
    return found


def _versions(shelf: TaskImages, plan: Plan) -> dict[tuple[str, str | None, str], dict[int, Pixels]]:
    """Restored images of a plan by method, weights and track; a frozen method restores alike for every classifier."""
    found: dict[tuple[str, str | None, str], dict[int, Pixels]] = {}
    for rack in shelf.racks:
        for row in _rows(rack, plan):
            images = {at: rack.sr[row.key][at] for at in _positions(rack, plan) if at in rack.sr[row.key]}
            found.setdefault((row.method, row.weights, row.track), {}).update(images)
    return found


def _rows(rack: NetworkImages, plan: Plan) -> list[Row]:
    """The rows of a plan: the yardsticks stay, then networks and what stands highest."""
    if plan.methods is None or len(rack.rows) <= plan.methods:
        return list(rack.rows)
    first = [row for row in rack.rows if row.method in (BASELINE, PLAIN)]
    rest = sorted(
        (row for row in rack.rows if row not in first), key=lambda row: (row.role != "network", row.rank or 0)
    )
    kept = {row.key for row in [*first, *rest][: plan.methods]}
    return [row for row in rack.rows if row.key in kept]


class _Encoder:
    """Embeds each distinct image once, and remembers what it encoded."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, int | None], Picture] = {}

    def picture(self, image: Pixels, quality: int | None) -> Picture:
        """Return the picture of `(H, W, 3)` or `(H, W)` uint8."""
        digest = _digest(image)
        if (digest, quality) not in self._done:
            with io.BytesIO() as stream:
                kind = "webp" if features.check("webp") else "png"
                options: dict[str, Any] = {}
                if kind == "webp":
                    lossless = {"lossless": True, "quality": 40, "method": 2, "exact": True}
                    options = lossless if quality is None else {"quality": quality, "method": 3}
                Image.fromarray(image).save(stream, kind, **options)
                text = base64.b64encode(stream.getvalue()).decode()
            height, width = image.shape[:2]
            self._done[digest, quality] = Picture(
                f"px-{digest[:12]}", width, height, f"data:image/{kind};base64,{text}"
            )
        return self._done[digest, quality]


def _digest(image: Pixels) -> str:
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


# --- what is shown -----------------------------------------------------------------------------------------------


def _arrange(shelves: Sequence[TaskImages], plan: Plan, encoder: _Encoder, problems: Sequence[str]) -> Pictures:
    used: dict[str, Picture] = {}
    with ThreadPoolExecutor() as pool:  # Pillow encodes outside of the interpreter's lock
        list(pool.map(lambda image: encoder.picture(image, plan.quality), _needed(shelves, plan)))

    def embed(image: Pixels) -> Picture:
        picture = encoder.picture(image, plan.quality)
        return used.setdefault(picture.id, picture)

    galleries, zooms = [], []
    for shelf in shelves:
        shown = _shown(shelf, plan)
        for rack in shelf.racks:
            rows, positions = _rows(rack, plan), _positions(rack, plan)
            strips = tuple(_strip(shelf, rack, rows, at, embed, heat=shown[at]) for at in positions)
            galleries.append(Gallery(shelf.task, rack.classifier, _labelled(rack), strips))
        zooms += _zooms(shelf, plan, embed)
    return Pictures(
        store=tuple(used.values()),
        galleries=tuple(galleries),
        zooms=tuple(zooms),
        notes=(*problems, *_left_out(shelves, plan)),
        heats=plan.heats != 0,
    )


def _needed(shelves: Sequence[TaskImages], plan: Plan) -> Iterator[Pixels]:
    """Every image that a plan shows."""
    for shelf in shelves:
        shown = _shown(shelf, plan)
        for at in shown:
            yield shelf.hr[at]
            if at in shelf.lr:
                yield shelf.lr[at]
        for sr in _versions(shelf, plan).values():
            for at, image in sr.items():
                yield image
                if shown[at] and image.shape == shelf.hr[at].shape:
                    yield _heat(image, shelf.hr[at])


def _left_out(shelves: Sequence[TaskImages], plan: Plan) -> list[str]:
    """Say what a plan leaves out."""
    lines = []
    whole = Plan(None, None, None, None)
    images = sum(len(_shown(shelf, whole)) for shelf in shelves)
    shown = sum(len(_shown(shelf, plan)) for shelf in shelves)
    if plan.quality is not None:
        lines.append(
            f"the pictures are compressed (quality {plan.quality} of 100), so the finest texture is not to be judged by"
            " them; all numbers come from the exact pixels"
        )
    if shown < images:
        lines.append(f"{images - shown} of {images} kept images are left out")
    if plan.methods is not None and any(len(rack.rows) > plan.methods for shelf in shelves for rack in shelf.racks):
        lines.append(f"the galleries show at most {plan.methods} methods; the tables have all of them")
    if plan.heats is not None:
        with_heat = sum(sum(_shown(shelf, plan).values()) for shelf in shelves)
        if with_heat < shown:
            lines.append(f"maps of the error are shown for {with_heat} of {shown} images")
    if lines:
        lines[-1] += "; --max-mb allows a larger page"
    return lines


def _strip(
    shelf: TaskImages,
    rack: NetworkImages,
    rows: Sequence[Row],
    at: int,
    embed: Callable[[Pixels], Picture],
    *,
    heat: bool,
) -> SampleStrip:
    hr = shelf.hr[at]
    oracle = next((frame for key, frame in rack.samples.items() if key[1] == ORACLE), None)
    any_frame = next(frame for frame in rack.samples.values() if at in frame.index)
    label = _whole(any_frame.at[at, "label"])
    tiles = [Thumbnail(ORACLE, "HR", embed(hr), _verdict(oracle, at, rack), None)]
    if at in shelf.lr:
        height, width = shelf.lr[at].shape[:2]
        control = next((frame for key, frame in rack.samples.items() if key[1] == DIRECT), None)
        direct = _verdict(control, at, rack)
        remark = f"{width} × {height}, pixels enlarged" + (", straight to the classifier" if direct else "")
        tiles.append(Thumbnail("LR", "", embed(shelf.lr[at]), direct, None, remark=remark))
    for row in rows:
        if at not in rack.sr[row.key]:
            continue
        sr, frame = rack.sr[row.key][at], rack.samples[row.key]
        same = sr.shape == hr.shape
        tiles.append(
            Thumbnail(
                row.label,
                _mark(row),
                embed(sr),
                _verdict(frame, at, rack),
                _decibels(frame.at[at, "psnr"]),
                heat=embed(_heat(sr, hr)) if heat and same else None,
                error=float(_error(sr, hr).mean()) if same else None,
            )
        )
    decided = [tile.verdict.right for tile in tiles[1:] if tile.verdict is not None and tile.verdict.right is not None]
    return SampleStrip(
        sample_id=str(any_frame.at[at, "sample_id"]),
        label=None if label is None else class_name(label, rack.names),
        right=(sum(decided), len(decided)) if decided else None,
        remarks=tuple(_class_remarks(rack, label)),
        tiles=tuple(tiles),
    )


def _verdict(frame: pd.DataFrame | None, at: int, rack: NetworkImages) -> Verdict | None:
    """The decision on one sample: right by its label, or, without one, the same as on the original."""
    if rack.classifier is None or frame is None or at not in frame.index:
        return None
    pred, label, hr_pred = (_whole(frame.at[at, name]) for name in ("pred", "label", "hr_pred"))
    if pred is None:
        return None
    sure: Any = frame.at[at, "confidence"]
    confidence = float(sure)
    truth = hr_pred if label is None else label
    right = None if truth is None else pred == truth
    return Verdict(class_name(pred, rack.names), confidence if math.isfinite(confidence) else None, right)


def _class_remarks(rack: NetworkImages, label: int | None) -> Iterator[str]:
    """How F1 of the sample's class changed: what bilinear loses, what the best ranked method wins back."""
    if label is None:
        return
    best = next((row for row in rack.rows if row.rank == 1 and row.track == "frozen"), None)
    for method, weights, other in (
        (BASELINE, None, ORACLE),
        *([(best.method, best.weights, BASELINE)] if best else []),
    ):
        table = rack.classes[
            (rack.classes["method"] == method)
            & (rack.classes["track"] == "frozen")
            & (rack.classes["class_index"] == label)
        ]
        if weights is not None:
            table = table[table["weights"] == weights]
        if table.empty or method == other:
            continue
        value, low, high = (float(table[f"f1_delta_to_{other}{end}"].to_numpy()[0]) for end in ("", "_low", "_high"))
        if math.isfinite(value):
            ends = f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else ""
            name = f"{method} ({weights})" if weights else method
            yield f"{name} {value:+.2f}{ends} against {other}"


def _labelled(rack: NetworkImages) -> bool:
    return any(frame["label"].notna().any() for frame in rack.samples.values())


def _mark(row: Row) -> str:
    return (tables.CONTROL_MARK if row.role == "control" else "") + (
        tables.ADAPTED_MARK if row.track == "adapted" else ""
    )


def _title(tile: Thumbnail) -> str:
    return f"{tile.name} {tile.mark}".strip()


def _below(tile: Thumbnail) -> str:
    """The caption of a tile as one line of text."""
    parts = []
    if tile.verdict is not None:
        sign = {True: "✓ ", False: "✗ ", None: ""}[tile.verdict.right]
        sure = "" if tile.verdict.confidence is None else f" {tile.verdict.confidence:.2f}"
        parts.append(f"{sign}{tile.verdict.text}{sure}")
    parts += [text for text in (tile.psnr, tile.remark) if text]
    return " · ".join(parts)


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _decibels(value: Any) -> str | None:
    if pd.isna(value):
        return None
    return "identical" if math.isinf(value) else f"{float(value):.1f} dB"


# --- errors and patches ------------------------------------------------------------------------------------------


def _error(sr: Pixels, hr: Pixels) -> NDArray[np.float32]:
    """Mean over the channels of |SR - HR|, `(H, W)`, [0, 255]."""
    apart = np.moveaxis(np.maximum(sr, hr) - np.minimum(sr, hr), 2, 0).astype(np.uint16)
    total = np.asarray(sum(apart), dtype=np.float32)  # plane by plane: numpy is slow along so short an axis
    return total / np.float32(len(apart))


def _heat(sr: Pixels, hr: Pixels) -> Pixels:
    """The error as a grey image, 255 standing for `HEAT_MAX` and more; the page's filter gives it colours."""
    return np.rint(np.minimum(_error(sr, hr) / HEAT_MAX, 1.0) * 255).astype(np.uint8)


def _zooms(shelf: TaskImages, plan: Plan, embed: Callable[[Pixels], Picture]) -> list[PatchPair]:
    """Zoomed patches of the networks, or else of the best ranked rows, of every track once."""
    found: list[PatchPair] = []
    seen: set[Any] = set()
    for rack in shelf.racks:
        plain = next((row for name in (PLAIN, BASELINE) for row in rack.rows if row.method == name), None)
        rivals = [row for row in rack.rows if row is not plain and row.role != "control"]
        rivals = [row for row in rivals if row.role == "network"] or sorted(rivals, key=lambda row: row.rank or 0)[:3]
        wanted = {row.key for row in _rows(rack, plan)}
        for row in rivals:
            identity = (row.method, row.weights, row.track)
            if plain is None or row.key not in wanted or identity in seen or len(found) == MOST_ZOOMED:
                continue
            seen.add(identity)
            patches = sorted(_patches(shelf, rack.sr[row.key], _positions(rack, plan)), key=lambda patch: patch[0])
            patches = [patch for patch in patches if patch[1] in rack.sr[plain.key]]
            if patches:
                lowest, highest = (_crops(shelf, rack, row, plain, patch, embed) for patch in (patches[0], patches[-1]))
                found.append(PatchPair(shelf.task, row.label, _mark(row), plain.label, highest, lowest))
    return found


def _patches(
    shelf: TaskImages, sr: Mapping[int, Pixels], positions: Iterable[int]
) -> Iterator[tuple[float, int, tuple[int, int, int]]]:
    """(PSNR, position, (x, y, side)) of the patches of a grid over all images."""
    for at in positions:
        hr = shelf.hr[at]
        if at not in sr or sr[at].shape != hr.shape:
            continue
        height, width = hr.shape[:2]
        side = min(max(min(height, width) // PATCH_SHARE, SMALLEST_PATCH), height, width)
        for y in range(0, height - side + 1, side):
            for x in range(0, width - side + 1, side):
                yield _patch_psnr(sr[at], hr, (x, y, side)), at, (x, y, side)


def _patch_psnr(sr: Pixels, hr: Pixels, box: tuple[int, int, int]) -> float:
    x, y, side = box
    ours, theirs = (image[y : y + side, x : x + side].astype(np.float64) for image in (sr, hr))
    mse = float(((ours - theirs) ** 2).mean()) / 255**2
    return math.inf if mse == 0 else -10 * math.log10(mse)


def _crops(
    shelf: TaskImages, rack: NetworkImages, row: Row, plain: Row, patch: tuple[float, int, tuple[int, int, int]],
    embed: Callable[[Pixels], Picture],
) -> tuple[Crop, ...]:  # fmt: skip
    psnr, at, box = patch
    hr, other, own = shelf.hr[at], rack.sr[plain.key][at], rack.sr[row.key][at]
    return (
        Crop(ORACLE, embed(hr), box, None),
        Crop(
            plain.label, embed(other), box, _decibels(_patch_psnr(other, hr, box)) if other.shape == hr.shape else None
        ),
        Crop(row.label, embed(own), box, _decibels(psnr)),
    )
