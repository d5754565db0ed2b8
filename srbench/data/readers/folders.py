"""The user's own images: `folder:` with one folder per class, and `images:` without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srbench.data.dataset import DatasetInfo, check_split
from srbench.data.readers.files import (
    FileSource,
    existing_folder,
    folder_name,
    has_images,
    list_folders,
    list_images,
    range_note,
    select_split,
    split_range,
    stable_id,
)
from srbench.errors import DataError, UsageError
from srbench.imaging.decode import Range

FOLDER = DatasetInfo(
    name="folder",
    opener="open_folder",
    description="your own images, one folder per class",
    argument="PATH",
)
IMAGES = DatasetInfo(
    name="images",
    opener="open_images",
    description="your own images without labels, at any depth",
    argument="PATH",
    labels="none",
)

SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")


def open_folder(argument: str, split: str | None) -> FileSource:
    """Open one folder per class, images at any depth below.

    Where the folders directly inside are named as splits (train, val, test ...) and hold the class folders, the
    split names the folder; otherwise "all", or a split by the hash of the id.

    Raises:
        DataError: If there is no such folder, or it holds no images or no class folders.
        UsageError: If the split does not exist, or must be chosen.
    """
    spec = f"folder:{argument}"
    path, value_range = split_range(argument, spec)
    root = existing_folder(Path(path), spec)
    name = folder_name(root)
    told = f"folder:{name}{range_note(value_range)}"
    splits = split_folders(root)
    if splits:
        if split is None:
            raise UsageError(f"--data {spec} holds the splits {', '.join(splits)}; choose one with --split")
        check_split(split, splits, spec=spec)
        return split_folder_source(root, splits, split, name=name, spec=told, value_range=value_range)
    files = list_images(root)
    labelled = [file for file in files if "/" in file]
    if not files:
        raise DataError(f"--data {spec}: {root} holds no images (.jpg, .png, .tif, .webp, .bmp, .npy ...)")
    if not labelled:
        raise DataError(
            f"--data {spec}: {root} has {len(files)} images but no class folders;"
            f" put each class in a folder of its own, or read unlabelled images with images:{argument}"
        )
    classes = tuple(sorted({class_of(file) for file in labelled}))
    split = split or FOLDER.splits[0]
    chosen = select_split(labelled, split, spec=spec)
    return labelled_source(root, chosen, classes, name=name, spec=told, split=split, value_range=value_range)


def open_images(argument: str, split: str | None) -> FileSource:
    """Open every image at any depth below a folder, without labels.

    Raises:
        DataError: If there is no such folder, or it holds no images.
        UsageError: If the split does not exist.
    """
    spec = f"images:{argument}"
    path, value_range = split_range(argument, spec)
    root = existing_folder(Path(path), spec)
    name = folder_name(root)
    splits = [folder for folder in list_folders(root) if folder in SPLIT_FOLDERS]
    if split in splits:
        root = root / split
        files, chosen_split = list_images(root), split
    else:
        chosen_split = split or IMAGES.splits[0]
        files = list_images(root)
    if not files:
        raise DataError(f"--data {spec}: {root} holds no images (.jpg, .png, .tif, .webp, .bmp, .npy ...)")
    if chosen_split not in splits:
        files = select_split(files, chosen_split, spec=spec)
    told = f"images:{name}{range_note(value_range)}"
    return FileSource(
        root, files, labels=None, classes=None, name=name, spec=told, split=chosen_split, value_range=value_range
    )


def split_folders(root: Path) -> list[str]:
    """Name the folders that are splits: all folders with images are named so, and each holds class folders."""
    holding = [folder for folder in list_folders(root) if has_images(root / folder)]
    named = all(folder in SPLIT_FOLDERS for folder in holding)
    return holding if named and all(_has_class_folders(root / folder) for folder in holding) else []


def split_folder_source(
    root: Path,
    splits: Sequence[str],
    split: str,
    *,
    name: str,
    spec: str,
    note: str = "",
    value_range: Range | None = None,
) -> FileSource:
    """Open `root/split`, one folder per class; labels count the classes of all splits, so that they agree."""
    files = list_images(root / split)
    classes = {folder for each in splits for folder in list_folders(root / each) if has_images(root / each / folder)}
    labelled = [file for file in files if "/" in file]
    return labelled_source(
        root / split,
        labelled,
        tuple(sorted(classes)),
        name=name,
        spec=spec,
        split=split,
        note=note,
        value_range=value_range,
    )


def labelled_source(
    root: Path,
    files: Sequence[str],
    classes: tuple[str, ...],
    *,
    name: str,
    spec: str,
    split: str,
    note: str = "",
    value_range: Range | None = None,
) -> FileSource:
    """Build a source whose labels are the first folders of the files."""
    index = {label: position for position, label in enumerate(classes)}
    labels = [index[class_of(file)] for file in files]
    names = tuple(stable_id(label) for label in classes)
    return FileSource(
        root,
        files,
        labels=labels,
        classes=names,
        name=name,
        spec=spec,
        split=split,
        note=note,
        value_range=value_range,
    )


def class_of(file: str) -> str:
    """Return the first folder of a relative path."""
    return file.split("/", 1)[0]


def _has_class_folders(folder: Path) -> bool:
    return any(has_images(folder / inner) for inner in list_folders(folder))
