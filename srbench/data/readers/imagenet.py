"""ImageNet and its subsets, in the layouts in which torchvision and fastai distribute them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from srbench.data.dataset import DatasetInfo, check_split
from srbench.data.readers.files import (
    FileSource,
    existing_folder,
    folder_name,
)
from srbench.data.readers.folders import split_folder_source
from srbench.data.scan import has_images, list_folders, scan
from srbench.errors import DataError
from srbench.files.paths import data_dir
from srbench.files.regular import read_lines

IMAGENET = DatasetInfo(
    name="imagenet",
    opener="open_imagenet",
    description="ImageNet: train/WNID and val/WNID",
    argument="[PATH]",
    splits=("val", "train"),
)
IMAGENETTE = DatasetInfo(
    name="imagenette",
    opener="open_imagenette",
    description="ten easy ImageNet classes (fastai)",
    argument="[PATH]",
    splits=("val", "train"),
)
IMAGEWOOF = DatasetInfo(
    name="imagewoof",
    opener="open_imagewoof",
    description="ten dog breeds of ImageNet (fastai)",
    argument="[PATH]",
    splits=("val", "train"),
)
TINY_IMAGENET = DatasetInfo(
    name="tiny-imagenet",
    opener="open_tiny_imagenet",
    description="200 ImageNet classes at 64 x 64",
    argument="[PATH]",
    splits=("val", "train"),
    protocol="native",
)

_FOLDERS = {
    "imagenet": ("imagenet", "ILSVRC2012", "imagenet-1k"),
    "imagenette": ("imagenette2", "imagenette2-320", "imagenette2-160", "imagenette"),
    "imagewoof": ("imagewoof2", "imagewoof2-320", "imagewoof2-160", "imagewoof"),
    "tiny-imagenet": ("tiny-imagenet-200", "tiny-imagenet"),
}
_SEEN = "made of ImageNet training images, which classifiers pre-trained on ImageNet have seen"
_NOTES = {"imagenette": _SEEN, "imagewoof": _SEEN}


def _open_layout(info: DatasetInfo, argument: str | None, split: str | None) -> FileSource:
    """Open a dataset of the layout train/<wnid>/ and val/<wnid>/.

    Raises:
        DataError: If the folder is missing or laid out otherwise.
        UsageError: If there is no split of that name.
    """
    dataset = info.name
    root, spec = _root(dataset, argument)
    splits = [each for each in ("train", "val") if (root / each).is_dir() and has_images(root / each)]
    if not splits:
        raise DataError(f"--data {spec}: {root} must hold train/<wnid>/ and val/<wnid>/, and holds neither")
    split = split or info.splits[0]
    check_split(split, splits, spec=spec)
    if not any(has_images(root / split / folder) for folder in list_folders(root / split)):
        raise DataError(
            f"--data {spec}: the images of {root / split} lie flat, without class folders;"
            " sort them into one folder per wnid, as torchvision.datasets.ImageNet does"
        )
    # The smaller editions hold the same file names with other pixels, so the edition is part of the name.
    edition = re.search(r"-(160|320)$", folder_name(root))
    name = dataset + (edition.group(0) if edition else "")
    return split_folder_source(
        root,
        {each: each for each in splits},
        split,
        name=name,
        spec=_stored(dataset, argument, root),
        note=_NOTES.get(dataset, ""),
    )


open_imagenet = partial(_open_layout, IMAGENET)
open_imagenette = partial(_open_layout, IMAGENETTE)
open_imagewoof = partial(_open_layout, IMAGEWOOF)


def open_tiny_imagenet(argument: str | None, split: str | None) -> FileSource:
    """Open Tiny ImageNet as it is distributed; the split is "val" where None.

    train/<wnid>/images/ and val/images/ with val_annotations.txt; wnids.txt lists the classes. The images in test/ have
    no labels and are left out.

    Raises:
        DataError: If the folder is missing, laid out otherwise, or its annotations do not fit.
        UsageError: If there is no split of that name.
    """
    dataset = TINY_IMAGENET.name
    root, spec = _root(dataset, argument)
    splits = [each for each in ("train", "val") if (root / each).is_dir()]
    if not splits:
        raise DataError(f"--data {spec}: {root} must hold train/<wnid>/images/ and val/val_annotations.txt")
    split = split or TINY_IMAGENET.splits[0]
    check_split(split, splits, spec=spec)
    stored = _stored(dataset, argument, root)
    if "train" in splits:
        _check_complete(root, spec)
    annotations = root / "val" / "val_annotations.txt"
    if split == "train" or not annotations.is_file():  # some keep val in class folders as well
        labelled = ["train"] if annotations.is_file() else splits
        source = split_folder_source(root, {each: each for each in labelled}, split, name=dataset, spec=stored)
        if not source.samples:
            raise DataError(f"--data {spec}: {root / split} holds no images in class folders")
        return source
    wnids = _annotations(annotations, spec)
    trained = list_folders(root / "train") if "train" in splits else []
    classes = tuple(trained or sorted(set(wnids.values())))
    unknown = sorted(set(wnids.values()) - set(classes))
    if unknown:
        raise DataError(f"--data {spec}: val_annotations.txt names {unknown[0]}, for which train/ has no folder")
    files = scan(root / "val" / "images").images
    missing = [file for file in files if file not in wnids]
    if not files or missing:
        what = f"{missing[0]} has no line in val_annotations.txt" if missing else "val/images holds no images"
        raise DataError(f"--data {spec}: {what}; unpack tiny-imagenet-200.zip again")
    index = {wnid: position for position, wnid in enumerate(classes)}
    return FileSource(
        root / "val" / "images",
        files,
        labels=[index[wnids[file]] for file in files],
        classes=classes,
        name=dataset,
        spec=stored,
        split=split,
    )


def _root(dataset: str, argument: str | None) -> tuple[Path, str]:
    if argument is not None:
        spec = f"{dataset}:{argument}"
        return existing_folder(Path(argument), spec), spec
    for folder in _FOLDERS[dataset]:
        if (data_dir() / folder).is_dir():
            return data_dir() / folder, dataset
    raise DataError(
        f"--data {dataset}: there is no folder {' or '.join(_FOLDERS[dataset])} in {data_dir()};"
        f" put it there, give its place as {dataset}:PATH, or set SRBENCH_DATA"
    )


def _stored(dataset: str, argument: str | None, root: Path) -> str:
    return dataset if argument is None else f"{dataset}:{folder_name(root)}"


def _check_complete(root: Path, spec: str) -> None:
    listing = root / "wnids.txt"
    if not listing.is_file():
        return
    wnids = set(" ".join(_lines(listing, spec)).split())
    missing = sorted(wnids - set(list_folders(root / "train")))
    if missing:
        raise DataError(
            f"--data {spec}: train/ lacks {len(missing)} of the {len(wnids)} classes in wnids.txt, such as"
            f" {missing[0]}; unpack tiny-imagenet-200.zip again"
        )


def _annotations(path: Path, spec: str) -> dict[str, str]:
    wnids = {}
    for line in _lines(path, spec):
        fields = line.split("\t")
        if len(fields) < 2:
            raise DataError(f"--data {spec}: {path.name} holds the line {line!r}; expected file name, tab, wnid")
        wnids[fields[0]] = fields[1]
    return wnids


def _lines(path: Path, spec: str) -> list[str]:
    try:
        return read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {spec}: {path.name} cannot be read as text ({error}); give it anew") from None
