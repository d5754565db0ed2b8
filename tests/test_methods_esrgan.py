"""ESRGAN: what it loads and refuses, its tiles, its losses, and its agreement with BasicSR."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from spandrel import SizeRequirements
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN as RRDBNet  # noqa: N811 a class that is spelt so
from srbench.methods.esrgan import ESRGAN
from torch import Tensor, nn

from srbench import weights
from srbench.errors import SrbenchError, UnknownNameError, UsageError, WeightsError
from srbench.method import Batch
from srbench.metrics import mse_per_image, psnr_from_mse, ssim_per_image
from srbench.training.recipe import Recipe

GOLDEN_FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((GOLDEN_FOLDER / "basicsr.json").read_text(encoding="utf-8"))
REAL = Path(os.environ.get("SRBENCH_REAL", Path(__file__).parents[2] / "shared" / "real"))
ANIME = REAL / "weights" / "realesr-animevideov3.pth"
needs_basicsr = pytest.mark.skipif(
    importlib.util.find_spec("basicsr") is None, reason="the extra 'basicsr' is not installed"
)

_spec = importlib.util.spec_from_file_location("make_basicsr", GOLDEN_FOLDER / "make_basicsr.py")
make_basicsr = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_basicsr)


def save(path: Path, state: Mapping[str, Tensor]) -> Path:
    torch.save(dict(state), path)
    return path


def load(path: Path | str) -> ESRGAN:
    return ESRGAN.from_weights(weights.load(weights.find("esrgan", str(path)))).eval()


def golden_state() -> dict[str, Tensor]:
    return make_basicsr.fill(dict(zip(GOLDEN["keys"], map(tuple, GOLDEN["shapes"]), strict=True)))


# --- agreement with BasicSR ----------------------------------------------------------------------------------------


def test_rrdb_equals_basicsr(tmp_path):
    method = load(save(tmp_path / "golden.pth", golden_state()))
    with torch.inference_mode():
        sr = method(make_basicsr.image(3, 4), (12, 16))
    expected = torch.tensor(GOLDEN["rrdb"]).reshape(1, 3, 12, 16)
    assert expected.std() > 0.1
    torch.testing.assert_close(sr, expected, atol=3e-6, rtol=0)


def test_psnr_y_and_ssim_equal_basicsr():
    hr, sr = (torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 255 for array in make_basicsr.pair())
    options = {"channels": "y", "crop_border": 4}
    assert psnr_from_mse(mse_per_image(sr, hr, **options)).item() == pytest.approx(GOLDEN["psnr_y"], abs=1e-4)
    assert psnr_from_mse(mse_per_image(sr, hr, crop_border=4)).item() == pytest.approx(GOLDEN["psnr_rgb"], abs=1e-4)
    assert ssim_per_image(sr, hr, **options).item() == pytest.approx(GOLDEN["ssim_y"], abs=1e-5)


@needs_basicsr
def test_golden_values_are_those_of_the_installed_basicsr():
    measured = make_basicsr.measure()
    assert measured["keys"] == GOLDEN["keys"]
    assert measured["rrdb"] == pytest.approx(GOLDEN["rrdb"], abs=3e-6)
    for key in ("psnr_y", "psnr_rgb", "ssim_y"):
        assert measured[key] == pytest.approx(GOLDEN[key], abs=1e-9)


@needs_basicsr
def test_basicsr_architectures_come_through_the_same_door(tmp_path):
    arch = "basicsr:EDSR(num_feat=8, num_block=1)"
    torch.manual_seed(0)
    method = ESRGAN(arch=arch).eval()
    assert "body.0.conv1.weight" in method.state_dict()
    path = save(tmp_path / "edsr.pth", method.state_dict())
    again = load(f"{path}?arch={arch}")
    lr = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(again(lr, (0, 0)), method(lr, (0, 0)))
    assert again(lr, (0, 0)).shape == (1, 3, 36, 28)
    with pytest.raises(UnknownNameError, match=r"did you mean .*EDSR"):
        ESRGAN(arch="basicsr:EDRS")
    with pytest.raises(UsageError, match="does not enlarge RGB images by 4"):
        ESRGAN(arch="basicsr:MSRResNet(upscale=2)")
    with pytest.raises(UsageError, match="cannot build or run"):
        ESRGAN(arch="basicsr:EDSR(depth=3)")


@pytest.mark.skipif(importlib.util.find_spec("basicsr") is not None, reason="the extra 'basicsr' is installed")
def test_without_basicsr_the_extra_is_named():
    with pytest.raises(UsageError, match=re.escape("pip install 'srbench-resizing[basicsr]'")):
        ESRGAN(arch="basicsr:EDSR")


@pytest.mark.parametrize("arch", ["basicsr:", "basicsr:a.b", "basicsr:f(1)", "basicsr:EDSR(x=__import__('os'))"])
def test_only_names_and_literals_are_architectures(arch):
    with pytest.raises(UsageError, match="basicsr:NAME"):
        ESRGAN(arch=arch)


# --- loading -------------------------------------------------------------------------------------------------------


def _new_name(key: str) -> str:
    """Turn spandrel's (the oldest) key into BasicSR's."""
    if match := re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(\w+)", key):
        return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
    stems = {"model.0": "conv_first", "model.1.sub.23": "conv_body", "model.3": "conv_up1", "model.6": "conv_up2"}
    stems |= {"model.8": "conv_hr", "model.10": "conv_last"}
    stem, _, leaf = key.rpartition(".")
    return f"{stems[stem]}.{leaf}"


def _middle_name(key: str) -> str:
    """Turn spandrel's key into that of the ESRGAN repository's later files."""
    new = _new_name(key).replace("conv_body", "trunk_conv").replace("conv_up", "upconv").replace("conv_hr", "HRconv")
    return re.sub(r"^body\.(\d+)\.rdb(\d)", r"RRDB_trunk.\1.RDB\2", new)


@pytest.mark.parametrize("rename", [str, _middle_name, _new_name], ids=["oldest", "old", "new"])
def test_full_size_loads_under_every_official_naming(rename):
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in RRDBNet().state_dict().items()}
    state = {key: torch.full(shape, 1e-3 * number) for number, (key, shape) in enumerate(shapes.items())}
    assert rename("model.1.sub.4.RDB2.conv3.0.bias") in (
        "model.1.sub.4.RDB2.conv3.0.bias",
        "RRDB_trunk.4.RDB2.conv3.bias",
        "body.4.rdb2.conv3.bias",
    )
    ref = weights.WeightsRef("x", Path("official.pth"), "file:official.pth", "0" * 64, None)
    renamed = {rename(key): value for key, value in state.items()}
    assert len(renamed) == 702
    method = ESRGAN.from_weights(weights.WeightsFile(ref, renamed, None, {}))
    assert sum(parameter.numel() for parameter in method.parameters()) == 16_697_987
    assert all(torch.equal(value, state[key]) for key, value in method.state_dict().items())
    assert method.info.factor == 4


def test_wrapped_checkpoints_and_other_architectures_load(tmp_path):
    torch.manual_seed(0)
    small = RRDBNet(num_filters=8, num_blocks=1, scale=2)
    torch.save({"params_ema": small.state_dict()}, tmp_path / "ema.pth")
    method = load(tmp_path / "ema.pth")
    assert method.info.factor == 2
    lr = torch.rand(1, 3, 5, 6)
    torch.testing.assert_close(method(lr, (0, 0)), small(lr))
    compact = Compact(num_feat=8, num_conv=2, upscale=4)
    method = load(save(tmp_path / "compact.pth", compact.state_dict()))
    torch.testing.assert_close(method(lr, (0, 0)), compact(lr))
    assert list(method.state_dict()) == list(compact.state_dict())


def test_loaded_networks_can_be_trained_on(tmp_path):
    method = load(save(tmp_path / "golden.pth", golden_state()))
    method(torch.rand(1, 3, 4, 4), (0, 0)).mean().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_class_info_is_not_touched_by_loading(tmp_path):
    load(save(tmp_path / "x2.pth", RRDBNet(num_filters=4, num_blocks=1, scale=2).state_dict()))
    assert ESRGAN.info.factor == 4


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["EVIL"]),))


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Sign in</html>")


def _truncated(path: Path) -> None:
    save(path, golden_state())
    path.write_bytes(path.read_bytes()[:-5000])


def _gan_without_end(path: Path) -> None:
    save(path, {key: value for key, value in golden_state().items() if not key.startswith("conv_last")})


REFUSED = {
    "html": (_html, "web page"),
    "empty": (lambda path: path.touch(), "is empty"),
    "truncated": (_truncated, "damaged or truncated"),
    "unrecognised": (lambda path: save(path, nn.Linear(2, 2).state_dict()), "no architecture that spandrel recognises"),
    "not super-resolution": (
        lambda path: save(path, RRDBNet(num_filters=4, num_blocks=1, scale=1).state_dict()),
        "is not for super-resolution",
    ),
    "grey": (
        lambda path: save(path, RRDBNet(in_nc=1, out_nc=1, num_filters=4, num_blocks=1).state_dict()),
        "maps 1 to 1 channels",
    ),
    "no last layer": (_gan_without_end, "no architecture that spandrel recognises|missing or misshapen"),
    "code": (lambda path: torch.save({"a": _Evil()}, path), "code or objects"),
    "numbers": (lambda path: torch.save({"a": 3}, path), "named tensors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_network_is_refused_in_one_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    make, words = REFUSED[kind]
    make(tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        load(tmp_path / "file.pth")
    assert "\n" not in str(caught.value) and "file.pth" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_named_weights_must_be_what_they_are_declared_as(tmp_path, monkeypatch):
    monkeypatch.setenv("SRBENCH_CACHE", str(tmp_path))
    folder = tmp_path / "weights" / "esrgan"
    folder.mkdir(parents=True)

    def fetched(network: nn.Module) -> weights.WeightsRef:
        path = save(tmp_path / "downloaded.pth", network.state_dict())
        digest = weights.file_sha256(path)
        path.rename(folder / f"named-{digest[:8]}.pth")
        declared = weights.NamedWeights("https://example.org/named.pth", digest, "MIT", factor=4, architecture="ESRGAN")
        monkeypatch.setattr(ESRGAN, "weights", {"named": declared})
        return weights.find("esrgan", "named", ESRGAN.weights)

    good = fetched(RRDBNet(num_filters=4, num_blocks=1, scale=4))
    assert ESRGAN.from_weights(weights.load(good)).info.factor == 4
    with pytest.raises(WeightsError, match=r"declared as ESRGAN x4, but named-[0-9a-f]{8}\.pth holds ESRGAN x2"):
        ESRGAN.from_weights(weights.load(fetched(RRDBNet(num_filters=4, num_blocks=1, scale=2))))
    with pytest.raises(WeightsError, match=r"declared as ESRGAN x4, but named-[0-9a-f]{8}\.pth holds Compact x4"):
        ESRGAN.from_weights(weights.load(fetched(Compact(num_feat=8, num_conv=2, upscale=4))))


def test_card_and_network_must_agree_on_the_factor(tmp_path):
    method = ESRGAN(blocks=1, features=4, factor=2)
    card = weights.Card(namespace="esrgan", name="w", parameters={"blocks": 1, "features": 4, "factor": 2}, factor=4)
    weights.save(tmp_path / "w.safetensors", method.state_dict(), card)
    with pytest.raises(WeightsError, match=r"declared as ESRGAN x4, but w\.safetensors holds ESRGAN x2"):
        load(tmp_path / "w.safetensors")


def test_arguments_behind_a_question_mark(tmp_path):
    path = save(tmp_path / "golden.pth", golden_state())
    ref = weights.find("esrgan", f"{path}?tile=8&overlap=4")
    assert ref.label == "golden+tile-8-overlap-4"
    method = ESRGAN.from_weights(weights.load(ref))
    assert (method.tile, method.overlap) == (8, 4)
    with pytest.raises(WeightsError, match="takes no argument 'tlie'"):
        load(f"{path}?tlie=8")
    with pytest.raises(WeightsError, match="key=value"):
        load(f"{path}?tile")


@pytest.mark.parametrize(
    "wrong", [{"blocks": 0}, {"features": 0}, {"factor": 3}, {"tile": -1}, {"overlap": -2}, {"arch": "swinir"}]
)
def test_constructor_refuses_what_it_cannot_build(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}"):
        ESRGAN(**({"blocks": 1, "features": 4} | wrong))


def test_published_weights_are_declared():
    assert ESRGAN.weights["df2k-gan-x4"].uri.endswith("/v0.1.1/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth")
    for declared in ESRGAN.weights.values():
        assert re.search(r"-([0-9a-f]{8})\.pth$", declared.uri).group(1) == declared.sha256
        assert declared.factor == 4


# --- tiles and padding ---------------------------------------------------------------------------------------------


def _upscaled(method: ESRGAN, lr: Tensor, tile: int, overlap: int) -> Tensor:
    method.tile, method.overlap = tile, overlap
    with torch.inference_mode():
        return method(lr, (0, 0))


@pytest.fixture(scope="module")
def one_block() -> Iterator[ESRGAN]:
    torch.manual_seed(1)
    method = ESRGAN(blocks=1, features=8).eval()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(1.5)
    yield method


def test_tiles_leave_no_trace_where_the_overlap_covers_what_the_network_sees(one_block):
    lr = torch.rand(2, 3, 61, 47)
    whole = _upscaled(one_block, lr, 0, 0)
    # One block sees 1 + 15 + 1 LR pixels, then four convolutions at x2 and x4: under 19. Convolutions of another
    # shape sum in another order, so that equality is to float32's rounding.
    for tile in (13, 16, 24):
        tiled = _upscaled(one_block, lr, tile, 19)
        assert (tiled - whole).abs().max() < 1e-5


def test_what_lies_beyond_the_overlap_leaves_less_of_a_trace_than_no_overlap(one_block):
    lr = torch.rand(1, 3, 48, 48)
    whole = _upscaled(one_block, lr, 0, 0)
    without = (_upscaled(one_block, lr, 16, 0) - whole).abs().max()
    some = (_upscaled(one_block, lr, 16, 12) - whole).abs().max()
    assert without > 0.01
    assert some < without / 100


def test_tiles_cover_every_pixel_once_whatever_the_sizes():
    method = ESRGAN(blocks=1, features=4)
    method._install(nn.Upsample(scale_factor=4), 4, SizeRequirements())
    lr = torch.rand(1, 3, 37, 23)
    for tile, overlap in ((1, 0), (5, 0), (5, 3), (7, 20), (36, 2), (9, 9)):
        torch.testing.assert_close(_upscaled(method, lr, tile, overlap), method._enlarge(lr))


def test_padding_meets_the_requirements_and_is_cut_off_again():
    seen = []

    class Watching(nn.Module):
        def forward(self, image):
            seen.append(tuple(image.shape[-2:]))
            return nn.functional.interpolate(image, scale_factor=4, mode="nearest")

    method = ESRGAN(blocks=1, features=4)
    method._install(Watching(), 4, SizeRequirements(minimum=16, multiple_of=8))
    for height, width, padded in ((3, 20, (16, 24)), (16, 24, (16, 24)), (1, 1, (16, 16)), (17, 9, (24, 16))):
        lr = torch.rand(1, 3, height, width)
        sr = method(lr, (0, 0))
        assert seen.pop() == padded
        torch.testing.assert_close(sr, nn.functional.interpolate(lr, scale_factor=4, mode="nearest"))


# --- training ------------------------------------------------------------------------------------------------------


class _Gain(nn.Module):
    """Nearest neighbour times a parameter: every loss can be worked out by hand."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(image, scale_factor=4, mode="nearest") * self.gain


