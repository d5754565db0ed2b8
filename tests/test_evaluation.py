"""The evaluation from end to end, on small images with a small classifier."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from dummies import CLASSES, WNIDS, evaluator, make_classifier, make_images, pixels, plugin, save_gain, trainable
from PIL import Image, ImageOps

from srbench import evaluate, weights
from srbench.compute.numerics import Numerics
from srbench.data import hr_chunks
from srbench.errors import (
    DataError,
    IncomparableError,
    ProtocolError,
    RecordError,
    SrbenchError,
    TooManyUnreadableError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from srbench.evaluation import EvalOptions, costs, hr_predictions, rows, thumbnails
from srbench.files.sealed import seal_of, unsealed
from srbench.networks.loading import load_classifier
from srbench.records import sample_columns
from srbench.records.cells import load_cell
from srbench.records.samples import read_samples, score_columns
from srbench.records.shards import write_shard
from srbench.records.thumbnails import THUMBNAILS_FILE, read_thumbnails
from srbench.weights import Card

pytestmark = pytest.mark.usefixtures("few_draws", "short_shards")

PER_CLASS, SIDE = 22, 24
N = 3 * PER_CLASS
HALF = "[lr]\nscale = 0.5\n"
ADAPTED = ("adabn", "fixres", "lr_student", "retrained")  # controls that are skipped until there are weights for them
ALWAYS = ["original", "bilinear", "adabn", "fixres", "lr_student", "none", "retrained"]


@pytest.fixture
def protocol(tmp_path):
    """Return a function that writes a protocol and returns its path."""

    def write(text: str = HALF, name: str = "half") -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def run(images, card, protocol, tmp_path):
    """Return a function that evaluates methods with everything else filled in."""
    return evaluator(images, card, protocol(), tmp_path / "out", batch_size=32)


def row(result, method: str, **columns) -> pd.Series:
    frame = result.leaderboard
    for name, value in {"method": method, **columns}.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


def record(result, method: str, weights: str | None = None):
    (found,) = [
        cell.record
        for cell in result.cells
        if cell.record.cell.method == method and (weights is None or cell.record.cell.weights == weights)
    ]
    return found


def samples(result, method: str) -> pd.DataFrame:
    (found,) = [cell for cell in result.cells if cell.record.cell.method == method]
    return found.samples()


def by_hand(images: Path) -> tuple[torch.Tensor, np.ndarray, list[str]]:
    """Read the images, `(n, 3, H, W)` float in [0, 1], their labels and ids, with nothing of srbench."""
    files = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    pixels = np.stack([np.array(Image.open(images / file)) for file in files])
    labels = np.array([CLASSES.index(file.split("/")[0]) for file in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, labels, files


def half_lr(hr: torch.Tensor) -> torch.Tensor:
    size = [side // 2 for side in hr.shape[-2:]]
    return F.interpolate(hr, size=size, mode="bicubic", antialias=True).clamp(0, 1).mul(255).round() / 255


def by_id(cell) -> tuple[str | None, str]:
    return cell.record.cell.classifier, cell.record.cell.method


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.endswith((".tmp", ".part")) or path.name == ".partial"]


# --- rows --------------------------------------------------------------------------------------------------------


def test_all_methods_stand_in_the_table(images, card, protocol, tmp_path):
    result = evaluate(
        "all",
        data=f"folder:{images}",
        classifiers=[str(card)],
        protocol=protocol(),
        out=tmp_path / "out",
        measure=False,
    )
    order = [cell.record.cell.method for cell in result.cells]
    assert order[:2] == ["original", "bilinear"]
    controls = [cell.record.cell.method for cell in result.cells if cell.record.method.role == "control"]
    assert order[2 : 2 + len(controls)] == sorted(controls) and "none" in controls
    rest = order[2 + len(controls) :]
    assert rest == sorted(rest)
    ok = {cell.record.cell.method for cell in result.cells if cell.record.status == "ok"}
    interpolations = {"nearest", "bilinear", "bicubic", "bicubic_opencv", "bicubic_pillow", "lanczos", "area"}
    assert ok == interpolations | {"original", "none"}
    assert result.failed == []
    for name in ("esrgan", "darionet", "learned_resizer", "muller", "sr4ir", "rdn", "srgan", *ADAPTED):
        skipped = record(result, name)
        assert skipped.status == "skipped"
        assert "no weights fit this task" in skipped.reason and f"--weights {name}=FILE" in skipped.reason
    assert {cell.record.dataset.n for cell in result.cells} == {N}
    assert result.samples.groupby("method").size().to_dict() == dict.fromkeys(ok, N)
    assert leftovers(result.out) == []


def test_one_name_or_number_alone_is_a_list_of_one(images, card, protocol, tmp_path):
    source, file = trainable(tmp_path), tmp_path / "w.safetensors"
    save_gain(file)
    same = {"data": f"folder:{images}", "protocol": protocol(), "measure": False}
    one = evaluate(
        "gain",
        classifiers=str(card),
        weights={"gain": str(file)},
        scales=0.5,
        plugins=source,
        out=tmp_path / "a",
        **same,
    )
    lists = {"classifiers": [str(card)], "weights": {"gain": [str(file)]}, "scales": [0.5], "plugins": [source]}
    several = evaluate(["gain"], out=tmp_path / "b", **lists, **same)
    assert record(one, "gain").cell.weights == "w" and record(one, "gain").cell.classifier == "dummy"
    assert [cell.record.cell for cell in one.cells] == [cell.record.cell for cell in several.cells]


def test_a_result_is_one_line_and_in_a_notebook_the_table(run):
    result = run("bilinear")
    assert repr(result) == f"<EvaluationResult in {result.out}: 3 ok, 4 skipped; .leaderboard is the table>"
    page = result._repr_html_()
    accuracy = f"{row(result, 'bilinear')['accuracy']:.4f}"
    (line,) = [line for line in page.splitlines() if re.search(r"<td[^>]*>bilinear *</td>", line)]
    assert accuracy in re.findall(r"<td[^>]*> *(\S*) *</td>", line)


def test_oracle_is_infinite_and_original(run):
    result = run()
    assert [cell.record.cell.method for cell in result.cells] == ALWAYS
    original = record(result, "original")
    assert (original.method.role, original.metrics["psnr"].value) == ("oracle", math.inf)
    assert original.metrics["psnr"].n_infinite == N and original.metrics["ssim"].value == 1.0
    assert original.metrics["agreement"].value == 1.0 and original.metrics["kl_to_hr"].value == 0.0
    assert original.metrics["accuracy"].value > 0.95
    written = json.loads((result.out / "leaderboard.json").read_text())
    rows = {each["method"]: each for each in written["rows"]}
    assert rows["original"]["psnr"] == "inf" and rows["none"]["psnr"] is None
    assert 0.2 < rows["bilinear"]["accuracy"] < rows["original"]["accuracy"]
    assert {"records", "leaderboard.json", "leaderboard.csv", "leaderboard.md"} <= {
        path.name for path in result.out.iterdir()
    }


def test_none_has_no_image_metrics_and_says_why(run):
    result = run()
    metrics = record(result, "none").metrics
    for name in ("psnr", "ssim"):
        assert metrics[name].value is None and "LR is not upscaled" in metrics[name].reason
    assert metrics["accuracy"].value is not None


def test_classifier_of_fixed_size_cannot_be_asked_about_lr(run, card):
    fields = tomllib.loads(card.read_text())
    assert "input_size" not in fields
    fixed = card.with_name("fixed.toml")
    fixed.write_text(card.read_text() + "input_size = 32\n")
    result = run(classifiers=[str(card), str(fixed)])
    by_classifier = {by_id(cell): cell.record.status for cell in result.cells}
    assert by_classifier[("dummy", "none")] == "ok" and by_classifier[("fixed", "none")] == "skipped"
    assert by_classifier[("fixed", "bilinear")] == "ok"
    (skipped,) = [cell.record for cell in result.cells if by_id(cell) == ("fixed", "none")]
    assert skipped.reason == "classifier fixed takes only 32 x 32 images, so LR cannot go straight to it"


# --- numbers -----------------------------------------------------------------------------------------------------


def test_values_are_those_of_a_calculation_by_hand(run, images, card):
    result = run("bilinear", "bicubic_opencv")
    hr, labels, files = by_hand(images)
    classifier = load_classifier(str(card))
    lr = half_lr(hr)
    sr = {
        "bilinear": F.interpolate(lr, size=(SIDE, SIDE), mode="bilinear", antialias=True),
        "bicubic_opencv": F.interpolate(lr, size=(SIDE, SIDE), mode="bicubic"),
        "none": lr,
        "original": hr,
    }
    with torch.inference_mode():
        hr_logits = classifier(hr)
        for method, restored in sr.items():
            seen = restored.clamp(0, 1).mul(255).round() / 255
            logits = classifier(seen)
            frame = samples(result, method)
            assert frame["sample_id"].tolist() == files and frame["position"].tolist() == list(range(N))
            assert frame["label"].tolist() == labels.tolist()
            assert frame["pred"].tolist() == logits.argmax(1).tolist()
            assert frame["hr_pred"].tolist() == hr_logits.argmax(1).tolist()
            expected = {
                "confidence": logits.softmax(1).amax(1),
                "cross_entropy": F.cross_entropy(logits, torch.from_numpy(labels), reduction="none"),
                "logit_mse_to_hr": (logits - hr_logits).square().mean(1),
                "score_001": logits.softmax(1)[:, 1],
            }
            if method in ("bilinear", "bicubic_opencv"):
                mse = (seen - hr).square().mean(dim=(1, 2, 3))
                expected |= {"mse": mse, "psnr": -10 * mse.log10()}
            for column, values in expected.items():
                np.testing.assert_allclose(frame[column], values.numpy(), rtol=2e-4, atol=2e-5, err_msg=column)
            metrics = record(result, method).metrics
            assert metrics["accuracy"].value == pytest.approx(float((logits.argmax(1).numpy() == labels).mean()))
            assert metrics["cross_entropy"].value == pytest.approx(float(expected["cross_entropy"].mean()), rel=1e-4)
    assert record(result, "bilinear").metrics["psnr"].value == pytest.approx(float(frame_psnr(result)), rel=1e-6)


def frame_psnr(result) -> float:
    return samples(result, "bilinear")["psnr"].astype(float).mean()


def test_rounding_and_clamping_before_the_classifier_follow_the_protocol(run, protocol, images, card, tmp_path):
    loud = plugin(tmp_path, "loud", 'resize(lr, size, "bilinear") * 2.5 - 0.8001')
    raw = protocol(HALF + "[sr]\nclamp = false\nround = false\n", "raw")
    hr, _, _ = by_hand(images)
    classifier = load_classifier(str(card))
    sr = F.interpolate(half_lr(hr), size=(SIDE, SIDE), mode="bilinear", antialias=True) * 2.5 - 0.8001
    assert sr.min() < 0 and sr.max() > 1
    eight = sr.clamp(0, 1).mul(255).round() / 255
    for text, seen in ((raw, sr), (protocol(), eight)):
        result = run("loud", protocol=text, plugins=[loud])
        with torch.inference_mode():
            scores = classifier(seen).softmax(1)[:, 0].numpy()
        np.testing.assert_allclose(samples(result, "loud")["score_000"], scores, atol=2e-5)
        mse = (eight - hr).square().mean(dim=(1, 2, 3)).numpy()  # the metric has its own switch
        np.testing.assert_allclose(samples(result, "loud")["mse"], mse, rtol=1e-4)


def test_only_the_classes_present_compete_where_the_protocol_says_so(run, protocol, tmp_path, images, card):
    wide = make_classifier(tmp_path / "wide", classes=("ant", "bar", "cup", "dot", "net"), side=SIDE)
    hr, labels, _ = by_hand(images)
    outputs = np.array([1, 3, 4])
    classifier = load_classifier(str(wide))
    lr = half_lr(hr)
    with torch.inference_mode():
        sr = F.interpolate(lr, size=(SIDE, SIDE), mode="bilinear", antialias=True).mul(255).round() / 255
        logits = classifier(sr)
    everything = run(classifiers=[str(wide)])
    frame = samples(everything, "bilinear")
    assert frame["pred"].tolist() == logits.argmax(1).tolist()
    assert set(frame["pred"]) - set(outputs)  # some go to absent classes
    assert frame["label"].tolist() == outputs[labels].tolist()
    present = run(classifiers=[str(wide)], protocol=protocol(HALF + '[score]\nlogits = "present"\n', "present"))
    frame = samples(present, "bilinear")
    assert frame["pred"].tolist() == outputs[logits[:, outputs].argmax(1).numpy()].tolist()
    assert frame["label"].tolist() == outputs[labels].tolist()
    expected = F.cross_entropy(logits[:, outputs], torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(frame["cross_entropy"], expected.numpy(), rtol=2e-4, atol=2e-5)
    assert len(score_columns(frame.columns)) == 3
    parts = record(present, "bilinear").per_class
    assert [(part.index, part.name, part.support) for part in parts] == [(1, "bar", 22), (3, "dot", 22), (4, "net", 22)]


def test_wnid_folders_among_a_thousand_outputs(run, tmp_path):
    from srbench.networks.classifiers import imagenet_wnids

    data = make_images(tmp_path / "wnids", 6, side=SIDE, classes=WNIDS)
    full = make_classifier(tmp_path / "full", side=SIDE, classes=imagenet_wnids()[:3])
    card = full.read_text().replace("num_classes = 3", "num_classes = 1000").replace('"dummy.txt"', '"imagenet-1k"')
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=1000).state_dict(), full.with_suffix(".safetensors"))
    full.write_text(card)
    result = run(data=f"folder:{data}", classifiers=[str(full)])
    bilinear = record(result, "bilinear")
    assert sorted(set(samples(result, "bilinear")["label"])) == [0, 1, 2] and bilinear.classifier.n_classes == 1000
    assert score_columns(samples(result, "bilinear").columns) == []
    histograms = bilinear.score_histograms
    assert sum(histograms["positives"]) == 18 and sum(histograms["negatives"]) == 18 * 999


def test_pooled_psnr_leaves_the_last_incomplete_batch_out_whatever_the_batch_size(run, protocol, images):
    pooled = protocol(HALF + '[score]\npsnr_reduction = "batch"\npsnr_batch = 20\n', "pooled")
    values = []
    for batch_size in (7, 32, 64):
        result = run(protocol=pooled, batch_size=batch_size, force=True)
        frame = samples(result, "bilinear")
        assert len(frame) == 60 and frame["sample_id"].tolist() == by_hand(images)[2][:60]
        assert {cell.record.dataset.n for cell in result.cells} == {60}
        mse = frame["mse"].to_numpy(np.float64).reshape(3, 20).mean(1)
        values.append(record(result, "bilinear").metrics["psnr"].value)
        assert values[-1] == pytest.approx(float(-10 * np.log10(mse).mean()), abs=1e-6)
        assert values[-1] < frame["psnr"].astype(float).mean()
    assert values == pytest.approx([values[0]] * 3, abs=1e-5)
    with pytest.raises(
        UsageError, match=r"pools PSNR over batches of 60, so it needs at least as many images; .*has 40"
    ):
        run(protocol=protocol(HALF + '[score]\npsnr_reduction = "batch"\n', "sixty"), limit=40)


def test_batch_size_moves_no_value(run):
    small, large = (run("bicubic", batch_size=size, force=True).samples for size in (5, 64))
    pd.testing.assert_frame_equal(small, large, rtol=1e-5, atol=1e-5)
    assert small["pred"].tolist() == large["pred"].tolist()


def test_images_of_many_sizes_keep_their_order(run, card, tmp_path):
    folder = tmp_path / "mixed"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(9):
            side = (17, 24, 31)[number % 3]
            Image.fromarray(pixels(label, number, side)[:, : side - number % 2]).save(folder / name / f"{number}.png")
    result = run("bicubic", data=f"folder:{folder}", batch_size=4)
    frame = samples(result, "bicubic")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert frame["sample_id"].tolist() == files and frame["position"].tolist() == list(range(27))
    classifier = load_classifier(str(card))
    for position in (0, 4, 26):
        hr = torch.from_numpy(np.array(Image.open(folder / files[position]))).permute(2, 0, 1)[None].float() / 255
        sr = F.interpolate(half_lr(hr), size=hr.shape[-2:], mode="bicubic", antialias=True)
        sr = sr.clamp(0, 1).mul(255).round() / 255
        with torch.inference_mode():
            assert frame["score_002"][position] == pytest.approx(float(classifier(sr).softmax(1)[0, 2]), abs=1e-4)
        assert frame["mse"][position] == pytest.approx(float((sr - hr).square().mean()), rel=1e-4)


def test_real_pairs_are_restored_from_their_own_lr(tmp_path):
    for name, side in (("LR", 12), ("HR", 24)):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(pixels(number % 3, number + 50 * (side == 12), side)).save(
                tmp_path / "pairs" / name / f"{number}.png"
            )
    spec = f"pairs:{tmp_path / 'pairs' / 'LR'},{tmp_path / 'pairs' / 'HR'}"
    result = evaluate(["nearest"], data=spec, out=tmp_path / "out", measure=False)
    frame = samples(result, "nearest")
    for number in range(5):
        lr = np.array(Image.open(tmp_path / "pairs" / "LR" / f"{number}.png")) / 255
        hr = np.array(Image.open(tmp_path / "pairs" / "HR" / f"{number}.png")) / 255
        assert frame["mse"][number] == pytest.approx(((lr.repeat(2, 0).repeat(2, 1) - hr) ** 2).mean(), rel=1e-5)


def test_without_lr_there_is_no_ground_truth(run, protocol):
    text = "[hr]\nresize = 24\ncrop = 24\n[lr]\nnone = true\n[sr]\nside = 16\n"
    result = run("bicubic", protocol=protocol(text, "resizer"))
    for name in ("original", "bicubic", "none"):
        assert record(result, name).metrics["psnr"].value is None
        assert "no ground truth" in record(result, name).metrics["psnr"].reason
    assert record(result, "original").metrics["accuracy"].value > 0.95  # the classifier at the full size
    assert record(result, "bicubic").metrics["agreement"].value is not None


def test_sr_that_does_not_stand_at_hr_size_says_so(run, protocol):
    result = run(protocol=protocol(HALF + "[sr]\nside = 16\n", "smaller"))
    assert "does not stand at HR size" in record(result, "bilinear").metrics["ssim"].reason


def test_degradation_that_does_nothing_is_flagged(run, protocol, tmp_path):
    folder = make_images(tmp_path / "small", 1, side=8)
    for path in make_images(tmp_path / "large", 2, side=24).rglob("*.png"):
        path.rename(folder / path.parent.name / f"large-{path.name}")
    result = run(data=f"folder:{folder}", protocol=protocol("[hr]\nresize = 24\ncrop = 24\n[lr]\nlr_side = 8\n", "up"))
    assert record(result, "bilinear").dataset.n_not_degraded == 3
    assert record(run(), "bilinear").dataset.n_not_degraded == 0


def test_noise_is_the_same_for_every_method_and_moves_with_the_seed(run, protocol):
    noisy = protocol(HALF + "noise_sigma = 0.1\n", "noisy")
    first = run(protocol=noisy, batch_size=7).samples
    again = run(protocol=noisy, batch_size=32, force=True).samples
    pd.testing.assert_frame_equal(first, again, rtol=1e-4, atol=1e-4)
    other = run(protocol=noisy, seed=1)
    assert other.counters.restored == {"bilinear": N, "none": N}
    assert not np.allclose(other.samples["mse"].dropna(), first["mse"].dropna())
    plain = run()
    assert run(seed=1).counters.restored == {} and plain.counters.restored != {}


# --- what is computed again ----------------------------------------------------------------------------------------


def test_second_run_computes_nothing_and_a_further_method_only_itself(run):
    first = run("bicubic")
    assert first.counters.decoded == N and first.counters.hr_classified == {"dummy": N}
    assert first.counters.restored == {"bilinear": N, "none": N, "bicubic": N}
    assert first.counters.degraded == N
    before = {path: path.stat().st_mtime_ns for path in (first.out / "records").rglob("*") if path.is_file()}
    second = run("bicubic")
    nothing = second.counters
    assert (nothing.decoded, nothing.degraded) == (0, 0)
    assert nothing.hr_classified == nothing.restored == nothing.sr_classified == {}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    third = run("bicubic", "nearest")
    assert third.counters.restored == {"nearest": N} and third.counters.decoded == 0
    assert third.counters.hr_classified == {} and third.counters.sr_classified == {"nearest dummy": N}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert set(third.leaderboard["method"]) == {*ALWAYS, "bicubic", "nearest"}


def test_another_classifier_decodes_nothing_and_restores_for_itself(run, card):
    run()
    other = card.with_name("other.toml")
    shutil.copy(card, other)
    result = run(classifiers=[str(card), str(other)])
    assert result.counters.decoded == 0 and result.counters.restored == {"bilinear": N, "none": N}
    # the same weights under another name: their logits are known
    assert result.counters.hr_classified == {}
    assert result.counters.sr_classified == {"bilinear other": N, "none other": N}


@pytest.mark.parametrize("classifiers", [1, 3])
def test_hr_is_read_once_whatever_the_number_of_classifiers(run, card, tmp_path, classifiers):
    cards = [str(card), *(str(make_classifier(tmp_path / f"c{k}", f"c{k}", side=SIDE, seed=k)) for k in (1, 2))]
    ids = ["dummy", "c1", "c2"][:classifiers]
    first = run("bicubic", classifiers=cards[:classifiers]).counters
    assert first.hr_classified == dict.fromkeys(ids, N)  # the cache of logits was empty
    assert (first.hr_read, first.degraded) == (N, N)
    again = run("bicubic", classifiers=cards[:classifiers], force=True).counters
    assert again.hr_classified == {} and again.hr_read == N


def test_the_time_of_a_cell_does_not_depend_on_its_company(run, own_folders, monkeypatch):
    decoded = []
    monkeypatch.setattr(hr_chunks.time, "perf_counter", ticking(decoded))
    first = run("bicubic")
    decode_s = {record(first, name).dataset.decode_s for name in ("original", "bilinear", "none", "bicubic")}
    assert len(decode_s) == 1 and decode_s != {0.0}
    added = run("lanczos", "bicubic")  # the images come from the cache
    assert added.counters.decoded == 0
    assert record(added, "lanczos").dataset.decode_s in decode_s
    shutil.rmtree(own_folders / "cache")
    again = run("area")  # decoded anew, which took another time
    assert again.counters.decoded == N
    assert record(again, "area").dataset.decode_s in decode_s
    for result, name in ((first, "bicubic"), (added, "lanczos"), (again, "area")):
        timing = record(result, name).timing
        assert timing.total_time_s == pytest.approx(timing.pass_s + record(result, name).dataset.decode_s)
    alone = run("area", out=first.out.with_name("alone"))
    assert record(alone, "area").dataset.decode_s not in decode_s


def ticking(calls: list[None]):
    """Return a clock of which every reading takes longer than the one before."""

    def clock() -> float:
        calls.append(None)
        return float(len(calls) ** 2)

    return clock


def test_damaged_logits_in_the_cache_are_computed_anew(run, own_folders, tmp_path):
    first = run()
    files = sorted((own_folders / "cache" / "predictions").rglob("*.npz"))
    assert files
    good, draw, path = files[0].read_bytes(), random.Random(0), tmp_path / "flipped.npz"
    assert hr_predictions._read(files[0], 32, torch.device("cpu")) is not None
    for bit in (draw.randrange(8 * len(good)) for _ in range(200)):
        path.write_bytes(good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :])
        read = hr_predictions._read(path, 32, torch.device("cpu"))
        assert read is None
    harms = (lambda scores: scores * np.nan, lambda scores: scores.astype(np.float64))
    for path, harm in zip(files, itertools.cycle(harms), strict=False):
        with np.load(io.BytesIO(unsealed(path.read_bytes()))) as stored:
            arrays = dict(stored)
        harmed = io.BytesIO()
        np.savez(harmed, **(arrays | {"scores": harm(arrays["scores"])}))
        path.write_bytes(harmed.getvalue() + seal_of(harmed.getvalue()))
    files[-1].write_bytes(files[-1].read_bytes()[:-40])
    again = run(force=True)
    assert again.failed == [] and again.counters.hr_classified == {"dummy": N}
    pd.testing.assert_frame_equal(again.samples, first.samples)


def test_force_computes_everything_anew(run):
    first = run()
    forced = run(force=True)
    assert forced.counters.restored == {"bilinear": N, "none": N} and forced.counters.decoded == 0
    pd.testing.assert_frame_equal(forced.samples, first.samples)


def test_changed_inputs_are_noticed(run, tmp_path, card):
    data = make_images(tmp_path / "data", 8, side=SIDE)
    mine = plugin(tmp_path, "mine")

    def call(**options):
        return run("mine", plugins=[mine], **({"data": f"folder:{data}"} | options))

    first = call()
    assert call().counters.restored == {}
    # another version of the method
    plugin(tmp_path, "mine", 'resize(lr, size, "nearest")', version="2")
    assert call().counters.restored == {"mine": 24}
    # other pixels behind the same name
    Image.fromarray(pixels(0, 777, SIDE)).save(data / "bar" / "0000.png")
    os.utime(data / "bar" / "0000.png", (1, 1))
    changed = call()
    assert changed.counters.decoded == 24 and changed.counters.restored == dict.fromkeys(
        ("bilinear", "none", "mine"), 24
    )
    assert changed.counters.hr_classified == {"dummy": 24}
    assert {cell.record.cell.task for cell in changed.cells} == {cell.record.cell.task for cell in first.cells}
    # other weights of the classifier
    other = make_classifier(tmp_path / "other", side=SIDE, seed=5)
    assert call(classifiers=[str(other)]).counters.hr_classified == {"dummy": 24}
    # another precision, which the record says
    half = call(classifiers=[str(other)], precision="bf16")
    assert half.counters.restored["mine"] == 24
    assert {cell.record.numerics for cell in half.cells} == {Numerics("cpu", "bf16")}
    assert {cell.record.numerics for cell in first.cells} == {Numerics("cpu")}


def test_rows_of_pictures_that_were_replaced_are_not_ranked_with_new_ones(run, images, tmp_path):
    data = tmp_path / "photos"
    shutil.copytree(images, data)
    run("bicubic", "nearest", data=f"folder:{data}")
    for file in data.rglob("*.png"):
        ImageOps.invert(Image.open(file)).save(file)
    with pytest.raises(IncomparableError, match=r"'nearest' cannot be ranked .*sample_list_sha256.*again"):
        run("bicubic", data=f"folder:{data}")
    again = run("bicubic", "nearest", data=f"folder:{data}")
    assert record(again, "nearest").dataset.sample_list_sha256 == record(again, "bicubic").dataset.sample_list_sha256


def test_another_protocol_is_another_task(run, tmp_path):
    first = run()
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "half.toml"  # under the same name
    other.write_text(HALF + "kernel = 'nearest'\n")
    second = run(protocol=str(other))
    tasks = [{cell.record.cell.task for cell in each.cells} for each in (first, second)]
    assert tasks[0].isdisjoint(tasks[1]) and set(second.leaderboard["task"]) == tasks[0] | tasks[1]
    assert not np.allclose(first.samples["mse"].dropna(), second.samples["mse"].dropna())


def test_several_scales_are_several_tasks(run, protocol):
    result = run(scales=[0.5, 0.25, 0.5], protocol=protocol("[lr]\nscale = 1\n", "any"))
    names = list(dict.fromkeys(cell.record.cell.task for cell in result.cells))
    assert len(names) == 2 and "-0.5-" in names[0] and "-0.25-" in names[1]
    psnr = [row(result, "bilinear", task=name)["psnr"] for name in names]
    assert psnr[0] > psnr[1]
    assert result.counters.decoded == N and result.counters.hr_classified == {"dummy": N}


def test_limit_is_partial_and_never_ranked(run):
    limited = run("bicubic", limit=10)
    assert {cell.record.dataset.n for cell in limited.cells} == {10}
    assert all(cell.record.partial for cell in limited.cells)
    assert limited.leaderboard["rank"].isna().all()
    whole = run("bicubic")
    assert {cell.record.cell.task for cell in whole.cells}.isdisjoint(cell.record.cell.task for cell in limited.cells)
    assert whole.counters.restored["bicubic"] == N
    assert row(whole, "bicubic", n=N)["rank"] >= 1


# --- failures ------------------------------------------------------------------------------------------------------


BAD = {
    "bad_divides": ("1 / 0", "ZeroDivisionError: division by zero"),
    "bad_small": ("lr", r"expected sr of shape \(\d+, 3, 24, 24\) from 'bad_small', got \(\d+, 3, 12, 12\)"),
    "bad_few": ("resize(lr, size, 'area')[:1]", r"expected sr of shape .* got \(1, 3, 24, 24\)"),
    "bad_nan": (
        "resize(lr, size, 'area') * float('nan')",
        "expected finite values from 'bad_nan', got NaN or infinity",
    ),
    "bad_infinite": ("resize(lr, size, 'area') / 0", "expected finite values from 'bad_infinite'"),
    "bad_integer": ("resize(lr, size, 'area').to(int)", "expected a floating-point sr from .*, got torch.int64"),
    "bad_nothing": ("None", r"expected sr of shape .*, got NoneType"),
    "bad_silent": ("(_ for _ in ()).throw(AssertionError())", "AssertionError: no message"),
    "bad_hungry": (
        "(_ for _ in ()).throw(MemoryError())",
        "the memory does not hold bad_hungry with a single image of",
    ),
    "bad_talkative": ("(_ for _ in ()).throw(RuntimeError('first line\\nsecond'))", "RuntimeError: first line"),
}


def test_methods_that_fail_are_records_and_the_others_go_on(run, tmp_path):
    files = [plugin(tmp_path, name, body) for name, (body, _) in BAD.items()]
    result = run(*BAD, "bicubic", plugins=files)
    assert [each.cell.method for each in result.failed] == sorted(BAD)
    for each in result.failed:
        assert re.search(BAD[each.cell.method][1], each.reason) and "\n" not in each.reason
        assert row(result, each.cell.method)["status"] == "error" and each.metrics == {}
    assert record(result, "bicubic").status == "ok"
    # they are tried again, alone; once they are mended, they are scored
    assert set(run(*BAD, "bicubic", plugins=files).counters.restored) <= set(BAD)
    for name in BAD:
        plugin(tmp_path, name, "resize(lr, size, 'area')")
    mended = run(*BAD, "bicubic", plugins=files)
    assert mended.failed == [] and mended.counters.restored == dict.fromkeys(BAD, N)
    assert leftovers(mended.out) == []


def test_a_failed_cell_keeps_where_it_failed_without_the_folders_of_a_person(run, tmp_path):
    mine = plugin(tmp_path, "mine", "self.helper(lr)")
    mine.write_text(mine.read_text() + "\n    def helper(self, lr):\n        return lr / ('a' + 1)\n")
    shape = plugin(tmp_path, "shape", "lr")
    result = run("mine", "shape", plugins=[mine, shape])
    failed = {each.cell.method: each for each in result.failed}
    assert failed["mine"].reason.startswith("TypeError: ") and "\n" not in failed["mine"].reason
    lines = failed["mine"].traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == failed["mine"].reason
    assert any('/mine.py", line' in line and "in helper" in line for line in lines)
    assert "    return lr / ('a' + 1)" in lines
    assert "expected sr of shape" in failed["shape"].traceback.splitlines()[-1]
    for text in (failed["mine"].traceback, failed["shape"].traceback):
        assert str(tmp_path) not in text and str(Path.home()) not in text.replace('File "', "")
    assert record(result, "bilinear").traceback is None and record(result, "retrained").traceback is None


def test_method_that_fails_late_goes_on_after_what_it_has_done(run, tmp_path, monkeypatch):
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 16)
    fails = plugin(
        tmp_path, "late", "resize(lr, size, 'area') if self.calls.append(1) or len(self.calls) < 3 else 1 / 0"
    )
    fails.write_text(fails.read_text().replace("    info =", "    calls = []\n    info ="))
    result = run("late", plugins=[fails])
    assert [each.cell.method for each in result.failed] == ["late"]
    plugin(tmp_path, "late", "resize(lr, size, 'area')")
    mended = run("late", "area", plugins=[fails])
    assert mended.counters.restored == {"late": N - 32, "area": N}
    left, right = (samples(mended, name).drop(columns="position") for name in ("late", "area"))
    pd.testing.assert_frame_equal(left, right)


def test_method_that_writes_to_its_input_harms_nobody_else(run, tmp_path):
    vandal = plugin(tmp_path, "a_vandal", "resize(lr.zero_(), size, 'area')")
    result = run("a_vandal", "bicubic", plugins=[vandal])
    alone = run("bicubic", out=tmp_path / "alone")
    pd.testing.assert_frame_equal(samples(result, "bicubic"), samples(alone, "bicubic"))


def test_method_that_fails_when_it_is_timed_is_a_record_too(run, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "BUDGET_S", 0.001)
    slow = plugin(tmp_path, "shy", "resize(lr, size, 'area') if lr.shape[0] > 1 else 1 / 0")
    result = run("shy", "bicubic", plugins=[slow], measure=True, limit=32)
    assert [each.cell.method for each in result.failed] == ["shy"]
    assert "fails when it is timed: ZeroDivisionError" in result.failed[0].reason
    timing = record(result, "bicubic").timing
    assert timing.latency_ms.p10 <= timing.latency_ms.median <= timing.latency_ms.p90
    decode_s = record(result, "bicubic").dataset.decode_s
    assert decode_s > 0 and timing.total_time_s == pytest.approx(timing.pass_s + decode_s)
    assert timing.throughput_batch == 32 and timing.end_to_end_ms.median > 0 and timing.dtype == "float32"


def test_classifier_that_fails_is_a_record_for_each_method(run, tmp_path, card):
    import timm
    from dummies import write_card
    from safetensors.torch import save_file

    args = {"num_classes": 3, "img_size": 64, "dynamic_img_size": True}
    save_file(timm.create_model("test_vit", **args).state_dict(), tmp_path / "vit.safetensors")
    fields = {"library": "timm", "name": "test_vit", "args": args, "weights": "vit.safetensors"}
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES))
    fields |= {"mean": [0.5] * 3, "std": [0.5] * 3, "classes": "names.txt"}
    vit = write_card(tmp_path / "vit.toml", fields)
    data = make_images(tmp_path / "odd", 4, side=23)  # no multiple of its patches
    result = run(classifiers=[str(vit), str(card)], data=f"folder:{data}")
    assert {each.cell.classifier for each in result.failed} == {"vit"} and len(result.failed) == 3
    assert all("classifier vit fails on HR: AssertionError" in each.reason for each in result.failed)
    fine = [cell.record for cell in result.cells if cell.record.cell.classifier == "dummy"]
    assert [each.status for each in fine if each.cell.method not in ADAPTED] == ["ok"] * 3


def test_classifier_that_returns_nan_is_a_record(run, tmp_path, card):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "nan"
    shutil.copytree(card.parent, folder)
    state = load_file(folder / "dummy.safetensors")
    save_file(
        {key: value * float("nan") if key == "fc.bias" else value for key, value in state.items()},
        folder / "dummy.safetensors",
    )
    result = run(classifiers=[str(folder / card.name)])
    assert len(result.failed) == 3
    assert {each.reason for each in result.failed} == {
        "classifier dummy returned NaN or infinite logits; check its weights"
    }


@pytest.fixture(scope="module")
def uninterrupted(images, card, tmp_path_factory):
    """The samples of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "half.toml").write_text(HALF)
    result = evaluate(
        ["bicubic"],
        data=f"folder:{images}",
        classifiers=[str(card)],
        protocol=str(folder / "half.toml"),
        out=folder / "out",
        measure=False,
        batch_size=32,
    )
    return result.samples


