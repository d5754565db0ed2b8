"""The scenes of demo-det: the same bytes everywhere, boxes that fit what is drawn, splits that share no pixel."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from srbench.data.boxes import LABEL, box_areas
from srbench.data.catalogue import open_source
from srbench.data.synthetic import shapes
from srbench.errors import UsageError

PIXELS = "6db6308b987ba20f1d21762b438c69dc718c4b49542e284696df83c22655ec0b"


def test_scenes_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for split in shapes.SCENES:
        for index in range(8):
            scene = shapes.draw_scene(split, index)
            for part in (scene.pixels, scene.mask, scene.boxes):
                digest.update(np.ascontiguousarray(part).tobytes())
    assert digest.hexdigest() == PIXELS


def test_boxes_are_those_of_the_mask() -> None:
    sides, labels = [], []
    for index in range(60):
        scene = shapes.draw_scene("test", index)
        covered = np.zeros_like(scene.mask)
        for left, top, right, bottom in scene.boxes[:, :4].astype(int):
            inside = scene.mask[top:bottom, left:right] > 0
            assert inside.any(axis=0).all() and inside.any(axis=1).all()
            covered[top:bottom, left:right] = 1
        assert not (scene.mask[covered == 0]).any() and 1 <= len(scene.boxes) <= 5
        for row in scene.boxes:
            left, top, right, bottom = row[:4].astype(int)
            assert set(np.unique(scene.mask[top:bottom, left:right])) <= {0, 1 + int(row[LABEL])}
        sides += list(np.sqrt(box_areas(scene.boxes)))
        labels += list(scene.boxes[:, LABEL])
    assert min(sides) < 15 and max(sides) > 36
    assert np.bincount(np.array(labels, dtype=int)).min() > len(labels) / 8


def test_every_shape_has_an_outline_of_its_own() -> None:
    areas = [shapes._outline(label, 120).mean() for label in range(4)]
    assert areas == pytest.approx([np.pi / 4, 1, 0.5, 1 - 4 / 9], abs=0.01)
    assert all(shapes._outline(label, 48).any(axis=axis).all() for label in range(4) for axis in (0, 1))


def test_splits_share_no_pixel() -> None:
    bands = sorted(shapes._BANDS.values())
    assert [stop for _, stop in bands[:-1]] == [start for start, _ in bands[1:]]


def test_shapes_can_be_seen() -> None:
    differences = []
    for index in range(20):
        scene = shapes.draw_scene("train", index)
        grey = scene.pixels.astype(int).mean(axis=0)
        differences.append(abs(grey[scene.mask > 0] - grey[scene.mask == 0].mean()).mean())
    assert np.mean(differences) > 40


def test_a_source_of_scenes() -> None:
    source = open_source("demo-det")
    assert (source.split, source.task_type, source.classes) == ("test", "detection", shapes.CLASSES)
    stored = source.read_stored(3)
    assert stored.pixels.shape == (3, 96, 96) and np.array_equal(stored.target, shapes.draw_scene("test", 3).boxes)
    assert (stored.pixels == source.read(3)).all() and source.labelled and "demonstration" in source.note
    with pytest.raises(UsageError, match="has no split 'all'"):
        open_source("demo-det", "all")
