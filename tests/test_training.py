"""The training loop on tiny methods, classifiers and generated images."""

from __future__ import annotations

import dataclasses
import importlib.util
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import training_world as world
from PIL import Image
from torch import nn

from srbench import weights
from srbench.data.catalogue import open_source
from srbench.errors import TrainingError, UnknownNameError, UsageError, WeightsError
from srbench.networks.loading import load_classifier
from srbench.protocol import Degradation, Geometry, Protocol
from srbench.training import checkpoint
from srbench.training.api import train, train_network
from srbench.training.batch import training_degradation
from srbench.training.crops import read_cropped
from srbench.training.ema import MovingAverage
from srbench.training.images import ImageSet
from srbench.training.loop import _reseed
from srbench.training.network_run import network_recipes
from srbench.training.options import TrainOptions
from srbench.training.plan import epoch_plan
from srbench.training.recipe import Augment, Recipe
from srbench.training.splits import open_splits
from srbench.training.teacher import TeacherLogits, freeze
from srbench.training.validation import Sums, choose_criterion, figures, is_better

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with world.own_place(tmp_path_factory) as root:
        world.make_images(root / "unlabelled", labelled=False)
        world.make_classifier("strangers", ("x", "y"), seed=1)
        world.make_gan(root)
        yield root


@pytest.fixture
def run(place, tmp_path):
    """Call `train` with what most tests share."""

    def call(method="tiny_method", out="run", *, plugin=None, data="photos", classifier="tiny", **options):
        kind = "images" if data == "unlabelled" else "folder"
        return train(
            method,
            **{
                "data": [f"{kind}:{place / data}"],
                "classifier": classifier,
                "protocol": str(place / "half.toml"),
                "out": tmp_path / out,
                "plugins": [plugin or place / f"{method}.py"],
                "device": "cpu",
                "progress": False,
            }
            | options,
        )

    return call


def images_of(place, data="photos", *, geometry=Geometry(), split="all", **options):  # noqa: B008 frozen
    kind = "images" if data == "unlabelled" else "folder"
    return ImageSet([open_source(f"{kind}:{place / data}", split)], geometry, label_map=None, **options)


def tensors(result):
    return weights.read_state(result.weights.path)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# What a run does and leaves behind


def test_training_lowers_the_loss_and_the_weights_resolve_by_name(run, place, tmp_path):
    result = run(epochs=4, overrides=["losses.l1=1", "unit_scale=false", "select=psnr"])
    history = result.history
    assert list(history["epoch"]) == [0, 1, 2, 3, 4]
    assert history["loss"].iloc[-1] < history["loss"].iloc[1] and history["val_psnr"].iloc[-1] > history["val_psnr"][0]
    assert result.epoch == history["val_psnr"].idxmax() and result.criterion == "psnr"
    assert result.metrics["psnr"] == history["val_psnr"].max()
    ref = weights.find("tiny_method", "default-tiny")
    assert ref.sha256 == result.weights.sha256 == weights.file_sha256(tmp_path / "run/weights/default-tiny.safetensors")
    card = ref.card
    assert card.namespace == "tiny_method" and card.track == "frozen" and card.scale == 0.5 and card.factor is None
    assert card.teacher == {"id": "tiny", "sha256": load_classifier("tiny").info.weights_sha256}
    assert card.recipe["epochs"] == 4 and card.recipe["losses"] == {"logits": 1.0, "l1": 1.0}
    assert card.data["train"][0]["split"] == "train" and card.data["val"][0]["split"] == "val"
    assert card.extra["history"]["epoch"] == [0, 1, 2, 3, 4] and card.metrics == result.metrics
    assert card.extra["image_steps"] == result.images == 4 * 48, "a last batch of one image is left out"
    assert card.device and card.date and str(place) not in ref.path.with_suffix(".json").read_text()
    curves = pd.read_csv(tmp_path / "run/curves.csv")
    assert curves["val_psnr"].tolist() == pytest.approx(history["val_psnr"].tolist())
    # the curves go to TensorBoard exactly where its extra is installed
    assert (tmp_path / "run/tensorboard").is_dir() == (importlib.util.find_spec("tensorboard") is not None)
    assert "--weights tiny_method=default-tiny" in result.summary()


def test_the_saved_network_is_the_selected_epochs_and_reproduces_its_figures(run, place):
    result = run(epochs=3, overrides=["lr=0.05"])
    again = run(epochs=1, init_from=str(result.weights.path), out="again")
    assert again.history["val_logits"][0] == pytest.approx(result.metrics["logits"], rel=1e-6)
    assert again.history["val_ce_difference"][0] == pytest.approx(
        result.history["val_ce_difference"].min(), rel=1e-5, abs=1e-6
    )


def test_the_same_call_gives_the_same_weights_and_another_seed_others(run):
    first, second = run(out="a", overrides=["augment.flip=true"]), run(out="b", overrides=["augment.flip=true"])
    other = run(out="c", overrides=["augment.flip=true"], seed=1)
    assert equal(tensors(first), tensors(second)) and not equal(tensors(first), tensors(other))


def test_a_method_without_recipes_names_those_that_have_some(run):
    with pytest.raises(UsageError, match=r"bicubic has nothing to train; .*darionet"):
        train("bicubic", data=["demo"])


def test_one_name_alone_is_a_list_of_one():
    options = TrainOptions(data="folder:mine", overrides="epochs=2")
    assert (options.data, options.overrides) == (["folder:mine"], ["epochs=2"])


def test_unlabelled_data_trains_on_logits_and_is_selected_by_them(run):
    result = run(data="unlabelled")
    assert result.criterion == "logits" and "ce" not in result.metrics
    assert result.history["val_logits"].notna().all()
    with pytest.raises(UsageError, match="'ce' needs labels: images:unlabelled has none; train with the term 'logits'"):
        run(data="unlabelled", out="labels", overrides=["losses.ce=1"])


def test_a_teacher_of_other_classes_needs_no_labels_either(run):
    result = run(classifier="strangers")
    assert result.criterion == "logits"
    with pytest.raises(UsageError, match="3 of the data's 3 classes are unknown to classifier strangers"):
        run(classifier="strangers", out="labels", overrides=["losses.ce=1"])


