"""Tiles of networks whose attention works in windows begin and end where the windows do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from spandrel.architectures.DAT import DAT
from spandrel.architectures.HAT import HAT
from spandrel.architectures.SwinIR import SwinIR
from torch import nn

from srbench.imaging.tiles import MARGIN, spans, tiled, window_multiple
from srbench.upscaling.api import upscale

SMALL = {"embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 2, "upsampler": "pixelshuffledirect"}


def swinir():
    torch.manual_seed(0)
    network = SwinIR(img_size=16, window_size=8, mlp_ratio=2, **SMALL).eval()
    for parameter in network.parameters():  # untrained biases of attention are 0, which hides what the windows do
        parameter.data += 0.2 * torch.randn_like(parameter)
    return network


def picture(side=76):
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("network", "multiple"),
    [
        (lambda: nn.Conv2d(3, 3, 3), 1),
        (swinir, 8),
        (lambda: HAT(img_size=16, window_size=16, embed_dim=12, depths=[1], num_heads=[2], upscale=2), 16),
        (lambda: DAT(img_size=16, split_size=[4, 6], embed_dim=12, depth=[1], num_heads=[2], upscale=2), 12),
    ],
)
def test_spandrel_s_networks_tell_their_windows(network, multiple):
    assert window_multiple(network()) == multiple


@torch.inference_mode()
def test_tiles_on_the_windows_give_the_whole_picture():
    network, pixels = swinir(), picture()

    def restore(lr, size):
        return network(lr)

    whole = tiled(pixels, (152, 152), restore, tile=None).astype(int)
    beside = tiled(pixels, (152, 152), restore, tile=20).astype(int)
    fitting = tiled(pixels, (152, 152), restore, tile=20, multiple=window_multiple(network)).astype(int)
    assert np.abs(whole - fitting).max() <= 1
    assert np.abs(whole - beside).max() > 10  # what rounding up is for


def test_every_tile_begins_and_ends_at_a_multiple_or_the_border():
    for side, target, tile, multiple in ((100, 400, 20, 8), (97, 305, 16, 7), (300, 100, 50, 16), (64, 64, 64, 8)):
        covered = np.zeros(target, dtype=int)
        for span in spans(side, target, tile, MARGIN, multiple):
            covered[span.filled] += 1
            assert span.read.start % multiple == 0
            assert span.read.stop % multiple == 0 or span.read.stop == side
        assert (covered == 1).all()


def test_upscale_rounds_the_tile_up_and_says_so(tmp_path):
    save_file(dict(swinir().state_dict()), tmp_path / "swin.safetensors")
    Image.fromarray(picture()).save(tmp_path / "in.png")
    results = []
    for tile, name in ((None, "whole"), (20, "tiles")):
        result = upscale(
            [tmp_path / "in.png"],
            "esrgan",
            out=tmp_path / f"{name}.png",
            factor=2.0,
            tile=tile,
            weights=str(tmp_path / "swin.safetensors"),
            progress=False,
        )
        results.append(np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1
    assert "--tile 20 is rounded up to 24, a multiple of the 8 pixels of esrgan" in result.notes
