"""SRGAN: its size, an output worked out by hand, its two variants, batch norm at evaluation, and its recipes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import training_world as world
from dummies import MeanCritic, n_parameters
from srbench.methods.srgan import SRGAN
from torch import nn

from srbench import weights
from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.protocol import load_protocol
from srbench.training.api import train
from srbench.training.recipe import Recipe

torch.set_num_threads(1)


def worked_out() -> SRGAN:
    """The smallest network, every weight at the centre of its kernel, so that each pixel can be followed by hand."""
    method = SRGAN(blocks=1, features=1, factor=2, channels=1).eval()

    def centre(convolution: nn.Conv2d, values: list[float], bias: float) -> None:
        with torch.no_grad():
            convolution.weight.zero_()
            middle = convolution.kernel_size[0] // 2
            convolution.weight[:, 0, middle, middle] = torch.tensor(values)
            convolution.bias.fill_(bias)

    def normed(layer: nn.BatchNorm2d, mean: float, deviation: float, gain: float, bias: float) -> None:
        with torch.no_grad():
            layer.running_mean.fill_(mean)
            layer.running_var.fill_(deviation**2 - layer.eps)
            layer.weight.fill_(gain)
            layer.bias.fill_(bias)

    centre(method.shallow, [2.0], -0.2)
    body = method.blocks[0].body
    centre(body[0], [3.0], 0.0)
    normed(body[1], 0.1, 0.5, 1.0, -0.2)
    centre(body[3], [1.0], 0.0)
    normed(body[4], 0.0, 2.0, 1.0, 0.1)
    centre(method.fusion[0], [1.0], 0.0)
    normed(method.fusion[1], 0.0, 1.0, 0.5, 0.0)
    centre(method.shuffled[0], [1.0, -1.0, 2.0, -2.0], 0.0)
    centre(method.last, [1.0], 0.05)
    return method


# slopes below zero are 0.25
# 0.05: 2 x - 0.2 = -0.1, shallow -0.025; block -0.075, normed -0.35 - 0.2 = -0.55, -0.1375, normed 0.03125, plus input
#       0.00625; fused 0.003125, with shallow -0.021875; four times, sloped: -0.00546875, 0.021875, -0.0109375, 0.04375
# 0.20: shallow 0.2; block 0.6, normed 1 - 0.2 = 0.8, 0.8, normed 0.5, plus input 0.7; fused 0.35, with shallow 0.55;
#       four times, sloped: 0.55, -0.1375, 1.1, -0.275
LR = torch.tensor([[[[0.05, 0.2]]]])
SR = 0.05 + torch.tensor([[[[-0.00546875, 0.021875, 0.55, -0.1375], [-0.0109375, 0.04375, 1.1, -0.275]]]])


def test_an_output_that_was_worked_out_by_hand():
    torch.testing.assert_close(worked_out()(LR, (0, 0)), SR, rtol=1e-4, atol=1e-6)


def test_variant_a_is_the_squared_error_and_b_adds_a_plain_adversarial_term():
    method = worked_out()
    hr = torch.full((1, 1, 2, 4), 0.25)
    batch = Batch(LR, hr, None, None, (2, 4))
    method.recipe = SRGAN.recipes["deeplense-a"]
    found = method.training_step(batch, None, None)
    assert set(found) == {"l2"} and found["l2"].item() == pytest.approx(float((SR - hr).square().mean()), 1e-4)
    assert method.helpers() == {}
    method.recipe = Recipe(losses={"l2": 1.0, "adversarial": 0.1})
    assert method.helpers()["discriminator"](torch.rand(2, 1, 32, 32)).shape == (2, 1)
    discriminator = method._helpers["discriminator"] = MeanCritic()
    found = method.training_step(batch, None, None)
    torch.testing.assert_close(found["adversarial"], F.softplus(-SR.mean()), rtol=1e-4, atol=0)
    expected = F.softplus(torch.tensor(-0.25)) + F.softplus(SR.mean())
    torch.testing.assert_close(method.helper_step("discriminator", batch, SR), expected, rtol=1e-4, atol=0)
    found["adversarial"].backward()
    assert discriminator.gain.grad is None and method.shallow.weight.grad.abs().max() > 0


def test_sizes_are_the_papers():
    with torch.device("meta"):
        # 9 x 9 in and out, 16 blocks of two 3 x 3 with batch norm, one more, two doublings; a slope after each
        block = 2 * (64 * 64 * 9 + 64 + 2 * 64) + 1
        ends = (3 * 64 * 81 + 64 + 1) + (64 * 64 * 9 + 64 + 2 * 64) + (64 * 3 * 81 + 3)
        assert n_parameters(SRGAN()) == 16 * block + ends + 2 * (64 * 256 * 9 + 256 + 1) == 1_549_462
        assert n_parameters(SRGAN(factor=2)) == 1_401_749 and n_parameters(SRGAN(factor=3)) == 1_586_389
        assert n_parameters(SRGAN(channels=1)) == 1_549_462 - 2 * 2 * 64 * 81 - 2
        assert 150_000 < n_parameters(SRGAN(**SRGAN.recipes["cpu-small"].parameters)) < 300_000


@pytest.mark.parametrize("upsampler", ["paper", "direct"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_any_size_at_each_factor_and_it_starts_as_bilinear(factor, upsampler):
    method = SRGAN(blocks=2, features=7, factor=factor, upsampler=upsampler).eval()
    assert method.info.factor == factor
    for height, width in ((1, 1), (1, 7), (13, 6)):
        assert method(torch.rand(1, 3, height, width), (0, 0)).shape == (1, 3, factor * height, factor * width)
    lr = torch.rand(2, 3, 13, 14)
    expected = lr
    for step in method._steps:
        expected = resize(expected, tuple(step * side for side in expected.shape[-2:]), "bilinear")
    rim = 3 * factor  # the convolutions see zeros around the image
    torch.testing.assert_close(method(lr, (0, 0))[..., rim:-rim, rim:-rim], expected[..., rim:-rim, rim:-rim])


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"features": 0}, {"factor": 8}, {"channels": 4}, {"upsampler": ""}])
def test_a_wrong_size_gets_a_sentence(wrong):
    with pytest.raises(UsageError, match=r"srgan takes .*channels 1 or 3.* got .*the paper's are blocks=16"):
        SRGAN(**wrong)


def test_recipes_are_the_papers_and_deeplenses():
    a, b = SRGAN.recipes["deeplense-a"], SRGAN.recipes["deeplense-b"]
    assert (a.losses, a.lr, a.epochs, a.batch_size) == ({"l2": 1.0}, 5e-4, 8, 63)
    assert set(b.losses) == {"l2", "features", "adversarial"} and (b.lr, b.epochs, b.batch_size) == (1e-6, 25, 32)
    paper = SRGAN.recipes["psnr"]
    assert (paper.lr, paper.batch_size, paper.patch, paper.epochs * paper.steps_per_epoch) == (1e-4, 16, 96, 1_000_000)
    assert all(recipe.norm_steps >= 50 and not recipe.store_fp16 for recipe in SRGAN.recipes.values()), (
        "batch norm: see docs"
    )


def train_tiny(tmp_path, recipe, **more):
    tiny = [f"parameters.{key}={value}" for key, value in SRGAN.tiny.items()]
    return train(
        "srgan",
        data=[f"folder:{tmp_path / 'photos'}"],
        protocol=load_protocol("demo"),
        recipe=recipe,
        overrides=["steps_per_epoch=4", "batch_size=8", "norm_steps=3", "patch=none", *tiny],
        epochs=1,
        out=tmp_path / recipe,
        device="cpu",
        progress=False,
        **more,
    )


def test_what_is_saved_has_statistics_of_its_last_weights_not_of_the_way_there(tmp_path, own_folders):
    world.make_images(tmp_path / "photos")
    result = train_tiny(tmp_path, "cpu-small")
    state = weights.read_state(result.weights.path)
    counted = {int(value) for key, value in state.items() if key.endswith("num_batches_tracked")}
    assert counted == {3}, "the batches of norm_steps alone, none of the training"
    method = SRGAN.from_weights(weights.load(weights.find("srgan", "cpu-small"))).eval()
    lr = torch.rand(3, 3, 7, 8)
    together = method(lr, (0, 0))
    torch.testing.assert_close(method(lr[1:2], (0, 0)), together[1:2], rtol=1e-4, atol=1e-5)
    assert (method.train()(lr, (0, 0)) - together).abs().max() > 1e-4, "in training the statistics are the batch's"


def test_training_variant_b_saves_the_generator_alone(tmp_path, own_folders):
    world.make_images(tmp_path / "photos")
    world.make_classifier()
    result = train_tiny(tmp_path, "deeplense-b", classifier="tiny")
    row = result.history.iloc[-1]
    assert all(row[name] > 0 for name in ("loss_l2", "loss_features", "loss_adversarial", "loss_helper_discriminator"))
    assert set(weights.read_state(result.weights.path)) == set(SRGAN(**SRGAN.tiny).state_dict())
    assert result.criterion == "none" and result.weights.card.teacher["id"] == "tiny"


def test_the_old_name_of_discriminator_features_is_read_in_cards_and_recipes(tmp_path, own_folders):
    world.make_images(tmp_path / "photos")
    tiny = {("critic" if key == "discriminator_features" else key): value for key, value in SRGAN.tiny.items()}
    card = weights.Card(namespace="srgan", name="old", parameters=tiny, factor=4)
    ref = weights.save(tmp_path / "old.safetensors", SRGAN(**SRGAN.tiny).state_dict(), card)
    assert SRGAN.from_weights(weights.load(ref)).discriminator_features == 4
    result = train(
        "srgan",
        data=[f"folder:{tmp_path / 'photos'}"],
        protocol=load_protocol("demo"),
        recipe="deeplense-a",
        overrides=["steps_per_epoch=1", "patch=none", *(f"parameters.{key}={value}" for key, value in tiny.items())],
        epochs=1,
        init_from=str(ref.path),
        out=tmp_path / "run",
        device="cpu",
        progress=False,
    )
    assert (
        result.weights.card.parameters["discriminator_features"] == 4 and "critic" not in result.weights.card.parameters
    )