def test_pixel_losses_need_no_classifier_and_tie_the_weights_to_none(run):
    result = run(classifier=None, recipe="pixels")
    assert result.criterion == "psnr" and set(result.metrics) == {"psnr"} and result.weights.card.teacher is None
    assert run(recipe="pixels", out="validated").weights.card.teacher is None
    with pytest.raises(UsageError, match="'logits' needs a classifier; give --classifier"):
        run(classifier=None, out="none")


def test_a_term_that_the_method_does_not_return_is_named(run):
    with pytest.raises(UsageError, match="weighs the loss term 'adversarial', which tiny_method does not return"):
        run(overrides=["losses.adversarial=1"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overrides": ["parameters.depth=2"]}, "takes no parameter 'depth'; it takes width, norm"),
        ({"overrides": ["losses.logits=0"]}, "has no losses"),
        ({"recipe": "big"}, "no recipe named 'big'"),
        ({"device": "tpu"}, "--device takes auto, cpu or cuda"),
        ({"precision": "fp8"}, "--precision takes auto, fp32, tf32 or bf16"),
        ({"init_from": "nothing.safetensors"}, "no weights file"),
        ({"data": []}, "--data SPEC is needed"),
        ({"name": "///"}, "has no letter or digit"),
        ({"resume": True}, "holds no checkpoint.pt"),
    ],
)
def test_a_wrong_call_gets_a_sentence(place, tmp_path, options, words):
    shared = {
        "data": [f"folder:{place / 'photos'}"],
        "classifier": "tiny",
        "protocol": str(place / "half.toml"),
        "out": tmp_path / "run",
        "plugins": [place / "tiny_method.py"],
        "device": "cpu",
    }
    with pytest.raises((UsageError, UnknownNameError, WeightsError), match=words):
        train("tiny_method", **(shared | options))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_bf16_trains_on_the_cpu(run):
    result = run(precision="bf16", epochs=1)
    assert np.isfinite(result.history["loss"].iloc[-1])
    assert all(value.dtype == torch.float32 for value in tensors(result).values())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_gpu_trains_resumes_and_agrees_with_the_cpu_before_training(run, precision):
    options = {"overrides": ["augment.flip=true", "ema=0.9", "losses.l1=1"], "precision": precision}
    found = run(device="cuda", out=precision, **options)
    resumed = run(device="cuda", out=precision, resume=True, **options)
    reference = run(device="cpu", out=f"{precision}-cpu", overrides=options["overrides"])
    assert equal(tensors(found), tensors(resumed))
    for name in ("val_psnr", "val_logits", "val_ce_hr"):
        assert found.history[name][0] == pytest.approx(reference.history[name][0], rel=1e-3)
    assert found.history["loss"].iloc[-1] == pytest.approx(reference.history["loss"].iloc[-1], rel=0.05)


def test_half_stores_sixteen_bits(run):
    result = run(epochs=1, overrides=["half=true"])
    assert {value.dtype for value in tensors(result).values()} == {torch.float16}


# Checkpoints


OPTIONS = [
    "augment.flip=true",
    "augment.shift=2",
    "ema=0.9",
    "accumulate=2",
    "batch_size=4",
    "checkpoint_every=2",
    "schedule=cosine",
    "warmup_steps=3",
    "clip_norm=1",
    "losses.l1=0.5",
    "parameters.norm=true",
    "norm_steps=2",
    "select=none",
]


def interrupted_after(monkeypatch, writes):
    """Make the process stop, as if killed, once `writes` checkpoints are whole."""
    real, seen = checkpoint.write, []

    def write(path, content):
        real(path, content)
        seen.append(path)
        if len(seen) == writes:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", write)


@pytest.mark.parametrize(
    ("writes", "changed"),
    [(1, []), (2, []), (4, []), (7, []), (7, ["optimizer=soap", "epochs=4"])],
)
def test_resume_equals_the_uninterrupted_run_to_the_bit(run, monkeypatch, writes, changed):
    options = [*OPTIONS, *changed]
    whole = run(out="whole", overrides=options)
    with monkeypatch.context() as patch:
        interrupted_after(patch, writes)
        with pytest.raises(KeyboardInterrupt):
            run(overrides=options)
    # What the process drew meanwhile must not matter
    torch.rand(3), np.random.rand(3), random.random()
    resumed = run(overrides=options, resume=True)
    assert equal(tensors(whole), tensors(resumed))
    columns = [name for name in whole.history if name not in {"seconds", "images_per_s", "wait_share"}]
    pd.testing.assert_frame_equal(whole.history[columns], resumed.history[columns])
    assert whole.images == resumed.images and whole.steps == resumed.steps


def test_resume_of_a_discriminators_run_equals_the_uninterrupted_one(run, monkeypatch):
    options = {"overrides": ["checkpoint_every=2"], "classifier": None}
    whole = run("tiny_gan", out="whole", **options)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run("tiny_gan", **options)
    assert equal(tensors(whole), tensors(run("tiny_gan", resume=True, **options)))


@pytest.mark.parametrize("ema", [0, 0.5])
def test_the_mean_of_the_last_epochs_is_what_the_last_one_keeps(run, monkeypatch, ema):
    options = ["select=none", f"ema={ema}"]
    ends = [run(out=f"{epochs}", overrides=options, epochs=epochs) for epochs in (2, 3, 4)]
    whole = run(out="mean", overrides=[*options, "average_epochs=3"], epochs=4)
    for name, value in tensors(whole).items():
        expected = torch.stack([tensors(end)[name] for end in ends]).mean(dim=0)
        torch.testing.assert_close(value, expected)
    figures = whole.history["val_logits"]
    assert figures[3] == ends[1].history["val_logits"][3] and figures[4] != ends[2].history["val_logits"][4]
    again = run(out="again", init_from=str(whole.weights.path), epochs=1)
    assert again.history["val_logits"][0] == pytest.approx(figures[4], rel=1e-5)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            run(overrides=[*options, "average_epochs=3"], epochs=4)
    resumed = run(overrides=[*options, "average_epochs=3"], epochs=4, resume=True)
    assert equal(tensors(whole), tensors(resumed))
    prolonged = run(out="2", overrides=[*options, "average_epochs=2"], epochs=2, force=True)
    prolonged = run(out="2", overrides=[*options, "average_epochs=2"], epochs=4, resume=True)
    expected = {name: (tensors(ends[1])[name] + value) / 2 for name, value in tensors(ends[2]).items()}
    torch.testing.assert_close(tensors(prolonged), expected)


