"""Timing with a clock of our own, counts against hand-made values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srbench.compute import timing
from srbench.errors import UsageError


class Clock:
    """Seconds that pass only while a call runs, each call as long as the next length (the last repeats)."""

    def __init__(self, *lengths: float) -> None:
        self.lengths = list(lengths)
        self.now = 0.0
        self.calls = 0

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.lengths[min(self.calls, len(self.lengths) - 1)]
        self.calls += 1


def measured(clock: Clock, **options: float) -> timing.Timing:
    return timing.measure(clock.work, device="cpu", batch_size=4, clock=clock, **options)  # type: ignore[arg-type]


class TestMeasure:
    def test_percentiles_and_derived_figures(self):
        clock = Clock(0.5, *[0.01 * i for i in range(1, 12)])
        result = measured(clock, warmup=1, budget_s=1.155)
        assert result.repeats == 11 and result.batch_size == 4
        assert (result.p10_s, result.median_s, result.p90_s) == pytest.approx((0.02, 0.06, 0.10))
        assert result.images_per_s == pytest.approx(4 / 0.06)

    def test_leaves_the_warm_up_out(self):
        result = measured(Clock(0.3, 0.1, 0.01), warmup=2)
        assert result.median_s == result.p90_s == pytest.approx(0.01)

    def test_stops_at_the_budget(self):
        clock = Clock(0.125)
        assert measured(clock).repeats == 6
        assert clock.now == 1.0

    def test_a_call_slower_than_the_budget_runs_once_after_one_warm_up(self):
        clock = Clock(60.0)
        result = measured(clock)
        assert (result.repeats, clock.calls, result.median_s) == (1, 2, 60.0)

    def test_a_call_near_the_budget_gets_its_repeats_within_twice_of_it(self):
        clock = Clock(0.5)
        assert measured(clock).repeats == 3
        assert clock.now == 2.0

    def test_without_warm_up(self):
        clock = Clock(5.0)
        assert measured(clock, warmup=0).repeats == clock.calls == 1

    def test_really_measures(self):
        calls = []
        result = timing.measure(lambda: calls.append(1), device="cpu", batch_size=1, budget_s=0.005)
        assert result.repeats + 2 == len(calls)
        assert 0 < result.p10_s <= result.median_s <= result.p90_s

    @pytest.mark.parametrize("options", [{"budget_s": 0}, {"min_repeats": 0}, {"warmup": -1}])
    def test_numbers_out_of_range(self, options):
        with pytest.raises(UsageError, match="a measurement needs"):
            measured(Clock(1.0), **options)

    @pytest.mark.gpu
    def test_waits_for_the_gpu(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        x = torch.randn(8192, 8192, device="cuda")
        result = timing.measure(lambda: x @ x @ x @ x, device="cuda", batch_size=1, budget_s=0.5)
        # 3.3 TFLOP: queueing them takes microseconds, no device computes them in a millisecond.
        assert result.p10_s > 1e-3


class TestMacs:
    def test_of_a_convolution_and_a_linear_layer(self):
        network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 5, 7))
        assert timing.count_macs(network, torch.zeros(2, 3, 6, 5)) == 2 * (8 * 3 * 9 * 30 + 240 * 7)

    def test_counts_attention(self):
        """Torch's counter sees none of it where the operation runs on a CPU."""
        attention = nn.MultiheadAttention(32, 4, batch_first=True)
        x = torch.zeros(2, 7, 32)
        projections, products = 2 * 7 * (32 * 96 + 32 * 32), 2 * (2 * 4 * 7 * 7 * 8)
        assert timing.count_macs(attention, x, x, x) == projections + products

    def test_counts_fused_attention(self):
        class Fused(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return nn.functional.scaled_dot_product_attention(x, x, x)

        assert timing.count_macs(Fused(), torch.zeros(2, 4, 7, 8)) == 2 * (2 * 4 * 7 * 7 * 8)

    def test_is_the_same_inside_inference_mode(self):
        network = nn.Linear(10, 20)
        with torch.inference_mode():
            assert timing.count_macs(network, torch.zeros(3, 10)) == 600

    def test_interpolation_has_none(self):
        class Bilinear(nn.Module):
            def forward(self, lr: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
                return nn.functional.interpolate(lr, size=size, mode="bilinear", antialias=True)

        assert timing.count_macs(Bilinear(), torch.zeros(1, 3, 8, 8), (20, 20)) == 0

    def test_is_none_where_numbers_are_needed(self):
        class NeedsNumbers(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * float(x.mean())

        assert timing.count_macs(NeedsNumbers(), torch.ones(2)) is None

    def test_leaves_the_module_alone(self):
        network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert timing.count_macs(network, torch.zeros(2, 4)) == 32
        assert network.training and network[1].training
        assert all(parameter.requires_grad for parameter in network.parameters())
        for name, value in network.state_dict().items():
            assert value.device.type == "cpu" and torch.equal(value, before[name])

    def test_of_resnet50(self):
        import torchvision

        network = torchvision.models.resnet50(weights=None)
        # torchvision's card: 25,557,032 parameters, 4.09 "GFLOPS", by which it means multiply-accumulates.
        assert timing.count_macs(network, torch.zeros(1, 3, 224, 224)) == pytest.approx(4.09e9, rel=1e-3)
        assert timing.count_parameters(network) == 25_557_032


def test_parameters_are_counted_once_and_buffers_are_none():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    assert timing.count_parameters(network) == 9 + 3 + 6 + 3


class TestPeakMemory:
    def test_is_unknown_on_a_cpu(self):
        with timing.peak_memory("cpu") as peak:
            torch.zeros(1000)
        assert peak.mb is None

    def test_counts_what_the_block_works_on_and_not_its_neighbours(self, monkeypatch):
        calls = []
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5_000_000_000)  # networks of other rows
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5_030_000_000)
        network = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 1000, bias=False))
        network[1].weight = network[0].weight  # shared: 4 MB once
        network.register_buffer("window", torch.zeros(250_000))  # 1 MB
        with timing.peak_memory("cuda", network, torch.zeros(500_000)) as peak:  # 2 MB
            calls.append("block")
        assert calls == ["synchronize", "reset", "block", "synchronize"]
        assert peak.mb == pytest.approx(30 + 4 + 1 + 2)

    @pytest.mark.gpu
    def test_sees_what_was_freed_again(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        with timing.peak_memory("cuda") as before:
            pass
        with timing.peak_memory("cuda") as peak:
            x = torch.zeros(25_000_000, device="cuda")
            del x
        assert before.mb is not None and peak.mb is not None
        assert peak.mb - before.mb == pytest.approx(100.0, abs=3.0)
