"""idealo's own networks: layer names, the order of sub-pixels, sizes read from the file, and the figures of Set5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from srbench.methods.esrgan import ESRGAN
from srbench.methods.esrgan.rrdn import RRDN
from srbench.methods.rdn import RDN
from torch import Tensor

from srbench import evaluate, weights
from srbench.errors import WeightsError

torch.set_num_threads(1)
SMALL = {"blocks": 2, "layers": 3, "growth": 4, "features": 6, "factor": 2, "upsampler": "nearest"}


def idealo_names(rdn: RDN) -> dict[str, Tensor]:
    """Return the parameters of a network with the nearest upsampler under idealo's names, written out one by one."""
    state, blocks = rdn.state_dict(), len(rdn.blocks)
    pairs = {"shallow": "F_m1", "entry": "F_0", "fusion.0": "GFF_1", "fusion.1": "GFF_2"}
    pairs |= {"last.0": "UPN1", "last.2": "UPN2", "last.4": "UPN3", "last.6": "SR"}
    for block in range(blocks):
        pairs[f"blocks.{block}.fusion"] = f"LFF_{block + 1}"
        pairs |= {
            f"blocks.{block}.layers.{layer}": f"F_{block + 1}_{layer + 1}"
            for layer in range(len(rdn.blocks[block].layers))
        }
    return {f"{pairs[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


def load(method: type, path: Path):
    return method.from_weights(weights.load(weights.find(method.__name__.lower(), str(path)))).eval()


@pytest.mark.parametrize("more", [{}, {"channels": 1, "factor": 3}])
def test_rdn_reads_idealos_names_and_takes_its_size_from_the_file(tmp_path, more):
    torch.manual_seed(0)
    made = RDN(**SMALL | more)
    save_file(idealo_names(made), tmp_path / "psnr.safetensors")
    read = load(RDN, tmp_path / "psnr.safetensors")
    assert (read.info.factor, read.info.channels, len(read.blocks)) == (made.info.factor, made.info.channels, 2)
    lr = torch.rand(2, made.info.channels, 7, 5)
    torch.testing.assert_close(read(lr, (0, 0)), made(lr, (0, 0)), rtol=0, atol=0)
    save_file(made.state_dict(), tmp_path / "ours.safetensors")  # as training from such a file leaves it
    torch.testing.assert_close(load(RDN, tmp_path / "ours.safetensors")(lr, (0, 0)), made(lr, (0, 0)))


def test_rdns_last_layers_are_those_of_idealo():
    method = RDN(**SMALL)
    sizes = [tuple(value.shape) for key, value in method.state_dict().items() if key.startswith("last.")]
    assert sizes[::2] == [(64, 6, 5, 5), (32, 64, 3, 3), (12, 32, 3, 3), (3, 12, 3, 3)]
    for value in method.last.parameters():
        torch.nn.init.zeros_(value)
    with torch.no_grad():  # the shallow features' first channel, once through the middle of every kernel
        for place in (0, 2, 4, 6):
            kernel = method.last[place].weight
            kernel[0, 0, kernel.shape[2] // 2, kernel.shape[3] // 2] = 1.0
    features = torch.rand(1, 6, 2, 3)
    expected = features[:, 0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(method.last(features)[:, 0], expected)


def rrdn_by_hand(state: dict[str, Tensor], lr: Tensor, *, blocks: int, dense: int, layers: int, factor: int) -> Tensor:
    """Enlarge `(1, 3, h, w)`: idealo's formula in double precision, its pixels placed one by one as TensorFlow does."""

    def layer(name: str, image: Tensor) -> Tensor:
        return F.conv2d(image, state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), padding=1)

    first = layer("Pre_blocks_conv", lr.double())
    whole = first
    for t in range(1, blocks + 1):
        inner = whole
        for d in range(1, dense + 1):
            known = inner
            for c in range(1, layers + 1):
                known = torch.cat([known, layer(f"F_{t}_{d}_{c}", known).clamp(min=0)], 1)
            inner = inner + 0.2 * layer(f"LFF_{t}_{d}", known)
        whole = whole + 0.2 * inner
    values = layer("PreShuffle", layer("post_blocks_conv", whole) + first)[0]
    height, width = lr.shape[-2:]
    pixels = torch.zeros(3, height * factor, width * factor, dtype=torch.float64)
    for y, x, channel in np.ndindex(height * factor, width * factor, 3):
        place = ((y % factor) * factor + x % factor) * 3 + channel
        pixels[channel, y, x] = values[place, y // factor, x // factor]
    return layer("SR", pixels[None])


@pytest.mark.parametrize("factor", [2, 4])
def test_esrgan_reads_idealos_rrdn(tmp_path, factor):
    torch.manual_seed(1)
    size = {"blocks": 2, "dense": 2, "layers": 3, "factor": factor}
    state = RRDN(**size, growth=4, features=5).state_dict()
    save_file(state, tmp_path / "gans.safetensors")
    method = load(ESRGAN, tmp_path / "gans.safetensors")
    assert method.info.factor == factor and set(method.state_dict()) == set(state)
    assert all(parameter.requires_grad for parameter in method.parameters())
    lr = torch.rand(1, 3, 4, 3)
    with torch.inference_mode():
        sr = method(lr, (0, 0))
    torch.testing.assert_close(sr.double(), rrdn_by_hand(state, lr, **size), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lost", ["F_1_1_1.weight", "F_2_1_2.bias", "LFF_1_2.weight", "SR.weight"])
def test_a_damaged_rrdn_gets_a_sentence(tmp_path, lost):
    state = RRDN(blocks=2, dense=2, layers=2, growth=4, features=5, factor=2).state_dict()
    del state[lost]
    save_file(state, tmp_path / "gans.safetensors")
    with pytest.raises(WeightsError, match=r"gans\.safetensors .*RRDN"):
        load(ESRGAN, tmp_path / "gans.safetensors")


# --- published and independently measured figures on Set5 ----------------------------------------------------------


def psnr_on_set5(real: Path, out: Path, method: str, file: str, protocol: str) -> float:
    result = evaluate(
        [method],
        data=f"images:{real / 'set5' / 'HR'}",
        protocol=protocol,
        weights={method: [str(real / "weights" / file)]},
        out=out,
        measure=False,
    )
    (found,) = [cell.record for cell in result.cells if cell.record.cell.method == method]
    assert found.status == "ok" and found.dataset.n == 5, found.reason
    return found.metrics["psnr"].value


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("method", "file", "protocol", "psnr", "tolerance"),
    [
        ("rdn", "idealo_rdn_psnr_small_x2.fp16.safetensors", "sr-classic-x2", 36.66, 0.1),
        ("esrgan", "idealo_rrdn_gans_x4.fp16.safetensors", "sr-classic", 30.07, 0.1),
        ("esrgan", "DAT_light_x4.pth", "sr-classic", 32.57, 0.05),
    ],
    ids=["idealo-psnr-small-x2", "idealo-gans-x4", "dat-light-x4"],
)
def test_set5_by_networks_of_others(real, tmp_path, method, file, protocol, psnr, tolerance):
    assert psnr_on_set5(real, tmp_path, method, file, protocol) == pytest.approx(psnr, abs=tolerance)


@pytest.mark.real
def test_bicubic_on_set5_at_x2_is_the_literatures(real, tmp_path):
    result = evaluate(
        ["bicubic"], data=f"images:{real / 'set5' / 'HR'}", protocol="sr-classic-x2", out=tmp_path, measure=False
    )
    (found,) = [cell.record for cell in result.cells if cell.record.cell.method == "bicubic"]
    assert found.metrics["psnr"].value == pytest.approx(33.67, abs=0.03)