def test_a_finished_run_resumes_to_itself_and_can_be_prolonged(run):
    short, whole = run(epochs=2), run(epochs=3, out="whole")
    assert equal(tensors(short), tensors(run(epochs=2, resume=True)))
    assert equal(tensors(whole), tensors(run(epochs=3, resume=True)))


def test_an_existing_checkpoint_is_never_overwritten_silently(run):
    run(epochs=1)
    with pytest.raises(UsageError, match="go on with --resume, or start over with --force"):
        run(epochs=1)
    run(epochs=1, force=True)


def test_other_settings_do_not_resume(run):
    run(epochs=1)
    with pytest.raises(UsageError, match=r"lr: 0\.003 then, 0\.1 now"):
        run(epochs=1, resume=True, overrides=["lr=0.1"])
    with pytest.raises(UsageError, match="seed: 0 then, 5 now"):
        run(epochs=1, resume=True, seed=5)
    with pytest.raises(UsageError, match="data: "):
        run(epochs=1, resume=True, data="unlabelled")


def test_a_damaged_checkpoint_gets_a_sentence(run, tmp_path):
    run(epochs=1)
    file = tmp_path / "run" / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        run(epochs=1, resume=True)


def test_any_damaged_field_of_a_checkpoint_gets_a_sentence(run, tmp_path):
    run(epochs=1)
    file = tmp_path / "run" / "checkpoint.pt"
    good = checkpoint.read(file)
    for key in sorted(good.keys() - {"format", "average"}):
        for value in (None, "x", -1, [1], {"a": 1}, torch.ones(1)):
            if key == "criterion" and value == "x":
                continue
            checkpoint.write(file, good | {key: value})
            try:
                run(epochs=1, resume=True)
            except (TrainingError, UsageError) as error:
                assert "\n" not in str(error), (key, value)
            else:
                assert key in ("optimizers_of_later_phases", "helpers", "helper_optimizers", "sizes"), (
                    key,
                    value,
                )


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint.pt"
    checkpoint.write(file, {"value": 1})

    def full(descriptor):
        os.truncate(descriptor, 4)
        cut.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        raise OSError(28, "No space left on device")

    cut = []
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left"):
        checkpoint.write(file, {"value": 2})
    assert len(cut) == 1 and "checkpoint.pt" in cut[0]
    assert checkpoint.read(file)["value"] == 1 and [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_loss_that_is_not_finite_stops_and_names_the_last_good_checkpoint(run, tmp_path):
    body = """
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 9:
            return {"logits": self.tail.weight.sum() * float("nan")}
    """
    plugin = world.make_method(tmp_path / "plugins", body=body)
    with pytest.raises(TrainingError, match=r"epoch 2, step 3 .*term logits.*checkpoint\.pt \(epoch 1, step 6\)"):
        run(plugin=plugin)
    state = checkpoint.read(tmp_path / "run" / "checkpoint.pt")["student"]
    assert all(torch.isfinite(value).all() for value in state.values())


def train_in_a_child(options):
    """Run in a process of its own, to be killed."""
    torch.set_num_threads(1)
    train("tiny_method", **options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_at_random_moments_then_resume_gives_the_same_weights(run, place, tmp_path):
    overrides = [option for option in OPTIONS if not option.startswith("checkpoint_every")] + ["checkpoint_every=1"]
    whole = run(out="whole", overrides=overrides, epochs=30)
    options = {
        "data": [f"folder:{place / 'photos'}"],
        "classifier": "tiny",
        "protocol": str(place / "half.toml"),
        "out": tmp_path / "killed",
        "plugins": [place / "tiny_method.py"],
        "device": "cpu",
        "progress": False,
        "epochs": 30,
        "overrides": overrides,
    }
    processes = multiprocessing.get_context("forkserver")  # imports once, for all children
    processes.set_forkserver_preload(["srbench.training.api"])
    file = tmp_path / "killed" / "checkpoint.pt"
    draw = random.Random(3)
    for attempt in range(5):
        before = file.stat().st_mtime_ns if file.exists() else 0
        process = processes.Process(target=train_in_a_child, args=(options | {"resume": attempt > 0},))
        process.start()
        while process.is_alive() and (not file.exists() or file.stat().st_mtime_ns == before):
            time.sleep(0.005)
        assert process.is_alive(), f"it ended by itself with exit code {process.exitcode}"
        time.sleep(draw.uniform(0, 0.25))
        process.kill()
        process.join()
    assert checkpoint.read(file)["epoch"] < 30, "the run must have been killed before its end"
    assert equal(tensors(whole), tensors(run(out="killed", overrides=overrides, epochs=30, resume=True)))


# The teacher


def test_the_teacher_is_left_as_it_was(run):
    before = weights.state_sha256(load_classifier("tiny").network.state_dict())
    path = weights.find("classifiers", "tiny").path
    digest = weights.file_sha256(path)
    run(epochs=1)
    assert weights.file_sha256(path) == digest
    assert weights.state_sha256(load_classifier("tiny").network.state_dict()) == before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("teacher.train()", "put the teacher into train mode"),
        ("teacher.network.layer1.train()", "put the teacher into train mode"),
        ("next(teacher.parameters()).requires_grad_(True)", "switched the teacher's gradients on"),
        ("self.teacher = teacher", "gained parameters while it was trained"),
    ],
)
def test_a_method_that_thaws_the_teacher_is_stopped(run, tmp_path, body, words):
    with pytest.raises(TrainingError, match=words):
        run(plugin=world.make_method(tmp_path / "plugins", body=body))


