"""Boxes: how they follow their image, and the two layouts that they are read from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srbench.data.boxes import (
    CROWD,
    FLAGS,
    IGNORED,
    LABEL,
    box_areas,
    box_rows,
    cut_boxes,
    flagged,
    flip_boxes,
    object_areas,
)
from srbench.data.catalogue import open_source
from srbench.data.geometry import crop_hr, placement
from srbench.data.hr_cache import build_hr_store
from srbench.data.targets import place_target
from srbench.errors import DataError, UnreadableImageError, UsageError
from srbench.protocol import Geometry

# --- geometry


@pytest.mark.parametrize(
    "geometry",
    [Geometry(modulo=8), Geometry(resize=20), Geometry(crop=32), Geometry(resize=36, crop=32, modulo=16), Geometry()],
)
def test_boxes_follow_the_crop_of_their_image(geometry: Geometry) -> None:
    """A bright rectangle stays within its box, up to the blur of resizing."""
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 12:24, 20:44] = 255
    boxes = place_target(box_rows([(20, 12, 44, 24)], [0]), placement(40, 60, geometry))
    rows, columns = np.nonzero(crop_hr(image, geometry)[0].numpy() > 127)
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(boxes[0, :4] - seen).max() < 1


def test_a_crop_cuts_boxes_ignores_what_is_mostly_lost_and_drops_what_is_gone() -> None:
    boxes = box_rows([(0, 0, 10, 10), (5, 0, 25, 10), (17, 0, 37, 10), (30, 0, 40, 10)], [0, 1, 2, 3])
    cut = cut_boxes(boxes, 40, 20)
    assert cut[:, LABEL].tolist() == [0, 1, 2]
    assert cut[:, :4].tolist() == [[0, 0, 10, 10], [5, 0, 20, 10], [17, 0, 20, 10]]
    assert flagged(cut, IGNORED).tolist() == [False, False, True] and not flagged(cut, CROWD).any()
    assert object_areas(cut).tolist() == [100, 150, 30]


def test_areas_of_annotations_are_scaled_with_the_image() -> None:
    boxes = box_rows([(0, 0, 10, 10)], [0], areas=[64.0])
    smaller = place_target(boxes, placement(40, 40, Geometry(resize=20)))
    assert object_areas(boxes).tolist() == [64.0] and object_areas(smaller).tolist() == [16.0]
    assert box_areas(smaller[:, :4]).tolist() == [25.0]


def test_boxes_are_mirrored_with_the_image() -> None:
    boxes = box_rows([(10, 5, 30, 25), (0, 30, 60, 40)], [1, 0], crowd=[False, True])
    flipped = flip_boxes(boxes, 60)
    assert flipped[:, :4].tolist() == [[30, 5, 50, 25], [0, 30, 60, 40]]
    assert np.array_equal(flip_boxes(flipped, 60), boxes)


# --- COCO


def write_images(folder: Path, *names: str, size: tuple[int, int] = (40, 60)) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], (number, 80, 90)).save(folder / name)


def coco() -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "sub/b.png", "height": 40, "width": 60},
        ],
        "categories": [{"id": 9, "name": "cup"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [10, 5, 20, 20], "area": 250.0, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 30, 61, 10], "iscrowd": 1},
        ],
    }


def write_coco(folder: Path, content: object) -> str:
    write_images(folder / "images", "a.png", "sub/b.png")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "boxes.json").write_text(text)
    return f"coco:{folder / 'images'},{folder / 'boxes.json'}"


def test_coco_is_read(tmp_path: Path) -> None:
    source = open_source(write_coco(tmp_path, coco()))
    assert (source.task_type, source.classes, source.spec) == ("detection", ("cat", "cup"), "coco:images,boxes.json")
    first, second = source.read_stored(0), source.read_stored(1)
    boxes = first.target
    assert [sample.id for sample in source.samples] == ["a.png", "sub/b.png"] and source.labelled
    assert boxes[:, :4].tolist() == [[10, 5, 30, 25], [0, 30, 60, 40]]  # what sticks out by a pixel is cut
    assert boxes[:, LABEL].tolist() == [1, 0] and object_areas(boxes).tolist() == [250, 600]
    assert boxes[:, FLAGS].tolist() == [0, CROWD | IGNORED]
    assert second.target.shape == (0, 7) and second.pixels.shape == (3, 40, 60)


def test_boxes_lie_in_the_cache_beside_hr_and_other_boxes_are_another_entry(tmp_path: Path, own_folders: Path) -> None:
    source = open_source(write_coco(tmp_path, coco()))
    store = build_hr_store(source, Geometry(modulo=16))
    first, second = store.targets([0, 1])
    assert first[:, :4].tolist() == [[10, 5, 30, 25], [0, 30, 48, 32]] and second.shape == (0, 7)
    assert flagged(first, IGNORED).tolist() == [False, True]
    moved = open_source(write_coco(tmp_path, change("annotations", 0, bbox=[11, 5, 20, 20])))
    other = build_hr_store(moved, Geometry(modulo=16))
    assert other.key != store.key and other.targets([0])[0][0, 0] == 11


def change(part: str, number: int, **fields: object) -> dict:
    content = coco()
    content[part][number] |= fields
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "boxes.json is not valid JSON"),
        ('{"images": [NaN]}', "boxes.json is not valid JSON"),
        ("[" * 10_000, "boxes.json is not valid JSON"),
        ([], "lacks the list 'images'"),
        ({**coco(), "categories": {}}, "lacks the list 'categories'"),
        ({**coco(), "categories": []}, "has no categories"),
        ({**coco(), "images": [], "annotations": []}, "lists no image"),
        (change("annotations", 0, image_id=8), "annotation 1 is of the image 8, which is not among its images"),
        (change("annotations", 0, image_id=[7]), "annotation 1 is of the image"),
        (change("annotations", 0, category_id=1), "annotation 1 is of the category 1, which is not among"),
        (change("annotations", 0, bbox=[1, 2, 3]), "annotation 1 has the bbox"),
        (change("annotations", 0, bbox=None), "annotation 1 has the bbox None"),
        (change("annotations", 0, bbox=[1, 2, 3, "4"]), "expected four numbers"),
        (change("categories", 0, id=2), "two categories of the id 2"),
        (change("categories", 0, name=5), "needs a whole number as id and a name"),
        (change("images", 0, id=3), "two images of the id 3"),
        (change("images", 0, file_name=None), "needs a whole number as id and a file_name"),
        (change("images", 0, file_name="sub/b.png"), "'sub/b.png' is annotated twice"),
    ],
)
def test_what_is_wrong_with_coco_is_one_sentence(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=r"^--data coco:") as raised:
        open_source(write_coco(tmp_path, content))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_boxes_that_stick_out_or_have_no_area(tmp_path: Path) -> None:
    content = coco()
    content["annotations"] = [
        {"id": number, "image_id": 7, "category_id": 9, "bbox": bbox}
        for number, bbox in enumerate([[1, 1, 9, 9]] * 20 + [[5, 5, 0, 9], [90, 5, 4, 4], [5, 5, -3, 9]])
    ]
    source = open_source(write_coco(tmp_path, content))
    assert len(source.boxes(0)) == 20 and source.note == "left out: 3 boxes without a pixel, such as one of a.png"
    for entry in content["annotations"]:
        entry["bbox"] = [30, 20, 55, 38]  # right and bottom edge where width and height belong
    with pytest.raises(
        DataError, match=r"23 of 23 boxes stick out of their image, such as one of a.png; COCO's bbox is"
    ):
        open_source(write_coco(tmp_path, content))


def test_images_that_are_missing_or_of_another_size_are_named_when_they_are_read(tmp_path: Path) -> None:
    content = coco()
    content["images"] += [
        {"id": 11, "file_name": "../../etc/passwd.png", "height": 40, "width": 60},
        {"id": 12, "file_name": "gone.png", "height": 40, "width": 60},
    ]
    content["images"][1]["width"] = 61
    source = open_source(write_coco(tmp_path, content))
    by_id = {sample.id: index for index, sample in enumerate(source.samples)}
    for missing in ("gone.png", "../../etc/passwd.png"):
        with pytest.raises(UnreadableImageError, match="is annotated, but no image of that name is there"):
            source.read(by_id[missing])
    with pytest.raises(UnreadableImageError, match=r"b.png is 40 x 60 pixels, and its annotations are .* 40 x 61"):
        source.read(by_id["sub/b.png"])
    assert source.channels == 3
    for entry in content["images"]:
        entry["file_name"] = f"x{entry['id']}.png"
    with pytest.raises(DataError, match=r"none of the 4 annotated images is below .*check the folder of images"):
        open_source(write_coco(tmp_path, content))


def test_what_is_given_for_coco(tmp_path: Path) -> None:
    spec = write_coco(tmp_path, coco())
    with pytest.raises(UsageError, match="expected a folder and a file"):
        open_source(f"coco:{tmp_path}")
    with pytest.raises(DataError, match="there is no file"):
        open_source(f"{spec}x")
    with pytest.raises(DataError, match="there is no folder"):
        open_source(spec.replace("images,", "image,"))
    write_images(tmp_path / "images", "c.png")
    assert "1 images without an entry in the annotations were left out" in open_source(spec).note


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srbench.data.readers.coco.MAX_MB", 1e-6)
    with pytest.raises(DataError, match="more than the 1e-06 MB that are read; split it"):
        open_source(write_coco(tmp_path, coco()))


# --- VOC

OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"


def voc_xml(*objects: str, size: str = "<size><width>60</width><height>40</height></size>", name: str = "a.jpg") -> str:
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def an_object(name: str, *edges: object, difficult: int = 0) -> str:
    named = zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)
    return OBJECT.format(name, difficult, "".join(f"<{edge}>{value}</{edge}>" for edge, value in named))


def write_voc(root: Path, sets: dict[str, list[str]] | None = None, **files: str) -> str:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, text in files.items():
        write_images(root / "JPEGImages", f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    for name, stems in (sets or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems))
    return f"voc:{root}"


def test_voc_is_read(tmp_path: Path) -> None:
    spec = write_voc(
        tmp_path / "cells",
        {"train": ["b"], "val": ["a", "c"]},
        a=voc_xml(an_object("dog", 1, 1, 60, 40), an_object("ant", 11, 6, 30, 25, difficult=1)),
        b=voc_xml(an_object("bee", 2, 2, 9, 9), name="other.png"),
        c=voc_xml(size=""),
    )
    source = open_source(spec)
    assert (source.split, source.spec, source.classes) == ("val", "voc:cells", ("ant", "bee", "dog"))
    boxes = source.boxes(0)
    assert boxes[:, :4].tolist() == [[0, 0, 60, 40], [10, 5, 30, 25]] and boxes[:, LABEL].tolist() == [2, 0]
    assert boxes[:, FLAGS].tolist() == [0, IGNORED]
    assert source.read_stored(1).target.shape == (0, 7)
    assert [sample.id for sample in open_source(spec, "train").samples] == ["b.jpg"]
    assert len(open_source(spec, "all").samples) == 3
    with pytest.raises(UsageError, match="has no split 'test'; its splits are val, train, all"):
        open_source(spec, "test")
    (tmp_path / "cells" / "ImageSets" / "Main" / "val.txt").write_text("a\nz\n")
    with pytest.raises(DataError, match=r"val.txt lists 'z', for which Annotations/ has no .xml; add one,"):
        open_source(spec)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.xml is not valid XML"),
        ("<annotation>", "a.xml is not valid XML"),
        ("<html/>", "a.xml holds <html>; expected VOC's <annotation>"),
        (BOMB + voc_xml(an_object("&b;", 1, 1, 9, 9)), "a.xml declares a document type"),
        (OUTSIDE + voc_xml(an_object("&a;", 1, 1, 9, 9)), "a.xml declares a document type"),
        (voc_xml(an_object("", 1, 1, 9, 9)), "object 1 needs a <name> and a <bndbox>"),
        (voc_xml(an_object("x", 1, 1, 9, "nine")), "with four numbers xmin, ymin, xmax, ymax"),
        (voc_xml(an_object("x", 1, 1, 9, "inf")), "with four numbers"),
        (voc_xml(), "none of the 1 files in Annotations/ holds an <object>"),
    ],
)
def test_what_is_wrong_with_voc_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=r"^--data voc:") as raised:
        open_source(write_voc(tmp_path, a=text))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_folders_that_voc_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the folder JPEGImages/"):
        open_source(f"voc:{tmp_path}")
    spec = write_voc(tmp_path, a=voc_xml(an_object("x", 1, 1, 9, 9)))
    assert open_source(spec).split == "all"
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(DataError, match=r"holds no .xml"):
        open_source(spec)


@pytest.mark.real
def test_bccd_is_read(real: Path) -> None:
    spec = f"voc:{real / 'bccd'}"
    train, val = open_source(spec, "train"), open_source(spec)
    assert (len(train.samples), len(val.samples)) == (205, 87)
    assert val.classes == ("Platelets", "RBC", "WBC")
    assert not {sample.id for sample in train.samples} & {sample.id for sample in val.samples}
    boxes = np.concatenate([val.boxes(index) for index in range(87)])
    assert np.median(np.sqrt(object_areas(boxes)[boxes[:, LABEL] == 0])) == pytest.approx(40, abs=5)
    assert (boxes[:, :4] >= 0).all() and (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 480).all()
    assert val.read_stored(0).pixels.shape == (3, 480, 640)
