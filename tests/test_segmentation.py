"""Segmentation: masks as they are read, counts and their bootstrap, and the way from a folder to the table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from dummies import evaluator, write_card
from PIL import Image
from safetensors.torch import save_file

from srbench.data.boxes import box_rows
from srbench.data.catalogue import open_source
from srbench.data.geometry import place_image, placement
from srbench.data.hr_cache import build_hr_store
from srbench.data.targets import cut_target, mirror_target, place_target, turn_target
from srbench.errors import DataError, TooManyUnreadableError, UsageError, WeightsError
from srbench.leaderboard import tables
from srbench.metrics import dense
from srbench.metrics.stats import bootstrap_iou, resample_counts
from srbench.networks.loading import create_network, load_classifier
from srbench.protocol import Geometry, load_protocol
from srbench.records.cells import find_records
from srbench.report import write_report
from srbench.report.findings import _gap
from srbench.task_types import OutputMap, task_type
from srbench.task_types.overlays import class_colour
from srbench.task_types.segmentation import mean_iou_of
from srbench.training.api import train_method, train_network
from srbench.training.options import TrainOptions

CLASSES = ("sky", "road", "tree")
COLOURS = np.array([[90, 140, 220], [110, 110, 110], [40, 150, 50]])


# --- counts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maps():
    """Random maps and masks of five images with four classes; class 3 is nowhere in the first of them."""
    random = np.random.default_rng(0)
    target = random.integers(0, 4, (5, 12, 14))
    prediction = np.where(random.random(target.shape) < 0.6, target, random.integers(0, 4, target.shape))
    target[random.random(target.shape) < 0.1] = dense.IGNORED
    for each in (target, prediction):
        each[0][each[0] == 3] = 0
    return torch.from_numpy(prediction), torch.from_numpy(target)


def by_hand(prediction, target, classes=4):
    """Return the mean IoU over all pixels of some images, counted class by class."""
    known = target >= 0
    values = []
    for each in range(classes):
        ours, theirs = (prediction == each)[known], (target == each)[known]
        if (ours | theirs).any():
            values.append((ours & theirs).sum() / (ours | theirs).sum())
    return float(np.mean(values))


def test_miou_equals_torchmetrics_and_a_count_by_hand(maps):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    prediction, target = maps
    counts = dense.class_counts(dense.confusion_counts(prediction, target, 4).numpy()).sum(axis=1)
    assert dense.mean_iou(counts) == pytest.approx(by_hand(prediction.numpy(), target.numpy()), abs=1e-12)
    reference = MulticlassJaccardIndex(num_classes=4, ignore_index=dense.IGNORED)
    assert dense.mean_iou(counts) == pytest.approx(float(reference(prediction, target)), abs=1e-6)
    accuracy = MulticlassAccuracy(num_classes=4, average="micro", ignore_index=dense.IGNORED)
    assert dense.pixel_accuracy(counts) == pytest.approx(float(accuracy(prediction, target)), abs=1e-6)


def test_a_class_that_is_nowhere_is_no_part_of_the_mean(maps):
    prediction, target = (each[:1] for each in maps)
    counts = dense.class_counts(dense.confusion_counts(prediction, target, 4).numpy()).sum(axis=1)
    assert np.isnan(dense.iou(counts)).tolist() == [False, False, False, True]
    assert dense.mean_iou(counts) == pytest.approx(by_hand(prediction.numpy(), target.numpy()), abs=1e-12)
    assert np.isnan(dense.mean_iou(np.zeros((3, 4))))


def test_the_bootstrap_is_that_of_images_counted_anew(maps):
    prediction, target = maps
    other = (prediction + (torch.arange(12)[:, None] % 3 == 0)) % 4
    rows = [dense.class_counts(dense.confusion_counts(each, target, 4).numpy()) for each in (prediction, other)]
    drawn = bootstrap_iou(np.stack(rows), draws=25, seed=3)
    taken = np.concatenate(list(resample_counts(5, 25, seed=3))).astype(int)
    for draw, counts in enumerate(taken):
        images = np.repeat(np.arange(5), counts)
        for column, each in enumerate((prediction, other)):
            expected = by_hand(each.numpy()[images], target.numpy()[images])
            assert drawn.mean[draw, column] == pytest.approx(expected, abs=1e-12)
            known = target.numpy()[images] >= 0
            right = (each.numpy() == target.numpy())[images][known]
            assert drawn.accuracy[draw, column] == pytest.approx(right.mean(), abs=1e-12)


def test_figures_of_a_validation_give_the_miou_of_all_images(maps):
    prediction, target = maps
    kind = task_type("segmentation")
    scores = torch.nn.functional.one_hot(prediction, 4).permute(0, 3, 1, 2).float() * 9
    figures = kind.figures(scores, target, OutputMap(4))
    means = {f"{name}{end}": float(values.mean()) for name, values in figures.items() for end in ("", "_hr")}
    done = mean_iou_of(means)
    assert done["miou"] == done["miou_hr"] == pytest.approx(by_hand(prediction.numpy(), target.numpy()), abs=1e-9)
    assert not [name for name in done if name.startswith("iou_")]
    labelled = (target >= 0).flatten(1).sum(dim=1)
    expected = torch.nn.functional.cross_entropy(scores, target, ignore_index=-1, reduction="none").flatten(1)
    assert figures["ce"].tolist() == pytest.approx((expected.sum(dim=1) / labelled).tolist())


# --- data --------------------------------------------------------------------------------------------------------


def write_scene(root: Path, number: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Write an image of three textured bands and its mask below a root; return the mask."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[: size[0], : size[1]]
    edge = size[0] // 2 + 4 * np.sin(columns / (5 + number % 3))
    mask = np.where(rows < edge, 0, 1)
    mask[(columns // 6 + number) % 4 == 0] = 2
    mask[:2] = 255
    image = COLOURS[np.minimum(mask, 2)] + random.normal(0, 14, (*size, 3))
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(root / "images" / f"{number:03d}.png")
    Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{number:03d}.png")
    return mask


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes, two of them of another size, with the names of their classes."""
    root = tmp_path_factory.mktemp("scenes")
    for number in range(12):
        write_scene(root, number, (40, 56) if number % 6 else (45, 60))
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def spec_of(root: Path, end: str = "") -> str:
    return f"masks:{root}/images,{root}/masks{end}"