def test_cached_scores_are_the_teachers_and_damaged_rows_are_computed_anew(place):
    images, teacher = images_of(place), load_classifier("tiny")
    freeze(teacher)
    with torch.no_grad():
        hr = images.read(np.arange(len(images)))[0].float() / 255
        expected, mirrored = teacher(hr), teacher(hr.flip(-1))
    calls = []
    teacher.register_forward_hook(lambda *unused: calls.append(1))
    device = torch.device("cpu")
    logits = TeacherLogits(images, teacher, flipped=False, device=device)
    logits.fill(rank=0, world=1, advance=lambda count: None)
    torch.testing.assert_close(logits.rows(np.arange(len(images))), expected)
    done = len(calls)
    again = TeacherLogits(images, teacher, flipped=False, device=device)
    again.fill(rank=0, world=1, advance=lambda count: None)
    assert len(calls) == done, "whole rows are never computed twice"
    again._cache._rows[5, 1] += 1
    again.fill(rank=0, world=1, advance=lambda count: None)
    assert len(calls) == done + 1
    torch.testing.assert_close(again.rows(np.array([5])), expected[5:6])
    flipped = TeacherLogits(images, teacher, flipped=True, device=device)
    flipped.fill(rank=0, world=1, advance=lambda count: None)
    torch.testing.assert_close(flipped.rows(np.arange(len(images))), mirrored)


@pytest.mark.parametrize("options", [["augment.flip=true"], ["augment.shift=3", "augment.flip=true"], ["patch=12"]])
def test_a_batch_holds_what_it_says(run, tmp_path, options):
    """LR is the degradation of HR, the teacher's logits are those of HR as it is mirrored and cut."""
    body = """
        from srbench.imaging.degrade import degrade
        from srbench.protocol import Degradation
        assert batch.label is not None and batch.sr_size == tuple(batch.hr.shape[-2:])
        assert torch.equal(batch.lr, degrade(batch.hr, Degradation(scale=0.5)))
        torch.testing.assert_close(batch.teacher_logits, teacher(batch.hr), rtol=1e-4, atol=1e-5)
        side = {12} if self.recipe.patch else {24 - self.recipe.augment.shift}
        assert set(batch.hr.shape[-2:]) == side
    """
    run(plugin=world.make_method(tmp_path / "plugins", body=body), overrides=options, epochs=1)


# Terms, steps, averages


def test_terms_are_brought_to_unit_size_on_the_first_batch(run, tmp_path):
    result = run(epochs=1, overrides=["losses.l1=1", "losses.logits=2", "lr=1e-12", "batch_size=64"])
    sizes = checkpoint.read(tmp_path / "run" / "checkpoint.pt")["sizes"]
    row = result.history.iloc[1]
    assert set(sizes) == {"logits", "l1"} and sizes["l1"] == pytest.approx(row["loss_l1"], rel=1e-4)
    assert row["loss"] == pytest.approx(3.0, rel=1e-4), "every term weighs what the recipe says, whatever its unit"
    one = run(epochs=1, out="one", overrides=["lr=1e-12", "batch_size=64"])
    assert one.history["loss"][1] == pytest.approx(one.history["loss_logits"][1])
    assert checkpoint.read(tmp_path / "one" / "checkpoint.pt")["sizes"] == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulated_batches_equal_one_larger_batch(run, optimizer):
    shared = [f"optimizer={optimizer}", "lr=0.05", "steps_per_epoch=4", "momentum=0.9", "select=none"]
    large = run(out="large", overrides=[*shared, "batch_size=8"])
    small = run(out="small", overrides=[*shared, "batch_size=2", "accumulate=4"])
    assert large.steps == small.steps == 8 and large.images == small.images
    for key, value in tensors(large).items():
        torch.testing.assert_close(tensors(small)[key], value, rtol=1e-3, atol=1e-5)


def test_the_average_follows_the_weights_and_is_what_is_saved(run, tmp_path):
    network = nn.Linear(2, 1)
    average = MovingAverage(network, 0.5)
    expected = network.weight.detach().clone()
    for step in range(1, 4):
        with torch.no_grad():
            network.weight.add_(1)
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    own = network.weight.detach().clone()
    with average.applied(network):
        torch.testing.assert_close(network.weight.detach(), expected)
    assert torch.equal(network.weight.detach(), own)
    result = run(overrides=["ema=0.99", "select=none", "lr=0.05"])
    content = checkpoint.read(tmp_path / "run" / "checkpoint.pt")
    saved = tensors(result)["tail.weight"]
    assert torch.equal(saved, content["average"]["shadow"]["parts.method.tail.weight"])
    assert not torch.equal(saved, content["student"]["parts.method.tail.weight"])


def test_clipping_bounds_the_step(run):
    shared = ["optimizer=sgd", "momentum=0", "lr=1", "steps_per_epoch=1", "losses.logits=1000", "select=none"]
    start = run(out="start", epochs=1, overrides=[*shared, "lr=1e-12"])
    clipped = run(out="clipped", epochs=1, overrides=[*shared, "clip_norm=0.01"])
    moved = sum((tensors(clipped)[key] - value).square().sum() for key, value in tensors(start).items()).sqrt()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_rates_follow_the_schedule(run):
    def rates(*options):
        return (
            run(out="-".join(options), epochs=4, overrides=["lr=0.1", "steps_per_epoch=2", *options])
            .history["lr"][1:]
            .tolist()
        )

    assert rates("schedule=constant") == [0.1] * 4
    assert rates("schedule=step", "gamma=0.5", "decay_every=2") == pytest.approx([0.1, 0.1, 0.05, 0.05])
    cosine = [0.1 * 0.5 * (1 + np.cos(np.pi * step / 8)) for step in (1, 3, 5, 7)]
    assert rates("schedule=cosine") == pytest.approx(cosine), "the rate of each epoch's last step"
    assert rates("warmup_steps=4") == pytest.approx([0.05, 0.1, 0.1, 0.1])


