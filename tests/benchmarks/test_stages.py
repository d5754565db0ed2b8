"""One benchmark a stage; `make bench` runs them, the timing gate of CI those marked `gate`.

The work of a benchmark is part of its name: who changes the one changes the other, so that the gate does not compare
different things.
"""

from __future__ import annotations

import io
import pkgutil

import numpy as np
import pytest
import record_factory
import torch
from dummies import pixels
from PIL import Image

from srbench import baselines, leaderboard, metrics
from srbench.data.geometry import crop_hr
from srbench.imaging.decode import decode_bytes
from srbench.imaging.degrade import degrade
from srbench.metrics import stats
from srbench.protocol import load_protocol
from srbench.records.cells import find_records
from srbench.registry import Registry

LR = torch.rand(4, 3, 81, 81, generator=torch.Generator().manual_seed(0))
HR = torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(1))
SIZE = (256, 256)
BASELINES = sorted(found.name for found in pkgutil.iter_modules(baselines.__path__))


@pytest.fixture(scope="module")
def jpeg():
    """A JPEG of 500 x 375 pixels, as many photographs of ImageNet are."""
    with io.BytesIO() as stream:
        Image.fromarray(pixels(1, 0, 500)[:375]).save(stream, "JPEG", quality=90)
        return stream.getvalue()


@pytest.mark.gate
def test_decode_jpeg_500x375(benchmark, jpeg):
    assert benchmark(decode_bytes, jpeg, "photo").shape == (3, 375, 500)


@pytest.mark.gate
def test_crop_hr_256(benchmark, jpeg):
    image = decode_bytes(jpeg, "photo")
    assert benchmark(crop_hr, image, load_protocol("clean").hr).shape == (3, 256, 256)


@pytest.mark.gate
def test_degrade_4x256(benchmark):
    assert benchmark(degrade, HR, load_protocol("clean").lr).shape == LR.shape


@pytest.mark.gate
@pytest.mark.parametrize("name", BASELINES)
def test_baseline_4x81_to_256(benchmark, name):
    method = Registry().get(name)().eval()
    with torch.inference_mode():
        sr = benchmark(method, LR, SIZE)
    assert sr.shape == (LR.shape if method.info.output == "lr" else HR.shape)


@pytest.mark.gate
def test_rrdb_1_block_16_features_40(benchmark):
    method = Registry().get("darionet")(blocks=1, features=16).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert benchmark(method, LR[:1, :, :40, :40], (128, 128)).shape == (1, 3, 160, 160)


@pytest.mark.gate
def test_learned_resizer_81_to_256(benchmark):
    method = Registry().get("learned_resizer")().eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert benchmark(method, LR[:1], SIZE).shape == (1, 3, 256, 256)


@pytest.mark.gate
def test_psnr_4x256(benchmark):
    values = benchmark(lambda: metrics.psnr_from_mse(metrics.mse_per_image(HR, HR.flip(0))))
    assert torch.isfinite(values).all()


@pytest.mark.gate
def test_ssim_4x256(benchmark):
    assert benchmark(metrics.ssim_per_image, HR, HR).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.gate
def test_scores_of_256_x_1000_classes(benchmark):
    draws = torch.Generator().manual_seed(2)
    logits, of_hr = (torch.randn(256, 1000, generator=draws) for _ in range(2))
    target = torch.arange(256)

    def scores():
        return [
            metrics.confidence(logits),
            metrics.cross_entropy(logits, target),
            metrics.topk_hit(logits, target),
            metrics.logit_mse(logits, of_hr),
            metrics.kl_to_hr(logits, of_hr),
        ]

    assert all(len(values) == 256 for values in benchmark(scores))


@pytest.mark.gate
def test_record_writing_2000_samples(benchmark, tmp_path):
    labels = np.arange(2000) % 4
    samples = record_factory.make_samples(labels, labels, mse=np.full(2000, 0.01))
    record = record_factory.make_record("bilinear", n=2000)
    cell = benchmark(record_factory.commit, tmp_path, record, samples)
    assert len(cell.samples()) == 2000


@pytest.mark.gate
def test_bootstrap_100_draws_2000_x_20(benchmark):
    values = np.random.default_rng(0).random((2000, 20))
    assert benchmark(stats.bootstrap_means, values, draws=100, seed=0).shape == (100, 20)


def board(folder, *, methods, samples, classes):
    """Store cells of so many methods."""
    names = [f"class{number}" for number in range(classes)]
    labels = np.arange(samples) % classes
    for number in range(methods):
        method = {0: "original", 1: "bilinear"}.get(number, f"method{number}")
        errors = np.random.default_rng(number).uniform(0.5, 1.5, samples) * (0.003 if number else 0.0)
        preds = record_factory.predictions(labels, 0.9 - 0.5 * number / methods, seed=number, classes=classes)
        record = record_factory.make_record(method, n=samples, names=names)
        record_factory.commit(folder, record, record_factory.make_samples(labels, preds, mse=errors, seed=number))
    return folder


def rows_of(folder):
    return leaderboard.build(find_records([folder])[0]).rows


@pytest.mark.gate
def test_leaderboard_4_methods_x_1000_samples(benchmark, tmp_path):
    folder = board(tmp_path, methods=4, samples=1000, classes=10)
    assert len(benchmark.pedantic(rows_of, args=(folder,), rounds=3, warmup_rounds=1)) == 4


@pytest.mark.timeout(1200)
def test_leaderboard_20_methods_x_50000_samples(benchmark, tmp_path):
    """The million samples of an ImageNet table."""
    folder = board(tmp_path, methods=20, samples=50_000, classes=1000)
    assert len(benchmark.pedantic(rows_of, args=(folder,), rounds=1)) == 20
