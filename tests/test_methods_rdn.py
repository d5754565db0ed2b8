"""RDN: its size, an output worked out by hand, what it starts as, its losses, and its recipes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import training_world as world
from dummies import MeanCritic, n_parameters
from srbench.methods.rdn import RDN
from torch import nn

from srbench import weights
from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.protocol import load_protocol
from srbench.training.api import train
from srbench.training.features import FeatureExtractor
from srbench.training.recipe import Augment, Recipe

torch.set_num_threads(1)
SIZE = {"blocks": 2, "layers": 3, "growth": 5, "features": 7}


def worked_out() -> RDN:
    """The smallest network, every weight at the centre of its kernel, so that each pixel can be followed by hand."""
    method = RDN(blocks=1, layers=2, growth=1, features=1, factor=2, channels=1)

    def centre(convolution: nn.Conv2d, values: list[list[float]], bias: float) -> None:
        with torch.no_grad():
            convolution.weight.zero_()
            middle = convolution.kernel_size[0] // 2
            convolution.weight[:, :, middle, middle] = torch.tensor(values)
            convolution.bias.fill_(bias)

    centre(method.shallow, [[2.0]], 0.0)
    centre(method.entry, [[3.0]], 0.0)
    block = method.blocks[0]
    centre(block.layers[0], [[-1.0]], 0.5)
    centre(block.layers[1], [[0.0, 3.0]], 0.0)
    centre(block.fusion, [[0.5, 2.0, 1.0]], 0.0)
    centre(method.fusion[0], [[1.0]], 0.0)
    centre(method.fusion[1], [[0.1]], 0.2)
    centre(method.shuffled[0], [[1.0], [2.0], [3.0], [4.0]], 0.0)
    centre(method.last, [[1.0]], -0.1)
    return method


# 0.05: shallow 0.1, entry 0.3, layers 0.2 and 0.6, block 0.3 + 0.15 + 0.4 + 0.6 = 1.45, fused 0.345, with shallow 0.445
# 0.20: shallow 0.4, entry 1.2, layers 0 and 0, block 1.2 + 0.6 = 1.8, fused 0.38, with shallow 0.78
LR = torch.tensor([[[[0.05, 0.2]]]])
SR = torch.tensor([[[[0.345, 0.79, 0.68, 1.46], [1.235, 1.68, 2.24, 3.02]]]])


def test_an_output_that_was_worked_out_by_hand():
    torch.testing.assert_close(worked_out()(LR, (0, 0)), SR)


def test_losses_that_were_worked_out_by_hand():
    method = worked_out()
    hr = torch.full((1, 1, 2, 4), 0.4)
    batch = Batch(LR, hr, None, None, (2, 4))
    method.recipe = Recipe(losses={"l1": 1.0})
    error = (SR - 0.4).abs().mean()
    assert float(error) == pytest.approx((0.055 + 0.39 + 0.28 + 1.06 + 0.835 + 1.28 + 1.84 + 2.62) / 8)
    assert method.training_step(batch, None, None)["l1"].item() == pytest.approx(float(error), rel=1e-5)
    method.recipe = dataclasses.replace(RDN.recipes["gan"], losses={"l1": 1.0, "adversarial": 0.1})
    method.helpers()
    method._helpers["discriminator"] = MeanCritic()
    gap = torch.tensor(0.4 - float(SR.mean()))  # of the scores of HR and SR
    found = method.training_step(batch, None, None)
    assert set(found) == {"l1", "adversarial"}
    torch.testing.assert_close(found["adversarial"], F.softplus(gap), rtol=1e-5, atol=0)
    torch.testing.assert_close(method.helper_step("discriminator", batch, SR), F.softplus(-gap), rtol=1e-5, atol=0)
    assert method._helpers["discriminator"].gain.grad is None
    found["adversarial"].backward()
    assert method._helpers["discriminator"].gain.grad is None, "the generator's step leaves the discriminator alone"
    assert method.shallow.weight.grad.abs().max() > 0


def test_features_are_those_of_the_classifier_that_is_given():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    teacher(torch.zeros(1, 3, 64, 64))
    method = RDN(**RDN.tiny)
    method.recipe = Recipe(losses={"features": 1.0, "l1": 1.0})
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    found = method.training_step(Batch(lr, hr, None, None, (64, 64)), teacher, None)
    extract = FeatureExtractor(teacher)
    torch.testing.assert_close(found["features"], (extract(method(lr, (0, 0))) - extract(hr)).square().mean())


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        assert n_parameters(RDN()) == 22_271_107, "22.27 M: D=16, C=8, G=G0=64, x4"
        assert n_parameters(RDN(factor=3)) == 22_308_035 and n_parameters(RDN(factor=2)) == 22_123_395
        block = sum((64 + 64 * place) * 64 * 9 + 64 for place in range(8)) + (64 + 8 * 64) * 64 + 64
        assert n_parameters(RDN().blocks) == 16 * block
        assert 150_000 < n_parameters(RDN(**RDN.recipes["cpu-small"].parameters)) < 300_000


def test_torchsr_has_the_same_size_and_makes_the_same_of_the_same_weights():
    theirs = pytest.importorskip("torchsr.models.rdn", reason="torchsr is not installed (extra dev)")
    with torch.device("meta"):
        for factor in (2, 3, 4):
            assert n_parameters(theirs.rdn(factor)) == n_parameters(RDN(factor=factor))
    for factor in (2, 3, 4):
        ours, other = RDN(**SIZE, factor=factor), theirs.RDN(factor, D=2, C=3, G=5, G0=7)
        other.load_state_dict(dict(zip(other.state_dict(), ours.state_dict().values(), strict=True)))
        lr = torch.rand(2, 3, 9, 6)
        torch.testing.assert_close(ours(lr, (0, 0)), other(lr))


@pytest.mark.parametrize("upsampler", ["paper", "direct"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_any_size_at_each_factor_and_it_starts_as_bilinear(factor, upsampler):
    method = RDN(**SIZE, factor=factor, upsampler=upsampler)
    assert method.info.factor == factor
    for height, width in ((1, 1), (1, 7), (13, 6)):
        assert method(torch.rand(1, 3, height, width), (0, 0)).shape == (1, 3, factor * height, factor * width)
    lr = torch.rand(2, 3, 11, 14)
    expected = lr
    for step in method._steps:
        expected = resize(expected, tuple(step * side for side in expected.shape[-2:]), "bilinear")
    rim = 3 * factor  # the convolutions see zeros around the image
    torch.testing.assert_close(method(lr, (0, 0))[..., rim:-rim, rim:-rim], expected[..., rim:-rim, rim:-rim])


def test_grey_images_and_few_channels():
    grey = RDN(**RDN.tiny | {"channels": 1})
    assert grey.info.channels == 1 and grey(torch.rand(1, 1, 5, 5), (0, 0)).shape == (1, 1, 20, 20)
    grey.recipe = RDN.recipes["gan"]
    assert grey.helpers()["discriminator"](torch.rand(2, 1, 32, 32)).shape == (2, 1)
    assert RDN(1, 1, 2, 2)(torch.rand(1, 3, 4, 4), (0, 0)).shape == (1, 3, 16, 16), "too few to carry the image through"


@pytest.mark.parametrize(
    "wrong",
    [
        {"blocks": 0},
        {"growth": 0},
        {"factor": 5},
        {"channels": 2},
        {"upsampler": "bicubic"},
        {"discriminator_features": 0},
    ],
)
def test_a_wrong_size_gets_a_sentence(wrong):
    with pytest.raises(UsageError, match=r"rdn takes .*factor 2, 3 or 4.* got .*the paper's are blocks=16"):
        RDN(**wrong)


def test_recipes_are_the_papers_and_idealos():
    paper = RDN.recipes["psnr"]
    assert (paper.losses, paper.lr, paper.batch_size, paper.patch) == ({"l1": 1.0}, 1e-4, 16, 4 * 32)
    assert (paper.steps_per_epoch, paper.schedule, paper.gamma, paper.decay_every) == (1000, "step", 0.5, 200)
    assert paper.augment == Augment(flip=True, rotate=True) and not paper.scales_terms and not paper.parameters
    gan = RDN.recipes["gan"]
    assert gan.patches_per_image == gan.batch_size and gan.min_detail == 0.03, "one image, a batch of its patches"
    assert {recipe.patch for recipe in RDN.recipes.values()} == {128, 160, 96, None}


def test_training_against_a_discriminator_saves_the_generator_alone(tmp_path, own_folders):
    world.make_images(tmp_path / "photos")
    world.make_classifier()
    result = train(
        "rdn",
        data=[f"folder:{tmp_path / 'photos'}"],
        classifier="tiny",
        protocol=load_protocol("demo"),
        recipe="gan",
        overrides=["patch=20", "steps_per_epoch=3", *(f"parameters.{key}={value}" for key, value in RDN.tiny.items())],
        epochs=1,
        out=tmp_path / "run",
        device="cpu",
        progress=False,
    )
    row = result.history.iloc[-1]
    assert all(row[name] > 0 for name in ("loss_l1", "loss_features", "loss_adversarial", "loss_helper_discriminator"))
    loaded = RDN.from_weights(weights.load(weights.find("rdn", "gan-tiny")))
    assert set(loaded.state_dict()) == set(weights.read_state(result.weights.path)) == set(RDN(**RDN.tiny).state_dict())
    lr = torch.rand(1, 3, 6, 5)
    torch.testing.assert_close(loaded(lr, (0, 0)), result.network(lr, (0, 0)))