def test_batch_norm_statistics_are_estimated_anew(run, place):
    options = ["parameters.norm=true", "batch_size=16", "optimizer=sgd", "lr=1e-12", "momentum=0", "select=none"]
    state = tensors(run(epochs=1, overrides=[*options, "norm_steps=100"]))
    drifted = tensors(run(epochs=1, out="drifted", overrides=options))
    images = images_of(place, split="train")
    hr = images.read(np.arange(len(images)))[0].float() / 255
    from srbench.imaging.degrade import degrade
    from srbench.imaging.resample import resize

    up = resize(degrade(hr, Degradation(scale=0.5)), (24, 24), "bilinear")
    seen = nn.functional.conv2d(up, state["body.0.weight"], state["body.0.bias"], padding=1)
    mean = seen.mean(dim=(0, 2, 3))
    assert (state["body.1.running_mean"] - mean).abs().max() < 0.02
    assert (drifted["body.1.running_mean"] - mean).abs().max() > 0.02, "three steps of momentum do not get there"


def test_a_discriminator_is_stepped_and_stays_out_of_the_weights(run, tmp_path):
    result = run("tiny_gan", classifier=None, overrides=["helper_lr=0.01"])
    assert set(tensors(result)) == {"body.weight", "body.bias"} and result.weights.card.factor == 2
    losses = result.history["loss_helper_discriminator"].dropna().tolist()
    assert losses[-1] < losses[0] and losses[0] == pytest.approx(np.log(2), abs=0.05)
    first = checkpoint.read(tmp_path / "run" / "checkpoint.pt")["helpers"]["discriminator"]
    still = run("tiny_gan", classifier=None, out="still", overrides=["helper_lr=1e-12"])
    assert still.history["loss_helper_discriminator"].dropna().iloc[-1] == pytest.approx(np.log(2), abs=0.01)
    second = checkpoint.read(tmp_path / "still" / "checkpoint.pt")["helpers"]["discriminator"]
    assert not torch.equal(first["network.body.0.weight"], second["network.body.0.weight"])


# The adapted track, and where a run starts


def test_the_adapted_track_trains_and_saves_the_classifier_along(run):
    overrides = ["track=adapted", "losses.logits=0", "losses.ce=1", "classifier_lr=0.01"]
    result = run(overrides=overrides)
    ref = weights.find("tiny_method", "default-tiny")
    loaded = weights.load(ref)
    base = load_classifier("tiny")
    assert ref.card.track == "adapted"
    assert ref.card.teacher == {"id": "tiny", "sha256": base.info.weights_sha256}
    assert set(loaded.state) == {"body.0.weight", "body.0.bias", "tail.weight", "tail.bias"}
    assert loaded.classifier_state.keys() == base.network.state_dict().keys()
    assert not equal(loaded.classifier_state, base.network.state_dict())
    assert result.history["loss_ce"].iloc[-1] < result.history["loss_ce"].iloc[1]
    assert result.history["val_ce_hr"].nunique() == 1, "the original is scored by the frozen base"
    # Gone on with by the same classifier, the pair is; with another one, only the method is transferred.
    again = run(epochs=1, out="again", overrides=overrides, init_from=str(ref.path))
    assert again.history["val_ce"][0] == pytest.approx(result.metrics["ce"], rel=1e-5)
    world.make_classifier("twin", seed=7)
    moved = run(epochs=1, out="moved", overrides=overrides, init_from=str(ref.path), classifier="twin")
    assert moved.weights.card.teacher["id"] == "twin"
    assert moved.history["val_psnr"][0] == pytest.approx(result.metrics["psnr"], rel=1e-5)
    assert moved.history["val_ce"][0] != pytest.approx(result.metrics["ce"], rel=1e-3)


