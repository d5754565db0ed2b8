"""SR4IR: EDSR's architecture and file format, the task-driven perceptual loss by hand, and the training in turn."""

from __future__ import annotations

import pytest
import torch
import training_world as world
from srbench.methods.sr4ir import SR4IR
from torch import nn

from srbench import weights
from srbench.errors import UsageError, WeightsError
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.networks.loading import load_classifier
from srbench.training.api import train
from srbench.training.recipe import Recipe

torch.set_num_threads(1)


# Architecture


def test_the_baseline_has_edsrs_parameters_under_edsrs_names():
    # EDSR-PyTorch's r16f64x4: 1,517,571 without the two fixed shifts by the mean
    state = SR4IR(residual=False).state_dict()
    assert sum(value.numel() for value in state.values()) - state["residual"].numel() == 1_517_571
    names = {key.rpartition(".")[0] for key in state if key != "residual"}
    blocks = {f"body.{number}.body.{layer}" for number in range(16) for layer in (0, 2)}
    assert names == {"head.0", *blocks, "body.16", "tail.0.0", "tail.0.2", "tail.1"}


def test_untrained_it_is_bilinear_enlargement():
    image = torch.rand(2, 3, 9, 13)
    with torch.no_grad():
        torch.testing.assert_close(SR4IR(1, 8)(image, (5, 5)), resize(image, (36, 52), "bilinear"))


