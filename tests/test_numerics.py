"""Arithmetic of a run: what an option asks for, what is in force inside, and what differs between two runs."""

from __future__ import annotations

import pytest
import torch

from srbench.compute.numerics import Numerics, full_precision, tf32_allowed
from srbench.compute.timing import count_macs
from srbench.errors import UsageError
from srbench.imaging.resample import gaussian_blur, resize
from srbench.registry import Registry


def flags():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def torch_default():
    """TF32 in convolutions, as PyTorch starts."""
    before = flags()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class TestOption:
    @pytest.mark.parametrize(
        ("device", "option", "expected"),
        [
            ("cpu", "auto", Numerics("cpu")),
            ("cuda", "fp32", Numerics("cuda", "fp32", tf32=False)),
            ("cuda", "tf32", Numerics("cuda", "fp32", tf32=True)),
            (torch.device("cuda", 3), "bf16", Numerics("cuda", "bf16")),
        ],
    )
    def test_what_an_option_asks_for(self, device, option, expected):
        assert Numerics.of(device, option) == expected

    def test_auto_is_what_the_caller_says(self):
        assert Numerics.of("cuda", "auto", auto="bf16").precision == "bf16"
        assert Numerics.of("cuda", "fp32", auto="bf16").precision == "fp32"

    @pytest.mark.parametrize(("device", "option"), [("cpu", "tf32"), ("cpu", "fp16"), ("mps", "fp32")])
    def test_what_there_is_not_is_refused(self, device, option):
        with pytest.raises(UsageError, match=r"takes|computes on"):
            Numerics.of(device, option)


class TestInForce:
    @pytest.mark.parametrize("tf32", [True, False])
    def test_tf32_is_as_stated_inside_and_as_before_behind(self, torch_default, tf32):
        with Numerics("cuda", tf32=tf32).active():
            assert flags() == (tf32, tf32)
        assert flags() == (True, False)

    def test_an_error_inside_restores_it_too(self, torch_default):
        with pytest.raises(ZeroDivisionError), tf32_allowed(False):
            raise ZeroDivisionError
        assert flags() == (True, False)

    def test_bf16_multiplies_in_bf16_and_fp32_switches_an_outer_autocast_off(self):
        a = torch.rand(4, 4)
        with Numerics("cpu", "bf16").active():
            assert (a @ a).dtype == torch.bfloat16
            with Numerics("cpu").active():
                assert (a @ a).dtype == torch.float32
            with full_precision(torch.device("cpu")):
                assert (a @ a).dtype == torch.float32


class TestDifference:
    def test_it_names_the_fields(self):
        a, b = Numerics("cpu"), Numerics("cuda", "bf16", tf32=True)
        assert a.difference(a) is None
        said = a.difference(b)
        assert said == "device (cpu and cuda), precision (fp32 and bf16), tf32 (not allowed and allowed)"


class TestKernelsIgnoreThePrecisionOfTheRun:
    """Their own arithmetic is float32: weights of 8 bits would not sum to one."""

    @pytest.mark.parametrize("kernel", ["nearest", "area", "bilinear", "bicubic", "lanczos"])
    @pytest.mark.parametrize("border", ["clamp", "symmetric"])
    def test_resizing_under_autocast(self, kernel, border):
        image = torch.rand(2, 3, 12, 20)
        for size in ((30, 41), (7, 5)):
            plain = resize(image, size, kernel, border=border)
            with Numerics("cpu", "bf16").active():
                assert torch.equal(resize(image, size, kernel, border=border), plain)

    @pytest.mark.parametrize("kernel", ["nearest", "area", "bilinear", "bicubic", "lanczos"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_half_image_is_resized_in_float32_and_stays_half(self, kernel, dtype):
        image = torch.rand(2, 3, 12, 20).to(dtype)
        for size in ((30, 41), (7, 5)):
            out = resize(image, size, kernel)
            assert out.dtype == dtype
            assert torch.equal(out, resize(image.float(), size, kernel).to(dtype))

    def test_blurring(self):
        image = torch.rand(2, 3, 12, 20)
        plain = gaussian_blur(image, 1.5)
        with Numerics("cpu", "bf16").active():
            assert torch.equal(gaussian_blur(image, 1.5), plain)
        half = gaussian_blur(image.bfloat16(), 1.5)
        assert half.dtype == torch.bfloat16
        assert torch.equal(half, gaussian_blur(image.bfloat16().float(), 1.5).bfloat16())

    @pytest.mark.parametrize("name", ["muller", "lanczos", "bilinear", "bicubic", "area", "nearest", "bicubic_opencv"])
    def test_methods_without_learned_convolutions(self, name):
        method = Registry().get(name)().eval()
        lr = torch.rand(2, 3, 12, 20)
        with torch.inference_mode():
            plain = method(lr, (30, 41))
            with Numerics("cpu", "bf16").active():
                assert torch.equal(method(lr, (30, 41)), plain)


@pytest.mark.parametrize("name", ["lanczos", "muller"])
def test_macs_of_kernels_in_float32_are_counted(name):
    method, size = Registry().get(name)().eval(), (30, 41)
    expected = {"lanczos": 30 * 12 * 20 * 3 + 30 * 20 * 41 * 3, "muller": 2 * 2 * 5 * 12 * 20 * 3}[name]
    assert count_macs(method, torch.rand(1, 3, 12, 20), size) == expected
