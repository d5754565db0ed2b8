"""Detection: what is stored of each image, and the way from a folder with boxes to the table."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dummies import evaluator, write_card
from PIL import Image
from record_factory import make_record
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn

from srbench.data import boxes as rows_of
from srbench.data.boxes import box_rows
from srbench.data.catalogue import open_source
from srbench.errors import DataError, UsageError
from srbench.leaderboard import tables
from srbench.metrics.boxes import Detected, Objects, match_boxes
from srbench.metrics.stats import DetectionTable, Part, class_precision, mean_precision
from srbench.networks import detectors
from srbench.networks.loading import create_network, load_classifier
from srbench.networks.outputs import flat
from srbench.report.figures import draw_all
from srbench.task_types import OutputMap, task_type
from srbench.task_types.detection import _stacked
from srbench.task_types.overlays import class_colour
from srbench.training.api import train_method, train_network
from srbench.training.features import FeatureExtractor
from srbench.training.losses import logits
from srbench.training.options import TrainOptions

CLASSES = ("ant", "bee", "cow")
ANSWERS = OutputMap(4, np.array([2, 0, 3]))  # output 1 stands for no class of the data
KIND = task_type("detection")


class Blobs(nn.Module):
    """Finds bright patches, of the class of their brightest channel; its score falls with the patch's blur."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = detectors._OwnSize(0, 0, [0.0] * 3, [1.0] * 3)
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        found = []
        for image in images:
            boxes, scores, labels = [], [], []
            for channel in range(3):
                bright, _ = ndimage.label(image[channel].numpy() > 0.45)
                for rows, columns in ndimage.find_objects(bright):
                    boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                    scores.append(float(image[channel][rows, columns].mean()))
                    labels.append(channel)
            found.append(
                {
                    "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                    "scores": torch.tensor(scores, dtype=torch.float32).clamp(0, 1),
                    "labels": torch.tensor(labels, dtype=torch.long),
                }
            )
        return found


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The card of a detector that needs no training."""
    folder = tmp_path_factory.mktemp("blobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "_BUILT", {**detectors._BUILT, "blobs": lambda encoder, classes, **args: Blobs()})
        args = {"encoder": "none", "num_classes": 3}
        save_file(create_network("torchvision", "blobs", args).state_dict(), folder / "blobs.safetensors")
        (folder / "names.txt").write_text("cow\nant\nbee\n")
        fields = {"library": "torchvision", "name": "blobs", "args": args, "weights": "blobs.safetensors"}
        fields |= {"mean": [0.0] * 3, "std": [1.0] * 3, "classes": "names.txt"}
        yield write_card(folder / "blobs.toml", fields)


@pytest.fixture(scope="module")
def meadow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of 64 x 72 pixels with bright rectangles on dark noise, and a COCO file; one holds nothing."""
    folder = tmp_path_factory.mktemp("meadow")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(10):
        pixels = random.integers(0, 80, (64, 72, 3))
        for left, top in ((4, 4), (40, 4), (4, 36), (40, 36))[: 0 if number == 3 else 1 + number % 4]:
            label, (width, height) = int(random.integers(0, 3)), random.integers(5, 26, 2)
            # the network's first output is "cow", the third of the data's classes
            pixels[top : top + height, left : left + width, (label + 1) % 3] = random.integers(
                150, 256, (height, width)
            )
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": [left, top, int(width), int(height)],
                }
            )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 72, "height": 64})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "boxes.json").write_text(text)
    return folder


def spec_of(folder: Path) -> str:
    return f"coco:{folder / 'images'},{folder / 'boxes.json'}"


# --- one batch