def _by_hand() -> SR4IR:
    """Return one block of one feature whose kernels have nothing but a centre."""
    method = SR4IR(1, 1, residual=False)
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                module.bias.zero_()
        method.head[0].weight[0, :, 1, 1] = torch.tensor([1.0, 2.0, 3.0])
        method.body[0].body[0].weight[0, 0, 1, 1] = 2.0
        method.body[0].body[2].weight[0, 0, 1, 1] = 0.5
        method.body[1].weight[0, 0, 1, 1] = 3.0
        for doubling in (0, 2):  # four channels become the four pixels of a doubling
            method.tail[0][doubling].weight[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        method.tail[1].weight[:, 0, 1, 1] = torch.tensor([0.01, 0.02, 0.03])
    return method


@pytest.mark.parametrize("level", [0.5, 0.4])
def test_forward_by_hand(level):
    with torch.no_grad():
        found = _by_hand()(torch.full((1, 3, 3, 3), level), (12, 12))
    mean = (0.4488 * 255, 0.4371 * 255, 0.4040 * 255)
    head = sum(weight * (level * 255 - shift) for weight, shift in zip((1, 2, 3), mean, strict=True))
    block = head + 0.5 * max(0.0, 2 * head)  # the residual block: 2 x, ReLU, 0.5 x, added
    trunk = head + 3 * block
    pattern = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    values = trunk * torch.kron(pattern, pattern)  # twice doubled by pixel shuffle
    for channel, (gain, shift) in enumerate(zip((0.01, 0.02, 0.03), mean, strict=True)):
        expected = (gain * values + shift) / 255
        torch.testing.assert_close(found[0, channel, 4:8, 4:8], expected, rtol=1e-5, atol=1e-5)


def test_a_published_checkpoint_is_read_with_its_shifts_left_out(tmp_path):
    torch.manual_seed(0)
    source = SR4IR(3, 8, residual=False)
    shifts = {}
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        shifts[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        shifts[f"{name}.bias"] = sign * source.mean.flatten()
    state = {key: value for key, value in source.state_dict().items() if key != "residual"} | shifts
    torch.save(state, tmp_path / "edsr.pt")
    read = SR4IR.from_weights(weights.load(weights.find("sr4ir", str(tmp_path / "edsr.pt"))))
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(read(image, (32, 32)), source(image, (32, 32)))
    for missing in ("head.0.weight", "tail.0.2.weight"):
        torch.save({key: value for key, value in state.items() if key != missing}, tmp_path / "other.pt")
        with pytest.raises(WeightsError, match="holds no EDSR of factor 4"):
            SR4IR.from_weights(weights.load(weights.find("sr4ir", str(tmp_path / "other.pt"))))


def test_a_wrong_size_gets_a_sentence():
    with pytest.raises(UsageError, match="blocks=0"):
        SR4IR(0)


# Losses


class _Classifier(nn.Module):
    """Features `(N, 2, 2, 2)`: a gain times the means over quarters of two channels; the head takes their mean."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.features = nn.AdaptiveAvgPool2d(2)
        self.scaled = _Scaled(self.gain)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, image):
        return self.head(self.scaled(self.features(image[:, :2])))


class _Scaled(nn.Module):
    def __init__(self, gain: nn.Parameter) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, found):
        return self.gain * found


def _batch() -> Batch:
    hr = torch.zeros(1, 3, 8, 8)
    hr[:, 0, :4], hr[:, 1, :, :4] = 0.8, 0.4
    return Batch(torch.full((1, 3, 2, 2), 0.5), hr, torch.tensor([1]), None, (8, 8))


def test_the_terms_by_hand():
    method = SR4IR(1, 4)  # bilinear: SR is 0.5 everywhere
    method.recipe = Recipe(losses={"l1": 1.0, "perceptual": 1.0}, track="adapted")
    found = method.training_step(_batch(), _Classifier(1.0), _Classifier(3.0))
    # |0.5 - 0.8| and |0.5 - 0| on halves, |0.5 - 0.4| and |0.5 - 0|, |0.5 - 0|: means 0.4, 0.3 and 0.5
    assert found["l1"].item() == pytest.approx((0.4 + 0.3 + 0.5) / 3, rel=1e-5)
    # the features are those of the classifier that is trained, whose gain is 3, of two channels, absolute
    assert found["perceptual"].item() == pytest.approx(3 * (0.4 + 0.3) / 2, rel=1e-5)
    method.recipe = Recipe(losses={"perceptual": 1.0}, track="frozen")
    frozen = method.training_step(_batch(), _Classifier(1.0), None)
    assert frozen["perceptual"].item() == pytest.approx((0.4 + 0.3) / 2, rel=1e-5)
    frozen["perceptual"].backward()
    assert method.tail[1].bias.grad.any()


def test_recipes_are_the_paper_and_its_ablations():
    recipes = SR4IR.recipes
    paper = recipes["paper"]
    assert paper.losses == {"l1": 1.0, "perceptual": 1.0} and not paper.scales_terms
    assert paper.classifier_losses == {"ce_sr": 0.34, "ce_hr": 0.34, "ce_mix": 0.34}
    assert (paper.optimizer, paper.lr, paper.classifier_optimizer, paper.classifier_lr) == ("adamw", 1e-4, "sgd", 3e-2)
    assert recipes["paper-warm-up"].epochs + paper.epochs == 200 and recipes["paper-warm-up"].losses == {"l1": 1.0}
    assert recipes["cpu-small-frozen"].track == "frozen" and not recipes["cpu-small-frozen"].classifier_losses
    assert "ce_mix" not in recipes["cpu-small-no-mix"].classifier_losses
    assert sum(recipes["cpu-small-no-mix"].classifier_losses.values()) == pytest.approx(1.0)
    assert "perceptual" not in recipes["cpu-small-no-features"].losses


# Training


def test_it_trains_in_turn_goes_on_from_its_warm_up_and_its_ablations_run(tmp_path, own_folders):
    photos = world.make_images(tmp_path / "photos", count=24)
    world.make_classifier()
    base = load_classifier("tiny").network.state_dict()

    def run(recipe, name, **options):
        return train(
            "sr4ir",
            data=[f"folder:{photos}"],
            classifier="tiny",
            protocol=world.make_protocol(tmp_path),
            recipe=recipe,
            overrides=["parameters.blocks=1", "parameters.features=4", "steps_per_epoch=2", "batch_size=4"],
            epochs=1,
            out=tmp_path / name,
            name=name,
            device="cpu",
            progress=False,
            **options,
        )

    warm = run("cpu-small-warm-up", "warm")
    assert {"loss_l1", "loss_ce_sr", "loss_ce_hr", "loss_ce_mix"} <= set(warm.history)
    assert "loss_perceptual" not in warm.history
    full = run("cpu-small", "full", init_from="warm")
    assert {"loss_l1", "loss_perceptual", "loss_ce_mix"} <= set(full.history)
    assert full.history["val_psnr"][0] == pytest.approx(warm.metrics["psnr"], abs=0.01), "stored in 16 bits"
    loaded = weights.load(full.weights)
    assert loaded.classifier_state.keys() <= base.keys() and loaded.ref.card.track == "adapted"
    trained = {
        key for key, value in loaded.classifier_state.items() if not torch.equal(value.float(), base[key].float())
    }
    assert {"fc.weight", "conv1.0.weight"} <= trained, "both ends of the classifier moved"
    again = SR4IR.from_weights(loaded)
    assert not again.state_dict().keys() - full.network.state_dict().keys()
    frozen = weights.load(run("cpu-small-frozen", "frozen").weights)
    assert frozen.classifier_state is None and frozen.ref.card.track == "frozen"
    assert "loss_ce_mix" not in run("cpu-small-no-mix", "no-mix").history
