"""What may make a table worthless is said: images that were trained on, guessing, untrained weights, dead norms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import training_world as world
from torch import nn

from srbench import weights
from srbench.evaluation import evaluate
from srbench.leaderboard import tables
from srbench.leaderboard.notes import cautions
from srbench.metrics.stats.chance import chance_level, is_at_chance
from srbench.training.api import train_network
from srbench.training.cautions import about_chance, about_outcome, about_train_mode
from srbench.training.options import TrainOptions

ARGS = ["args.channels=[8,8,8,8]", "args.stem_width=8", "batch_size=8", "augment.shift=0", "warmup_steps=0"]


@pytest.fixture
def place(tmp_path, own_folders):
    world.make_images(tmp_path / "photos")
    world.make_protocol(tmp_path)
    return tmp_path


def train(place, *overrides, name="mine", epochs=1):
    options = TrainOptions(
        data=[f"folder:{place / 'photos'}"],
        protocol=str(place / "half.toml"),
        out=place / "run" / name,
        device="cpu",
        progress=False,
        overrides=[*ARGS, *overrides],
        epochs=epochs,
        name=name,
    )
    return train_network("resnet10t", options)


def scored(place, **options):
    usual = {"data": f"folder:{place / 'photos'}", "classifiers": ["mine"], "protocol": str(place / "half.toml")}
    return evaluate(["bilinear"], **(usual | options), out=place / "out", progress=False, measure=False)


def said_above(result):
    (task,) = {cell.record.cell.task for cell in result.cells}
    rows = [row for row in result.board.rows if row.task == task]
    return "\n".join(cautions(result.board, task, rows))


def test_images_that_were_trained_on_are_counted_and_left_out_by_default(place):
    trained = train(place).weights.card.data["train"][0]["n"]
    by_default = scored(place)
    split = by_default.cells[0].record.dataset.split
    assert split == "test" and "trained on" not in said_above(by_default)
    assert any("its test split is scored; --split all" in line for line in by_default.board.warnings)
    whole = scored(place, split="all")
    n = whole.cells[0].record.dataset.n
    assert 0 < trained < n and f"classifier mine was trained on {trained} of these {n} images" in said_above(whole)
    assert whole.cells[0].record.classifier.trained_on == trained
    assert f"**Caution:** classifier mine was trained on {trained}" in tables.markdown(whole.board)
    on_train = scored(place, split="train")
    assert f"was trained on {trained} of these {trained} images" in said_above(on_train)


def test_other_data_and_weights_from_elsewhere_say_nothing(place):
    world.make_classifier("mine")
    result = scored(place)
    assert result.cells[0].record.dataset.split == "all" and "trained on" not in said_above(result)
    train(place, name="other")
    world.make_images(place / "else")
    elsewhere = scored(place, data=f"folder:{place / 'else'}", classifiers=["other"])
    assert elsewhere.cells[0].record.dataset.split == "all" and "trained on" not in said_above(elsewhere)


def test_unnamed_outputs_are_said_to_be_matched_by_position(place):
    world.make_classifier("mine")
    path = weights.weights_dir() / "classifiers" / "mine.safetensors"
    loaded = weights.load(weights.find("classifiers", str(path)))
    card = dataclasses.replace(loaded.ref.card, extra=loaded.ref.card.extra | {"classes": None})
    weights.save(path, loaded.state, card)
    (line,) = [line for line in scored(place).board.warnings if "position" in line]
    assert "the data's 3 classes were matched by position, across with output 0 to spots with output 2" in line


def test_training_that_learned_nothing_says_so(place):
    result = train(place, "lr=1e-12")
    text = "\n".join(result.notes)
    assert "validation is at chance: accuracy" in text and "3 classes, the loss of guessing is 1.10" in text
    if result.epoch == 0:
        assert "epoch 0 is the best by" in text
    assert "note: validation is at chance" in result.summary()
    assert "at chance on the original images" in said_above(scored(place))


def test_few_images_are_blamed_and_not_the_classifier(place):
    world.make_classifier("mine")
    said = said_above(scored(place, limit=2))
    assert "2 images are too few to tell classifier mine from guessing, which gives 0." in said
    assert "at chance" not in said


def test_epoch_0_is_said_to_be_untrained():
    assert about_outcome(0, 0, "accuracy") == [] and about_outcome(3, 9, "accuracy") == []
    assert "epoch 0 is the best by accuracy" in about_outcome(0, 9, "accuracy")[0]


@pytest.mark.parametrize(
    ("accuracy", "n", "chance", "guess"),
    [(0.1, 100, 0.1, True), (0.16, 100, 0.1, True), (0.2, 100, 0.1, False), (0.5, 4, 0.1, True), (0.0, 9, 0.5, True)],
)
def test_chance_is_an_exact_binomial_test(accuracy, n, chance, guess):
    from scipy.stats import binom

    assert is_at_chance(accuracy, n, chance) is guess
    assert guess == (binom.sf(round(accuracy * n) - 1, n, chance) > 0.025)


def test_guessing_the_commonest_class_is_chance_too():
    assert chance_level([30, 10], 2) == 0.75
    assert chance_level([5, 5], 2) == 0.5
    assert chance_level([30, 10], 1000) == pytest.approx(0.001)  # all 1000 classes compete
    labels = np.array([0] * 30 + [1] * 10)
    assert about_chance({"accuracy": 0.75}, labels, 2) and not about_chance({"accuracy": 0.95}, labels, 2)
    assert about_chance({"psnr": 20.0}, labels, 2) == []


def network(mean: float, var: float) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    body[1].running_mean.fill_(mean)
    body[1].running_var.fill_(var)
    return body.eval()


def test_batch_norms_that_do_not_fit_are_found_before_training():
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images *= torch.linspace(0, 1, 8).view(-1, 1, 1, 1)
    strange = network(0.0, 1e-8)  # its features are hundreds of times as large in eval mode
    (line,) = about_train_mode(strange, images, who="classifier x", remedy="freeze them")
    assert "in train mode the outputs of classifier x spread over images by 3.5% of" in line and "freeze them" in line
    assert not strange.training  # it is not changed
    fitting = network(0.0, 1.0)
    with torch.no_grad():
        features = fitting[0](images)
        fitting[1].running_mean.copy_(features.mean(dim=(0, 2, 3)))
        fitting[1].running_var.copy_(features.var(dim=(0, 2, 3)))
    assert about_train_mode(fitting, images, who="x", remedy="") == []
    assert about_train_mode(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), images, who="x", remedy="") == []
