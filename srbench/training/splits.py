"""Opens the training and the validation data and checks that they share no sample."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from torch import Tensor

from srbench.data.catalogue import open_source
from srbench.data.geometry import Placement, place_image, placement
from srbench.data.readers.files import hash_split
from srbench.data.source import Source
from srbench.data.subset import SelectedSource
from srbench.data.targets import place_target
from srbench.errors import DataError, UsageError
from srbench.imaging.decode import StoredImage
from srbench.protocol import Geometry

_VAL_FOLDERS = ("val", "valid", "validation")


class NeverEnlarged(SelectedSource):
    """A source whose `read` gives HR: by the geometry, or cut at native size where an image is small.

    An image enlarged to the HR side would teach a network that HR is blurred.
    """

    def __init__(self, source: Source, geometry: Geometry) -> None:
        """Wrap a source; the geometry becomes part of the name, which is part of the cache's key."""
        tag = hashlib.sha256(json.dumps(dataclasses.asdict(geometry), sort_keys=True).encode()).hexdigest()[:12]
        super().__init__(source, range(len(source.samples)), name=f"{source.name}|training|{tag}")
        self._geometry = geometry

    def read_stored(self, index: int) -> StoredImage:
        """Return HR of sample `index`, `(3, h, w)`, RGB, uint8, with its target, and the channels that are stored."""
        stored = super().read_stored(index)
        if self.paired:
            return stored
        placed = self._placement(*stored.pixels.shape[-2:], name=self.samples[index].id)
        return dataclasses.replace(
            stored,
            pixels=place_image(stored.pixels, placed, self._geometry),
            target=None if stored.target is None else place_target(stored.target, placed),
        )

    def read(self, index: int) -> Tensor:
        """Return HR of sample `index`, `(3, h, w)`, RGB, uint8."""
        return self.read_stored(index).pixels

    def _placement(self, height: int, width: int, *, name: str) -> Placement:
        geometry = self._geometry
        if geometry.resize is not None and min(height, width) < geometry.resize:
            geometry = dataclasses.replace(geometry, resize=None)
        placed = placement(height, width, dataclasses.replace(geometry, crop=None, modulo=1), name=name)
        # A side that is too short stays; the other keeps to the crop, so that shapes vary as little as possible.
        kept = [side if geometry.crop is None else min(side, geometry.crop) for side in placed.resized]
        top, left = (round((side - keep) / 2) for side, keep in zip(placed.resized, kept, strict=True))
        inner = placement(kept[0], kept[1], Geometry(modulo=geometry.modulo), name=name)
        return dataclasses.replace(placed, top=top, left=left, rows=inner.rows, columns=inner.columns)


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
    """Open a dataset without its test split, and that split: its own, or a tenth by hash."""
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
    """Open a split of the dataset's own, or return None where its splits are by hash."""
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