def test_a_classifier_in_eval_mode_keeps_its_statistics(run):
    options = ["track=adapted", "losses.logits=0", "losses.ce=1", "classifier_train_mode=false", "select=none"]
    loaded = weights.load(run(overrides=options, epochs=1).weights)
    base = load_classifier("tiny").network.state_dict()
    # The file holds what changed: a tensor that it lacks is the frozen classifier's.
    statistics = {key for key in base if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert statistics and loaded.classifier_state and not statistics & loaded.classifier_state.keys()
    assert all(not torch.equal(value, base[key]) for key, value in loaded.classifier_state.items())


def test_the_retrained_control_trains_the_classifier_alone(run, place):
    result = train(
        "retrained",
        data=[f"folder:{place / 'photos'}"],
        classifier="tiny",
        protocol=str(place / "half.toml"),
        out=place / "retrained",
        device="cpu",
        epochs=1,
        progress=False,
    )
    loaded = weights.load(result.weights)
    assert loaded.state == {} and loaded.classifier_state and result.weights.card.track == "adapted"


def test_a_run_starts_from_named_weights_of_its_own_or_of_another_method(run, place, tmp_path):
    first = run(epochs=1, name="first", overrides=["parameters.width=6"])
    second = run(epochs=1, out="second", init_from="first", licence="CC0-1.0")
    assert second.weights.card.licence == "CC0-1.0"
    heir = run(epochs=1, out="heir", init_from=str(second.weights.path))
    assert heir.weights.licence == heir.weights.card.licence == "CC0-1.0"
    assert second.weights.card.parameters == {"width": 6} and second.weights.card.recipe["init"] == "first"
    assert second.history["val_logits"][0] == pytest.approx(first.history["val_logits"][first.epoch], rel=1e-5)
    with pytest.raises(UsageError, match="made with width=6, the recipe asks for width=3"):
        run(epochs=1, out="third", init_from="first", overrides=["parameters.width=3"])
    sister = world.make_method(tmp_path / "plugins", "sister")
    other = run(
        "sister", plugin=sister, plugins=[sister, place / "tiny_method.py"], out="sister", init_from="tiny_method:first"
    )
    assert other.history["val_logits"][0] == pytest.approx(second.history["val_logits"][0], rel=1e-5)


# Data


def test_without_val_a_hashed_part_is_held_out_and_the_test_part_is_never_seen(place):
    spec = f"folder:{place / 'photos'}"
    training, validation = open_splits([spec], None)
    ids = [{sample.id for source in part for sample in source.samples} for part in (training, validation)]
    test = {sample.id for sample in open_source(spec, "test").samples}
    assert not ids[0] & ids[1] and not (ids[0] | ids[1]) & test
    everything, own = open_splits([spec], f"images:{place / 'unlabelled'}")
    assert len(everything[0].samples) == 60 == len(own[0].samples)


def test_a_training_split_of_its_own_is_used(place, tmp_path):
    for split, count in (("train", 60), ("val", 9)):
        world.make_images(tmp_path / "own" / split, count)
    spec = f"folder:{tmp_path / 'own'}"
    training, validation = open_splits([spec], None)
    assert (len(training[0].samples), len(validation[0].samples)) == (60, 9)
    world.make_images(tmp_path / "lone" / "train", 60)
    world.make_images(tmp_path / "lone" / "test", 9)
    training, validation = open_splits([f"folder:{tmp_path / 'lone'}"], None)
    assert len(training[0].samples) + len(validation[0].samples) == 60 and len(validation[0].samples) > 0
    assert training[0].split == validation[0].split == "train"
    demo, held_out = open_splits(["demo"], None)
    assert (demo[0].split, held_out[0].split) == ("train", "val")


def test_too_little_to_hold_anything_out_says_so(tmp_path):
    world.make_images(tmp_path / "few", 3)
    with pytest.raises(UsageError, match=r"tenth that is kept for validation; give more images, or .* --val"):
        open_splits([f"folder:{tmp_path / 'few'}"], None)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_take_disjoint_unpadded_parts_of_equal_length(place, ranks):
    images = images_of(place, split="train")
    recipe = Recipe(losses={"l1": 1.0}, batch_size=4)
    plans = [epoch_plan(images, recipe, seed=3, epoch=2, rank=rank, world=ranks) for rank in range(ranks)]
    assert len({len(plan) for plan in plans}) == 1
    assert all([len(b) for s in plan for b in s] == [len(b) for s in plans[0] for b in s] for plan in plans)
    seen = [int(position) for plan in plans for step in plan for batch in step for position in batch]
    assert len(seen) == len(set(seen)) and len(images) - len(seen) <= ranks
    again = epoch_plan(images, recipe, seed=3, epoch=2, rank=0, world=ranks)
    assert [b.tolist() for s in again for b in s] == [b.tolist() for s in plans[0] for b in s]
    other = epoch_plan(images, recipe, seed=3, epoch=3, rank=0, world=ranks)
    assert [b.tolist() for s in again for b in s] != [b.tolist() for s in other for b in s]


def test_an_epoch_of_a_given_length_goes_round_the_data(place):
    images = images_of(place, split="train")
    recipe = Recipe(losses={"l1": 1.0}, batch_size=7, accumulate=2, steps_per_epoch=10)
    plan = epoch_plan(images, recipe, seed=0, epoch=1, rank=0, world=1)
    assert len(plan) == 10 and all(len(step) == 2 for step in plan)
    counts = np.bincount([position for step in plan for batch in step for position in batch], minlength=len(images))
    assert counts.max() - counts.min() <= 1


def test_images_smaller_than_hr_are_never_enlarged_and_batches_have_one_shape(tmp_path, place):
    for side in (20, 40, 48):
        world.make_images(tmp_path / "mixed" / f"s{side}", 9, labelled=False, side=side)
    Image.new("RGB", (70, 20)).save(tmp_path / "mixed" / "wide.png")
    geometry = Geometry(resize=32, crop=30)
    source = open_source(f"images:{tmp_path / 'mixed'}", "all")
    images = ImageSet([source], geometry, label_map=None)
    shapes = {sample.id: tuple(shape) for sample, shape in zip(images.samples, images.shapes.tolist(), strict=True)}
    assert shapes["wide.png"] == (20, 30) and shapes["s20/0000.png"] == (20, 20)
    assert shapes["s40/0000.png"] == shapes["s48/0000.png"] == (30, 30)
    native = np.asarray(Image.open(tmp_path / "mixed/s20/0000.png"))
    position = [sample.id for sample in images.samples].index("s20/0000.png")
    assert (images.read(np.array([position]))[0][0].permute(1, 2, 0).numpy() == native).all()
    recipe = Recipe(losses={"l1": 1.0}, batch_size=4)
    plan = epoch_plan(images, recipe, seed=0, epoch=1, rank=0, world=1)
    batches = [batch for step in plan for batch in step]
    seen = sorted(p for batch in batches for p in batch)
    assert len(seen) == len(set(seen)) == 27, "one image of the nine small ones is left over, the wide one has no like"
    assert all(len({tuple(images.shapes[p]) for p in batch}) == 1 for batch in batches)
    patched = dataclasses.replace(recipe, patch=16)
    for step in epoch_plan(images, patched, seed=0, epoch=1, rank=0, world=1):
        for batch in step:
            assert read_cropped(images, batch, patched, np.random.default_rng(0)).hr.shape[1:] == (3, 16, 16)
    scored = ImageSet([source], geometry, label_map=None, enlarge=True)
    assert set(map(tuple, scored.shapes.tolist())) == {(30, 30)}, "a protocol that scores enlarges as it says"


def test_patches_of_real_pairs_stay_aligned(tmp_path, place):
    hr = world.make_images(tmp_path / "hr", 12, labelled=False)
    (tmp_path / "lr").mkdir()
    for file in hr.iterdir():
        pixels = np.asarray(Image.open(file))
        Image.fromarray(pixels[::2, ::2]).save(tmp_path / "lr" / file.name)
    source = open_source(f"pairs:{tmp_path / 'lr'},{tmp_path / 'hr'}", "all")
    images = ImageSet([source], Geometry(), label_map=None)
    recipe = Recipe(losses={"l1": 1.0}, batch_size=6, patch=10, augment=Augment(flip=True))
    raw = read_cropped(images, np.arange(6), recipe, np.random.default_rng(1))
    assert images.paired and raw.hr.shape == (6, 3, 10, 10) and torch.equal(raw.lr, raw.hr[..., ::2, ::2])
    assert raw.flipped.any() and not raw.flipped.all()
    odd = read_cropped(images, np.arange(6), dataclasses.replace(recipe, patch=11), np.random.default_rng(1))
    assert torch.equal(odd.lr, odd.hr[..., ::2, ::2])
    with pytest.raises(UsageError, match="smaller than one LR pixel"):
        read_cropped(images, np.arange(6), dataclasses.replace(recipe, patch=1), np.random.default_rng(1))
    with pytest.raises(UsageError, match="cannot be trained on together"):
        ImageSet([source, open_source(f"folder:{place / 'photos'}", "all")], Geometry(), label_map=None)


def test_several_datasets_are_read_as_one(place, tmp_path):
    world.make_images(tmp_path / "more", 12)
    sources = [open_source(f"folder:{folder}", "all") for folder in (place / "photos", tmp_path / "more")]
    images = ImageSet(sources, Geometry(), label_map=lambda classes: np.array([2, 0, 1]))
    assert len(images) == 72
    expected = [np.array([2, 0, 1])[sample.label] for source in sources for sample in source.samples]
    assert images.labels.tolist() == expected
    hr, _ = images.read(np.array([70, 0, 60]))
    for row, (source, index) in zip(hr, [(1, 10), (0, 0), (1, 0)], strict=True):
        assert torch.equal(row, sources[source].read(index))


def test_an_lr_side_in_pixels_becomes_a_scale_for_crops():
    protocol = Protocol(name="p", hr=Geometry(resize=256, crop=224), lr=Degradation(lr_side=56))
    assert training_degradation(protocol).lr_size(224, 224) == (56, 56)
    assert training_degradation(protocol).lr_size(96, 96) == (24, 24)


# Selection


def test_the_criterion_falls_back_to_what_the_data_allow():
    assert choose_criterion("ce_difference", {"ce_difference", "logits", "psnr"}) == "ce_difference"
    assert choose_criterion("ce_difference", {"logits", "psnr"}) == "logits"
    assert choose_criterion("psnr", {"logits", "ce_difference"}) == "ce_difference"
    assert choose_criterion("logits", set()) == "none" and choose_criterion("none", {"psnr"}) == "none"


def test_better_is_less_or_more_and_the_first_of_equals_stays():
    assert is_better("logits", {"logits": 1.0}, None)
    assert is_better("logits", {"logits": 1.0}, {"logits": 2.0}) and not is_better(
        "logits", {"logits": 2.0}, {"logits": 2.0}
    )
    assert is_better("psnr", {"psnr": 30.0}, {"psnr": 29.0}) and not is_better("psnr", {"psnr": 1.0}, {"psnr": 2.0})
    assert not is_better("psnr", {"psnr": float("nan")}, {"psnr": 2.0})
    assert is_better("psnr", {"psnr": 2.0}, {"psnr": float("nan")})
    assert is_better("none", {}, {})


def test_figures_are_means_over_samples_without_the_infinite_ones():
    sums = Sums()
    sums.add("psnr", torch.tensor([20.0, float("inf"), 30.0]))
    sums.add("ce", torch.tensor([1.0, 3.0]))
    sums.add("ce_hr", torch.tensor([0.5, 0.5]))
    assert figures(sums) == {"psnr": 25.0, "ce": 2.0, "ce_hr": 0.5, "ce_difference": 1.5}


def test_reseeding_covers_every_generator():
    def draws():
        _reseed(1, 2, 3)
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    first = draws()
    assert first == draws()
    _reseed(1, 2, 4)
    assert torch.rand(2).tolist() != first[0]


# Classifiers

ARGS = ["args.channels=[8,8,8,8]", "args.stem_width=8", "batch_size=8", "augment.shift=0", "warmup_steps=0"]


def classify(place, out, *, in_chans=3, **options):
    return train_network(
        "resnet10t",
        TrainOptions(
            **{
                "data": [f"folder:{place / 'photos'}"],
                "protocol": str(place / "half.toml"),
                "out": out,
                "device": "cpu",
                "progress": False,
                "overrides": ARGS,
                "epochs": 2,
            }
            | options,
        ),
        in_chans=in_chans,
    )


def test_a_trained_classifier_loads_by_name_and_knows_its_classes(place, tmp_path):
    overrides = [*ARGS, "augment.degrade_probability=0.5", "lr=0.005"]
    result = classify(place, tmp_path / "run", overrides=overrides, name="shapes", epochs=6)
    assert result.metrics["accuracy"] >= 0.75 and result.criterion == "accuracy"
    assert {"accuracy_bilinear", "ce_bilinear", "ce_difference"} <= set(result.metrics)
    loaded = load_classifier("shapes")
    assert loaded.info.classes == world.CLASSES and loaded.info.input_size is None and loaded.info.in_chans == 3
    images = images_of(place, split="val")
    hr = images.read(np.arange(len(images)))[0].float() / 255
    with torch.no_grad():
        torch.testing.assert_close(loaded(hr), result.network.cpu()(hr))
    assert result.weights.card.namespace == "classifiers" and result.weights.card.extra["args"]["num_classes"] == 3
    assert "--classifier shapes" in result.summary()


def test_a_classifier_of_one_channel(place, tmp_path):
    classify(place, tmp_path / "run", in_chans=1, epochs=1, name="grey")
    loaded = load_classifier("grey")
    assert loaded.info.in_chans == 1 and loaded.network.conv1[0].in_channels == 1
    assert loaded(torch.rand(1, 3, 24, 24)).shape == (1, 3)


def test_a_transformer_keeps_its_fixed_size_unless_it_takes_any(place, tmp_path):
    shared = ["args.embed_dim=12", "args.depth=1", "args.num_heads=2", "args.img_size=24", "args.patch_size=8"]
    for name, more, expected in (("fixed", [], 24), ("any", ["args.dynamic_img_size=true"], None)):
        train_network(
            "vit_tiny_patch16_224",
            TrainOptions(
                data=[f"folder:{place / 'photos'}"],
                protocol=str(place / "half.toml"),
                out=tmp_path / name,
                name=name,
                epochs=1,
                overrides=[*shared, *more, "augment.shift=0"],
                device="cpu",
                progress=False,
            ),
        )
        assert load_classifier(name).info.input_size == expected


def test_a_classifiers_run_resumes_to_the_bit(place, tmp_path, monkeypatch):
    overrides = [*ARGS, "augment.degrade_probability=0.5", "checkpoint_every=1", "select=none"]
    whole = classify(place, tmp_path / "whole", overrides=overrides)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            classify(place, tmp_path / "run", overrides=overrides)
    assert equal(tensors(whole), tensors(classify(place, tmp_path / "run", overrides=overrides, resume=True)))


def test_a_classifier_starts_from_a_trained_one(place, tmp_path):
    first = classify(place, tmp_path / "first", name="first")
    second = classify(place, tmp_path / "second", init_from="first", epochs=1)
    assert second.history["val_ce"][0] == pytest.approx(first.metrics["ce"], rel=1e-5)
    classify(place, tmp_path / "third", init_from="tiny", epochs=1, name="third")
    assert (load_classifier("third").info.mean, load_classifier("third").info.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": ["images:{}/unlabelled"]}, "needs labelled data, such as folder:PATH"),
        ({"overrides": ["losses.l1=1"]}, "loss term 'ce' alone"),
        ({"in_chans": 2}, "--in-chans takes 1 or 3"),
        ({"overrides": ["args.nonsense=3"]}, "timm cannot build 'resnet10t'"),
        ({"recipe": "defualt"}, "did you mean default"),
    ],
)
def test_a_wrong_classifier_call_gets_a_sentence(place, tmp_path, options, words):
    if "data" in options:
        options = {"data": [spec.format(place) for spec in options["data"]]}
    with pytest.raises(UsageError, match=words):
        classify(place, tmp_path / "run", **options)


