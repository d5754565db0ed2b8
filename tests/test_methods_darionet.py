"""DarioNet: its size, what it starts from, its losses worked out by hand, and the paper's recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from dummies import n_parameters
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN as RRDBNet  # noqa: N811 a class that is spelt so
from spandrel.architectures.PLKSR import RealPLKSR
from spandrel.architectures.SwinIR import SwinIR
from srbench.methods.darionet import DarioNet
from srbench.methods.esrgan import ESRGAN
from torch import Tensor, nn

from srbench import weights
from srbench.errors import UsageError, WeightsError
from srbench.method import Batch
from srbench.protocol import load_protocol
from srbench.training.recipe import Augment, Recipe


def load(path: Path) -> DarioNet:
    return DarioNet.from_weights(weights.load(weights.find("darionet", str(path))))


# --- architecture and files ----------------------------------------------------------------------------------------


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        assert n_parameters(DarioNet()) == 16_697_987  # 16.70 M: 23 blocks, 64 features, growth 32
        assert n_parameters(DarioNet(blocks=8)) == 5_906_627


def test_files_are_in_spandrels_key_names(tmp_path):
    method = DarioNet(blocks=2, features=8)
    torch.save(method.state_dict(), tmp_path / "darionet.pth")
    descriptor = ModelLoader().load_from_file(tmp_path / "darionet.pth")
    assert (descriptor.architecture.id, descriptor.scale, descriptor.tags) == ("ESRGAN", 4, ["8nf", "2nb"])
    lr = torch.rand(1, 3, 5, 7)
    torch.testing.assert_close(descriptor.model(lr), method(lr, (0, 0)))


def test_starts_from_any_rrdb_of_factor_4(tmp_path):
    network = RRDBNet(num_filters=12, num_blocks=2)
    torch.save(network.state_dict(), tmp_path / "esrgan.pth")
    method = load(tmp_path / "esrgan.pth")
    assert n_parameters(method) == n_parameters(network)
    lr = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(method(lr, (0, 0)), network(lr))
    assert all(parameter.requires_grad for parameter in method.parameters())


def test_starts_from_any_compact_network_of_factor_4_and_writes_its_names(tmp_path):
    network = Compact(num_feat=6, num_conv=3, upscale=4)
    torch.save(network.state_dict(), tmp_path / "compact.pth")
    method = load(tmp_path / "compact.pth")
    lr = torch.rand(1, 3, 4, 5)
    torch.testing.assert_close(method(lr, (0, 0)), network(lr))
    assert list(method.state_dict()) == list(network.state_dict())
    fresh = DarioNet(blocks=3, features=6, arch="compact")
    assert n_parameters(fresh) == n_parameters(network) == 3 * 6 * 9 + 6 + 3 * (6 * 6 * 9 + 6) + 4 * 6 + 6 * 48 * 9 + 48
    fresh.load_state_dict(method.state_dict())
    torch.testing.assert_close(fresh(lr, (0, 0)), network(lr))


def test_starts_from_weights_that_esrgan_was_trained_to(tmp_path):
    network = RRDBNet(num_filters=8, num_blocks=1)
    card = weights.Card(namespace="esrgan", name="demo-psnr-x4", parameters={"blocks": 1, "features": 8, "critic": 16})
    weights.save(tmp_path / "w.safetensors", network.state_dict(), card, store_fp16=True)
    method = load(tmp_path / "w.safetensors")
    assert method.network.model[0].weight.dtype == torch.float32
    torch.testing.assert_close(method.network.model[0].weight, network.model[0].weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("network", "factor"),
    [
        (RealPLKSR(dim=8, n_blocks=1, upscaling_factor=4), 4),
        (Compact(num_feat=8, num_conv=2, upscale=2), 2),
        (RRDBNet(num_filters=4, num_blocks=1, scale=2), 2),
        (
            SwinIR(
                img_size=8, window_size=4, depths=[1], num_heads=[1], embed_dim=4, upscale=3, upsampler="pixelshuffle"
            ),
            3,
        ),
    ],
    ids=["RealPLKSR", "compact x2", "RRDB x2", "a transformer that pads to its windows"],
)
def test_starts_from_whatever_spandrel_reads_at_its_own_factor(network, factor, tmp_path):
    torch.save(network.state_dict(), tmp_path / "other.pth")
    method = load(tmp_path / "other.pth")
    lr = torch.rand(1, 3, 7, 9)
    sr = method(lr, (0, 0))
    assert method.info.factor == factor and DarioNet.info.factor == 4
    assert sr.shape[-2:] == (7 * factor, 9 * factor)
    sr.mean().backward()
    assert all(parameter.requires_grad for parameter in method.parameters())
    again = DarioNet.from_weights(weights.load(saved(tmp_path / "own.safetensors", method)))
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(lr, (0, 0)), method.eval()(lr, (0, 0)))


def saved(path: Path, method: DarioNet) -> weights.WeightsRef:
    return weights.save(path, method.state_dict(), weights.Card(namespace="darionet", name=path.stem))


def test_published_names_of_disp_become_its_own(tmp_path):
    method = DarioNet(blocks=2, features=4, arch="disp")
    state = {published(name): value for name, value in method.state_dict().items()}
    assert {"conv_1.eval_conv.weight", "blocks.1._extern_conv_block.0.eval_conv.bias", "upsampler.0.weight"} <= set(
        state
    )
    torch.save(state, tmp_path / "published.pth")
    again = load(tmp_path / "published.pth")
    assert list(again.state_dict()) == list(method.state_dict())
    lr = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(again(lr, (0, 0)), method(lr, (0, 0)))
    del state["conv_2.bias"]
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(WeightsError, match=r"damaged\.pth does not fit darionet: 1 parameters are missing"):
        load(tmp_path / "damaged.pth")


def published(name: str) -> str:
    """Return the name that DISP's authors give a parameter."""
    parts = name.split(".")
    if parts[0] == "blocks":
        inner = ("c1_r", "c2_r", "_extern_conv_block.0", "c3_r")[int(parts[3])]
        return f"blocks.{parts[1]}.{inner}.eval_conv.{parts[-1]}"
    return {"first": "conv_1.eval_conv", "fused": "conv_2", "shuffled": "upsampler.0"}[parts[0]] + f".{parts[-1]}"


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (RRDBNet(num_filters=4, num_blocks=1, scale=1), "is not for super-resolution"),
        (RRDBNet(in_nc=1, out_nc=1, num_filters=4, num_blocks=1), "maps 1 to 1 channels"),
        (nn.Linear(2, 2), "holds no architecture that spandrel recognises"),
    ],
    ids=["x1", "grey", "no image network"],
)
def test_other_networks_are_refused(network, words, tmp_path):
    torch.save(network.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=rf"other\.pth {words}"):
        load(tmp_path / "other.pth")