class _Mean(nn.Module):
    """Scores an image by its mean times a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor) -> Tensor:
        return self.slope * image.mean(dim=(1, 2, 3))[:, None]


def _flat(level: float) -> Batch:
    lr = torch.full((2, 3, 4, 4), 0.5)
    return Batch(lr, torch.full((2, 3, 16, 16), level), None, None, (16, 16))


def _by_hand(gain: float) -> ESRGAN:
    method = ESRGAN(blocks=1, features=4)
    method._install(_Gain(gain), 4, SizeRequirements())
    return method


def test_psnr_stage_is_the_mean_absolute_difference():
    method = _by_hand(1.2)  # SR is 0.6 everywhere
    method.recipe = ESRGAN.recipes["psnr"]
    found = method.training_step(_flat(0.9), None, None)
    assert set(found) == {"l1"}
    assert found["l1"].item() == pytest.approx(0.3)


def test_adversarial_stage_is_relativistic():
    method = _by_hand(1.2)
    method.recipe = Recipe(losses={"l1": 1.0, "adversarial": 0.1})
    method._helpers["discriminator"] = discriminator = _Mean()
    found = method.training_step(_flat(0.9), None, None)
    # The discriminator gives HR 1.8 and SR 1.2: HR is ahead by 0.6. The generator wants it the other way round.
    softplus = math.log1p(math.exp(0.6))
    assert found["adversarial"].item() == pytest.approx(softplus)
    found["adversarial"].backward()
    assert method.network.gain.grad is not None and discriminator.slope.grad is None
    loss = method.helper_step("discriminator", _flat(0.9), torch.full((2, 3, 16, 16), 0.6))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.6)))
    loss.backward()
    assert discriminator.slope.grad is not None


def test_the_discriminator_exists_for_adversarial_recipes_only_and_is_never_saved():
    method = ESRGAN(blocks=1, features=4, discriminator_features=4)
    method.recipe = ESRGAN.recipes["demo-psnr"]
    assert method.helpers() == {}
    method.recipe = ESRGAN.recipes["demo-gan"]
    helpers = method.helpers()
    assert set(helpers) == {"discriminator"} and method.helpers()["discriminator"] is helpers["discriminator"]
    assert all(key.startswith("model.") for key in method.state_dict())


def test_perceptual_term_compares_the_teachers_features():
    teacher = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).requires_grad_(
        False
    )
    with torch.no_grad():
        teacher[0].weight.fill_(1.0)
        teacher[0].bias.zero_()
    method = _by_hand(1.2)
    method.recipe = Recipe(losses={"perceptual": 1.0})
    found = method.training_step(_flat(0.9), teacher, None)
    assert found["perceptual"].item() == pytest.approx(0.9, rel=1e-5)  # three channels, 0.3 apart
    with pytest.raises(SrbenchError, match="classifier"):
        method.training_step(_flat(0.9), None, None)


def test_published_recipe():
    psnr, gan = ESRGAN.recipes["psnr"], ESRGAN.recipes["gan"]
    assert (psnr.losses, psnr.lr, psnr.batch_size, psnr.patch) == ({"l1": 1.0}, 2e-4, 16, 128)
    assert psnr.epochs * psnr.steps_per_epoch == 1_000_000
    assert psnr.decay_every * psnr.steps_per_epoch == 200_000 and psnr.gamma == 0.5
    assert (gan.lr, gan.init, gan.epochs * gan.steps_per_epoch) == (1e-4, "df2k-psnr-x4", 400_000)
    assert set(gan.losses) == {"perceptual", "adversarial", "l1"}
    assert ESRGAN.recipes["demo-gan"].init == "demo-psnr-x4"


# --- a real checkpoint ---------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not ANIME.is_file(), reason="no realesr-animevideov3.pth beside the project")
def test_a_published_checkpoint_runs_and_tiles():
    from torchvision.io import decode_image

    method = load(ANIME)
    assert method.info.factor == 4 and "body.0.weight" in method.state_dict()
    hr = decode_image(str(sorted((REAL / "set5" / "HR").iterdir())[0]))[None, :3, :160, :160] / 255
    lr = nn.functional.interpolate(hr, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)
    whole = _upscaled(method, lr, 0, 0)
    enlarged = nn.functional.interpolate(lr, scale_factor=4, mode="nearest")
    assert (whole - hr).square().mean() < (enlarged - hr).square().mean()
    assert (_upscaled(method, lr, 20, 38) - whole).abs().max() < 1e-5
