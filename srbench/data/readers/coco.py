"""Boxes in COCO's layout: `coco:IMAGES,ANNOTATIONS.json`, a folder of images and one file that describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from pydantic_core import from_json

from srbench.data.dataset import DatasetInfo
from srbench.data.readers.boxed import Annotated, BoxedSource, boxed_source
from srbench.data.readers.files import existing_folder, folder_name
from srbench.errors import DataError, UsageError
from srbench.files.paths import user_path
from srbench.files.regular import read_regular

COCO = DatasetInfo(
    name="coco",
    opener="open_coco",
    description="images with boxes, as COCO's instances_*.json describes them",
    argument="IMAGES,ANNOTATIONS.json",
    labels="boxes",
    protocol="dense-x4",
    task_type="detection",
)

MAX_MB = 1024  # reading takes about ten times the size of the file in memory

_PARTS = ("images", "annotations", "categories")


def open_coco(argument: str, split: str | None = None) -> BoxedSource:
    """Open `IMAGES,ANNOTATIONS.json`: "all", or a split by the hash of the id.

    Classes are the categories in the order of their ids. Images without an annotation are part of the data.

    Raises:
        DataError: If a folder or file is missing, the file is no such JSON, an entry is not as COCO's format has it, or
            the boxes do not fit the images.
        UsageError: If it is not a folder and a file, or there is no split of that name.
    """
    spec = f"coco:{argument}"
    folder, comma, file = argument.rpartition(",")
    if not comma or not folder or not file:
        raise UsageError(f"--data {spec}: expected a folder and a file, coco:IMAGES,ANNOTATIONS.json")
    root, path = existing_folder(Path(folder), spec), user_path(file)
    content = _read(path, spec)
    where = f"--data {spec}: {path.name}"
    ids, classes = _categories(content["categories"], where)
    annotated = _annotated(content, ids, where)
    if not annotated:
        raise DataError(f"{where} lists no image; its images must not be empty")
    name = folder_name(root)
    return boxed_source(
        root,
        annotated,
        classes=classes,
        name=f"{name}-{path.stem}",
        spec=spec,
        stored_spec=f"coco:{name},{path.name}",
        split=split or COCO.splits[0],
        hashed=True,
    )


def _read(path: Path, spec: str) -> dict[str, list[dict[str, Any]]]:
    where = f"--data {spec}: {path.name}"
    if not path.is_file():
        raise DataError(f"--data {spec}: there is no file {path}; give the JSON of the annotations")
    size = path.stat().st_size / 2**20
    if size > MAX_MB:
        raise DataError(f"{where} has {size:,.0f} MB, more than the {MAX_MB} MB that are read; split it in parts")
    try:
        content = from_json(read_regular(path), allow_inf_nan=False)
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON ({error}); give it anew") from None
    wrong = [
        part
        for part in _PARTS
        if not isinstance(content, dict)
        or not isinstance(content.get(part), list)
        or not all(isinstance(entry, dict) for entry in content[part])
    ]
    if wrong:
        raise DataError(
            f"{where} lacks the list {wrong[0]!r}; expected COCO's layout, an object with the lists {', '.join(_PARTS)}"
        )
    return content


def _categories(entries: Sequence[Mapping[str, Any]], where: str) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the label of each category's id, and the names of the classes."""
    names: dict[int, str] = {}
    for entry in entries:
        key, name = entry.get("id"), entry.get("name")
        if not _is_whole(key) or not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: the category {str(dict(entry))[:60]} needs a whole number as id and a name")
        if key in names or name in names.values():
            raise DataError(f"{where} has two categories of the id {key} or the name {name!r}; keep one of them")
        names[key] = name
    if not names:
        raise DataError(f"{where} has no categories; each class is an entry with id and name")
    ordered = sorted(names)
    return {key: label for label, key in enumerate(ordered)}, tuple(names[key] for key in ordered)


def _annotated(
    content: Mapping[str, Sequence[Mapping[str, Any]]], labels: Mapping[int, int], where: str
) -> list[Annotated]:
    images: dict[int, Annotated] = {}
    for entry in content["images"]:
        key, file = entry.get("id"), entry.get("file_name")
        if not _is_whole(key) or not isinstance(file, str) or not file:
            raise DataError(f"{where}: the image {str(dict(entry))[:60]} needs a whole number as id and a file_name")
        if key in images:
            raise DataError(f"{where} has two images of the id {key}; keep one of them")
        height, width = (side if _is_whole(side) and side > 0 else None for side in map(entry.get, ("height", "width")))
        images[key] = Annotated(file, None if height is None or width is None else (height, width))
    for entry in content["annotations"]:
        image, category, bbox = entry.get("image_id"), entry.get("category_id"), entry.get("bbox")
        which = f"{where}: the annotation {entry.get('id', '')}".rstrip()
        if not _is_whole(image) or image not in images:
            raise DataError(f"{which} is of the image {image!r}, which is not among its images; take it out")
        if not _is_whole(category) or category not in labels:
            raise DataError(
                f"{which} is of the category {category!r}, which is not among its categories; add the category"
            )
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
            raise DataError(f"{which} has the bbox {str(bbox)[:40]}; expected four numbers [left, top, width, height]")
        left, top, right, bottom = (
            float(bbox[0]),
            float(bbox[1]),
            bbox[0] + max(0.0, bbox[2]),
            bbox[1] + max(0.0, bbox[3]),
        )
        area = entry.get("area")
        crowd = entry.get("iscrowd") in (1, True)
        each = images[image]
        each.xyxy.append((left, top, right, bottom))
        each.labels.append(labels[category])
        each.areas.append(float(area) if area is not None and _is_number(area) and area > 0 else math.nan)
        each.crowd.append(crowd)
        each.ignored.append(crowd)
    return list(images.values())


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
