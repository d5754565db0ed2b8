"""AP from stored matches equals COCO's, and its bootstrap equals matching resampled images anew."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from srbench.data.boxes import FLAGS, LABEL, object_areas
from srbench.data.catalogue import open_source
from srbench.metrics.boxes import SIZES, THRESHOLDS, Detected, Matches, Objects, match_boxes, overlaps
from srbench.metrics.catalogue import metric
from srbench.metrics.stats.average_precision import (
    DetectionTable,
    Part,
    average_precision,
    bootstrap_precision,
    class_precision,
    mean_precision,
)
from srbench.networks.loading import load_classifier
from srbench.task_types import OutputMap
from srbench.task_types.detection import Detection

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 3
PARTS = {
    "map": Part(0),
    "ap50": Part(0, (0,)),
    "ap_small": Part(1),
    "ap_medium": Part(2),
    "ap_large": Part(3),
}
Image = tuple[Detected, Objects]


def made(
    seed: int, images: int = 12, *, ties: bool = False, whole: bool = False, crowds: bool = True, most: int = 12
) -> list[Image]:
    """Random images: objects of all sizes, detections near them and elsewhere; some without one or the other."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(images):
        given = int(rng.integers(0, most)) * int(rng.random() > 0.15)
        corner = rng.uniform(0, 200, (given, 2))
        side = np.exp(rng.uniform(np.log(8), np.log(200), (given, 2)))
        xyxy = np.concatenate([corner, corner + side], axis=1)
        if whole:
            xyxy = np.round(xyxy / 16) * 16 + np.array([0, 0, 16, 16])  # areas of exactly 32 x 32, and equal overlaps
        labels = rng.integers(0, CLASSES, given)
        crowd = rng.random(given) < 0.2 if crowds else np.zeros(given, dtype=bool)
        areas = (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1) * (1.0 if whole else rng.uniform(0.6, 1))
        near = rng.integers(0, given, 2 * given) if given else np.zeros(0, dtype=int)
        stray = int(rng.integers(0, 6)) * int(rng.random() > 0.2)
        elsewhere = rng.uniform(0, 200, (stray, 2))
        guesses = np.concatenate(
            [
                xyxy[near] + (rng.integers(-1, 2, (len(near), 4)) * 8 if whole else rng.normal(0, 4, (len(near), 4))),
                np.concatenate([elsewhere, elsewhere + rng.uniform(4, 120, (stray, 2))], axis=1),
            ]
        )
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = rng.random(len(guesses)).astype(np.float32)
        guessed = np.concatenate([labels[near], rng.integers(0, CLASSES, stray)])
        result.append(
            (
                Detected(guesses, np.round(scores, 1) if ties else scores, guessed),
                Objects(xyxy, labels, areas, crowd, crowd),
            )
        )
    return result


