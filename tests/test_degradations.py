"""Degradations whose parameters are drawn for each image, and codecs: they depend on ids and the seed alone."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from srbench.imaging import compression
from srbench.imaging.degrade import degrade
from srbench.imaging.draws import Draws
from srbench.imaging.resample import gaussian_blur, resize, to_uint8
from srbench.protocol import CODECS, Degradation, load_protocol, shift_names

IDS = [f"class/{number}.png" for number in range(6)]


@pytest.fixture(scope="module")
def hr():
    coarse = torch.rand(len(IDS), 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return resize(coarse, (64, 64), "bilinear")


def presets():
    return [pytest.param(load_protocol(name).lr, id=name) for name in shift_names()]


@pytest.mark.parametrize("lr", presets())
def test_lr_depends_on_the_id_and_the_seed_alone(hr, lr):
    whole = degrade(hr, lr, sample_ids=IDS, seed=3)
    assert whole.shape == (6, 3, 20, 20) and whole.min() >= 0 and whole.max() <= 1
    assert torch.equal(whole.mul(255).round() / 255, whole)  # 8 bits
    turned = degrade(hr.flip(0), lr, sample_ids=IDS[::-1], seed=3).flip(0)
    alone = torch.cat([degrade(hr[at : at + 1], lr, sample_ids=[IDS[at]], seed=3) for at in range(6)])
    assert torch.equal(whole, turned) and torch.equal(whole, alone)
    torch.manual_seed(5)
    assert torch.equal(whole, degrade(hr, lr, sample_ids=IDS, seed=3))
    assert not torch.equal(whole, degrade(hr, lr, sample_ids=IDS, seed=4))
    others = degrade(hr, lr, sample_ids=[f"other/{each}" for each in IDS], seed=3)
    assert not torch.equal(whole, others)


@pytest.mark.parametrize("lr", presets())
def test_training_draws_anew_at_every_step(hr, lr):
    torch.manual_seed(0)
    first, second = degrade(hr[:2], lr), degrade(hr[:2], lr)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, degrade(hr[:2], lr))


@pytest.mark.parametrize("lr", presets())
def test_grey_stays_grey(hr, lr):
    grey = hr[:, :1].repeat(1, 3, 1, 1)
    out = degrade(grey, lr, sample_ids=IDS, grey=True)
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])
    assert torch.equal(out[:, :1], degrade(grey[:, :1], lr, sample_ids=IDS, grey=True))


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_on_lr_is_pillow_s(hr, codec):
    clean = degrade(hr, Degradation(scale=0.5))
    out = degrade(hr, Degradation(scale=0.5, codec=codec, quality=40))
    for each, lr in zip(out, clean, strict=True):
        stream = io.BytesIO()
        Image.fromarray(to_uint8(lr).permute(1, 2, 0).numpy()).save(stream, codec.upper(), quality=40)
        expected = torch.from_numpy(np.array(Image.open(stream).convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(to_uint8(each), expected)
    assert (out != clean).any()


@pytest.mark.parametrize("codec", CODECS)
def test_quality_decides_on_bytes_and_error(hr, codec):
    pixels = to_uint8(hr[0]).permute(1, 2, 0).numpy()
    sizes, errors = [], []
    for quality in (10, 50, 90):
        data = compression.encode(pixels, codec, quality)
        sizes.append(len(data))
        errors.append(np.abs(compression.decode(data).astype(int) - pixels).mean())
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    assert errors == sorted(errors, reverse=True)


def test_a_codec_that_pillow_lacks_is_one_sentence(monkeypatch, hr):
    monkeypatch.setattr(compression.features, "check", lambda name: False)
    with pytest.raises(compression.UsageError, match="cannot write AVIF; install Pillow"):
        degrade(hr, Degradation(scale=0.5, codec="avif", quality=40))


def test_drawn_values_lie_in_their_range_and_differ():
    values = [Draws(f"{number}").uniform(0.2, 3.0) for number in range(400)]
    assert min(values) >= 0.2 and max(values) <= 3.0 and len(set(values)) == 400
    assert np.mean(values) == pytest.approx(1.6, abs=0.15)
    whole = [Draws(f"{number}").whole(30, 95) for number in range(2000)]
    assert set(whole) == set(range(30, 96))
    shares = [Draws(f"{number}").choice({"a": 0.2, "b": 0.7, "c": 0.1}) for number in range(2000)]
    assert [shares.count(name) / 2000 for name in "abc"] == pytest.approx([0.2, 0.7, 0.1], abs=0.03)


def test_a_range_of_one_value_is_that_value(hr):
    for name, value in (("blur_sigma", 1.5), ("noise_sigma", 0.1), ("hr_noise_sigma", 0.1)):
        fixed, drawn = (Degradation(scale=0.5, **{name: each}) for each in (value, (value, value)))
        torch.testing.assert_close(
            degrade(hr, fixed, sample_ids=IDS), degrade(hr, drawn, sample_ids=IDS), atol=1.01 / 255, rtol=0
        )


def test_a_camera_s_noise_comes_before_the_resize(hr):
    flat = torch.full((6, 3, 256, 256), 0.5)
    lr = Degradation(scale=0.25, kernel="area", eight_bit=False)
    before = degrade(flat, dataclasses.replace(lr, hr_noise_sigma=0.1), sample_ids=IDS)
    after = degrade(flat, dataclasses.replace(lr, noise_sigma=0.1), sample_ids=IDS)
    assert after.std().item() == pytest.approx(0.1, rel=0.05)
    assert before.std().item() == pytest.approx(0.1 / 4, rel=0.05)  # 16 pixels are averaged


def test_blur_is_that_of_hr(hr):
    plain = Degradation(scale=0.5, eight_bit=False)
    blurred = degrade(hr, dataclasses.replace(plain, blur_sigma=2.0))
    torch.testing.assert_close(blurred, resize(gaussian_blur(hr, 2.0), (32, 32), "bicubic"))


def test_orders_can_do_nothing_but_jpeg(hr):
    idle = dataclasses.replace(
        load_protocol("second-order").lr.second,
        blur=0.0,
        enlarge=0.0,
        shrink=0.0,
        gaussian=1.0,
        noise_sigma=(0.0, 0.0),
        quality=(100, 100),
    )
    grey = hr[:, :1].repeat(1, 3, 1, 1)  # colour loses half its resolution in JPEG, whatever the quality
    lr = degrade(grey, Degradation(scale=0.5, first=idle, second=idle), sample_ids=IDS)
    # without random steps only a resize of a drawn kernel and JPEG at its best remain
    assert (lr - degrade(grey, Degradation(scale=0.5))).abs().mean() < 3 / 255


def test_second_order_takes_most_of_the_detail(hr):
    def loss(name):
        lr = degrade(hr, load_protocol(name).lr, sample_ids=IDS)
        return (lr - degrade(hr, load_protocol("clean").lr)).square().mean().item()

    assert loss("second-order") > loss("jpeg") > 0