def test_shipped_network_recipes_are_valid():
    recipes = network_recipes()
    assert {"default", "finetune"} <= set(recipes)
    terms = {"iqa": "emd", "detection": "boxes", "demo-det": "boxes"}
    assert terms.keys() < recipes.keys()
    assert {name: dict(recipe.losses) for name, recipe in recipes.items()} == {
        name: {terms.get(name, "ce"): 1.0} for name in recipes
    }


# Many ranks

RANKS = """
import json, sys
import torch
torch.set_num_threads(1)
from srbench.training.api import train
for name, method, options in json.loads(sys.argv[1]):
    result = train(method, **options)
    rank = torch.distributed.get_rank()
    found = {"state": result.network.state_dict(), "history": result.history.to_dict("list"), "images": result.images}
    torch.save(found, f"{options['out']}/{name}-rank{rank}.pt")
"""
NORM = ["parameters.norm=true", "augment.flip=true", "losses.l1=1", "accumulate=2", "batch_size=3", "ema=0.9"]
SGD = ["optimizer=sgd", "lr=0.05", "steps_per_epoch=4", "select=none"]
ADAPTED = ["track=adapted", "losses.logits=0", "losses.ce=1", "batch_size=4", "checkpoint_every=3"]


@pytest.fixture(scope="module")
def two_ranks(place):
    """What both ranks ended with, by job; one launch of torchrun for all of them, because it takes long to start."""
    shared = {
        "data": [f"folder:{place / 'photos'}"],
        "protocol": str(place / "half.toml"),
        "device": "cpu",
        "progress": False,
        "epochs": 2,
    }
    jobs = []
    for name, method, out, more in (
        ("norm", "tiny_method", "norm", {"overrides": NORM}),
        ("sgd", "tiny_method", "sgd", {"overrides": [*SGD, "batch_size=4"]}),
        ("gan", "tiny_gan", "gan", {"overrides": ["batch_size=4"], "classifier": None}),
        ("adapted", "tiny_method", "adapted", {"overrides": ADAPTED}),
        ("again", "tiny_method", "adapted", {"overrides": ADAPTED, "resume": True}),
    ):
        options = {"classifier": "tiny", "out": str(place / "ranks" / out), "plugins": [str(place / f"{method}.py")]}
        jobs.append((name, method, shared | options | more))
    world.run_two_ranks(place / "ranks.py", RANKS, jobs, timeout=280)
    return {
        name: [torch.load(f"{options['out']}/{name}-rank{rank}.pt", weights_only=False) for rank in range(2)]
        for name, _, options in jobs
    }


