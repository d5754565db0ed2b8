"""Whole runs of training in bf16 on the CPU, for every trainable method: networks of fixed factor among them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import training_world as world

from srbench.registry import Registry
from srbench.training.api import train
from srbench.weights import load

TRAINABLE = {name: cls for name, cls in Registry().working().items() if cls.recipes}
FIXED_FACTOR = {"rdn", "srgan", "esrgan", "darionet"}


@pytest.fixture
def photos(tmp_path):
    world.make_classifier()
    return world.make_images(tmp_path / "photos", 24, side=32)


def run(name, photos, out):
    cls = TRAINABLE[name]
    adversarial = [recipe for recipe in cls.recipes.values() if "adversarial" in recipe.losses]
    recipe = adversarial[-1] if adversarial else next(iter(cls.recipes.values()))
    tiny = [f"parameters.{key}={value}" for key, value in cls.tiny.items()]
    return train(
        name,
        data=[f"folder:{photos}"],
        classifier="tiny",
        protocol="demo",
        recipe=dataclasses.replace(recipe, init=None),
        overrides=[
            "steps_per_epoch=2",
            "batch_size=4",
            "norm_steps=1",
            "patch=none",
            "patches_per_image=1",
            "flatness=0",
            *tiny,
        ],
        epochs=1,
        out=out,
        device="cpu",
        precision="bf16",
        progress=False,
    )


# They take no gradient: what they learn they estimate in a pass over images.
WITHOUT_STEPS = frozenset({"adabn"})


def test_the_methods_of_fixed_factor_are_among_them():
    assert {name for name, cls in TRAINABLE.items() if cls(**cls.tiny).info.factor != "any"} >= FIXED_FACTOR


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_run_in_bf16_steps_validates_and_saves_no_bfloat16(name, photos, tmp_path):
    result = run(name, photos, tmp_path / "run")
    steps = 0 if name in WITHOUT_STEPS else 2
    assert result.steps == steps and result.weights.card.extra["precision"] == "bf16"
    row = result.history.iloc[-1]
    assert all(np.isfinite(row[key]) for key in row.index if key.startswith(("loss", "val_", "helper")))
    state = load(result.weights).state
    assert not any(value.dtype == torch.bfloat16 for value in state.values())