def test_arguments_behind_a_file_are_refused(tmp_path):
    torch.save(RRDBNet(num_filters=4, num_blocks=1).state_dict(), tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"leave out what follows the \?"):
        DarioNet.from_weights(weights.load(weights.find("darionet", f"{tmp_path / 'own.pth'}?blocks=3")))


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"features": 0}])
def test_constructor_refuses_what_it_cannot_build(wrong):
    with pytest.raises(UsageError, match="rrdb, compact or disp, got 'unet'"):
        DarioNet(arch="unet")
    with pytest.raises(UsageError, match="blocks >= 1 and features >= 1"):
        DarioNet(**wrong)


# --- losses, by hand -----------------------------------------------------------------------------------------------


class _Gain(nn.Module):
    """Nearest neighbour x4 times a parameter."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(image, scale_factor=4, mode="nearest") * self.gain


class _Teacher(nn.Module):
    """Scores an image by (mean, -2 x mean); its one feature map is the image times two."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        nn.init.constant_(self.features.weight, 2.0)
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        mean = self.features(image).mean(dim=(1, 2, 3)) / 2
        return torch.stack([mean, -2 * mean], dim=1)


def _step(
    wanted: dict[str, float], *, label: Tensor | None = None, method: DarioNet | None = None
) -> dict[str, Tensor]:
    """Return the terms where LR is 0.5, SR is 0.7, HR is 0.4 everywhere."""
    teacher = _Teacher().eval().requires_grad_(False)
    method = method or _by_hand(1.4)
    method.recipe = Recipe(losses=wanted)
    hr = torch.full((2, 3, 12, 12), 0.4)
    batch = Batch(torch.full((2, 3, 4, 4), 0.5), hr, label, teacher(hr), (12, 12))
    found = dict(method.training_step(batch, teacher, None))
    assert set(found) == set(wanted)
    return found


def _by_hand(gain: float) -> DarioNet:
    method = DarioNet(blocks=1, features=4)
    method.network = _Gain(gain)
    return method


def test_logit_loss_is_the_mean_square_over_the_scores():
    method = _by_hand(1.4)
    found = _step({"logits": 1.0}, method=method)
    # scores of SR (0.7, -1.4), of HR (0.4, -0.8)
    assert found["logits"].item() == pytest.approx((0.3**2 + 0.6**2) / 2, rel=1e-5)
    found["logits"].backward()
    # d/dgain of mean((0.5 g - 0.4)^2, (-g + 0.8)^2) at 1.4
    assert method.network.gain.grad.item() == pytest.approx(0.3 * 0.5 + 0.6 * 1.0, rel=1e-5)


