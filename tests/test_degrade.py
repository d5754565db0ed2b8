"""HR to LR, and a method's output to what the metric and the classifier see."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from srbench.imaging.degrade import degrade, for_classifier, for_metric, restore_size, round_8bit
from srbench.imaging.resample import gaussian_blur, resize, to_uint8
from srbench.protocol import Degradation, Protocol, Restoration, Scoring, load_protocol

PLAIN = Degradation(scale=0.5, eight_bit=False)


def image(side: int = 32, *, n: int = 4, seed: int = 0) -> torch.Tensor:
    """Smooth random images, so that JPEG and blur leave something of them."""
    return resize(torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)), (side, side), "bilinear")


def ids(n: int = 4) -> list[str]:
    return [f"class/{number}.png" for number in range(n)]


def noise(shape: tuple[int, ...], sample_ids: list[str], seed: int = 0) -> torch.Tensor:
    flat = dataclasses.replace(PLAIN, scale=1.0, noise_sigma=1.0)
    return degrade(torch.zeros(shape), flat, sample_ids=sample_ids, seed=seed)


def by_jpeg(lr: torch.Tensor, quality: int) -> torch.Tensor:
    out = []
    for each in to_uint8(lr):
        buffer = io.BytesIO()
        Image.fromarray(each.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1))
    return torch.stack(out).float() / 255


@pytest.mark.parametrize(("scale", "side", "expected"), [(0.32, 256, 81), (1 / 3, 48, 16), (0.29, 100, 29)])
def test_side_of_lr(scale, side, expected):
    assert degrade(image(side, n=1), Degradation(scale=scale)).shape == (1, 3, expected, expected)


def test_lr_is_the_kernel_of_the_protocol_on_eight_bits():
    hr = image()
    for kernel, antialias in (("bicubic", True), ("bicubic", False), ("bilinear", True), ("nearest", True)):
        lr = degrade(hr, Degradation(scale=0.5, kernel=kernel, antialias=antialias))
        expected = resize(hr, (16, 16), kernel, antialias=antialias).clamp(0, 1).mul(255).round() / 255
        torch.testing.assert_close(lr, expected, atol=1e-7, rtol=0)
    mirrored = degrade(hr, dataclasses.replace(PLAIN, border="symmetric"))
    torch.testing.assert_close(mirrored, resize(hr, (16, 16), "bicubic", border="symmetric"))


def test_without_eight_bits_the_kernel_may_overshoot():
    hr = (torch.arange(32)[None, None, :, None] // 8 % 2).float().expand(1, 3, 32, 32)
    assert degrade(hr, PLAIN).max() > 1.0
    assert degrade(hr, Degradation(scale=0.5)).max() == 1.0


def test_steps_are_taken_in_the_documented_order():
    hr = image()
    everything = Degradation(scale=0.5, blur_sigma=1.2, noise_sigma=0.1, jpeg_quality=60)
    blurred = gaussian_blur(hr, 1.2)
    noisy = resize(blurred, (16, 16), "bicubic") + 0.1 * noise((4, 3, 16, 16), ids())
    lr = degrade(hr, everything, sample_ids=ids())
    assert torch.equal(lr, by_jpeg(noisy, 60))
    blurred_last = by_jpeg(gaussian_blur(resize(hr, (16, 16), "bicubic"), 1.2) + 0.1 * noise((4, 3, 16, 16), ids()), 60)
    noise_last = by_jpeg(resize(blurred, (16, 16), "bicubic"), 60) + 0.1 * noise((4, 3, 16, 16), ids())
    assert (lr - blurred_last).abs().max() > 0.02 and (lr - noise_last).abs().max() > 0.02


def test_noise_belongs_to_the_image_whatever_its_batch_and_place():
    hr = image(n=5)
    noisy = dataclasses.replace(PLAIN, noise_sigma=0.2)
    whole = degrade(hr, noisy, sample_ids=ids(5))
    order = [3, 0, 4, 2, 1]
    shuffled = degrade(hr[order], noisy, sample_ids=[ids(5)[place] for place in order])
    assert torch.equal(shuffled, whole[order])
    alone = torch.cat([degrade(hr[[place]], noisy, sample_ids=[ids(5)[place]]) for place in range(5)])
    torch.testing.assert_close(alone, whole)


def test_noise_has_its_sigma_and_differs_between_images_and_seeds():
    drawn = noise((2, 3, 64, 64), ids(2))
    assert abs(float(drawn.std()) - 1) < 0.02 and abs(float(drawn.mean())) < 0.02
    assert abs(float(torch.corrcoef(drawn.reshape(2, -1))[0, 1])) < 0.05
    assert not torch.equal(drawn, noise((2, 3, 64, 64), ids(2), seed=1))
    assert torch.equal(drawn, noise((2, 3, 64, 64), ids(2)))
    clean = image(64, n=2)
    half = degrade(clean, dataclasses.replace(PLAIN, scale=1.0, noise_sigma=0.5), sample_ids=ids(2))
    torch.testing.assert_close(half, clean + 0.5 * drawn, atol=1e-6, rtol=0)


def test_noise_without_ids_comes_from_the_global_generator():
    noisy = dataclasses.replace(PLAIN, noise_sigma=0.2)
    torch.manual_seed(7)
    first = degrade(image(), noisy)
    second = degrade(image(), noisy)
    torch.manual_seed(7)
    assert torch.equal(degrade(image(), noisy), first) and not torch.equal(first, second)


def test_jpeg_loses_more_at_a_lower_quality_and_leaves_eight_bits():
    hr = image()
    plain = degrade(hr, Degradation(scale=0.5))
    losses = []
    for quality in (10, 50, 95):
        lr = degrade(hr, Degradation(scale=0.5, jpeg_quality=quality))
        assert torch.equal(lr, round_8bit(lr))
        losses.append(float((lr - plain).square().mean()))
    assert losses[0] > losses[1] > losses[2] > 0


def test_degradation_that_does_nothing():
    hr = round_8bit(image())
    for nothing in (Degradation(scale=1.0), Degradation(lr_side=32), Degradation(none=True)):
        torch.testing.assert_close(degrade(hr, nothing), hr, atol=1e-6, rtol=0)


def test_hr_is_not_written_to():
    hr = image()
    kept = hr.clone()
    degrade(hr, Degradation(scale=0.5, blur_sigma=1, noise_sigma=0.1, jpeg_quality=50), sample_ids=ids())
    degrade(hr, Degradation(none=True, eight_bit=False))
    assert torch.equal(hr, kept)


def test_image_of_one_pixel():
    dot = image(1, n=1)
    lr = degrade(dot, Degradation(scale=0.32, blur_sigma=1.0, jpeg_quality=90))
    assert lr.shape == (1, 3, 1, 1) and bool(torch.isfinite(lr).all())


def test_output_of_a_network_returns_to_its_size_by_the_protocols_kernel():
    protocol = load_protocol("darionet-2021")
    output = image(324, n=1)
    back = restore_size(output, (256, 256), protocol.sr)
    assert torch.equal(back, resize(output, (256, 256), "bilinear", antialias=False))
    assert restore_size(output, (324, 324), protocol.sr) is output
    by_clean = restore_size(output, (256, 256), load_protocol("clean").sr)
    assert torch.equal(by_clean, resize(output, (256, 256), "bicubic"))


@pytest.mark.parametrize(
    ("clamp", "rounded", "expected"),
    [
        (True, True, [0.0, 51 / 255, 1.0]),
        (True, False, [0.0, 0.2007, 1.0]),
        (False, True, [-13 / 255, 51 / 255, 268 / 255]),
        (False, False, [-0.05, 0.2007, 1.05]),
    ],
)
def test_clamping_and_rounding_follow_the_protocol(clamp, rounded, expected):
    sr = torch.tensor([-0.05, 0.2007, 1.05])
    lr = Degradation(scale=0.5)
    seen = Protocol("p", lr=lr, sr=Restoration(clamp=clamp, round=rounded))
    scored = Protocol("p", lr=lr, score=Scoring(clamp=clamp, round=rounded))
    torch.testing.assert_close(for_classifier(sr, seen), torch.tensor(expected))
    torch.testing.assert_close(for_metric(sr, scored), torch.tensor(expected))
    # each looks at its own half of the protocol
    torch.testing.assert_close(for_metric(sr, seen), torch.tensor([0.0, 51 / 255, 1.0]))
    torch.testing.assert_close(for_classifier(sr, scored), torch.tensor([0.0, 51 / 255, 1.0]))
    assert sr.tolist() == pytest.approx([-0.05, 0.2007, 1.05])


def test_grey_data_stay_grey_and_are_the_same_with_one_channel_and_with_three():
    grey = image(n=2)[:, :1]
    worn = Degradation(scale=0.5, noise_sigma=0.1, jpeg_quality=50)
    one = degrade(grey, worn, sample_ids=ids(2), seed=3)
    three = degrade(grey.expand(2, 3, 32, 32), worn, sample_ids=ids(2), seed=3, grey=True)
    assert one.shape == (2, 1, 16, 16) and torch.equal(three, one.expand(2, 3, 16, 16))
    colour = degrade(grey.expand(2, 3, 32, 32), worn, sample_ids=ids(2), seed=3)
    assert (colour[:, 0] - colour[:, 1]).abs().max() > 0.05, "a camera's noise has colour, also on a grey scene"
    noisy = dataclasses.replace(PLAIN, noise_sigma=0.2)
    drawn = degrade(grey.expand(2, 3, 32, 32), noisy, grey=True)
    torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn))
    assert (drawn[0] - drawn[1] - degrade(grey[:1] - grey[1:], PLAIN)).abs().max() > 0.1
