"""The one place where a method is called: channels, precision, contract, and the way back to size."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import srbench
from srbench.compute.numerics import Numerics
from srbench.errors import ContractError
from srbench.imaging.colour import to_channels
from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo
from srbench.protocol import Restoration
from srbench.restore import check_finite, is_finite, restore

CLEAN, FP32, SIZE = Restoration(), Numerics("cpu"), (15, 21)


def info(**fields):
    return MethodInfo(role="network", family="test", version="1", **fields)


class Doubler(Method):
    info = info(factor=2)

    def __init__(self):
        super().__init__()
        self.tail = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lr, size):
        self.seen = lr
        return self.tail(lr.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class OneChannel(Method):
    info = info(channels=1)

    def forward(self, lr, size):
        assert lr.shape[1] == 1
        return resize(lr, size, "bilinear")


class Tinted(Method):
    info = info()

    def forward(self, lr, size):
        return resize(lr, size, "bilinear") + torch.tensor([0.3, -0.1, 0.1]).view(1, 3, 1, 1)


class Keeps(Method):
    info = info(output="lr")

    def forward(self, lr, size):
        return lr


class Returns(Method):
    info = info()

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, lr, size):
        return self.value


def run(method, lr=None, size=SIZE, *, restoration=CLEAN, numerics=FP32, **options):
    lr = torch.rand(2, 3, 6, 9) if lr is None else lr
    return restore(method.eval(), lr, size, restoration=restoration, numerics=numerics, **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos", "area", "nearest"])
def test_a_fixed_factor_comes_back_to_size_in_float32_whatever_the_precision(precision, kernel):
    method, lr = Doubler(), torch.rand(2, 3, 6, 9)
    numerics = Numerics("cpu", precision)
    sr = run(method, lr, restoration=Restoration(kernel=kernel, antialias=False), numerics=numerics)
    with numerics.active():
        native = method(lr, SIZE)
    assert native.dtype == numerics.dtype
    assert sr.dtype == torch.float32
    assert torch.equal(sr, resize(native.float(), SIZE, kernel, antialias=False))


def test_bf16_moves_a_network_and_fp32_is_not_moved_by_an_outer_autocast():
    method, lr = Doubler(), torch.rand(2, 3, 6, 9)
    plain = run(method, lr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(run(method, lr), plain)
        assert not torch.equal(run(method, lr, numerics=None), plain)
    half = run(method, lr, numerics=Numerics("cpu", "bf16"))
    assert 0 < (half - plain).abs().max() < 0.05


@pytest.mark.parametrize("numerics", [None, Numerics("cpu"), Numerics("cpu", "bf16")])
def test_gradients_flow(numerics):
    method = Doubler()
    run(method, numerics=numerics).square().mean().backward()
    assert method.tail.weight.grad.abs().sum() > 0


def test_output_that_stays_at_lr_is_left_there():
    lr = torch.rand(2, 3, 6, 9)
    assert torch.equal(run(Keeps(), lr), lr)


class TestChannels:
    def test_a_method_of_one_channel_sees_grey_and_sr_has_the_channels_of_lr(self):
        grey = torch.rand(2, 1, 6, 9)
        one, three = run(OneChannel(), grey, channels=1), run(OneChannel(), to_channels(grey, 3), channels=1)
        assert one.shape == (2, 1, *SIZE) and torch.equal(three, one.repeat(1, 3, 1, 1))

    def test_a_method_of_three_sees_grey_repeated_and_is_averaged_the_same_way_from_one_channel_and_from_three(self):
        grey = torch.rand(2, 1, 6, 9)
        one, three = run(Tinted(), grey), run(Tinted(), to_channels(grey, 3), channels=1)
        assert one.shape == (2, 1, *SIZE)
        assert torch.allclose(three, one.expand(-1, 3, -1, -1), atol=1e-6)
        assert torch.allclose(one, resize(grey, SIZE, "bilinear") + 0.1, atol=1e-6)

    def test_colours_of_colour_data_stay(self):
        lr = torch.rand(2, 3, 6, 9)
        assert torch.equal(run(Tinted(), lr, channels=3), Tinted()(lr, SIZE))


class TestContract:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (torch.zeros(2, 3, 15, 20), r"expected sr of shape \(2, 3, 15, 21\) from 'mine', got \(2, 3, 15, 20\)"),
            (None, r"got NoneType"),
            (torch.zeros(2, 3, *SIZE, dtype=torch.uint8), r"expected a floating-point sr from 'mine', got torch.uint8"),
        ],
    )
    def test_wrong_output_is_named(self, value, message):
        with pytest.raises(ContractError, match=message):
            run(Returns(value), name="mine")

    def test_without_a_name_the_class_is_named(self):
        with pytest.raises(ContractError, match="'Returns'"):
            run(Returns(None))

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_values_that_are_not_finite(self, bad):
        values = torch.rand(2, 3, 4, 4)
        assert is_finite(values) and is_finite(values[:0])
        values[1, 2, 3, 3] = bad
        assert not is_finite(values)
        with pytest.raises(ContractError, match="finite values from 'mine'"):
            check_finite("mine", values)


def test_the_watch_surrounds_the_call_and_the_way_back():
    events = []

    class Noting(Doubler):
        def forward(self, lr, size):
            events.append("call")
            return super().forward(lr, size)

    @contextlib.contextmanager
    def watch():
        events.append("in")
        yield
        events.append("out")

    run(Noting(), watch=watch())
    assert events == ["in", "call", "out"]


def test_a_method_is_called_nowhere_else():
    called = re.compile(r"(?<![\w])_?method\(")
    folder = Path(srbench.__file__).parent
    places = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if called.search(line) and not line.lstrip().startswith("def ")
    }
    assert places == {"restore.py"}
