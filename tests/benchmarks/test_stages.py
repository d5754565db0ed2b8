"""One benchmark a stage, and the harness as a ratio to a bare loop; `make bench` runs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srbench import metrics, stats
from srbench.degrade import degrade
from srbench.protocol import load_protocol
from srbench.registry import Registry

LR = torch.rand(4, 3, 81, 81, generator=torch.Generator().manual_seed(0))
HR = torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(1))
SIZE = (256, 256)
INTERPOLATIONS = ("nearest", "area", "bilinear", "bicubic", "bicubic_opencv", "bicubic_pillow", "lanczos")


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_baseline(benchmark, name):
    method = Registry().get(name)().eval()
    with torch.inference_mode():
        assert benchmark(method, LR, SIZE).shape == HR.shape


def test_rrdb(benchmark):
    method = Registry().get("darionet")(blocks=1, features=16).eval()
    with torch.inference_mode():
        assert benchmark(method, LR[:1, :, :40, :40], (128, 128)).shape == (1, 3, 160, 160)


def test_learned_resizer(benchmark):
    method = Registry().get("learned_resizer")().eval()
    with torch.inference_mode():
        assert benchmark(method, LR[:1], SIZE).shape == (1, 3, 256, 256)


def test_degrade(benchmark):
    assert benchmark(degrade, HR, load_protocol("clean").lr).shape == LR.shape


def test_psnr(benchmark):
    values = benchmark(lambda: metrics.psnr_from_mse(metrics.mse_per_image(HR, HR.flip(0))))
    assert torch.isfinite(values).all()


def test_ssim(benchmark):
    assert benchmark(metrics.ssim_per_image, HR, HR).tolist() == pytest.approx([1.0] * 4)


def test_bootstrap_of_a_table(benchmark):
    values = np.random.default_rng(0).random((5000, 20))
    draws = benchmark.pedantic(stats.bootstrap_means, args=(values,), kwargs={"draws": 500, "seed": 0}, rounds=3)
    assert draws.shape == (500, 20)