@pytest.mark.slow
def test_two_ranks_end_with_equal_parameters_and_buffers(two_ranks, run, place):
    first, second = two_ranks["norm"]
    assert equal(first["state"], second["state"]) and any("running_mean" in key for key in first["state"])
    assert equal(first["state"], weights.read_state(place / "ranks/norm/weights/default-tiny.safetensors"))
    for name in ("val_logits", "val_psnr", "val_ce_hr", "loss"):
        np.testing.assert_allclose(first["history"][name], second["history"][name])
    alone = run(overrides=NORM, epochs=1)
    assert first["history"]["val_psnr"][0] == pytest.approx(alone.history["val_psnr"][0], abs=1e-5)
    assert first["history"]["val_ce_hr"][0] == pytest.approx(alone.history["val_ce_hr"][0], abs=1e-5)


@pytest.mark.slow
def test_two_ranks_equal_one_process_with_twice_the_batch(two_ranks, run):
    alone = run(overrides=[*SGD, "batch_size=8"], epochs=2)
    for rank in two_ranks["sgd"]:
        assert rank["images"] == alone.images == 64
        for key, value in tensors(alone).items():
            torch.testing.assert_close(rank["state"][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_ranks_with_a_discriminator_or_a_trained_classifier_stay_equal(two_ranks):
    for name in ("gan", "adapted", "again"):
        assert equal(two_ranks[name][0]["state"], two_ranks[name][1]["state"])
    assert equal(two_ranks["adapted"][0]["state"], two_ranks["again"][0]["state"])
