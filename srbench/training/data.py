"""What a training run reads: sources split without leaks, HR crops that are never enlarged, and the order of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as TypingProtocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.catalogue import open_source
from srbench.data.geometry import crop_hr
from srbench.data.hr_cache import build_hr_store
from srbench.data.readers.files import hash_split
from srbench.data.source import Sample, Source, sample_list_sha256
from srbench.data.subset import SelectedSource
from srbench.errors import DataError, UsageError
from srbench.protocol import Geometry
from srbench.task_types import OutputMap, TaskType, task_type
from srbench.training.recipe import Recipe

Positions = NDArray[np.int64]

_VAL_FOLDERS = ("val", "valid", "validation")
_DRAWS_AGAIN = 7  # of a patch that is too flat


class LabelMap(TypingProtocol):
    """Maps class names to indices of a classifier's outputs."""

    def __call__(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Return one index for every class name, or raise DataError."""


class NeverEnlarged(SelectedSource):
    """A source whose images come out of `read` as HR: by the geometry, or cut at native size where they are small.

    An image enlarged to the HR side would teach a network that HR is blurred.
    """

    def __init__(self, source: Source, geometry: Geometry) -> None:
        """Wrap a source; the geometry becomes part of the name, which is part of the cache's key."""
        tag = hashlib.sha256(json.dumps(dataclasses.asdict(geometry), sort_keys=True).encode()).hexdigest()[:12]
        super().__init__(source, range(len(source.samples)), name=f"{source.name}|training|{tag}")
        self._geometry = geometry

    def read(self, index: int) -> Tensor:
        """Return HR of sample `index`, `(3, h, w)`, RGB, uint8."""
        image = super().read(index)
        if self.paired:
            return image
        geometry, name = self._geometry, self.samples[index].id
        if geometry.resize is not None and min(image.shape[-2:]) >= geometry.resize:
            image = crop_hr(image, dataclasses.replace(geometry, crop=None, modulo=1), name=name)
        if geometry.crop is not None:
            # A side that is too short stays; the other keeps to the crop, so that shapes vary as little as possible.
            rows, columns = (min(side, geometry.crop) for side in image.shape[-2:])
            top, left = round((image.shape[-2] - rows) / 2), round((image.shape[-1] - columns) / 2)
            image = image[:, top : top + rows, left : left + columns]
        return crop_hr(image, Geometry(modulo=geometry.modulo), name=name)


def open_splits(data: Sequence[str], val: str | None) -> tuple[list[Source], list[Source]]:
    """Open the sources to train on and those to validate on, which share no sample.

    A dataset with a training split of its own is trained on that, and validated on its own validation split where it
    has one. Any other is split by the hash of the id: without `val`, its "train" part (80 %) and "val" part (10 %) are
    used, so that `srbench eval --split test` stays a fair test; with a `val` of its own, all of it is trained on. With
    `val` "test" the figures are those of the test split, and all that is not in it is trained on: 90:10 by hash.

    Raises:
        UsageError: If nothing is left to validate on, or a SPEC is wrong.
    """
    if not data:
        raise UsageError("--data SPEC is needed: what is to be trained on, such as demo or folder:photos")
    if val == "test":
        pairs = [_nine_tenths(spec) for spec in dict.fromkeys(data)]
        return [training for training, _ in pairs], [tested for _, tested in pairs]
    shared = val is None or val in data
    training: list[Source] = []
    validation: list[Source] = []
    for spec in dict.fromkeys(data):
        own = _own_split(spec, ("train",))
        held_out = _own_split(spec, _VAL_FOLDERS) if own is not None else None
        if not shared:
            training.append(own or open_source(spec, "all"))
        elif own is None:
            training.append(open_source(spec, "train"))
            validation += _if_any(spec, "val")
        elif held_out is not None:
            training.append(own)
            validation.append(held_out)
        else:
            tenth = [i for i, sample in enumerate(own.samples) if hash_split(sample.id) == "val"]
            rest = sorted(set(range(len(own.samples))) - set(tenth))
            training.append(SelectedSource(own, rest))
            validation += [SelectedSource(own, tenth)] if tenth else []
    if not shared:
        assert val is not None
        validation = [_own_split(val, _VAL_FOLDERS) or _whole(val) or open_source(val)]
    if not validation:
        raise UsageError(
            f"none of the images of {', '.join(data)} falls into the tenth that is kept for validation;"
            " give more images, or a validation set with --val SPEC"
        )
    return training, validation


def _nine_tenths(spec: str) -> tuple[Source, Source]:
    """Open all of a dataset but its test split, and its test split, which is a tenth by hash if it has no own."""
    own = _own_split(spec, ("train",))
    if own is not None:
        tested = _own_split(spec, ("test",))
        if tested is None:
            raise UsageError(f"--val test: {spec} has splits of its own, but no test split; name one with --val SPEC")
        return own, tested
    whole = open_source(spec, "all")
    rest = [i for i, sample in enumerate(whole.samples) if hash_split(sample.id) != "test"]
    return SelectedSource(whole, rest, split="train+val"), open_source(spec, "test")


def _own_split(spec: str, names: Sequence[str]) -> Source | None:
    """Open a split that the dataset itself has, or return None where it only has those by hash."""
    whole = _whole(spec)
    for name in names:
        try:
            source = open_source(spec, name)
        except DataError:
            if whole is None:
                raise
            continue
        except UsageError:
            continue
        if whole is None or any(hash_split(sample.id) != name for sample in source.samples):
            return source
    return None


def _whole(spec: str) -> Source | None:
    try:
        return open_source(spec, "all")
    except DataError:
        raise
    except UsageError:
        return None


def _if_any(spec: str, split: str) -> list[Source]:
    try:
        return [open_source(spec, split)]
    except DataError:
        return []


class ImageSet:
    """The HR crops of one or several sources, read by position.

    Attributes:
        samples: Every sample, source after source.
        kind: What a network is asked for.
        labels: What the data say, first axis n: `(n,)` int64 indices of the classifier's outputs, `(n, 10)` ratings, or
            None.
        why_unlabelled: Why `labels` is None.
        shapes: `(n, 2)`, HR height and width in pixels.
        paired: Whether LR is real.
        channels: Channels of the data: 3, or 1 where all images are grey.
        key: Hash of all that the pixels depend on.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        geometry: Geometry,
        *,
        label_map: LabelMap | None,
        limit: int | None = None,
        enlarge: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        """Decode what the cache does not hold yet.

        Args:
            sources: What to read.
            geometry: How an image becomes HR.
            label_map: From class names to the classifier's outputs, or None where labels are of no use.
            limit: Images of each source at most.
            enlarge: Whether images smaller than HR are enlarged, as a protocol that scores does.
            advance: Called with the number of images newly done.

        Raises:
            UsageError: If real pairs and plain images are mixed, or kinds of task.
        """
        wrapped = [source if enlarge else NeverEnlarged(source, geometry) for source in sources]
        self._stores = [
            build_hr_store(source, geometry if enlarge else Geometry(), limit=limit, advance=advance)
            for source in wrapped
        ]
        self._sources = tuple(sources)
        self.channels = max(source.channels for source in sources)
        self.samples: tuple[Sample, ...] = tuple(sample for store in self._stores for sample in store.samples)
        if not self.samples:
            raise UsageError(f"none of the images of {', '.join(s.spec for s in sources)} could be read; look at them")
        self._starts = np.cumsum([0, *(len(store) for store in self._stores)])
        self.shapes = np.concatenate([store.shapes for store in self._stores])
        paired = {store.lr_shapes is not None for store in self._stores}
        if len(paired) > 1:
            raise UsageError("real pairs and plain images cannot be trained on together; give one kind with --data")
        self.paired = paired.pop()
        self._lr_shapes = np.concatenate([s.lr_shapes for s in self._stores]) if self.paired else None  # type: ignore[misc]
        self.kind = kind_of(sources)
        self.labels, self.why_unlabelled = self._labels(label_map)
        self.key = hashlib.sha256("|".join(store.key for store in self._stores).encode()).hexdigest()

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.samples)

    def read(self, positions: Positions) -> tuple[Tensor, Tensor | None]:
        """Return HR `(N, 3, H, W)` and real LR `(N, 3, h, w)` or None, RGB, uint8; all of one shape."""
        parts = [self._locate(position) for position in positions]
        if len({store for store, _ in parts}) == 1:
            store = self._stores[parts[0][0]]
            local = [index for _, index in parts]
            return store.batch(local), store.lr_batch(local)
        pairs = [(self._stores[store].batch([index]), self._stores[store].lr_batch([index])) for store, index in parts]
        lr = None if not self.paired else torch.cat([lr for _, lr in pairs if lr is not None])
        return torch.cat([hr for hr, _ in pairs]), lr

    def shape_groups(self, patch: int | None, shift: int) -> NDArray[np.int64]:
        """Return for every image the number of the shape class that its crops fall into, `(n,)`."""
        shapes = self.shapes.copy()
        if patch is not None:
            shapes = np.minimum(shapes, patch)
        elif shift:
            shapes = np.maximum(shapes - shift, 1)
        if self._lr_shapes is not None:
            shapes = np.concatenate([shapes, self.shapes // np.maximum(self._lr_shapes, 1)], axis=1)
        return np.unique(shapes, axis=0, return_inverse=True)[1].reshape(-1)

    def batches(self, size: int) -> list[Positions]:
        """Cut all positions into batches of at most `size` images of one shape, in a fixed order."""
        shapes = self.shapes if self._lr_shapes is None else np.concatenate([self.shapes, self._lr_shapes], axis=1)
        group = np.unique(shapes, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.arange(len(self), dtype=np.int64)
        return list(_filled(order, group, size))

    def factor(self, position: int) -> int:
        """Return HR side / LR side of a real pair."""
        assert self._lr_shapes is not None
        return int(self.shapes[position, 0] // self._lr_shapes[position, 0])

    def describe(self) -> list[dict[str, Any]]:
        """Say what was read, for the card: spec, split, number of images, hash of the list."""
        return [
            {
                "spec": source.spec,
                "split": source.split,
                "n": len(store),
                "samples_sha256": sample_list_sha256(store.samples),
                "unreadable": len(store.unreadable),
            }
            | ({"note": source.note} if source.note else {})
            for source, store in zip(self._sources, self._stores, strict=True)
        ]

    def _locate(self, position: int) -> tuple[int, int]:
        store = int(np.searchsorted(self._starts, position, side="right")) - 1
        return store, int(position - self._starts[store])

    def _labels(self, label_map: LabelMap | None) -> tuple[NDArray[Any] | None, str]:
        if label_map is None:
            return None, "there is no classifier whose outputs they could name"
        parts = []
        for source, store in zip(self._sources, self._stores, strict=True):
            try:
                outputs = None if source.classes is None else np.asarray(label_map(source.classes), dtype=np.int64)
            except DataError as error:
                return None, str(error)
            found = self.kind.targets(store.samples, OutputMap(0, outputs))
            if found is None:
                return None, f"{source.spec} has none"
            parts.append(found)
        return np.concatenate(parts), ""


def kind_of(sources: Sequence[Source]) -> TaskType:
    """Return what a network is asked for on these sources.

    Raises:
        UsageError: If they ask for different things.
    """
    kinds = sorted({source.task_type for source in sources})
    if len(kinds) > 1:
        raise UsageError(
            f"all data of a run ask one question of a network, got data of the kinds {' and '.join(kinds)}; train on"
            " one of them at a time"
        )
    return task_type(kinds[0])


def epoch_plan(
    images: ImageSet, recipe: Recipe, *, seed: int, epoch: int, rank: int, world: int
) -> list[list[Positions]]:
    """Return this rank's part of an epoch: optimiser steps, each a list of batches of one shape.

    A pure function of its arguments, so that a resumed run sees what the uninterrupted one would have seen. The ranks'
    parts are disjoint and have equally many batches of equal size; what the number of ranks does not divide is left
    out of this epoch, never repeated, and so is a last batch of a single image, which has no statistics for batch norm.
    An image that gives several patches stands in its batch as often, in a row.
    """
    repeats = min(recipe.patches_per_image, recipe.batch_size)
    images_a_batch = -(-recipe.batch_size // repeats)
    group = images.shape_groups(recipe.patch, recipe.augment.shift)
    members = np.bincount(group)
    wanted = None if recipe.steps_per_epoch is None else recipe.steps_per_epoch * recipe.accumulate
    batches: list[Positions] = []
    turn = 0
    while True:
        order = np.random.default_rng([seed, 1, epoch, turn]).permutation(len(images))
        for together in _filled(order, group, images_a_batch * world):
            whole = len(together) // world * world
            alone = whole == world and images_a_batch > 1 and members[group[together[0]]] > world
            if whole and not (alone and repeats == 1):
                batches.append(np.repeat(together[rank:whole:world], repeats)[: recipe.batch_size])
        turn += 1
        if wanted is None or len(batches) >= wanted or not batches:
            break
    if not batches:
        raise UsageError(f"{len(images)} training images are too few for {world} ranks; start fewer ranks")
    batches = batches[:wanted]
    return [batches[start : start + recipe.accumulate] for start in range(0, len(batches), recipe.accumulate)]


def _filled(order: Positions, group: NDArray[np.int64], size: int) -> Iterator[Positions]:
    """Fill batches of one shape in the order given; those that stay incomplete come last."""
    if len(group) == 0 or (group == group[0]).all():
        for start in range(0, len(order), size):
            yield order[start : start + size]
        return
    open_batches: dict[int, list[int]] = {}
    for position in order.tolist():
        batch = open_batches.setdefault(int(group[position]), [])
        batch.append(position)
        if len(batch) == size:
            yield np.array(open_batches.pop(int(group[position])), dtype=np.int64)
    for batch in open_batches.values():
        yield np.array(batch, dtype=np.int64)


@dataclass(frozen=True)
class RawBatch:
    """A batch as the reading threads hand it over, on the CPU.

    Attributes:
        positions: Where the images are in the set.
        hr: `(N, 3, H, W)`, RGB, uint8, cropped.
        lr: `(N, 3, h, w)`, RGB, uint8, or None where LR is made by the degradation.
        flipped: `(N,)` bool, which images are to be mirrored.
    """

    positions: Positions
    hr: Tensor
    lr: Tensor | None
    flipped: NDArray[np.bool_]


def read_cropped(images: ImageSet, positions: Positions, recipe: Recipe, generator: np.random.Generator) -> RawBatch:
    """Read images, and cut, turn and mirror them as the recipe's draws say."""
    draws = generator.random((len(positions), 3))
    flipped = draws[:, 2] < (0.5 if recipe.augment.flip else 0.0)
    # What other settings need is drawn after that, so that none of them moves what a recipe without it has drawn.
    again = _DRAWS_AGAIN if recipe.flatness and recipe.patch is not None else 0
    corners = np.concatenate([draws[:, None, :2], generator.random((len(positions), again, 2))], axis=1)
    turns = generator.integers(4, size=len(positions)) if recipe.augment.rotate else np.zeros(len(positions), np.int64)
    if recipe.patch is None and not recipe.augment.shift and not turns.any():
        hr, lr = images.read(positions)
        return RawBatch(positions, hr, lr, flipped)
    crops = []
    previous, whole = -1, None
    for position, tries, turn in zip(positions.tolist(), corners, turns.tolist(), strict=True):
        if whole is None or position != previous:
            previous, whole = position, _one(images, position)
        crops.append(_turned(_cropped(whole, recipe, tries), turn))
    lr = None if not images.paired else torch.stack([lr for _, lr in crops if lr is not None])
    return RawBatch(positions, torch.stack([hr for hr, _ in crops]), lr, flipped)


def detail(patch: Tensor) -> float:
    """Return how far a patch `(C, H, W)`, uint8, is from flat: its larger mean deviation along a side, in [0, 1].

    The standard deviation of every column, and of every row, is taken; the larger of the two means is the detail. So
    idealo's image-super-resolution judges its LR patches: a ramp has detail, a wall has none.
    """
    values = patch.float().div_(255)
    return max(float(values.std(dim=side, correction=0).mean()) for side in (-2, -1))


@dataclass(frozen=True)
class _Whole:
    """An image before it is cut: HR `(3, H, W)`, LR `(3, h, w)` or None, uint8, and HR pixels an LR pixel."""

    hr: Tensor
    lr: Tensor | None
    step: int


def _one(images: ImageSet, position: int) -> _Whole:
    hr, lr = images.read(np.array([position]))
    return _Whole(hr[0], None if lr is None else lr[0], images.factor(position) if images.paired else 1)


def _cropped(whole: _Whole, recipe: Recipe, tries: NDArray[np.float64]) -> tuple[Tensor, Tensor | None]:
    """Cut the first of the tries `(n, 2)` that is not flat, or else the one with the most detail."""
    best, most = None, -1.0
    for draw in tries:
        crop = _cut(whole, recipe, draw)
        if len(tries) == 1:
            return crop
        found = detail(crop[0])
        if found > most:
            best, most = crop, found
        if found >= recipe.flatness:
            break
    assert best is not None
    return best


def _cut(whole: _Whole, recipe: Recipe, draw: NDArray[np.float64]) -> tuple[Tensor, Tensor | None]:
    hr, lr, step = whole.hr, whole.lr, whole.step
    cuts = []
    for side, share in zip(hr.shape[-2:], draw, strict=True):
        kept = min(recipe.patch, side) if recipe.patch is not None else max(side - recipe.augment.shift, 1)
        kept -= kept % step  # a real LR pixel cannot be cut
        if kept == 0:
            raise UsageError(f"a patch of {recipe.patch} pixels is smaller than one LR pixel of these pairs ({step})")
        cuts.append((int(share * ((side - kept) // step + 1)) * step, kept))
    (top, rows), (left, columns) = cuts
    hr = hr[:, top : top + rows, left : left + columns]
    if lr is not None:
        lr = lr[:, top // step : (top + rows) // step, left // step : (left + columns) // step]
    return hr, lr


def _turned(crop: tuple[Tensor, Tensor | None], quarters: int) -> tuple[Tensor, Tensor | None]:
    """Turn HR and LR by quarters; by halves where the crop is not square, because a batch has one shape."""
    hr, lr = crop
    quarters -= quarters % 2 if hr.shape[-2] != hr.shape[-1] else 0
    if not quarters:
        return crop
    return torch.rot90(hr, quarters, (-2, -1)), None if lr is None else torch.rot90(lr, quarters, (-2, -1))