def by_pycocotools(images: Sequence[Image], classes: int = CLASSES) -> np.ndarray:
    """AP of each class, size and threshold, by the reference."""
    annotations, results = [], []
    for number, (detected, objects) in enumerate(images, start=1):
        for box, label, area, crowd in zip(objects.xyxy, objects.labels, objects.areas, objects.crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
        for box, score, label in zip(detected.xyxy, detected.scores, detected.labels, strict=True):
            results.append(
                {
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(images))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # (thresholds, recalls, classes, sizes) at 100 detections
    values = precision.mean(axis=1).transpose(1, 2, 0)
    return np.where(values < 0, np.nan, values)


def table_of(images: Sequence[Image], classes: int = CLASSES) -> DetectionTable:
    return DetectionTable.of([match_boxes(*image) for image in images], classes)


def summarised(values: np.ndarray, part: Part) -> float | None:
    """The mean over classes with objects and thresholds of AP `(C, sizes, thresholds)`, as pycocotools prints it."""
    chosen = values[:, part.size, list(part.thresholds)]
    return None if np.isnan(chosen).all() else float(np.nanmean(chosen))


CASES = [
    *(made(seed) for seed in range(6)),
    *(made(10 + seed, ties=True) for seed in range(3)),
    *(made(20 + seed, ties=True, whole=True) for seed in range(6)),
    *(made(30 + seed, crowds=False) for seed in range(2)),
    made(40, images=1),
    made(41, images=2, most=300),  # more than a hundred detections of a class
]


@pytest.mark.parametrize("images", CASES)
def test_ap_equals_pycocotools(images: list[Image]) -> None:
    assert list(SIZES) == ["all", "small", "medium", "large"]
    table, expected = table_of(images), by_pycocotools(images)
    values = np.stack([average_precision(table, Part(size)) for size in range(len(SIZES))], axis=1)
    assert np.allclose(values, expected, rtol=0, atol=1e-9, equal_nan=True)
    for part in PARTS.values():
        summary = mean_precision(table, part)
        assert summary == pytest.approx(summarised(expected, part), abs=1e-9)


def test_ap_of_what_a_trained_detector_finds_equals_pycocotools() -> None:
    """Its boxes, of any size and many of little score, on the scenes that it was not trained on."""
    network, source = load_classifier("demo-det"), open_source("demo-det")
    images = []
    with torch.inference_mode():
        for first in range(0, 48, 16):
            scenes = [source.read_stored(index) for index in range(first, first + 16)]
            found = network(torch.stack([scene.pixels for scene in scenes]).float() / 255)
            for scene, each in zip(scenes, found, strict=True):
                detected = Detected(*(each[name].numpy() for name in ("boxes", "scores", "labels")))
                xyxy, none = scene.target[:, :4], np.zeros(len(scene.target), dtype=bool)
                labels, areas = scene.target[:, LABEL].astype(np.int64), object_areas(scene.target)
                images.append((detected, Objects(xyxy, labels, areas, none, none)))
    assert sum(len(detected.scores) for detected, _ in images) > 2 * sum(len(each.labels) for _, each in images)
    table, expected = table_of(images, 4), by_pycocotools(images, 4)
    for name in ("map", "ap50", "ap_small", "ap_medium"):
        assert mean_precision(table, PARTS[name]) == pytest.approx(summarised(expected, PARTS[name]), abs=1e-6)
    assert mean_precision(table, PARTS["ap50"]) > 0.5 and mean_precision(table, PARTS["ap_large"]) is None


@pytest.mark.real
def test_ap_of_a_file_of_predictions_on_blood_cells_equals_pycocotools(real: Path, tmp_path: Path) -> None:
    """As COCO's tools are used: truth and predictions are files, and the figures are those that they print."""
    trained = next((ROOT / "results" / "bccd").rglob("cells.safetensors"), None)
    # Cells are discs, more or less; at a third of their size the detector of the demo finds some of them too.
    step = 1 if trained else 3
    network = load_classifier(str(trained) if trained else "demo-det")
    source, kind = open_source(f"voc:{real / 'bccd'}"), Detection()
    own = kind.map_outputs(network.info, source) if trained else OutputMap(4, np.array([3, 0, 1]))
    label_of = {output: label for label, output in enumerate(own.outputs.tolist())}
    truth: dict[str, Any] = {"images": [], "annotations": []}
    truth["categories"] = [{"id": label, "name": name} for label, name in enumerate(source.classes)]
    results, rows = [], {}
    for number in range(12):
        stored = source.read_stored(number)
        boxes = stored.target / np.array([step] * 4 + [1] * (stored.target.shape[1] - 4))
        with torch.inference_mode():
            output = network(stored.pixels[None, :, ::step, ::step].float() / 255)
        found = kind.prediction(output, seen=(1, 1), size=(1, 1))
        target = [{name: torch.from_numpy(each) for name, each in kind.targets((), own, [boxes])[0].items()}]
        for name, (values,) in kind.columns(found, None, target, own).columns.items():
            rows.setdefault(name, []).append(values.numpy())
        truth["images"].append({"id": number})
        for box, area in zip(boxes, object_areas(boxes), strict=True):
            assert not box[FLAGS]  # nothing that COCO knows in another way is in these data
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": int(box[LABEL]), "iscrowd": 0}
                | {"bbox": [*box[:2].tolist(), *(box[2:4] - box[:2]).tolist()], "area": float(area)}
            )
        listed = [found[0][name].tolist() for name in ("boxes", "scores", "labels")]
        for box, score, output in zip(*listed, strict=True):
            if output in label_of:
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                category = label_of[output]
                results.append({"image_id": number, "category_id": category, "bbox": bbox, "score": score})
    for name, content in (("truth", truth), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        read = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(read, read.loadRes(str(tmp_path / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    columns = {name: as_objects(each) for name, each in rows.items()}
    names = ("map", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    stored_table = kind_table(columns)
    for name, expected in zip(names, evaluation.stats[:6], strict=True):
        value = mean_precision(stored_table, {**PARTS, "ap75": Part(0, (5,))}[name])
        assert value == (None if expected < 0 else pytest.approx(expected, abs=1e-6))
        if name != "ap75":  # no row of the catalogue
            assert metric(name).value(columns) == value
    assert len(results) > 100 and evaluation.stats[1] > (0.5 if trained else 0.0)


def as_objects(each: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays of any length as a column of the samples."""
    column = np.empty(len(each), dtype=object)
    column[:] = each
    return column


def kind_table(columns: dict[str, np.ndarray]) -> DetectionTable:
    names = ("box_scores", "box_labels", "box_matches", "box_objects")
    return DetectionTable.of(
        [
            Matches(scores, labels, bits.reshape(-1, len(SIZES)), counts.reshape(-1, 1 + len(SIZES)))
            for scores, labels, bits, counts in zip(*(columns[name] for name in names), strict=True)
        ]
    )


def test_the_cases_hold_what_they_are_for() -> None:
    assert any(objects.crowd.any() for images in CASES for _, objects in images)
    assert any(len(detected.scores) == 0 for images in CASES for detected, _ in images)
    assert any(len(objects.labels) == 0 for images in CASES for _, objects in images)
    assert any((objects.areas == 1024).any() for images in CASES for _, objects in images)
    assert max(np.bincount(detected.labels).max() for detected, _ in CASES[-1]) > 100


def shared_scores(images: list[Image]) -> list[Image]:
    """Give the detections of every image the same scores, each once, in an order of their own."""
    return [
        (replace(detected, scores=(1 - 0.01 * detected.scores.argsort().argsort()).astype(np.float32)), objects)
        for detected, objects in images
    ]


@pytest.mark.parametrize("images", [made(50, images=9), shared_scores(made(51, images=7, whole=True))])
def test_the_bootstrap_equals_matching_resampled_images_anew(images: list[Image]) -> None:
    drawn = bootstrap_precision(table_of(images), PARTS, draws=12, seed=3)
    rng = np.random.default_rng(3)
    for draw in range(12):
        chosen = np.sort(rng.integers(0, len(images), size=len(images), dtype=np.int32))
        values = by_pycocotools([images[index] for index in chosen])
        for name, part in PARTS.items():
            expected = summarised(values, part)
            assert drawn[name][draw] == pytest.approx(np.nan if expected is None else expected, abs=1e-9, nan_ok=True)


def test_the_bootstrap_takes_no_more_memory_for_more_images() -> None:
    """Detections of five times as many images, of which many are ignored at some thresholds and sizes."""

    def peak(times: int) -> int:
        table = table_of(times * made(7, images=40))
        tracemalloc.start()
        try:
            bootstrap_precision(table, PARTS, draws=2, seed=0)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return most // (2 * len(table.scores) * 8)  # in arrays of one value a draw and detection

    assert peak(5) <= peak(1) <= 6


def test_difficult_objects_are_ignored_and_matched_by_one_detection() -> None:
    box = np.array([[0.0, 0, 40, 40]])
    twice = Detected(np.repeat(box, 2, axis=0), np.array([0.9, 0.8]), np.array([0, 0]))
    for crowd, wrong in ((False, 1), (True, 0)):
        objects = Objects(box, np.array([0]), np.array([1600.0]), np.array([True]), np.array([crowd]))
        matches = match_boxes(twice, objects)
        assert matches.counts.tolist() == [[0, 0, 0, 0, 0]]
        judged = [(bits >> 10) & 1 == 0 for bits in matches.bits[:, 0]]
        assert sum(judged) == wrong


def test_summaries_of_hand_made_images() -> None:
    box = np.array([[0.0, 0, 40, 40], [100, 100, 140, 140]])
    no = np.zeros(2, dtype=bool)
    objects = Objects(box, np.array([0, 0]), np.array([1600.0, 1600.0]), no, no)
    found = Detected(np.array([[0.0, 0, 40, 30], [50, 50, 60, 60]]), np.array([0.5, 0.9]), np.array([0, 0]))
    table = DetectionTable.of([match_boxes(found, objects)], 2)
    # IoU 0.75: right at six thresholds, behind one false alarm; half of the recall at a precision of one half.
    assert mean_precision(table, PARTS["ap50"]) == pytest.approx(0.5 * 51 / 101)
    assert mean_precision(table, PARTS["map"]) == pytest.approx(0.6 * 0.5 * 51 / 101)
    assert mean_precision(table, PARTS["ap_medium"]) == pytest.approx(0.6 * 51 / 101)  # the false alarm is small
    assert mean_precision(table, PARTS["ap_small"]) is None and np.isnan(class_precision(table, PARTS["map"])[1])
    assert table.hits(0.5).tolist() == [[[1, 0]], [[2, 0]], [[2, 0]]]
    assert table.hits(0.6).tolist() == [[[0, 0]], [[2, 0]], [[1, 0]]]


def test_nothing_found_and_nothing_there() -> None:
    none = Detected(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int))
    no = np.zeros(1, dtype=bool)
    one = Objects(np.array([[0.0, 0, 9, 9]]), np.array([1]), np.array([81.0]), no, no)
    empty = Objects(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0), no[:0], no[:0])
    table = DetectionTable.of([match_boxes(none, one), match_boxes(none, empty)], CLASSES)
    assert mean_precision(table, PARTS["map"]) == 0 and mean_precision(table, PARTS["ap_large"]) is None
    drawn = bootstrap_precision(table, PARTS, draws=50, seed=0)
    assert np.isnan(drawn["ap_large"]).all() and set(np.unique(drawn["map"][~np.isnan(drawn["map"])])) == {0.0}
    assert 0 < np.isnan(drawn["map"]).sum() < 50  # draws of the empty image alone


def test_overlaps_of_boxes() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 5, 10], [20, 20, 30, 30]])
    assert overlaps(boxes[:2], boxes, np.zeros(3, dtype=bool)).tolist() == [[1, 0.5, 0], [0.5, 1, 0]]
    assert overlaps(boxes[1:2], boxes[:1], np.array([True])).tolist() == [[1]]
    assert len(THRESHOLDS) == 10