def test_masks_are_read_with_their_images_and_cut_as_these(scenes):
    source = open_source(spec_of(scenes))
    assert source.classes == CLASSES and source.task_type == "segmentation" and source.labelled
    store = build_hr_store(source, load_protocol("dense-x4").hr)
    mask = np.array(Image.open(scenes / "masks" / "006.png"))
    (placed,) = store.targets([6])
    assert store.shapes[6].tolist() == [40, 56] and np.array_equal(placed, mask[:40, :56]) and placed.dtype == np.uint8
    again = build_hr_store(open_source(spec_of(scenes)), load_protocol("dense-x4").hr)
    assert again.decoded == 0 and np.array_equal(again.targets([6])[0], placed)


def test_targets_are_placed_as_the_pixels_are():
    geometry = Geometry(resize=20, crop=16, modulo=4)
    mask = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((10, 10), dtype=np.uint8))
    placed = placement(30, 40, geometry)
    assert place_image(torch.zeros(3, 30, 40, dtype=torch.uint8), placed, geometry).shape == (3, 16, 16)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None].float(), (20, 26), mode="nearest-exact"
    )
    assert np.array_equal(place_target(mask, placed), resized[0, 0, 2:18, 5:21].numpy())
    box = place_target(box_rows([[10.0, 6.0, 20.0, 10.0]], [2]), placed)
    # 30 x 40 becomes 20 x 26, and the crop begins 2 rows and 5 columns later
    assert box[0].tolist() == pytest.approx([10 * 26 / 40 - 5, 2, 20 * 26 / 40 - 5, 10 * 2 / 3 - 2, 1, 2, 0], abs=1e-5)


