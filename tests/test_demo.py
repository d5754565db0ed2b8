"""The demo task: the same bytes everywhere, balanced, and split into regions that share no pixel."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from srbench import evaluate, weights
from srbench.data.catalogue import open_source
from srbench.data.source import sample_list_sha256
from srbench.data.synthetic import demo
from srbench.errors import SrbenchError, UsageError
from srbench.imaging.decode import decode
from srbench.imaging.degrade import degrade, for_classifier
from srbench.imaging.resample import resize
from srbench.networks.classifiers import label_map
from srbench.networks.loading import demo_classifiers, load_classifier
from srbench.protocol import load_protocol
from srbench.registry import Registry

PIXELS = {
    "train": "223b6f5b8fa51be7b4b2766ecbcbaf72d6f0c4d1d8709b4d7a290beb8c0bef5a",
    "val": "8f47ff10f8b02a697b96f69291dbb1ce0ca18a1641c86808781aadd122f8756c",
    "test": "0e0b9a4294814408e0773750f7ea7760960bc0e2ab20203c5f980abff33412d5",
}
COUNTS = {"train": 3520, "val": 176, "test": 264}
BOX = (demo.PATCH, demo.PATCH)


@pytest.fixture(scope="module")
def splits() -> dict[str, demo.DemoSource]:
    return {split: demo.open_demo(split) for split in demo.DEMO.splits}


def _pixels(source: demo.DemoSource) -> torch.Tensor:
    return torch.stack([source.read(index) for index in range(len(source.samples))])


def _covered(source: demo.DemoSource, name: str, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for place in source.positions:
        if place.photograph == name:
            mask[place.top : place.top + BOX[0], place.left : place.left + BOX[1]] = True
    return mask


@pytest.mark.parametrize("split", demo.DEMO.splits)
def test_every_split_is_the_same_to_the_byte(splits, split):
    pixels = _pixels(splits[split])
    assert pixels.shape == (COUNTS[split], 3, *BOX)
    assert pixels.dtype == torch.uint8
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == PIXELS[split]


@pytest.mark.parametrize("split", demo.DEMO.splits)
def test_classes_are_balanced_and_ids_are_sorted_and_unique(splits, split):
    source = splits[split]
    counts = Counter(sample.label for sample in source.samples)
    assert set(counts) == set(range(len(source.classes)))
    assert len(set(counts.values())) == 1
    ids = [sample.id for sample in source.samples]
    assert ids == sorted(set(ids))
    assert all(sample.id.split("/")[0] == source.classes[sample.label] for sample in source.samples)


def test_test_split_is_large_enough(splits):
    assert len(splits["test"].samples) >= 200


def test_splits_share_no_pixel(splits):
    for name in splits["test"].classes:
        shape = tuple(demo.photograph(name).shape[-2:])
        masks = {split: _covered(source, name, shape) for split, source in splits.items()}
        for one, other in combinations(demo.DEMO.splits, 2):
            assert not (masks[one] & masks[other]).any(), f"{one} and {other} overlap in {name}"


def test_patches_within_test_overlap_by_at_most_half_of_their_area(splits):
    worst = 0
    for one, other in combinations(splits["test"].positions, 2):
        if one.photograph == other.photograph:
            shared = max(0, BOX[0] - abs(one.top - other.top)) * max(0, BOX[1] - abs(one.left - other.left))
            worst = max(worst, shared)
    assert 0 < worst <= BOX[0] * BOX[1] // 2


def test_a_patch_is_the_photograph_with_three_quarters_of_its_colour_taken_out(splits):
    source = splits["test"]
    index = next(i for i, place in enumerate(source.positions) if place.photograph == "coffee")
    place = source.positions[index]
    whole = decode(demo._data_folder() / "coffee.png", "coffee.png").numpy().astype(np.int64)
    patch = whole[:, place.top : place.top + BOX[0], place.left : place.left + BOX[1]]
    luma = (77 * patch[0] + 150 * patch[1] + 29 * patch[2]) // 256
    assert np.array_equal(source.read(index).numpy(), (3 * luma + patch) // 4)
    assert np.array_equal(source.read(index).numpy(), source.read(index).numpy())


def test_reading_gives_a_copy(splits):
    before = splits["val"].read(0)
    splits["val"].read(0).zero_()
    assert torch.equal(splits["val"].read(0), before)


def test_it_opens_by_its_spec_with_test_as_the_default():
    source = open_source("demo")
    assert (source.name, source.spec, source.split, source.unit) == ("demo", "demo", "test", "patch")
    assert "intervals are over patches" in source.note
    assert source.labelled and not source.paired and source.read_lr(0) is None


def test_an_unknown_split_names_the_splits():
    with pytest.raises(UsageError, match="test, train, val"):
        demo.open_demo("all")


@pytest.mark.parametrize("damage", ["another", "missing"])
def test_other_photographs_are_refused(monkeypatch, tmp_path, damage):
    folder = demo._data_folder()
    for name in demo.PHOTOGRAPHS:
        if damage == "another" or name != "coins":
            stand_in = "brick" if name == "coins" else name
            (tmp_path / f"{name}.png").write_bytes((folder / f"{stand_in}.png").read_bytes())
    monkeypatch.setattr(demo, "_data_folder", lambda: Path(tmp_path))
    demo.photograph.cache_clear()
    demo._muted.cache_clear()
    try:
        with pytest.raises(SrbenchError, match=r"coins\.png"):
            demo.open_demo("test")
    finally:
        demo.photograph.cache_clear()


def test_opening_runs_nothing_of_scikit_image():
    code = (
        "import sys; from srbench.data.synthetic.demo import open_demo; open_demo('val');"
        " assert not {'skimage', 'pooch'} & set(sys.modules), 'scikit-image ran'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["demo-resnet", "demo-vit"])
def test_shipped_classifiers_are_calibrated(splits, name):
    # HR at least 0.85, bilinear at scale 0.32 between 0.35 and 0.75, and small inputs go straight in.
    classifier = load_classifier(name)
    assert classifier.info.input_size is None
    assert label_map(classifier.info, splits["test"].classes).tolist() == list(range(len(splits["test"].classes)))
    protocol = load_protocol("demo")
    hr = _pixels(splits["test"]).float() / 255
    lr = degrade(hr, protocol.lr)
    sr = for_classifier(resize(lr, BOX, "bilinear"), protocol)
    labels = torch.tensor([sample.label for sample in splits["test"].samples])

    def accuracy(images: torch.Tensor) -> float:
        with torch.inference_mode():
            return float((classifier(images).argmax(dim=1) == labels).float().mean())

    assert accuracy(hr) >= 0.85
    assert 0.35 <= accuracy(sr) <= 0.75
    assert accuracy(lr) > 1 / len(splits["test"].classes)


def test_shipped_classifiers_are_small_and_of_two_families():
    refs = [ref for ref in weights.local("classifiers") if ref.uri.startswith("package:")]
    assert len({ref.card.extra["name"] for ref in refs if "demo" in ref.card.tasks}) >= 2
    assert sum(ref.path.stat().st_size for ref in refs if "demo" in ref.card.tasks) < 4_000_000


@pytest.mark.parametrize(("data", "metric"), [("demo-seg", "miou"), ("demo-det", "ap50")])
def test_the_scenes_have_a_small_network_that_blur_hurts(data, metric, tmp_path, few_draws):
    pytest.importorskip("segmentation_models_pytorch")
    (ref,) = [each for each in weights.local("classifiers") if each.card and data in each.card.tasks]
    assert (ref.uri.startswith("package:"), ref.label) == (True, data) and ref.path.stat().st_size < 4_000_000
    result = evaluate(["nearest"], data=data, limit=60, out=tmp_path / "out", measure=False, progress=False)
    rows = {row.method: row for row in result.board.rows}
    assert rows["original"].classifier == data and rows["original"][metric] >= 0.5
    assert 0.0 <= rows["bilinear"][metric] <= rows["original"][metric] - 0.1


def test_no_method_is_without_weights_on_the_demo():
    registry = Registry()
    lacking = []
    for name in registry.names():
        cls = registry.get(name)
        if cls.info.role == "baseline" or not cls.recipes:
            continue
        cards = [ref.card for ref in weights.local(name, cls.weights) if ref.card and "demo" in ref.card.tasks]
        adapted = {card.teacher["id"] for card in cards if card.track == "adapted"}
        if not any(card.track == "frozen" for card in cards):
            lacking += [(name, network) for network in demo_classifiers() if network not in adapted]
    assert not lacking, "such a method is a skipped row of every new user's first table"


def test_the_weights_that_fill_the_demos_rows_are_small():
    folder = Path(weights.__file__).parent / "shipped"
    files = [path for name in ("muller", "rdn", "sr4ir", "srgan", "retrained") for path in (folder / name).iterdir()]
    assert 0 < sum(path.stat().st_size for path in files) < 8 * 2**20


@pytest.mark.parametrize("name", ["demo-resnet", "demo-vit", "demo-seg", "demo-det"])
def test_cards_of_the_demos_networks_name_the_samples_of_today(name):
    """Evaluation tells by them on how many samples a network was trained."""
    data = weights.read_card(Path(weights.__file__).parent / "shipped" / "classifiers" / f"{name}.safetensors").data
    for split in ("train", "val"):
        (stored,) = data[split]
        samples = open_source(stored["spec"], split).samples
        assert (stored["n"], stored["samples_sha256"]) == (len(samples), sample_list_sha256(samples))
