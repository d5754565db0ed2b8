"""Every kernel against an implementation of somebody else, or a second one of ours that shares no code with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from srbench.imaging.resample import gaussian_blur, pillow_bicubic, resize, to_uint8

SIZES = [
    ((48, 64), (12, 16)),
    ((12, 16), (48, 64)),
    ((37, 23), (11, 29)),
    ((81, 81), (256, 256)),
    ((256, 200), (81, 64)),
    ((5, 7), (5, 7)),
    ((1, 1), (6, 4)),
    ((9, 9), (1, 1)),
]


def image(height: int, width: int, *, channels: int = 3, n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_pillow(batch: torch.Tensor, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Resample every plane in Pillow's mode F, 32-bit floats."""
    planes = batch.numpy().astype(np.float32)
    return np.array(
        [
            [np.array(Image.fromarray(plane, mode="F").resize((size[1], size[0]), resample)) for plane in planes_of_one]
            for planes_of_one in planes
        ]
    )


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize(
    ("kernel", "resample"),
    [
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
        ("lanczos", Image.Resampling.LANCZOS),
        ("nearest", Image.Resampling.NEAREST),
    ],
)
def test_kernel_is_pillows_in_floating_point(kernel, resample, source, target):
    batch = image(*source)
    expected = by_pillow(batch, target, resample)
    np.testing.assert_allclose(resize(batch, target, kernel).numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(resize(batch.float(), target, kernel).numpy(), expected, atol=4e-6)


@pytest.mark.parametrize("target", range(1, 70))
def test_nearest_is_pillows_at_every_size(target):
    batch = image(23, 23, n=1, channels=1)
    expected = by_pillow(batch, (target, target), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize(batch, (target, target), "nearest").numpy().astype(np.float32), expected)


def matlab_imresize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample one plane as MATLAB's imresize(A, size, 'bicubic') does, in float64.

    Written from MATLAB's documented contributions(): a widened cubic with a = -0.5, indices mirrored at the border.
    """

    def cubic(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return near * (x <= 1) + far * ((x > 1) & (x <= 2))

    def along_first(values: np.ndarray, length: int) -> np.ndarray:
        scale = length / len(values)
        shrink = min(scale, 1.0)
        width = 4 / shrink
        out = np.zeros((length, *values.shape[1:]))
        for position in range(1, length + 1):
            centre = position / scale + 0.5 * (1 - 1 / scale)
            first = math.floor(centre - width / 2)
            indices = first + np.arange(math.ceil(width) + 2)
            taps = shrink * cubic(shrink * (centre - indices))
            taps /= taps.sum()
            mirrored = np.concatenate([np.arange(len(values)), np.arange(len(values))[::-1]])
            out[position - 1] = np.tensordot(taps, values[mirrored[(indices - 1) % (2 * len(values))]], axes=1)
        return out

    return along_first(along_first(plane, size[0]).T, size[1]).T


@pytest.mark.parametrize(
    ("source", "target"), [((48, 64), (12, 16)), ((12, 16), (48, 64)), ((30, 21), (10, 7)), ((25, 10), (10, 25))]
)
def test_bicubic_with_symmetric_border_is_matlabs(source, target):
    batch = image(*source)
    expected = np.array([[matlab_imresize(plane.numpy(), target) for plane in one] for one in batch])
    np.testing.assert_allclose(resize(batch, target, "bicubic", border="symmetric").numpy(), expected, atol=1e-12)
    single = resize(batch.float(), target, "bicubic", border="symmetric")
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-6)


def test_only_the_border_tells_matlab_from_torch():
    batch = image(48, 48)
    ours, theirs = resize(batch, (12, 12), "bicubic"), resize(batch, (12, 12), "bicubic", border="symmetric")
    difference = (ours - theirs).abs()
    assert difference[..., 2:-2, 2:-2].max() < 1e-12 < 1e-4 < difference.max()


def test_symmetric_border_of_an_image_smaller_than_the_kernel():
    batch = image(2, 3)
    expected = np.array([[matlab_imresize(plane.numpy(), (8, 12)) for plane in one] for one in batch])
    np.testing.assert_allclose(resize(batch, (8, 12), "bicubic", border="symmetric").numpy(), expected, atol=1e-12)


def opencv_cubic(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample one plane by Keys' cubic with a = -0.75, four taps whatever the size, border pixels repeated."""
    a = -0.75

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    def matrix(source: int, target: int) -> np.ndarray:
        rows = np.zeros((target, source))
        for out in range(target):
            centre = (out + 0.5) * source / target - 0.5
            for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
                rows[out, min(max(tap, 0), source - 1)] += weight(centre - tap)
        return rows

    return matrix(plane.shape[0], size[0]) @ plane @ matrix(plane.shape[1], size[1]).T


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bicubic_without_antialias_is_opencvs(source, target):
    batch = image(*source)
    expected = np.array([[opencv_cubic(plane.numpy(), target) for plane in one] for one in batch])
    np.testing.assert_allclose(resize(batch, target, "bicubic", antialias=False).numpy(), expected, atol=1e-12)


def test_the_two_cubics_differ_also_when_enlarging():
    batch = image(16, 16)
    keys, opencv = (resize(batch, (64, 64), "bicubic", antialias=each) for each in (True, False))
    assert (keys - opencv).abs().max() > 0.01


def test_bilinear_without_antialias_takes_two_neighbours():
    batch = torch.tensor([[[[0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]]]])
    assert resize(batch, (1, 2), "bilinear", antialias=False).flatten().tolist() == [0.5, 0.5]
    assert resize(batch, (1, 2), "bilinear", antialias=True).flatten().tolist() != [0.5, 0.5]


def test_area_is_the_mean_of_what_a_pixel_covers():
    batch = image(12, 8)
    blocks = batch.reshape(2, 3, 4, 3, 2, 4).mean(dim=(3, 5))
    torch.testing.assert_close(resize(batch, (4, 2), "area"), blocks)
    doubled = batch.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(resize(batch, (24, 16), "area"), doubled)


@pytest.mark.parametrize("kernel", ["nearest", "area", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("border", ["clamp", "symmetric"])
def test_constant_stays_constant_and_same_size_changes_nothing(kernel, border):
    flat = torch.full((1, 3, 9, 14), 0.7, dtype=torch.float64)
    for size in ((4, 5), (31, 17)):
        torch.testing.assert_close(
            resize(flat, size, kernel, border=border), torch.full((1, 3, *size), 0.7, dtype=torch.float64)
        )
    batch = image(9, 14)
    torch.testing.assert_close(resize(batch, (9, 14), kernel, border=border), batch)


def test_unknown_kernel_or_border_is_refused():
    with pytest.raises(ValueError, match="kernel must be nearest"):
        resize(image(4, 4), (2, 2), "cubic")
    with pytest.raises(ValueError, match="border must be"):
        resize(image(4, 4), (2, 2), "bicubic", border="wrap")


def test_pillow_bicubic_is_pillow_on_eight_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 13, 9, 3), dtype=np.uint8)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    out = pillow_bicubic(batch, (40, 31))
    expected = np.array([np.array(Image.fromarray(each).resize((31, 40), Image.Resampling.BICUBIC)) for each in pixels])
    assert out.dtype == torch.float32 and out.shape == (2, 3, 40, 31)
    np.testing.assert_array_equal(out.mul(255).round().permute(0, 2, 3, 1).numpy().astype(np.uint8), expected)
    # it clamps between its passes, so no rounding of the floating-point result gives it
    rounded = resize(batch, (40, 31), "bicubic").clamp(0, 1).mul(255).round()
    assert (out * 255 - rounded).abs().max() > 1.5


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5, 2.0])
def test_blur_is_scipys(sigma):
    batch = image(21, 34)
    expected = ndimage.gaussian_filter(batch.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(batch, sigma).numpy(), expected, atol=1e-12)


def test_blur_of_nothing_or_of_a_tiny_image():
    batch = image(5, 5)
    assert gaussian_blur(batch, 0) is batch
    assert torch.equal(gaussian_blur(batch[..., :1, :1], 2.0), batch[..., :1, :1])
    flat = torch.full((1, 3, 3, 4), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 5.0), flat)


def test_eight_bits_are_clamped_and_rounded():
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels.float() / 255), levels.to(torch.uint8))
    assert to_uint8(torch.tensor([-0.2, 1.3, 0.4999 / 255, 0.5001 / 255])).tolist() == [0, 255, 0, 1]
    assert to_uint8(torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64) / 255).tolist() == [0, 2, 2]
