"""Images a second of a training run as a ratio to a bare loop over images in memory, in one process, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from srbench.imaging.degrade import degrade, restore_size
from srbench.networks.loading import load_classifier
from srbench.protocol import load_protocol
from srbench.registry import Registry
from srbench.training import losses
from srbench.training.api import train
from srbench.training.ema import MovingAverage
from srbench.training.features import FeatureExtractor
from srbench.training.optim import make_optimizer
from srbench.training.recipe import Recipe

STEPS, ROUNDS = 12, 3
IMAGES = 48  # so few that the run sees each once for both teachers, and keeps their logits


def bare(cards: list[str], recipe: Recipe, side: int) -> Callable[[], float]:
    """Return a loop of the recipe's arithmetic alone, the logits of HR known; it gives images a second."""
    protocol = load_protocol("clean").at_scale(0.32)
    size = (side, side)
    torch.manual_seed(0)
    method = Registry().get("darionet")(**recipe.parameters).to(memory_format=torch.channels_last)
    method.prepare(protocol)
    teachers = [load_classifier(card).requires_grad_(False).to(memory_format=torch.channels_last) for card in cards]
    extractors = [FeatureExtractor(teacher, stages=True) for teacher in teachers]
    optimizer = make_optimizer([(method.parameters(), recipe.lr)], recipe, recipe.optimizer)
    average = MovingAverage(method, recipe.ema)
    images = torch.rand(STEPS, recipe.batch_size, 3, *size)
    with torch.no_grad():
        targets = [teachers[number % len(teachers)](hr.flip(-1)) for number, hr in enumerate(images)]

    def run() -> float:
        start = time.perf_counter()
        for number, (given, target) in enumerate(zip(images, targets, strict=True)):
            hr, extractor = given.flip(-1), extractors[number % len(extractors)]
            sr = restore_size(method(degrade(hr, protocol.lr), size), size, protocol.sr)
            seen = extractor.see(sr, logits=True)
            with torch.no_grad():
                wanted = extractor.see(hr, logits=False)
            loss = (
                losses.logits(seen.logits, target)
                + recipe.losses["stages"] * losses.stages(seen.stages, wanted.stages)
                + recipe.losses["l1"] * losses.l1(sr, hr)
            )
            loss.item()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(method)
        return images.shape[0] * images.shape[1] / (time.perf_counter() - start)

    return run


@pytest.mark.real
@pytest.mark.timeout(3600)
def test_a_run_keeps_nine_tenths_of_a_bare_loops_speed(benchmark, real, tmp_path):
    recipe = Registry().get("darionet").recipes["photos"]
    cards = [str(real / "weights" / f"{name}.toml") for name in ("mobilenetv2_tfquant", "tf_efficientnet_lite0")]
    loop = bare(cards, recipe, 256)
    speeds: dict[str, list[float]] = {"run": [], "bare": []}

    def run() -> None:
        result = train(
            "darionet",
            data=f"images:{real / 'train_more'}",
            classifier=cards,
            scale=0.32,
            recipe=recipe,
            overrides=[f"steps_per_epoch={STEPS}", "epochs=1", "checkpoint_every=0"],
            limit=IMAGES,
            device="cpu",
            out=tmp_path,
            force=True,
            progress=False,
        )
        speeds["run"].append(result.images_per_s)
        speeds["waits"] = [*speeds.get("waits", []), result.wait_share]

    def other() -> None:
        speeds["bare"].append(loop())

    other(), run()  # fills caches, warms up
    benchmark.pedantic(run, setup=other, rounds=ROUNDS)
    found = [ours / theirs for ours, theirs in zip(speeds["run"], speeds["bare"], strict=True)]
    benchmark.extra_info |= {
        "ratio": statistics.median(found[1:]),
        "ratio_of": "images a second of srbench train / bare loop",
        "ratios": found,
        "wait_share": statistics.median(speeds["waits"]),
    }
    assert statistics.median(found[1:]) >= 0.9
    assert statistics.median(speeds["waits"]) < 0.02