@pytest.mark.parametrize(
    ("target", "after"),
    [
        ("rows-", 0),
        ("rows-", 5),
        ("samples.parquet", 1),
        ("record.json", 1),
        ("thumbnails.parquet", 1),
        ("leaderboard.json", 0),
        (".npz", 1),
    ],
)
def test_full_disk_ends_in_a_sentence_and_the_same_call_goes_on(
    run, monkeypatch, tmp_path, uninterrupted, target, after
):
    real, seen = os.fsync, []

    def full(descriptor):
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if target in name:
            seen.append(name)
            if len(seen) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    said = r"cannot write .*: No space left on device; free some space, then run the"
    if target == ".npz":
        said = (
            r"the cache in .* cannot be written: No space left on device; free some space there, or point SRBENCH_CACHE"
        )
    with pytest.raises(RecordError, match=said):
        run("bicubic")
    assert len(seen) == after + 1  # it did not go on writing
    monkeypatch.setattr(os, "fsync", real)
    out = tmp_path / "out"
    assert not list(out.rglob("*.tmp"))
    for path in out.rglob("record.json"):
        load_cell(path.parent)
    for path in out.rglob("*.parquet"):
        if path.name == sample_columns.FILE:
            assert len(sample_columns.read_columns(path.parent)) == N
            continue
        read = read_thumbnails if path.name == THUMBNAILS_FILE else read_samples
        assert len(read(path)) > 0
    resumed = run("bicubic")
    pd.testing.assert_frame_equal(resumed.samples, uninterrupted)
    assert leftovers(out) == []
    if target == "rows-":
        assert sum(resumed.counters.restored.values()) == 3 * (N - 32 if after else N)


