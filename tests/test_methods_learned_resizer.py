"""The learned resizer and its control: sizes, a forward pass worked out by hand, losses, recipes."""

from __future__ import annotations

import math

import pytest
import torch
from srbench.methods.darionet import DarioNet
from srbench.methods.esrgan import ESRGAN
from srbench.methods.learned_resizer import LearnedResizer
from srbench.methods.retrained import Retrained
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.training.recipe import Recipe

# --- architecture --------------------------------------------------------------------------------------------------

PUBLISHED = {16: (11872, 16480, 21088, 25696), 32: (38080, 56512, 74944, 93376)}


@pytest.mark.parametrize(
    ("filters", "blocks", "count"),
    [(n, r, count) for n, counts in PUBLISHED.items() for r, count in enumerate(counts, 1)],
)
def test_convolution_weights_are_the_published_ones(filters, blocks, count):
    convolutions = [m for m in LearnedResizer(filters, blocks).modules() if isinstance(m, nn.Conv2d)]
    assert sum(convolution.weight.numel() for convolution in convolutions) == count
    assert [m.kernel_size[0] for m in convolutions] == [7, 1, *[3] * (2 * blocks), 3, 7]


def test_default_is_the_papers():
    method = LearnedResizer()
    assert sum(m.weight.numel() for m in method.modules() if isinstance(m, nn.Conv2d)) == 11872


def test_untrained_it_is_bilinear():
    method = LearnedResizer(8, 2).eval()
    image = torch.rand(2, 3, 40, 30)
    for size in ((90, 31), (40, 30), (17, 11)):
        torch.testing.assert_close(method(image, size), resize(image, size, "bilinear", antialias=False))
    wide = LearnedResizer(8, antialias=True).eval()
    torch.testing.assert_close(wide(image, (17, 11)), resize(image, (17, 11), "bilinear"))
    assert (wide(image, (17, 11)) - method(image, (17, 11))).abs().max() > 0.01


def _pointwise(blocks: int) -> LearnedResizer:
    """Return one filter whose kernels have nothing but a centre: a flat image stays flat and can be followed."""
    method = LearnedResizer(1, blocks).eval()
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(1.0 - module.eps)  # the identity, until told otherwise
    return method


@torch.no_grad()
def _centre(convolution: nn.Conv2d, value: float, bias: float = 0.0) -> None:
    middle = convolution.kernel_size[0] // 2
    convolution.weight[:, :, middle, middle] = value
    if convolution.bias is not None:
        convolution.bias.fill_(bias)


@pytest.mark.parametrize("size", [(8, 8), (20, 13), (3, 4)])
def test_forward_by_hand(size):
    method = _pointwise(blocks=1)
    _centre(method.head[0], -1.0, bias=0.2)  # 0.5 in three channels: -1.5 + 0.2 = -1.3
    _centre(method.head[2], -2.0, bias=-1.0)  # LeakyReLU(-1.3) = -0.26; 0.52 - 1 = -0.48
    with torch.no_grad():
        method.head[4].running_mean.fill_(0.1)  # LeakyReLU(-0.48) = -0.096; minus the mean: -0.196
        method.head[4].running_var.fill_(0.25 - method.head[4].eps)  # over 0.5: -0.392
    layers = method.blocks[0].layers
    _centre(layers[0], 3.0)  # -1.176
    with torch.no_grad():
        layers[1].weight.fill_(0.5)  # -0.588
    _centre(layers[3], 2.0)  # LeakyReLU(-0.588) = -0.1176; -0.2352; added to -0.392: -0.6272
    _centre(method.body[0], 0.5)  # -0.3136; added to -0.392: -0.7056
    _centre(method.tail, 0.25, bias=0.01)  # -0.1664; added to 0.5
    sr = method(torch.full((1, 3, 8, 8), 0.5), size)
    assert sr.shape == (1, 3, *size)
    torch.testing.assert_close(sr, torch.full_like(sr, 0.3336), atol=1e-6, rtol=0)


@pytest.mark.parametrize("wrong", [{"filters": 0}, {"blocks": 0}])
def test_constructor_refuses_what_it_cannot_build(wrong):
    with pytest.raises(UsageError, match="filters >= 1 and blocks >= 1"):
        LearnedResizer(**wrong)


# --- losses --------------------------------------------------------------------------------------------------------