def test_masks_and_boxes_are_cut_turned_and_mirrored_alike():
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[4:9, 10:16] = 1
    box = box_rows([[10, 4, 16, 9]], [1])

    def agree(mask, box):
        rows, columns = np.nonzero(mask)
        assert box[0, :4].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

    window = {"top": 3, "left": 8, "rows": 12, "columns": 15}
    agree(cut_target(mask, **window), cut_target(box, **window))
    agree(mirror_target(mask, 30), mirror_target(box, 30))
    for quarters in range(4):
        agree(turn_target(mask, quarters, (20, 30)), turn_target(box, quarters, (20, 30)))


def test_classes_are_named_by_a_file_or_by_the_indices(scenes, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    assert open_source(spec_of(scenes, f"?classes={tmp_path}/names.txt")).classes == ("a", "b", "c", "d")
    write_scene(tmp_path / "deep" / "plain", 1)
    assert open_source(spec_of(tmp_path / "deep" / "plain")).classes == ("0", "1", "2")
    with pytest.raises(DataError, match=r"nowhere\.txt cannot be read"):
        open_source(spec_of(scenes, "?classes=nowhere.txt"))


def test_bad_masks_are_one_sentence_each(tmp_path):
    root = tmp_path / "bad"
    for number in range(3):
        write_scene(root, number)
    (root / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(TooManyUnreadableError, match=r"the mask 000.png holds the index 2, but the 2 classes are 0 to"):
        build_hr_store(open_source(spec_of(root)), Geometry(modulo=8))
    (root / "classes.txt").write_text("sky\nroad\ntree\n")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(root / "masks" / "001.png")
    with pytest.raises(TooManyUnreadableError, match=r"001.png is 9 x 9 pixels, its image 001.png is 40 x 56"):
        build_hr_store(open_source(spec_of(root)), Geometry(modulo=8))
    Image.fromarray(np.zeros((40, 56, 3), dtype=np.uint8)).save(root / "masks" / "001.png")
    with pytest.raises(TooManyUnreadableError, match=r"the mask 001.png is of Pillow's mode RGB; expected a PNG of"):
        build_hr_store(open_source(spec_of(root)), Geometry(modulo=8))
    (root / "masks" / "001.png").write_bytes(b"no picture")
    with pytest.raises(TooManyUnreadableError, match=r"the mask 001.png is no image that can be read;"):
        build_hr_store(open_source(spec_of(root)), Geometry(modulo=8))
    (root / "masks" / "001.png").unlink()
    # What JPEG makes of indices are indices mostly, but others.
    Image.fromarray(np.zeros((40, 56), dtype=np.uint8)).save(root / "masks" / "001.jpg")
    with pytest.raises(TooManyUnreadableError, match=r"001.jpg is of the format JPEG, which may change indices"):
        build_hr_store(open_source(spec_of(root)), Geometry(modulo=8))
    (root / "masks" / "001.jpg").unlink()
    Image.fromarray(np.ones((40, 56), dtype=np.uint8)).save(root / "masks" / "001.png", format="JPEG")
    with pytest.raises(TooManyUnreadableError, match=r"the mask 001.png is of the format JPEG"):
        build_hr_store(open_source(spec_of(root)), Geometry(modulo=8))
    Image.fromarray(np.zeros((40, 56, 3), dtype=np.uint8)).save(root / "images" / "001.jpg")
    with pytest.raises(DataError, match=r"the folder of the images holds both 001\..* and 001\..*; keep one of them"):
        open_source(spec_of(root))
    (root / "images" / "001.jpg").unlink()
    (root / "masks" / "001.png").unlink()
    with pytest.raises(DataError, match=r"1 image has no mask of the same name: 001\.png"):
        open_source(spec_of(root))
    (root / "images" / "001.png").unlink()
    (root / "images" / "002.png").unlink()
    with pytest.raises(DataError, match=r"1 mask has no image of the same name: 002\.png"):
        open_source(spec_of(root))
    (root / "masks" / "002.png").unlink()
    with pytest.raises(DataError, match=r"class names in .*none.txt cannot be read .No such file.*one name a line"):
        open_source(f"masks:{root}/images,{root}/masks?classes={root}/none.txt")
    with pytest.raises(UsageError, match="expected two folders, masks:IMAGES,MASKS"):
        open_source(f"masks:{root}/images")


def test_layouts_of_camvid_and_voc(tmp_path):
    write_scene(tmp_path / "cam" / "val", 0)
    (tmp_path / "cam" / "classes.txt").write_text("\n".join(CLASSES))
    source = open_source(f"camvid:{tmp_path}/cam")
    assert (source.split, source.classes, len(source.samples)) == ("val", CLASSES, 1)
    voc = tmp_path / "VOC2012"
    write_scene(voc, 0)
    (voc / "masks").rename(voc / "SegmentationClass")
    (voc / "JPEGImages").mkdir()
    Image.open(voc / "images" / "000.png").save(voc / "JPEGImages" / "000.jpg")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("000\n")
    source = open_source(f"voc-seg:{voc}")
    assert source.read_stored(0).target.max() == 255 and source.classes[15] == "person"
    with pytest.raises(UsageError, match="no split 'train'"):
        open_source(f"voc-seg:{voc}", "train")


# --- from the folder to the table --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The card of a small network on an encoder of timm; its weights are random."""
    pytest.importorskip("segmentation_models_pytorch")
    folder = tmp_path_factory.mktemp("card")
    args = {"num_classes": 3, "decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}
    torch.manual_seed(1)
    network = create_network("smp", "FPN/timm-test_resnet", args)
    save_file(network.state_dict(), folder / "fpn.safetensors")
    (folder / "fpn.txt").write_text("tree\nsky\nroad\n")
    fields = {"library": "smp", "name": "FPN/timm-test_resnet", "args": args, "weights": "fpn.safetensors"}
    fields |= {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": "fpn.txt"}
    return write_card(folder / "fpn.toml", fields)


def test_a_network_of_any_size_answers_with_a_map_of_the_size_of_its_image(card):
    network = load_classifier(str(card))
    assert network.info.answers == "map" and network.info.n_classes == 3
    image = torch.rand(2, 3, 40, 56)
    with torch.inference_mode():
        found = network(image)
        padded = network.network(torch.nn.functional.pad(network.normalise(image), (0, 8, 0, 24), mode="replicate"))
    assert found.shape == (2, 3, 40, 56) and torch.equal(found, padded[..., :40, :56])


@pytest.mark.parametrize("size", [(24, 24), (32, 32), (20, 40), (1, 1)])
def test_a_small_image_alone_gets_the_answer_that_it_gets_among_others(size):
    """The decoder normalises groups of channels, which a single pixel of the deepest map would not fill."""
    pytest.importorskip("segmentation_models_pytorch")
    network = load_classifier("demo-seg")
    images = torch.rand(2, 3, *size)
    with torch.inference_mode():
        alone = network(images[:1])
        assert alone.shape == (1, 5, *size) and torch.allclose(network(images)[:1], alone, atol=1e-4)


def test_from_a_folder_of_masks_to_the_table(scenes, card, tmp_path, few_draws, monkeypatch):
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 5)
    run, data = evaluator(scenes, card, "dense-x4", tmp_path / "out"), spec_of(scenes)
    result = run("bilinear", "nearest", data=data)
    assert result.failed == []
    rows = {row.method: row for row in result.board.rows}
    assert rows["original"].n == 12 and rows["original"]["map_agreement"] == 1.0
    network = load_classifier(str(card))
    outputs = [1, 2, 0]  # of sky, road and tree: the card names them in another order
    maps, masks = [], []
    with torch.inference_mode():
        for number in range(12):
            image = np.array(Image.open(scenes / "images" / f"{number:03d}.png"))[:40, :56]
            mask = np.array(Image.open(scenes / "masks" / f"{number:03d}.png"))[:40, :56]
            seen = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            maps.append(network(seen).argmax(1)[0].numpy())
            masks.append(np.select([mask == k for k in range(3)], outputs, default=-1))
    assert rows["original"]["miou"] == pytest.approx(by_hand(np.array(maps), np.array(masks), 3), abs=1e-6)
    assert rows["none"]["miou"] is not None, "the map of LR is brought to the size of HR"
    for name in ("bilinear", "nearest"):
        assert rows[name]["miou_delta"] == pytest.approx(rows[name]["miou"] - rows["bilinear"]["miou"], abs=1e-12)
    assert "miou" in rows["bilinear"].ci and rows["bilinear"].rank is not None
    record = next(cell.record for cell in result.cells if cell.record.cell.method == "bilinear")
    assert [part.name for part in record.per_class] == ["tree", "sky", "road"]
    assert np.mean([part.iou for part in record.per_class]) == pytest.approx(rows["bilinear"]["miou"], abs=1e-6)
    classes = result.per_class
    assert set(classes["class"]) == set(CLASSES) and classes["iou_delta_to_original"].notna().all()
    assert "mIoU" in tables.markdown(result.board) and json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    kept = next(cell for cell in result.cells if cell.record.cell.method == "original").thumbnails()
    position, images = next(iter(kept.items()))
    assert set(images) == {"hr", "lr", "overlay", "truth"} and images["overlay"].shape == images["hr"].shape
    colour, grey = np.array(class_colour(int(maps[position][0, 0]))), images["hr"][0, 0].mean()
    assert np.abs(images["overlay"][0, 0] - (colour + grey) / 2).max() <= 1
    assert np.ptp(images["truth"][0, 0]) == 0, "what nobody has labelled stays grey"
    page = write_report([tmp_path / "out"], tmp_path / "page", progress=False)[0].read_text()
    assert "IoU of each class" in page and "what the data say" in page and "There are no labels" not in page
    for index, name in enumerate(("tree", "sky", "road")):
        assert f'background:#{bytes(class_colour(index)).hex()}"></span> <bdi>{name}</bdi>' in page
    again = run("bilinear", "nearest", "bicubic", data=data)
    assert again.counters.hr_classified == {} and set(again.counters.restored) == {"bicubic"}
    cells, problems = find_records([tmp_path / "out"])
    done = {cell.record.cell.method for cell in cells if cell.record.status == "ok"}
    assert problems == [] and done == {"original", "none", "nearest", "bilinear", "bicubic"}


def test_the_report_says_how_much_of_the_gap_in_miou_is_won_back():
    class Told(dict):
        ci: ClassVar = {"recovered_gap": (0.25, 0.75)}
        label, track = "best", "frozen"

    best = Told(miou=0.5, recovered_gap=0.5, accuracy=None)
    others = {"original": Told(miou=0.6, accuracy=None), "bilinear": Told(miou=0.4, accuracy=None)}
    lead = SimpleNamespace(best=best, tied=())
    assert _gap(lead, others, "miou") == (
        " It wins back 0.50 [0.25, 0.75] of the gap between bilinear (0.400) and the original (0.600)."
    )
    assert _gap(lead, {"original": others["original"]}, "miou") == ""
    assert _gap(lead, {**others, "bilinear": Told(miou=None)}, "miou") == ""


def test_a_network_of_another_form_is_refused_in_one_sentence(scenes, card, images_card, tmp_path):
    run = evaluator(scenes, images_card, "dense-x4", tmp_path / "out")
    with pytest.raises(DataError, match="takes a network that returns a map of scores; dummy returns"):
        run("bilinear", data=spec_of(scenes))
    with pytest.raises(UsageError, match="come without weights for any classes; train one with"):
        load_classifier("smp:FPN/timm-test_resnet")


@pytest.fixture(scope="module")
def images_card(tmp_path_factory):
    """The card of a network that classifies whole images."""
    from dummies import make_classifier

    return make_classifier(tmp_path_factory.mktemp("whole"))


def test_the_demo_has_a_mask_for_each_scene():
    source = open_source("demo-seg", "val")
    assert source.classes == ("ground", "disc", "square", "triangle", "cross") and source.task_type == "segmentation"
    scenes = [source.read_stored(index) for index in range(20)]
    assert {int(value) for scene in scenes for value in np.unique(scene.target)} == set(range(5))
    boxes = open_source("demo-det", "val").read_stored(3)
    assert torch.equal(boxes.pixels, scenes[3].pixels) and (scenes[3].target > 0).any()


# --- training ----------------------------------------------------------------------------------------------------

SMALL = ["batch_size=4", "patch=32", "warmup_steps=0", "lr=0.01"]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A network trained on the scenes from the weights of a classifier, whose card it has."""
    pytest.importorskip("segmentation_models_pytorch")
    from dummies import make_classifier

    folder = tmp_path_factory.mktemp("trained")
    begun = make_classifier(folder / "begun", "begun")
    options = TrainOptions(
        data=[spec_of(scenes)],
        val=spec_of(scenes),
        out=folder / "run",
        epochs=3,
        overrides=[*SMALL, "args.decoder_pyramid_channels=16", "args.decoder_segmentation_channels=32"],
        name="bands",
        progress=False,
    )
    return train_network("fpn", options, encoder="timm:test_resnet", init_encoder=str(begun))


def test_a_network_is_trained_on_masks_from_an_encoder(trained, scenes, tmp_path):
    assert trained.criterion == "miou" and trained.history["val_miou"].iloc[-1] > trained.history["val_miou"].iloc[0]
    assert not [name for name in trained.history if "iou_hits" in name]
    network = load_classifier(str(trained.weights.path))
    assert network.info.answers == "map" and network.info.classes == CLASSES and network.info.mean == (0.5,) * 3
    run = evaluator(scenes, trained.weights.path, "dense-x4", tmp_path / "out")
    row = next(row for row in run(data=spec_of(scenes), split="val").board.rows if row.method == "original")
    assert row["miou"] == pytest.approx(trained.metrics["miou"], abs=1e-4), "validation and table agree"


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("darionet", ["losses.logits=1", "parameters.blocks=1", "parameters.features=8"]),
        ("learned_resizer", ["parameters.filters=4"]),
        ("muller", []),
        ("retrained", []),
        ("sr4ir", []),
    ],
)
def test_methods_are_trained_against_a_network_of_masks(trained, scenes, tmp_path, method, overrides):
    options = TrainOptions(
        data=[spec_of(scenes)],
        val=spec_of(scenes),
        out=tmp_path / "run",
        epochs=1,
        overrides=["batch_size=4", "patch=32", "steps_per_epoch=2", "patches_per_image=1", "min_detail=0", *overrides],
        progress=False,
    )
    result = train_method(method, options, classifier=[str(trained.weights.path)])
    assert result.history["val_miou"].notna().all() and result.history["loss"].iloc[-1] > 0
    assert result.metrics["miou_hr"] == pytest.approx(trained.metrics["miou"], abs=1e-6)


def test_an_encoder_of_other_weights_is_refused_in_one_sentence(scenes, images_card, tmp_path):
    options = TrainOptions(data=[spec_of(scenes)], out=tmp_path / "run", progress=False)
    with pytest.raises(WeightsError, match=r"dummy does not fit the encoder: .* parameters are missing or of another"):
        train_network("fpn", options, encoder="timm:resnet18", init_encoder=str(images_card))
    with pytest.raises(UsageError, match="--init-encoder fills the encoder of a decoder; name it too"):
        train_network("fpn", options, init_encoder=str(images_card))