def test_every_other_term_by_hand():
    found = _step(
        {"l1": 1.0, "l2": 1.0, "psnr": 1.0, "features": 1.0, "ce": 1.0, "logits": 1.0}, label=torch.tensor([0, 0])
    )
    expected = {
        "l1": 0.3,
        "l2": 0.09,
        "psnr": -10.457575,  # minus the PSNR in dB of a mean square of 0.09
        "features": 0.36,  # twice the image: 0.6 apart
        "ce": 0.1155196,  # log(1 + exp(-1.4 - 0.7))
        "logits": 0.225,
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


def test_labels_are_asked_for_by_cross_entropy_alone():
    assert _step({"logits": 1.0, "features": 1.0}, label=None)
    with pytest.raises(UsageError, match="labels"):
        _step({"ce": 1.0}, label=None)


def test_the_classifier_sees_sr_at_the_protocols_size_and_kernel():
    """x4 of LR is 16, SR stands at 12: the return is the protocol's."""
    lr = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    enlarged = nn.functional.interpolate(lr, scale_factor=4, mode="nearest")
    expected = {
        "clean": nn.functional.interpolate(enlarged, size=(12, 12), mode="bicubic", antialias=True),
        "darionet-2021": nn.functional.interpolate(enlarged, size=(12, 12), mode="bilinear"),
    }
    for protocol, sr in expected.items():
        method, teacher = _by_hand(1.0), _Teacher()
        method.recipe = Recipe(losses={"logits": 1.0})
        method.prepare(load_protocol(protocol))
        method.training_step(Batch(lr, torch.rand(1, 3, 12, 12), None, torch.zeros(1, 2), (12, 12)), teacher, None)
        torch.testing.assert_close(teacher.seen[-1], sr)
    assert (expected["clean"] - expected["darionet-2021"]).abs().max() > 0.01


def test_the_extractor_is_no_part_of_the_method():
    method = _by_hand(1.4)
    before = set(method.state_dict())
    _step({"features": 1.0}, method=method)
    assert set(method.state_dict()) == before


# --- recipes -------------------------------------------------------------------------------------------------------


def test_paper_recipe_holds_the_published_figures():
    paper = DarioNet.recipes["paper"]
    assert dataclasses.replace(paper, init=None) == Recipe(
        losses={"logits": 1.0},
        optimizer="adam",
        lr=1e-5,
        batch_size=16,
        epochs=10,
        schedule="constant",
        augment=Augment(),
        select="ce_difference",
        unit_scale=False,
        track="frozen",
    )
    assert paper.init == "esrgan:df2k-psnr-x4"
    assert dict(paper.parameters) == {}  # the network's own defaults, 23 blocks x 64 features: 16.70 M above


@pytest.mark.parametrize("stage", ["gpu", "cpu-small", "demo"])
def test_distillation_goes_on_from_a_pixel_stage_of_the_same_network(stage):
    pixels, distil = DarioNet.recipes[f"{stage}-psnr"], DarioNet.recipes[stage]
    assert pixels.losses == {"l1": 1.0} and pixels.select == "psnr"
    assert distil.losses == {"logits": 1.0} and distil.select == "ce_difference"
    assert pixels.parameters == distil.parameters


def test_the_demo_starts_from_the_weights_that_ship_with_esrgan():
    demo, start = DarioNet.recipes["demo"], ESRGAN.recipes["demo-psnr"]
    assert demo.init == "esrgan:demo-psnr-x4"
    assert demo.parameters == start.parameters


# --- how it starts -------------------------------------------------------------------------------------------------


def test_an_untrained_network_enlarges_bilinearly_away_from_the_border():
    torch.manual_seed(0)
    method = DarioNet(blocks=2, features=8)
    lr = torch.rand(2, 3, 12, 15)
    expected = lr
    for _ in range(2):
        expected = nn.functional.interpolate(expected, scale_factor=2, mode="bilinear")
    inside = (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(method(lr, (0, 0))[inside], expected[inside], atol=1e-5, rtol=0)


def test_every_layer_learns_although_it_adds_nothing_yet():
    torch.manual_seed(0)
    method = DarioNet(blocks=1, features=8)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
    lr, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    for _ in range(3):
        optimizer.zero_grad()
        (method(lr, (0, 0)) - hr).square().mean().backward()
        optimizer.step()
    still = [name for name, parameter in method.named_parameters() if not parameter.grad.abs().max() > 0]
    assert still == []


def test_networks_too_narrow_to_carry_an_image_are_left_alone():
    assert DarioNet(blocks=1, features=2).network.model[0].weight.abs().min() > 0