def prediction(*rows: tuple[float, ...]) -> dict[str, Tensor]:
    """A prediction on one image of boxes, each followed by its score and label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].int()}


def targets(*images: Any) -> list[dict[str, Tensor]]:
    each = KIND.targets((), ANSWERS, [box_rows(*image) for image in images])
    return [{name: torch.from_numpy(np.asarray(value)) for name, value in image.items()} for image in each]


def test_targets_name_the_network_s_outputs() -> None:
    image = targets(([(0, 0, 8, 9), (1, 1, 3, 3)], [2, 0]))[0]
    assert image["labels"].tolist() == [3, 2] and image["areas"].tolist() == [72, 4]
    assert KIND.targets((), ANSWERS, None) is None


def test_columns_hold_the_matches_of_each_image() -> None:
    found = [prediction((0, 0, 10, 10, 0.9, 3), (20, 20, 30, 30, 0.8, 1), (0, 0, 10, 9, 0.3, 3)), prediction()]
    on_hr = [prediction((0, 0, 10, 10, 0.9, 3), (40, 40, 60, 60, 0.4, 2)), prediction((0, 0, 9, 9, 0.6, 2))]
    given = targets(([(0, 0, 10, 10)], [2]), ([(5, 5, 50, 50)], [0]))
    columns = KIND.columns(found, on_hr, given, ANSWERS).columns
    assert [each.tolist() for each in columns["box_labels"]] == [[3, 3], []], "output 1 is no class of the data"
    assert columns["box_scores"][0].tolist() == pytest.approx([0.9, 0.3])
    assert [each.tolist() for each in columns["box_objects"]] == [[3, 1, 1, 0, 0], [2, 1, 0, 1, 0]]
    assert [each.tolist() for each in columns["box_hr_objects"]] == [[3, 1], [2, 1]], "only sure boxes are expected"
    assert (columns["box_matches"][0].view(-1, 4)[0] & 1023).tolist() == [1023, 1023, 0, 0]
    assert set(KIND.columns(found, None, None, ANSWERS).columns) == set()


def test_what_stays_of_a_row_does_not_grow_with_its_detections() -> None:
    def kept(detections: int) -> int:
        found = [prediction(*[(0, 0, 10, 10, 0.9 - 0.001 * number, 3) for number in range(detections)])] * 4
        given = targets(*[([(0, 0, 10, 10)], [2])] * 4)
        lists = KIND.columns(found, found, given, ANSWERS).columns
        record = make_record("gain", role="network", n=4)
        cell = KIND.samples_of(record, pd.DataFrame({name: [x.numpy() for x in each] for name, each in lists.items()}))
        assert len(cell.lists) == 6
        rest = cell.only({*KIND.averaged().values(), *KIND.compared})
        summary = KIND.summary(cell, draws=3, seed=0)
        return len(pickle.dumps((rest.columns, summary)))

    assert kept(2) == kept(90) < 2000


def test_rows_of_unequal_numbers_of_classes_are_counted_together() -> None:
    counts = [np.ones((3, 2, 1)), np.full((3, 2, 3), 2.0)]
    stacked = _stacked(counts)
    assert stacked.shape == (2, 3, 2, 3)
    assert stacked[0, 1].tolist() == [[1, 0, 0], [1, 0, 0]] and (stacked[1] == 2).all()


def test_figures_count_boxes_that_are_right() -> None:
    found = [
        prediction((0, 0, 10, 10, 0.9, 3), (20, 20, 30, 30, 0.8, 3), (0, 0, 10, 9, 0.3, 3)),
        prediction(),
        prediction(),
    ]
    given = targets(([(0, 0, 10, 10)], [2]), ([], []), ([(5, 5, 50, 50)], [0]))
    assert KIND.figures(found, given, ANSWERS)["box_f1"].tolist() == pytest.approx([2 / 3, 1, 0])


def test_boxes_found_on_an_image_of_another_size_are_brought_to_hr() -> None:
    found = KIND.prediction([prediction((1, 2, 3, 4, 0.5, 0))], seen=(16, 18), size=(64, 72))
    assert found[0]["boxes"].tolist() == [[4, 8, 12, 16]]
    assert not KIND.is_finite([prediction((1, 2, 3, float("nan"), 0.5, 0))])
    assert KIND.is_finite([prediction()])


def test_the_loss_is_the_detector_s_without_ignored_objects() -> None:
    torch.manual_seed(0)
    network = detectors.create_detector(
        "fcos", {"encoder": "mobilenetv2_035", "num_classes": 4, "width": 64, "convs": 1}
    )
    output = network(torch.rand(1, 3, 64, 64))
    both = box_rows([(8, 8, 40, 40), (2, 2, 60, 60)], [0, 1], ignored=[False, True])
    given = {name: torch.from_numpy(np.asarray(value)) for name, value in KIND.targets((), ANSWERS, [both])[0].items()}
    expected = output.losses([{"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])}])
    assert KIND.loss(output, [given]).item() == pytest.approx(sum(each.item() for each in expected.values()), rel=1e-5)
    with pytest.raises(UsageError, match="label_smoothing is for class labels"):
        KIND.loss(output, [given], smoothing=0.1)


# --- from the folder to the table


def test_from_a_folder_of_boxes_to_the_table(
    meadow: Path, card: Path, tmp_path: Path, few_draws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 4)
    run, data = evaluator(meadow, card, "dense-x4", tmp_path / "out"), spec_of(meadow)
    result = run("bilinear", "nearest", data=data)
    assert result.failed == []
    rows = {row.method: row for row in result.board.rows}
    assert rows["original"].n == 10 and rows["original"]["box_agreement"] == pytest.approx(1.0)
    # anew, from the images and boxes themselves
    network, source = load_classifier(str(card)), open_source(data)
    matches = []
    with torch.inference_mode():
        for index in range(10):
            found = network(source.read(index)[None].float() / 255)[0]
            boxes = source.boxes(index)
            none = np.zeros(len(boxes), dtype=bool)
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            labels = np.array([1, 2, 0])[boxes[:, 5].astype(int)]
            detected = Detected(*(found[name].numpy() for name in ("boxes", "scores", "labels")))
            matches.append(match_boxes(detected, Objects(boxes[:, :4], labels, areas, none, none)))
    table = DetectionTable.of(matches)
    assert 0.5 < rows["original"]["map"] == pytest.approx(mean_precision(table, Part(0)), abs=1e-6)
    assert rows["original"]["ap_small"] == pytest.approx(mean_precision(table, Part(1)), abs=1e-6)
    assert rows["original"]["ap_large"] is None and rows["none"]["map"] is not None
    assert rows["original"]["map"] > rows["bilinear"]["map"]
    for name in ("bilinear", "nearest"):
        assert rows[name]["map_delta"] == pytest.approx(rows[name]["map"] - rows["bilinear"]["map"], abs=1e-12)
    assert {"map", "ap50", "box_agreement"} <= set(rows["bilinear"].ci) and rows["bilinear"].rank is not None
    assert rows["original"]["recovered_gap"] == 1.0
    record = next(cell.record for cell in result.cells if cell.record.cell.method == "original")
    assert {part.name for part in record.per_class} == set(CLASSES)
    for part in record.per_class:
        assert part.ap == pytest.approx(class_precision(table, Part(0))[part.index], abs=1e-6)
    classes = result.per_class
    assert set(classes["class"]) == set(CLASSES) and classes["f1_delta_to_bilinear"].notna().all()
    assert "AP50" in tables.markdown(result.board) and json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    figures = {drawn.name.partition("-dense")[0]: drawn for drawn in draw_all(result.board, result.cells)}
    drawn = next(each for name, each in figures.items() if name.startswith("box-sizes"))
    assert drawn.data["sizes"] == ["small"]
    assert drawn.data["series"][0]["ap"][0] == pytest.approx(rows["original"]["ap_small"])
    drawn = next(each for name, each in figures.items() if name.startswith("ap-"))
    assert set(drawn.data["classes"]) == set(CLASSES) and len(drawn.data["series"]) == 3
    kept = next(cell for cell in result.cells if cell.record.cell.method == "original").thumbnails()
    assert kept and all(images["overlay"].shape == images["truth"].shape == (64, 72, 3) for images in kept.values())
    again = run("bilinear", "nearest", "bicubic", data=data)
    assert again.counters.hr_classified == {} and set(again.counters.restored) == {"bicubic"}


def test_other_data_and_networks_are_refused_in_one_sentence(meadow: Path, card: Path, tmp_path: Path) -> None:
    source = open_source(spec_of(meadow))
    info = load_classifier(str(card)).info
    assert info.answers == "boxes" and KIND.map_outputs(info, source).outputs.tolist() == [1, 2, 0]
    assert KIND.classes_of([source, source]) == CLASSES
    source.classes = ("ant", "dog")
    with pytest.raises(DataError, match=r"2 classes are unknown to classifier blobs, such as 'dog'.*give the data's"):
        KIND.map_outputs(info, source)
    with pytest.raises(UsageError, match="demo has no boxes"):
        KIND.classes_of([open_source("demo")])


# --- galleries


def test_sure_boxes_and_objects_are_framed_in_the_colour_of_their_class() -> None:
    image = np.full((40, 50, 3), 90, dtype=np.uint8)
    image[..., 0] = 120
    found = prediction((10, 5, 30, 25, 0.9, 3), (-5, 30, 12, 60, 0.6, 1), (35, 5, 45, 15, 0.4, 1))
    drawn = KIND.overlay(image, {name: each.numpy() for name, each in found.items()})
    assert drawn is not None and (drawn[20, 20] == 100).all(), "the image is grey, and a frame holds nothing"
    for row, column in ((5, 20), (24, 20), (15, 10), (15, 29)):
        assert tuple(drawn[row, column]) == class_colour(3)
    assert tuple(drawn[35, 0]) == tuple(drawn[39, 5]) == class_colour(1), "it is cut at the edge of the image"
    assert (drawn[5:15, 35:45] == 100).all(), "the network is not sure of it"
    placed = box_rows([(10, 5, 30, 25), (2, 2, 9, 9)], [2, 0])
    placed[1, rows_of.FLAGS] = rows_of.IGNORED
    truth = KIND.truth_overlay(image, placed, ANSWERS)
    assert truth is not None and tuple(truth[5, 20]) == class_colour(3) and (truth[:5] == 100).all()
    assert KIND.truth_overlay(image, placed, OutputMap(4)) is None


# --- training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A detector of a few steps on some scenes of demo-det, by the function behind the command."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("SRBENCH_WEIGHTS", "SRBENCH_CACHE"):
            patch.setenv(variable, str(root / variable))
        options = TrainOptions(
            data=("demo-det",),
            overrides=("args.width=64", "args.convs=1", "batch_size=4", "warmup_steps=0", "lr=0.002"),
            epochs=2,
            limit=12,
            out=root / "out",
            name="shapes-fcos",
            device="cpu",
            progress=False,
        )
        yield train_network("fcos", options, encoder="timm:test_resnet")


def test_a_detector_is_trained_and_named(trained: Any) -> None:
    assert {"box_f1", "box_f1_bilinear"} <= set(trained.metrics) and trained.criterion == "box_f1"
    assert trained.steps == 6 and trained.network.info.answers == "boxes"
    network = load_classifier("shapes-fcos")
    assert network.info.answers == "boxes" and network.info.classes == ("disc", "square", "triangle", "cross")
    assert network.info.args["encoder"] == "test_resnet" and network.network.n_classes == 4
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(flat(network(image)), flat(trained.network(image)), atol=1e-4)


def test_pyramids_of_sr_are_held_against_those_of_hr(trained: Any) -> None:
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        target = trained.network(image)
    assert flat(target).shape[0] == 2 and logits(trained.network(image), target).item() == pytest.approx(0, abs=1e-8)
    moved = (image * 0.5).requires_grad_()
    logits(trained.network(moved), target).backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0


def test_features_of_a_detector_are_those_of_its_pyramid(trained: Any) -> None:
    extractor = FeatureExtractor(trained.network)
    assert ".backbone." in f".{extractor.layer}."
    image = torch.rand(1, 3, 64, 64).requires_grad_()
    seen = extractor.see(image, logits=True)
    features, output = seen.features, seen.logits
    assert torch.equal(features, extractor(image)) and len(output[0]["boxes"]) == len(output[0]["scores"])
    features.square().mean().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("darionet", ["parameters.blocks=1", "parameters.features=8"]),
        ("learned_resizer", ["parameters.filters=4", "norm_steps=1"]),
        ("muller", []),
        ("retrained", []),
        ("sr4ir", ["parameters.blocks=1", "parameters.features=8"]),
    ],
)
def test_methods_are_trained_against_a_detector(
    trained: Any, tmp_path: Path, method: str, overrides: list[str]
) -> None:
    """What each takes by default on boxes; at the start each is bilinear, so that the figures before it are known."""
    options = TrainOptions(
        data=("demo-det",),
        out=tmp_path / "run",
        epochs=1,
        limit=4,
        overrides=["batch_size=2", "steps_per_epoch=2", *overrides],
        progress=False,
    )
    result = train_method(method, options, classifier=[str(trained.weights.path)])
    first, last = result.history.iloc[0], result.history.iloc[-1]
    assert np.isfinite(last["loss"]) and last["loss"] > 0 and np.isfinite(last["val_box_f1"])
    assert last["loss_logits" if method == "darionet" else "loss_perceptual" if method == "sr4ir" else "loss_boxes"] > 0
    assert first["val_box_f1_hr"] == pytest.approx(last["val_box_f1_hr"])
    assert result.criterion == ("logits" if method == "darionet" else "box_f1")
    assert (result.weights.card.track == "adapted") == (method in {"retrained", "sr4ir"})
