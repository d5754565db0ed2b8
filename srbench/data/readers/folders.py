"""The user's own images: `folder:` with one folder per class, and `images:` without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from srbench.data.dataset import DatasetInfo, check_split
from srbench.data.readers.files import (
    FileSource,
    existing_folder,
    folder_name,
    range_note,
    select_split,
    split_range,
    stable_id,
)
from srbench.data.scan import Scan, has_images, join_notes, list_folders, scan
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
_NO_IMAGES = "holds no images (.jpg, .png, .tif, .webp, .bmp, .npy ...)"


def open_folder(argument: str, split: str | None, *, kind: str = "folder") -> FileSource:
    """Open one folder per class, images at any depth below; `kind` is the word of the SPEC.

    Where the folders directly inside are named as splits (train, val, test ..., in any case) and hold class folders,
    the split names the folder; otherwise "all", or a split by the hash of the id.

    Raises:
        DataError: If there is no such folder, it holds no images or no class folders, half of it is laid out in splits,
            or a class has lost all its images because none can be read.
        UsageError: If the split does not exist, or must be chosen.
    """
    spec = f"{kind}:{argument}"
    path, value_range = split_range(argument, spec)
    root = existing_folder(Path(path), spec)
    name = folder_name(root)
    stored_spec = f"{kind}:{name}{range_note(value_range)}"
    splits = split_folders(root, spec)
    if splits:
        if split is None:
            raise UsageError(f"--data {spec} holds the splits {', '.join(splits)}; choose one with --split")
        check_split(split, tuple(splits), spec=spec)
        return split_folder_source(root, splits, split, name=name, spec=stored_spec, value_range=value_range)
    files = scan(root)
    labelled = [file for file in files.images if "/" in file]
    _check_classes(files, spec)
    if not files.images:
        raise DataError(f"--data {spec}: {root} {_NO_IMAGES}{_seen(files)}")
    if not labelled:
        raise DataError(
            f"--data {spec}: {root} has {len(files.images)} images but no class folders;"
            f" put each class in a folder of its own, or read unlabelled images with images:{argument}"
        )
    split = split or FOLDER.splits[0]
    return labelled_source(
        root,
        select_split(labelled, split, spec=spec),
        tuple(sorted({class_of(file) for file in labelled})),
        name=name,
        spec=stored_spec,
        split=split,
        note=files.note,
        value_range=value_range,
    )


def open_images(argument: str, split: str | None, *, kind: str = "images") -> FileSource:
    """Open every image at any depth below a folder, without labels; `kind` is the word of the SPEC.

    Raises:
        DataError: If there is no such folder, or it holds no images.
        UsageError: If the split does not exist.
    """
    spec = f"{kind}:{argument}"
    path, value_range = split_range(argument, spec)
    root = existing_folder(Path(path), spec)
    name = folder_name(root)
    folders = {folder.lower(): folder for folder in list_folders(root) if folder.lower() in SPLIT_FOLDERS}
    split = split or IMAGES.splits[0]
    if split in folders:
        root = root / folders[split]
    files = scan(root)
    if not files.images:
        raise DataError(f"--data {spec}: {root} {_NO_IMAGES}{_seen(files)}")
    return FileSource(
        root,
        files.images if split in folders else select_split(files.images, split, spec=spec),
        labels=None,
        classes=None,
        name=name,
        spec=f"{kind}:{name}{range_note(value_range)}",
        split=split,
        note=files.note,
        value_range=value_range,
    )


def split_folders(root: Path, spec: str) -> dict[str, str]:
    """Return the folder of each split, by its name in lower case; none where the folders are classes.

    They are splits where all folders with images are named so, and each holds class folders.

    Raises:
        DataError: If only some of them do, so that "train" and "test" would become classes.
    """
    holding = [folder for folder in list_folders(root) if has_images(root / folder)]
    named = [folder for folder in holding if folder.lower() in SPLIT_FOLDERS]
    deep = [folder for folder in named if _has_class_folders(root / folder)]
    flat = [folder for folder in named if folder not in deep]
    others = [folder for folder in holding if folder not in named]
    splits = {folder.lower(): folder for folder in deep}
    if not deep or (others and len(deep) == 1 and not flat):
        return {}
    whole = " and ".join(f"{folder}/" for folder in deep)
    if flat or others:
        half = f"{(flat or others)[0]}/ holds images without them" if flat else f"{others[0]}/ beside them is none"
        raise DataError(
            f"--data {spec} is laid out in splits by half: {whole} with class folders, but {half};"
            f" read one part as folder:{root / deep[0]}, or mend the others"
        )
    if len(splits) < len(deep):
        raise DataError(f"--data {spec} holds the splits {whole}, which differ in case alone; rename one of them")
    return splits


def split_folder_source(
    root: Path,
    splits: Mapping[str, str],
    split: str,
    *,
    name: str,
    spec: str,
    note: str = "",
    value_range: Range | None = None,
) -> FileSource:
    """Open one split, a folder per class; labels count the classes of all splits, so that they agree.

    Raises:
        DataError: If a class has lost all its images because none can be read.
    """
    folders = [root / folder for folder in splits.values()]
    files = scan(root / splits[split])
    _check_classes(files, spec)
    classes = {each for folder in folders for each in list_folders(folder) if has_images(folder / each)}
    return labelled_source(
        root / splits[split],
        [file for file in files.images if "/" in file],
        tuple(sorted(classes)),
        name=name,
        spec=spec,
        split=split,
        note=join_notes(note, files.note),
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


def _check_classes(files: Scan, spec: str) -> None:
    """Refuse data in which a class is lost because none of its images can be read."""
    lost = {class_of(file) for file in files.unread if "/" in file} - {class_of(file) for file in files.images}
    if not lost:
        return
    name = min(lost)
    suffixes = sorted({PurePath(file).suffix.lower() for file in files.unread if class_of(file) == name})
    more = f", and {len(lost) - 1} more classes are like it" if len(lost) > 1 else ""
    remedy = "install pillow-heif or convert them" if set(suffixes) <= {".heic", ".heif"} else "convert them"
    raise DataError(
        f"--data {spec}: the class {stable_id(name)} has images as {', '.join(suffixes)} alone, which are not"
        f" read{more}; {remedy} to .png or .jpg"
    )


def _seen(files: Scan) -> str:
    return f"; {files.note}" if files.note else ""


def _has_class_folders(folder: Path) -> bool:
    return any(has_images(folder / inner) for inner in list_folders(folder))
