"""What both layouts of boxes share: images with the boxes that annotations say of them, held against the images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from srbench.data.boxes import Rows, box_rows, cut_boxes
from srbench.data.readers.files import FileSource, select_split, stable_id
from srbench.data.scan import join_notes, scan
from srbench.errors import DataError, UnreadableImageError
from srbench.imaging.decode import StoredImage, header_of

_MARGIN = 2.0  # pixels that a box may stick out, since tools round and count from 0 or 1
_MAX_OUTSIDE = 0.1  # share of the boxes that may stick out further, or the numbers mean something else


@dataclass
class Annotated:
    """What annotations say of one image.

    Attributes:
        file: Name of the image, relative to the folder of images.
        size: Height and width in pixels, or None where they are not said.
        xyxy: Edges of each box, pixels.
        labels: Index of each box's class.
        areas: Area of each object, square pixels, nan where it is not said.
        crowd: Whether each box holds many objects.
        ignored: Whether each box is neither to be found nor wrong to be found.
    """

    file: str
    size: tuple[int, int] | None
    xyxy: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class BoxedImage:
    """What is known of one image.

    Attributes:
        size: Height and width in pixels, or None where nothing tells.
        boxes: Rows of `srbench.data.boxes`.
    """

    size: tuple[int, int] | None
    boxes: Rows


class BoxedSource(FileSource):
    """A split of images with boxes; those that are annotated and missing count as unreadable."""

    task_type = "detection"
    has_targets = True

    def __init__(
        self,
        root: Path,
        images: Mapping[str, BoxedImage],
        *,
        missing: frozenset[str],
        classes: tuple[str, ...],
        name: str,
        spec: str,
        split: str,
        note: str,
    ) -> None:
        """Sort the images by id.

        Args:
            root: The folder of images.
            images: What is known of each image, by its relative path.
            missing: Those images that are not there.
            classes: Names of the classes.
            name: Short name for task ids.
            spec: The SPEC without the folders above the data.
            split: Name of the split.
            note: A caution for the tables, or "".
        """
        super().__init__(root, list(images), labels=None, classes=classes, name=name, spec=spec, split=split, note=note)
        listed = [images[file] for file in self._files()]
        self._sizes = [each.size for each in listed]
        self._ends = np.cumsum([0, *(len(each.boxes) for each in listed)])
        self._rows = np.concatenate([each.boxes for each in listed])
        self._missing = missing

    def boxes(self, index: int) -> Rows:
        """Return the boxes of sample `index`, rows of `srbench.data.boxes` in the pixels of its file."""
        return self._rows[self._ends[index] : self._ends[index + 1]]

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` with its boxes.

        Raises:
            UnreadableImageError: If it is missing, cannot be decoded, or has another size than its annotations say.
        """
        name, size = self.samples[index].id, self._sizes[index]
        if self._file(index) in self._missing:
            raise UnreadableImageError(f"{name} is annotated, but no image of that name is there")
        stored = super().read_stored(index)
        height, width = stored.pixels.shape[-2:]
        if size is not None and (height, width) != size:
            raise UnreadableImageError(
                f"{name} is {height} x {width} pixels, and its annotations are of an image of {size[0]} x {size[1]}"
            )
        return replace(stored, target=self.boxes(index))

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return the hash of each file's bytes, and that of its boxes."""
        hashes = (hashlib.sha256(self.boxes(index).tobytes()).hexdigest()[:16] for index in indices)
        return [(*stamp, of_boxes) for stamp, of_boxes in zip(super().stamps(indices), hashes, strict=True)]

    def _paths(self) -> Iterator[Path]:
        yield from (self._root / file for file in self._files() if file not in self._missing)


def boxed_source(
    root: Path,
    annotated: Sequence[Annotated],
    *,
    classes: tuple[str, ...],
    name: str,
    spec: str,
    stored_spec: str,
    split: str,
    hashed: bool,
) -> BoxedSource:
    """Hold annotations against the images, and open a split of them.

    Boxes are cut at the edges of their image. Those without area, or with no pixel inside, are left out and counted in
    the source's note.

    Args:
        root: The folder of images.
        annotated: What is said of each image of the split.
        classes: Names of the classes.
        name: Short name for task ids.
        spec: The SPEC as it was given, for messages.
        stored_spec: The SPEC without the folders above the data.
        split: Name of the split.
        hashed: Whether the split is one by the hash of the id, so that some of `annotated` are left out.

    Raises:
        DataError: If no image is there, two entries name one image, or the boxes do not fit the images.
    """
    files = scan(root)
    there = frozenset(files.images)
    alike: dict[str, list[str]] = {}  # by name without its folder, and without its ending too
    for file in files.images:
        for key in {PurePosixPath(file).name, PurePosixPath(file).stem}:
            alike.setdefault(key, []).append(file)
    found: dict[str, Annotated] = {}
    for each in annotated:
        path = PurePosixPath(each.file)
        same = alike.get(path.name) or alike.get(path.stem) or []
        file = each.file if each.file in there or len(same) != 1 else same[0]
        if file in found:
            raise DataError(f"--data {spec}: the image {stable_id(file)!r} is annotated twice; keep one of the entries")
        found[file] = each
    missing = frozenset(set(found) - there)
    if len(missing) == len(found):
        example = f", such as {stable_id(min(missing))!r}" if missing else ""
        raise DataError(
            f"--data {spec}: none of the {len(found)} annotated images is below {root}{example};"
            " check the folder of images"
        )
    chosen = select_split(sorted(found), split, spec=spec) if hashed else sorted(found)
    kept: dict[str, BoxedImage] = {}
    dropped: list[str] = []
    outside: list[str] = []
    for file in chosen:
        kept[file] = _held_against(root / file, found[file], dropped, outside, known=file not in missing)
    total = sum(len(each.labels) for each in found.values())
    if len(outside) > max(1, _MAX_OUTSIDE * total):
        raise DataError(
            f"--data {spec}: {len(outside)} of {total} boxes stick out of their image, such as one of {outside[0]};"
            " COCO's bbox is [left, top, width, height] and VOC's bndbox xmin, ymin, xmax, ymax, both in pixels"
        )
    boxes = "box" if len(dropped) == 1 else "boxes"
    left_out = f"left out: {len(dropped)} {boxes} without a pixel, such as one of {dropped[0]}" if dropped else ""
    unannotated = len(there) - len(there & set(found)) if split == "all" else 0
    without = f"{unannotated} images without an entry in the annotations were left out" if unannotated else ""
    return BoxedSource(
        root,
        kept,
        missing=missing,
        classes=classes,
        name=name,
        spec=stored_spec,
        split=split,
        note=join_notes(left_out, without, files.note),
    )


def _held_against(path: Path, said: Annotated, dropped: list[str], outside: list[str], *, known: bool) -> BoxedImage:
    """Return the boxes of one image; names it once for each box that is dropped, or sticks out of it."""
    size = said.size
    if size is None and known and (header := header_of(path)) is not None:
        size = (header.height, header.width)
    rows = box_rows(said.xyxy, said.labels, areas=said.areas, ignored=said.ignored, crowd=said.crowd)
    if size is None:
        return BoxedImage(None, rows)  # the image cannot be read, and is counted as such
    height, width = size
    name = stable_id(said.file)
    out = (rows[:, :4] < -_MARGIN) | (rows[:, :4] > np.array([width, height, width, height]) + _MARGIN)
    outside += [name] * int(out.any(axis=1).sum())
    cut = cut_boxes(rows, height, width)
    dropped += [name] * (len(rows) - len(cut))
    return BoxedImage(size, cut)