def test_full_disk_under_the_cache_ends_in_a_sentence(run, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SrbenchError, match=r"the cache in .* cannot be written: No space left on device") as caught:
        run()
    assert caught.value.exit_code == 1


def test_stopped_run_goes_on_also_with_shards_of_another_size(run, monkeypatch, uninterrupted):
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 16)
    real, written = write_shard, []

    def stop(*args, **kwargs):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(args[0])
        return real(*args, **kwargs)

    monkeypatch.setattr(rows, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        run("bicubic")
    monkeypatch.setattr(rows, "write_shard", real)
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 24)
    resumed = run("bicubic")
    # four shards of 16 rows are there: three cells and the oracle; what they hold is not computed again
    assert resumed.counters.restored == {"bilinear": N - 16, "none": N - 16, "bicubic": N - 16}
    pd.testing.assert_frame_equal(resumed.samples, uninterrupted, rtol=1e-5, atol=1e-5)


def test_unreadable_images_are_named_counted_and_left_out_of_every_method(run, tmp_path):
    data = make_images(tmp_path / "data", 67, side=SIDE)
    (data / "dot" / "0003.png").write_text("this is no image")
    result = run("bicubic", data=f"folder:{data}")
    for cell in result.cells:
        part = cell.record.dataset
        assert (part.n, part.n_unreadable, part.unreadable) == (200, 1, ("dot/0003.png",))
    assert "dot/0003.png" not in set(result.samples["sample_id"]) and len(result.samples) == 4 * 200
    torn = (data / "net" / "0001.png").read_bytes()
    for number in range(1, 3):
        (data / "net" / f"000{number}.png").write_bytes(torn[: len(torn) // 2])
    with pytest.raises(TooManyUnreadableError, match=r"3 of 201 images .* dot/0003.png .*net/0001.png") as caught:
        run("bicubic", data=f"folder:{data}")
    assert caught.value.exit_code == 1


# --- data without labels or classifier -----------------------------------------------------------------------------


def test_images_without_a_classifier_have_image_metrics_alone(images, protocol, tmp_path):
    result = evaluate(["bicubic"], data=f"images:{images}", protocol=protocol(), out=tmp_path / "out", measure=False)
    assert [(cell.record.cell.method, cell.record.status) for cell in result.cells] == [
        ("original", "ok"),
        ("bilinear", "ok"),
        ("none", "skipped"),
        ("bicubic", "ok"),
    ] or "retrained" in {cell.record.cell.method for cell in result.cells}
    bicubic = record(result, "bicubic")
    assert bicubic.classifier is None and bicubic.per_class is None
    assert set(bicubic.metrics) == {"psnr", "ssim"} and bicubic.metrics["psnr"].value > 10
    assert row(result, "bicubic")["classifier"] is None and row(result, "bicubic")["accuracy"] is None
    assert samples(result, "bicubic")["pred"].isna().all()


def test_images_with_a_classifier_have_agreement_but_no_accuracy(images, card, protocol, tmp_path):
    result = evaluate(
        ["bicubic"],
        data=f"images:{images}",
        classifiers=[str(card)],
        protocol=protocol(),
        out=tmp_path / "out",
        measure=False,
    )
    metrics = record(result, "bicubic").metrics
    assert metrics["accuracy"].value is None and metrics["accuracy"].reason == "the data has no labels"
    assert 0.1 < metrics["agreement"].value <= 1 and metrics["kl_to_hr"].value > 0
    assert samples(result, "bicubic")["label"].isna().all()


def test_defaults_of_protocol_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = make_images(tmp_path / "photos", 1, side=96)  # larger than the LR of `clean`, which is 81 pixels
    result = evaluate(["area"], data=f"images:{images}", limit=2, measure=False)
    assert result.out == Path("out/photos") and record(result, "area").protocol.name == "clean"
    assert record(result, "area").dataset.split == "all"


def test_the_options_are_declared_once_and_evaluate_shows_them(run):
    signature = inspect.signature(evaluate)
    assert list(signature.parameters) == [each.name for each in dataclasses.fields(EvalOptions)]
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    assert kinds.pop("methods") is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}
    assert all(f"    {name}: " in evaluate.__doc__ for name in signature.parameters)
    with pytest.raises(TypeError, match="classifer"):
        evaluate(["bilinear"], classifer="typo")
    with pytest.raises(dataclasses.FrozenInstanceError):
        EvalOptions().seed = 1


def test_a_name_alone_is_a_list_of_one(images, card, protocol, tmp_path):
    common = {"protocol": protocol(), "out": tmp_path / "out", "limit": 2, "measure": False, "progress": False}
    result = evaluate("area", data=f"folder:{images}", classifiers=str(card), **common)
    assert [cell.record.cell.method for cell in result.cells] == [*ALWAYS, "area"]
    assert {cell.record.cell.classifier for cell in result.cells} == {"dummy"}


# --- wrong calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"methods": []}, UsageError, "no method was named"),
        ({"methods": ["nosuch"]}, UnknownNameError, "no method named 'nosuch'"),
        ({"methods": ["esrgan"]}, UsageError, "method 'esrgan' cannot run: no weights fit this task"),
        ({"data": "folder:nowhere"}, DataError, "there is no folder nowhere"),
        ({"data": "photos"}, UnknownNameError, "no dataset named 'photos'"),
        ({"classifiers": []}, UsageError, "is labelled, so a classifier is needed"),
        ({"classifiers": ["nosuch"]}, UnknownNameError, "no classifier named 'nosuch'"),
        ({"protocol": "nosuch"}, UnknownNameError, "no protocol named 'nosuch'"),
        ({"protocol": "sr-classic", "scales": [0.5]}, ProtocolError, "fixes its own LR size"),
        ({"scales": [2.0]}, ProtocolError, "above 0 and at most 1"),
        ({"split": "tset"}, UsageError, "has no split 'tset'"),
        ({"limit": 0}, UsageError, "--limit takes a whole number of at least 1, got 0"),
        ({"batch_size": 0}, UsageError, "--batch-size takes a whole number of at least 1, got 0"),
        ({"device": "tpu"}, UsageError, "--device takes auto, cpu or cuda, got 'tpu'"),
        ({"precision": "fp16"}, UsageError, "--precision takes auto, fp32, tf32 or bf16, got 'fp16'"),
        ({"seed": -1}, UsageError, "--seed takes a whole number"),
        ({"seed": 2**70}, UsageError, "--seed takes a whole number"),
        ({"weights": {"bilinear": ["x"]}}, UsageError, "method 'bilinear' takes no weights"),
        ({"weights": {"esrgan": ["x"]}}, UsageError, "--weights esrgan=... is given, but 'esrgan' is not run"),
        ({"weights": {"nosuch": ["x"]}}, UnknownNameError, "no method named 'nosuch'"),
        (
            {"methods": ["esrgan"], "weights": {"esrgan": ["gone.pth"]}},
            WeightsError,
            "there is no weights file gone.pth for 'esrgan'",
        ),
        ({"plugins": ["gone.py"]}, UsageError, "--plugin takes a Python file"),
    ],
)
def test_wrong_call_is_refused_before_anything_is_written(run, tmp_path, options, error, sentence):
    methods = options.pop("methods", ["bilinear"])
    with pytest.raises(error, match=sentence) as caught:
        run(*methods, **options) if methods else evaluate([], data="demo")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_out_must_be_able_to_become_a_folder(run, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(UsageError, match="which is not a folder; choose another place with --out DIR"):
            run(out=tmp_path / place)


def test_two_classifiers_of_one_id_are_refused(run, card, tmp_path):
    shutil.copytree(card.parent, tmp_path / "copy")
    with pytest.raises(UsageError, match="two classifiers have the id 'dummy'; rename one of the cards"):
        run(classifiers=[str(card), str(tmp_path / "copy" / card.name)])


def test_classes_that_the_classifier_does_not_know_are_refused(run, tmp_path):
    data = make_images(tmp_path / "data", 2, side=SIDE, classes=("bar", "cow", "dot"))
    with pytest.raises(DataError, match="1 of the data's 3 classes are unknown to classifier dummy, such as 'cow'"):
        run(data=f"folder:{data}")


# --- weights -------------------------------------------------------------------------------------------------------


def test_weights_choose_themselves_by_scale_teacher_and_task(card, images, protocol, tmp_path, own_folders):
    gain = trainable(tmp_path)
    teacher = load_classifier(str(card)).info
    home = own_folders / "weights" / "gain"
    for name, about in {
        "fits": {"scale": 0.5, "teacher": {"id": "dummy", "sha256": teacher.weights_sha256}},
        "any_scale": {"teacher": {"id": "dummy", "sha256": teacher.weights_sha256}},
        "no_teacher": {"scale": 0.5},
        "other_scale": {"scale": 0.25},
        "other_teacher": {"scale": 0.5, "teacher": {"id": "resnet", "sha256": "0" * 64}},
        "demo_only": {"scale": 0.5, "tasks": ("demo",)},
    }.items():
        save_gain(home / f"{name}.safetensors", **about)

    def call(methods="all", **options):
        filled = {"data": f"folder:{images}", "classifiers": [str(card)], "protocol": protocol(), "plugins": [gain]}
        return evaluate(methods, **(filled | {"out": tmp_path / "out", "measure": False} | options))

    result = call()
    chosen = {cell.record.cell.weights: cell.record for cell in result.cells if cell.record.cell.method == "gain"}
    assert set(chosen) == {"any_scale", "fits", "no_teacher"}
    assert {each.status for each in chosen.values()} == {"ok"}
    part = chosen["fits"].method
    assert part.weights.uri == "user:gain/fits" and part.n_parameters == 1 and part.weights.card["scale"] == 0.5
    # by name too; a file that does not fit the task may be asked for by hand
    assert len(call(["gain"]).cells) == len(ALWAYS) + 3
    forced = call(["gain"], weights={"gain": ["other_scale", str(home / "demo_only.safetensors"), "other_scale"]})
    assert [cell.record.cell.weights for cell in forced.cells][-2:] == ["other_scale", "demo_only"]
    # nothing fits: skipped under --all, refused by name
    far = {"protocol": protocol("[lr]\nscale = 0.1\n", "far")}
    for name in ("any_scale", "fits", "no_teacher"):
        (home / f"{name}.safetensors").unlink()
    skipped = record(call(**far), "gain")
    assert skipped.status == "skipped"
    for reason in (
        "other_scale were trained for scale 0.25",
        "other_teacher were trained for scale 0.5",
        "demo_only are for demo",
        "--weights gain=FILE",
        "srbench train gain",
    ):
        assert reason in skipped.reason
    with pytest.raises(UsageError, match="method 'gain' cannot run: no weights fit this task; demo_only are for demo"):
        call(["gain"], **far)


def test_row_without_weights_goes_once_there_are_some(card, images, protocol, tmp_path, own_folders):
    gain = trainable(tmp_path)
    options = {"data": f"folder:{images}", "classifiers": [str(card)], "protocol": protocol(), "plugins": [gain]}
    options |= {"out": tmp_path / "out", "measure": False}
    assert record(evaluate("all", **options), "gain").status == "skipped"
    save_gain(own_folders / "weights" / "gain" / "mine.safetensors")
    result = evaluate("all", **options)
    assert row(result, "gain")["status"] == "ok" and row(result, "gain")["weights"] == "mine"


def test_changed_weights_are_computed_anew(run, tmp_path, own_folders):
    gain = trainable(tmp_path)
    file = tmp_path / "mine.safetensors"
    save_gain(file)
    options = {"plugins": [gain], "weights": {"gain": [str(file)]}}
    first = run("gain", **options)
    assert samples(first, "gain")["pred"].tolist() == samples(first, "bilinear")["pred"].tolist()
    save_gain(file, gain=0.5)
    second = run("gain", **options)
    assert second.counters.restored == {"gain@mine": N}
    assert record(second, "gain").method.weights.sha256 != record(first, "gain").method.weights.sha256
    assert row(second, "gain")["psnr"] < row(second, "bilinear")["psnr"]
    # constructor arguments behind a question mark are another row
    third = run("gain", plugins=[gain], weights={"gain": [str(file), f"{file}?offset=0.25"]})
    assert third.counters.restored == {"gain@mine+offset-0.25": N}
    assert record(third, "gain", "mine+offset-0.25").method.parameters == {"offset": 0.25}


def test_equal_weights_under_two_names_are_timed_once(run, tmp_path, own_folders, monkeypatch):
    monkeypatch.setattr(costs, "BUDGET_S", 0.001)
    gain = trainable(tmp_path)
    files = [tmp_path / f"{name}.safetensors" for name in ("first", "copy", "other")]
    for file, value in zip(files, (1.0, 1.0, 0.5), strict=True):
        save_gain(file, gain=value)
    files[1].write_bytes(files[0].read_bytes())
    given = [*map(str, files), f"{files[0]}?offset=0.25"]
    result = run("gain", plugins=[gain], weights={"gain": given}, measure=True, limit=32)
    labels = ("first", "copy", "other", "first+offset-0.25")
    first, copy, other, offset = (record(result, "gain", label).timing.latency_ms for label in labels)
    assert first == copy and len({first, other, offset}) == 3


def test_two_files_of_one_name_are_refused(run, tmp_path, own_folders):
    gain = trainable(tmp_path)
    for number in range(2):
        save_gain(tmp_path / str(number) / "best.safetensors", gain=number)
    files = [str(tmp_path / str(number) / "best.safetensors") for number in range(2)]
    with pytest.raises(UsageError, match="would both be called 'best' in the table; rename one of the files"):
        run("gain", plugins=[gain], weights={"gain": files})


def test_adapted_track_uses_the_classifier_trained_along(run, tmp_path, card, own_folders):
    gain = trainable(tmp_path)
    other = make_classifier(tmp_path / "other", "other", side=SIDE, seed=3)
    base, trained = load_classifier(str(card)), load_classifier(str(other))
    file = tmp_path / "joint.safetensors"
    weights.save(
        file,
        {"gain": torch.tensor([1.0])},
        Card("gain", "joint", track="adapted", teacher={"id": "dummy", "sha256": base.info.weights_sha256}),
        classifier_state=trained.network.state_dict(),
    )
    result = run("gain", plugins=[gain], weights={"gain": [str(file)]}, classifiers=[str(card), str(other)])
    cells = {cell.record.cell.classifier: cell for cell in result.cells if cell.record.cell.method == "gain"}
    ours = cells["dummy"].record
    assert (ours.status, ours.cell.track, ours.classifier.track) == ("ok", "adapted", "adapted")
    assert cells["other"].record.status == "skipped"
    assert "were adapted together with classifier dummy" in cells["other"].record.reason
    # its scores are the other network's on the same SR; agreement and KL refer to the frozen base on HR
    adapted = cells["dummy"].samples()
    bilinear = {cell.record.cell.classifier: cell for cell in result.cells if cell.record.cell.method == "bilinear"}
    np.testing.assert_allclose(adapted["score_000"], bilinear["other"].samples()["score_000"], atol=2e-5)
    assert adapted["hr_pred"].tolist() == bilinear["dummy"].samples()["hr_pred"].tolist()
    assert row(result, "gain", classifier="dummy")["track"] == "adapted"
    unlabelled = run("gain", plugins=[gain], weights={"gain": [str(file)]}, classifiers=[str(other)])
    assert record(unlabelled, "gain").status == "skipped"


def test_broken_plugin_is_reported_in_the_table(card, images, protocol, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    result = evaluate(
        "all",
        data=f"folder:{images}",
        classifiers=[str(card)],
        protocol=protocol(),
        out=tmp_path / "out",
        plugins=[broken],
        measure=False,
        limit=4,
    )
    assert any("'broken'" in warning and "ZeroDivisionError" in warning for warning in result.board.warnings)
    assert record(result, "area").status == "ok"


def test_methods_of_another_number_of_channels_are_skipped(run, tmp_path):
    grey = plugin(tmp_path, "grey")
    grey.write_text(grey.read_text().replace('version="1"', 'version="1", channels=1'))
    assert record(run("grey", plugins=[grey]), "grey").reason == "it takes 1-channel images, the data has 3"


def test_network_of_a_native_factor_returns_to_hr_size(run, tmp_path, protocol, images):
    x4 = plugin(tmp_path, "x4", 'resize(lr, (lr.shape[-2] * 4, lr.shape[-1] * 4), "nearest")')
    x4.write_text(x4.read_text().replace('version="1"', 'version="1", factor=4'))
    result = run("x4", plugins=[x4])
    hr, _, _ = by_hand(images)
    large = half_lr(hr).repeat_interleave(4, 2).repeat_interleave(4, 3)
    sr = F.interpolate(large, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1).mul(255).round() / 255
    np.testing.assert_allclose(samples(result, "x4")["mse"], (sr - hr).square().mean((1, 2, 3)).numpy(), rtol=1e-4)
    assert record(result, "x4").method.factor == 4


def kept(result) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    return {cell.record.cell.method: cell.thumbnails() for cell in result.cells if cell.record.status == "ok"}


def test_the_same_few_samples_of_every_method_keep_their_pixels(run, images):
    result = run("bilinear", "nearest")
    found = kept(result)
    assert found["none"] == {}  # its pixels are the oracle's "lr"
    positions = sorted(found["original"])
    assert len(positions) == thumbnails.KEPT and positions == sorted(found["bilinear"]) == sorted(found["nearest"])
    hr, _, _ = by_hand(images)
    lr = half_lr(hr)
    sr = F.interpolate(lr, size=(SIDE, SIDE), mode="bilinear")
    for position in positions:
        for image, wanted in (
            (found["original"][position]["hr"], hr),
            (found["original"][position]["lr"], lr),
            (found["bilinear"][position]["sr"], sr),
        ):
            assert image.dtype == np.uint8
            expected = wanted[position].clamp(0, 1).mul(255).permute(1, 2, 0).numpy()
            assert np.abs(image - expected).max() <= 0.5 + 1e-3
    # worst and best under bilinear are among them
    psnr = samples(result, "bilinear")["psnr"]
    assert {*psnr.nsmallest(2).index, *psnr.nlargest(2).index} <= set(positions)


def test_samples_of_the_classes_that_lost_most_are_kept(run, images, card):
    result = run("bilinear")
    original, bilinear = samples(result, "original"), samples(result, "bilinear")
    lost = original[(original["pred"] == original["label"]) & (bilinear["pred"] != bilinear["label"])]
    table = result.per_class.query("method == 'bilinear'")
    falls = table[table["f1_delta_to_original"] < 0]["class_index"]
    first = {int(lost[lost["label"] == label]["position"].min()) for label in falls if (lost["label"] == label).any()}
    assert first and first <= set(kept(result)["original"])


def test_a_further_method_keeps_the_same_samples_and_touches_no_other(run, tmp_path):
    first = kept(run("bilinear"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(THUMBNAILS_FILE)}
    second = kept(run("bilinear", "bicubic"))
    assert sorted(second["bicubic"]) == sorted(first["original"])
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_pixels_that_were_lost_or_damaged_are_kept_again(run, tmp_path):
    before = kept(run("bilinear"))["bilinear"]
    (path,) = (tmp_path / "out").rglob(f"bilinear@none/{THUMBNAILS_FILE}")
    for harm in (path.unlink, partial(path.write_bytes, b"PAR1")):
        harm()
        after = kept(run("bilinear"))["bilinear"]
        assert after.keys() == before.keys()
        assert all((after[position]["sr"] == before[position]["sr"]).all() for position in before)


def test_large_images_keep_no_pixels(run, monkeypatch):
    monkeypatch.setattr(thumbnails, "MAX_SIDE", SIDE - 1)
    assert kept(run("bilinear"))["original"] == {}


def test_temporary_files_of_killed_runs_are_swept(run, tmp_path, own_folders):
    name = ".00000000-00000066.npz.0123456789ab.tmp"
    stale, fresh = (
        own_folders / "cache" / "predictions" / "a" / name,
        own_folders / "cache" / "predictions" / "b" / name,
    )
    ours = tmp_path / "out" / "records" / "task" / name
    for path in (stale, fresh, ours):
        path.parent.mkdir(parents=True)
        path.write_text("half")
    os.utime(stale, (1, 1))
    run()
    assert (stale.exists(), fresh.exists(), ours.exists()) == (False, True, False)  # another run may be writing `fresh`
