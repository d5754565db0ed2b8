"""Images with a class for each pixel: `masks:IMAGES,MASKS`, and two layouts that many have, `camvid:` and `voc-seg:`.

A mask is a PNG of one channel, or of a palette, whose values are indices of classes; 255 is ignored. It has the name of
its image, up to the suffix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srbench.data.content import content_hashes
from srbench.data.dataset import DatasetInfo, check_split
from srbench.data.readers.files import (
    FileSource,
    by_stem,
    existing_folder,
    folder_name,
    is_plain_name,
    select_split,
    stable_id,
)
from srbench.data.readers.folders import SPLIT_FOLDERS
from srbench.data.scan import scan
from srbench.data.subset import split_spec
from srbench.errors import DataError, UnreadableImageError, UsageError, one_line
from srbench.files.paths import user_path
from srbench.files.regular import open_regular, read_lines
from srbench.imaging.decode import PILLOW_ERRORS, StoredImage

# Pillow's names of what keeps every value. JPEG turns indices into others, most of which are classes too.
_LOSSLESS = ("PNG", "BMP", "GIF", "PPM", "TIFF")

MASKS = DatasetInfo(
    name="masks",
    opener="open_masks",
    description="your own images with masks, PNGs of class indices named alike",
    argument="IMAGES,MASKS",
    labels="masks",
    protocol="dense-x4",
    task_type="segmentation",
    own_classes=True,
)
CAMVID = DatasetInfo(
    name="camvid",
    opener="open_camvid",
    description="a folder a split, each with images/ and masks/; classes.txt beside them",
    argument="PATH",
    splits=("val", "train", "test"),
    labels="masks",
    protocol="dense-x4",
    task_type="segmentation",
)
VOC = DatasetInfo(
    name="voc-seg",
    opener="open_voc",
    description="Pascal VOC's segmentation: JPEGImages, SegmentationClass, ImageSets/Segmentation",
    argument="PATH",
    splits=("val", "train", "trainval"),
    labels="masks",
    protocol="dense-x4",
    task_type="segmentation",
)

IGNORED = 255
CLASSES_FILE = "classes.txt"
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_NAMED = 3
_SHOWN = 60  # characters of a name that is wrong
_PLAIN = frozenset({"images", "image", "img", "imgs", "jpegimages", "photos"})  # folders that say nothing of their data


class MasksSource(FileSource):
    """A split of images with masks."""

    task_type = MASKS.task_type
    has_targets = True

    def __init__(
        self,
        root: Path,
        mask_root: Path,
        masks: Mapping[str, str],
        *,
        classes: tuple[str, ...],
        name: str,
        spec: str,
        split: str,
        note: str = "",
    ) -> None:
        """Sort the files by id.

        Args:
            root: The folder of the images.
            mask_root: The folder of the masks.
            masks: Relative path of each image's mask, by that of the image.
            classes: Names of the classes, by index.
            name: Short name for task ids.
            spec: The SPEC without the folders above the data.
            split: Name of the split.
            note: A caution for the tables, or "".
        """
        super().__init__(root, list(masks), labels=None, classes=classes, name=name, spec=spec, split=split, note=note)
        self._mask_root = mask_root
        self._masks = tuple(masks[file] for file in self._files())
        self._n_classes = len(classes)

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` with its mask, `(H, W)`, uint8.

        Raises:
            UnreadableImageError: If either cannot be decoded, they differ in size, or the mask holds an index that no
                class has.
        """
        stored, file = super().read_stored(index), stable_id(self._masks[index])
        mask = read_mask(self._mask_root / self._masks[index], file)
        size = (stored.pixels.shape[-2], stored.pixels.shape[-1])
        if mask.shape != size:
            raise UnreadableImageError(
                f"the mask {file} is {mask.shape[0]} x {mask.shape[1]} pixels, its image {self.samples[index].id} is"
                f" {size[0]} x {size[1]}"
            )
        unknown = mask[(mask >= self._n_classes) & (mask != IGNORED)]
        if unknown.size:
            raise UnreadableImageError(
                f"the mask {file} holds the index {int(unknown.min())}, but the {self._n_classes} classes are 0 to"
                f" {self._n_classes - 1} ({IGNORED} is ignored)"
            )
        return replace(stored, target=mask)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return the hashes of the bytes of images and masks, and the number of classes."""
        masks = content_hashes(self._mask_root, (self._mask_root / self._masks[index] for index in indices))
        both = zip(super().stamps(indices), masks, strict=True)
        return [(*stamp, of_mask, self._n_classes) for stamp, of_mask in both]


def open_masks(argument: str, split: str | None = None) -> MasksSource:
    """Open `IMAGES,MASKS` or `IMAGES,MASKS?classes=FILE`: "all", or a split by the hash of the id.

    The file names one class a line, in the order of the indices. Without it, classes.txt is taken from the folder above
    the masks or the one above that; where there is none, the classes are named by the indices that the masks hold.

    Raises:
        DataError: If a folder is missing or empty, an image lacks its mask or a mask its image.
        UsageError: If it is not two folders, or there is no split of that name.
    """
    spec = f"masks:{argument}"
    folders, given = split_spec(argument)
    parts = folders.split(",")
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--data {spec}: expected two folders, masks:IMAGES,MASKS")
    root, mask_root = (existing_folder(Path(part), spec) for part in parts)
    images, masks = scan(root), scan(mask_root)
    for folder, found in ((root, images), (mask_root, masks)):
        if not found.images:
            raise DataError(f"--data {spec}: {folder} holds no images (.jpg, .png ...)")
    partners = _match(images.images, masks.images, spec)
    if given is not None:
        classes = read_classes(user_path(given), spec)
    else:
        beside = [folder / CLASSES_FILE for folder in (mask_root.parent, mask_root.parent.parent)]
        file = next((path for path in beside if path.is_file()), None)
        classes = read_classes(file, spec) if file is not None else _named_by_index(mask_root, masks.images)
    split = split or MASKS.splits[0]
    chosen = select_split(sorted(partners), split, spec=spec)
    name = _name_of(root)
    return MasksSource(
        root,
        mask_root,
        {file: partners[file] for file in chosen},
        classes=classes,
        name=name,
        spec=f"masks:{name}",
        split=split,
        note=images.note,
    )


def open_camvid(argument: str, split: str | None = None) -> MasksSource:
    """Open a folder that holds a folder for each split, each with images/ and masks/, and classes.txt.

    Raises:
        DataError: If a folder or the file is missing, or images and masks do not fit together.
        UsageError: If there is no split of that name.
    """
    spec = f"camvid:{argument}"
    root = existing_folder(Path(argument), spec)
    split = CAMVID.choose_split(split, spec=spec)
    folder, mask_folder = (existing_folder(root / split / each, spec) for each in ("images", "masks"))
    images = scan(folder)
    partners = _match(images.images, scan(mask_folder).images, spec)
    name = folder_name(root)
    return MasksSource(
        folder,
        mask_folder,
        partners,
        classes=read_classes(root / CLASSES_FILE, spec),
        name=name,
        spec=f"camvid:{name}",
        split=split,
        note=images.note,
    )


def open_voc(argument: str, split: str | None = None) -> MasksSource:
    """Open Pascal VOC's segmentation; the path is VOC2012, or any folder of that layout.

    Raises:
        DataError: If a folder, the list of the split, an image or a mask is missing.
        UsageError: If there is no split of that name.
    """
    spec = f"voc-seg:{argument}"
    root = existing_folder(Path(argument), spec)
    images, masks = (existing_folder(root / each, spec) for each in ("JPEGImages", "SegmentationClass"))
    lists = root / "ImageSets" / "Segmentation"
    known = tuple(sorted(path.stem for path in lists.glob("*.txt")))
    if not known:
        raise DataError(f"--data {spec}: there is no list of a split in {lists}; expected files such as val.txt")
    split = split or next((each for each in VOC.splits if each in known), known[0])
    check_split(split, known, spec=spec)
    try:
        names = " ".join(read_lines(lists / f"{split}.txt")).split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {spec}: {split}.txt cannot be read as text ({error}); give it anew") from None
    strange = next((name for name in names if not is_plain_name(name)), None)
    if strange is not None:
        raise DataError(
            f"--data {spec}: {split}.txt names {strange[:_SHOWN]!r}; expected names of files without folders"
        )
    partners = {f"{name}.jpg": f"{name}.png" for name in names}
    missing = [file for file in partners if not (images / file).is_file()]
    missing += [file for file in partners.values() if not (masks / file).is_file()]
    if missing or not names:
        what = f"names {missing[0]}, which is not there" if missing else "names no image"
        raise DataError(f"--data {spec}: {split}.txt {what}; download the data set anew")
    name = folder_name(root)
    return MasksSource(images, masks, partners, classes=VOC_CLASSES, name=name, spec=f"voc-seg:{name}", split=split)


def read_mask(path: Path, name: str) -> NDArray[np.uint8]:
    """Read the indices of a mask, `(H, W)`, uint8.

    Raises:
        UnreadableImageError: If it cannot be decoded, or is no image of indices.
    """
    try:
        with open_regular(path) as file, Image.open(file) as image:
            if image.format not in _LOSSLESS:
                raise UnreadableImageError(
                    f"the mask {name} is of the format {image.format}, which may change indices; expected a PNG of"
                    " class indices, made from the source anew"
                )
            if image.mode not in ("P", "L", "1"):
                raise UnreadableImageError(
                    f"the mask {name} is of Pillow's mode {image.mode}; expected a PNG of class indices, of 8 bits and"
                    " one channel or with a palette"
                )
            return np.array(image, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"the mask {name} is no image that can be read") from error
    except PILLOW_ERRORS as error:
        raise UnreadableImageError(f"the mask {name} cannot be decoded: {one_line(error)}") from error


def read_classes(path: Path, spec: str) -> tuple[str, ...]:
    """Read class names, one a line, in the order of the indices.

    Raises:
        DataError: If the file cannot be read, is empty, or names a class twice or more classes than a mask can hold.
    """
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise DataError(
            f"--data {spec}: the class names in {path} cannot be read ({why}); expected a text file, one name a line"
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if not names or twice or len(names) > IGNORED:
        what = f"names {twice[0]!r} twice" if twice else f"names {len(names)} classes"
        raise DataError(f"--data {spec}: {path.name} {what}; expected 1 to {IGNORED} names, one a line")
    return tuple(names)


def _named_by_index(root: Path, files: Sequence[str]) -> tuple[str, ...]:
    """Name the classes by their indices, up to the largest that a mask holds."""
    largest = 0
    for file in files:
        try:
            mask = read_mask(root / file, file)
        except UnreadableImageError:
            continue  # it is named and counted when its image is decoded
        largest = max(largest, int(mask[mask != IGNORED].max(initial=0)))
    return tuple(str(index) for index in range(largest + 1))


def _match(images: Sequence[str], masks: Sequence[str], spec: str) -> dict[str, str]:
    """Return the mask of each image: the one of the same path, up to the suffix."""
    masks_by_stem = by_stem(masks, "the folder of the masks", spec)
    images_by_stem = by_stem(images, "the folder of the images", spec)
    partners = {file: masks_by_stem[stem] for stem, file in images_by_stem.items() if stem in masks_by_stem}
    for what, missing in (
        (("image has no mask", "images have no mask"), [file for file in images if file not in partners]),
        (("mask has no image", "masks have no image"), sorted(set(masks) - set(partners.values()))),
    ):
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            named = ", ".join(stable_id(file) for file in missing[:_NAMED])
            raise DataError(
                f"--data {spec}: {len(missing)} {what[len(missing) > 1]} of the same name: {named}{more};"
                " both are named alike, up to the suffix"
            )
    return partners


def _name_of(root: Path) -> str:
    """Return a name for the data: the images' folder, or what is above it where that says nothing."""
    parts = [part for part in root.resolve().parts[-3:] if part.lower() not in _PLAIN]
    if not parts:
        return folder_name(root)
    split = parts[-1].lower() in SPLIT_FOLDERS and len(parts) > 1
    return f"{parts[-2]}-{parts[-1]}" if split else parts[-1]
