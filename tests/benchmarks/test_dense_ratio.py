"""One pass over masks and boxes as a ratio to a bare loop of the same networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_ratios import Work, harness, no_statistics, ratio  # noqa: F401 the fixture

from srbench import metrics
from srbench.compute.numerics import Numerics
from srbench.data.catalogue import open_source
from srbench.data.hr_cache import build_hr_store
from srbench.evaluation.options import PassSettings
from srbench.imaging.degrade import degrade, round_8bit
from srbench.networks.loading import load_classifier
from srbench.protocol import load_protocol
from srbench.registry import Registry
from srbench.task_types import task_type

SIX = ("nearest", "bilinear", "bicubic", "bicubic_pillow", "lanczos", "area")


def bare(data: str, limit: int) -> Callable[[], None]:
    """Return a loop over tensors in memory: restoring, networks, PSNR, SSIM, and what is counted of each image."""
    source, protocol, network = open_source(data), load_protocol("dense-x4"), load_classifier(data)
    store = build_hr_store(source, protocol.hr, limit=limit)
    kind = task_type(source.task_type)
    answers = kind.map_outputs(network.info, source)
    methods = [Registry().get(name)() for name in SIX]
    batches = []
    with torch.inference_mode():
        settings = PassSettings(torch.device("cpu"), Numerics("cpu"), None, seed=0, answers=kind.answers)
        for positions in store.groups(range(len(store)), settings.images_a_batch):
            hr = store.batch(positions).float() / 255
            truth = kind.targets(store.samples.take(positions), answers, store.targets(positions))
            target = (
                [{name: torch.from_numpy(value) for name, value in each.items()} for each in truth]
                if isinstance(truth, list)
                else torch.from_numpy(truth)
            )
            batches.append((hr, degrade(hr, protocol.lr), target))

    @torch.inference_mode()
    def run() -> None:
        for hr, lr, target in batches:
            size = (hr.shape[-2], hr.shape[-1])
            on_hr = kind.prediction(network(hr), seen=size, size=size)
            kind.columns(on_hr, on_hr, target, answers)
            for method in methods:
                sr = round_8bit(method(lr, size))
                reference = metrics.HrStatistics(hr)
                metrics.psnr_from_mse(reference.mse(sr))
                reference.ssim(sr)
                kind.columns(kind.prediction(network(sr), seen=size, size=size), on_hr, target, answers)

    return run


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("data", ["demo-seg", "demo-det"])
def test_one_pass_over_six_methods_over_bare_loops(benchmark, data, tmp_path, no_statistics):  # noqa: F811
    work = Work(data, data, SIX, {}, 200)
    ratio(benchmark, harness(work, tmp_path), bare(data, 200), of="srbench.evaluate / bare loop", rounds=3)
    assert benchmark.extra_info["cpu_ratio"] <= 1.15