class _Scores(nn.Module):
    """Scores an image by (slope x mean, 0)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image: Tensor) -> Tensor:
        mean = self.slope * image.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], dim=1)


def _batch() -> Batch:
    return Batch(torch.full((2, 3, 6, 6), 0.5), torch.zeros(2, 3, 12, 12), torch.tensor([1, 1]), None, (12, 12))


def _smoothed(score: float) -> float:
    """Cross-entropy by hand of scores (score, 0) with class 1 and a smoothing of 0.1 over two classes."""
    log_sum = math.log(math.exp(score) + 1)
    return 0.05 * (log_sum - score) + 0.95 * log_sum


@pytest.mark.parametrize("method_class", [LearnedResizer, Retrained])
def test_cross_entropy_is_smoothed_and_judged_by_the_classifier_trained_along(method_class):
    method = method_class()
    method.recipe = method_class.recipes["paper" if method_class is LearnedResizer else "default"]
    teacher, classifier = _Scores(9.0).requires_grad_(False), _Scores(2.0)
    found = method.training_step(_batch(), teacher, classifier)
    assert set(found) == {"ce"}
    assert found["ce"].item() == pytest.approx(_smoothed(1.0), rel=1e-5)
    found["ce"].backward()
    assert classifier.slope.grad is not None


def test_in_the_frozen_track_the_teacher_judges_and_stays():
    method = LearnedResizer(4)
    method.recipe = LearnedResizer.recipes["demo-frozen"]
    teacher = _Scores(2.0).requires_grad_(False)
    found = method.training_step(_batch(), teacher, None)
    assert found["ce"].item() == pytest.approx(_smoothed(1.0), rel=1e-5)
    found["ce"].backward()
    assert method.tail.weight.grad.abs().max() > 0 and teacher.slope.grad is None


def test_scores_of_a_teacher_may_be_the_loss_instead_of_labels():
    method = LearnedResizer(4)
    method.recipe = Recipe(losses={"logits": 1.0})
    batch = Batch(torch.full((1, 3, 6, 6), 0.5), torch.zeros(1, 3, 9, 9), None, torch.tensor([[0.4, 0.2]]), (9, 9))
    found = method.training_step(batch, _Scores(2.0), None)  # scores (1, 0): off by 0.6 and 0.2
    assert found["logits"].item() == pytest.approx((0.36 + 0.04) / 2, rel=1e-5)


def test_an_output_of_another_size_than_hr_can_be_trained_with():
    """talebi-2021: the classifier takes a smaller image than HR is."""
    method = LearnedResizer(4)
    method.recipe = LearnedResizer.recipes["paper"]
    hr = torch.rand(2, 3, 32, 32)
    seen: list[tuple[int, ...]] = []
    classifier = _Scores(1.0)
    classifier.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    method.training_step(Batch(hr, hr, torch.tensor([0, 1]), None, (16, 16)), None, classifier)
    assert seen == [(2, 3, 16, 16)]


# --- the control ---------------------------------------------------------------------------------------------------


def test_retrained_is_bilinear_without_parameters():
    method = Retrained()
    image = torch.rand(2, 3, 9, 7)
    for size in ((20, 30), (4, 5)):
        assert torch.equal(method(image, size), resize(image, size, "bilinear"))
    assert method.state_dict() == {} and Retrained.info.role == "control"
    assert all(recipe.track == "adapted" for recipe in Retrained.recipes.values())


# --- recipes -------------------------------------------------------------------------------------------------------


def test_paper_recipe_holds_the_published_figures():
    paper = LearnedResizer.recipes["paper"]
    assert (paper.losses, paper.label_smoothing) == ({"ce": 1.0}, 0.1)
    assert (paper.optimizer, paper.momentum, paper.lr) == ("sgd", 0.9, 0.005)
    assert (paper.schedule, paper.gamma, paper.decay_every) == ("step", 0.94, 2)
    assert (paper.track, paper.unit_scale) == ("adapted", False)
    assert paper.norm_steps > 0  # its batch-norm statistics drift
    assert LearnedResizer.recipes["transfer"].epochs == 4


def test_both_tracks_have_a_demo_recipe():
    tracks = {name: recipe.track for name, recipe in LearnedResizer.recipes.items() if name.startswith("demo-")}
    assert tracks == {"demo-frozen": "frozen", "demo-adapted": "adapted"}
    assert all(recipe.norm_steps > 0 for recipe in LearnedResizer.recipes.values())


def _image_steps(*recipes: Recipe) -> int:
    return sum(recipe.epochs * (recipe.steps_per_epoch or 0) * recipe.batch_size for recipe in recipes)


def test_the_demo_compares_at_equal_image_steps():
    control = _image_steps(Retrained.recipes["demo"])
    assert control == 8_000
    for name in ("demo-frozen", "demo-adapted"):
        assert _image_steps(LearnedResizer.recipes[name]) == control
    assert _image_steps(ESRGAN.recipes["demo-psnr"], DarioNet.recipes["demo"]) == control
