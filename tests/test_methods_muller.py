"""MULLER: the paper's formula in plain NumPy, its published values, and what its four scalars learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from srbench.methods.muller import Muller
from torch import nn

from srbench import weights
from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.training.recipe import Recipe

torch.set_num_threads(1)


def _blur(image):
    """Blur rows and columns of `(H, W)` by five taps of a Gaussian of sigma 1, zeros around."""
    taps = np.exp(-0.5 * np.arange(-2, 3) ** 2.0)
    taps /= taps.sum()
    padded = np.pad(image, 2)
    height, width = image.shape
    rows = sum(tap * padded[shift : shift + height] for shift, tap in enumerate(taps))
    return sum(tap * rows[:, shift : shift + width] for shift, tap in enumerate(taps))


def _bilinear(image, size):
    """Resize `(H, W)` by bilinear interpolation between pixel centres, without antialias."""

    def along(rows, target):
        position = (np.arange(target) + 0.5) * len(rows) / target - 0.5
        position = np.clip(position, 0, len(rows) - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, len(rows) - 1)
        share = (position - low)[:, None]
        return rows[low] * (1 - share) + rows[high] * share

    return along(along(image, size[0]).T, size[1]).T


def _formula(image, size, scalars):
    """Write FACTS' formula out for one plane."""
    result = _bilinear(image, size)
    for weight, bias in scalars:
        blurred = _blur(image)
        result = result + np.tanh(weight * _bilinear(blurred - image, size) + bias)
        image = blurred
    return result


PUBLISHED = ((1.892, -0.014), (-11.295, 0.003))


@pytest.mark.parametrize("scalars", [PUBLISHED, ((0.7, 0.2), (3.0, -0.1))])
@pytest.mark.parametrize(("side", "size"), [((13, 18), (41, 57)), ((9, 9), (9, 9)), ((40, 31), (17, 12))])
def test_the_output_is_the_formulas(side, size, scalars):
    method = Muller().double()
    if scalars is not PUBLISHED:
        with torch.no_grad():
            method.gains.copy_(torch.tensor([gain for gain, _ in scalars]))
            method.biases.copy_(torch.tensor([bias for _, bias in scalars]))
    image = np.random.default_rng(0).random((2, 3, *side))
    with torch.no_grad():
        found = method(torch.from_numpy(image), size).numpy()
    scalars = tuple(zip(method.gains.tolist(), method.biases.tolist(), strict=True))  # float32 values, as they are held
    expected = np.array([[_formula(plane, size, scalars) for plane in one] for one in image])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_there_are_four_scalars_and_they_start_as_published():
    state = Muller().state_dict()
    assert sum(value.numel() for value in state.values()) == 4
    found = tuple(zip(state["gains"].tolist(), state["biases"].tolist(), strict=True))
    assert np.array(found) == pytest.approx(np.array(PUBLISHED), rel=1e-6)


def test_a_flat_image_moves_by_the_biases_alone_away_from_the_border():
    # r = 0 inside, so each band adds tanh(b); at the border the zeros darken the blur.
    method = Muller().double()
    with torch.no_grad():
        found = method(torch.full((1, 3, 20, 20), 0.5, dtype=torch.float64), (20, 20))
    inside = 0.5 + np.tanh(method.biases.tolist()).sum()
    torch.testing.assert_close(found[..., 8:12, 8:12], torch.full((1, 3, 4, 4), inside, dtype=torch.float64))
    assert (found[..., 0, 0] - inside).abs().min() > 0.1


def test_without_its_bands_it_is_bilinear():
    method = Muller(start="bilinear")
    image = torch.rand(2, 3, 11, 14)
    torch.testing.assert_close(method(image, (29, 30)), resize(image, (29, 30), "bilinear", antialias=False))
    assert weights.build(Muller, weights.untrained("start=bilinear")).gains.tolist() == [0.0, 0.0]
    with pytest.raises(UsageError, match="start published or bilinear"):
        Muller(start="zero")


@pytest.mark.parametrize("track", ["frozen", "adapted"])
@pytest.mark.parametrize("term", ["ce", "logits"])
def test_all_four_learn_from_any_classifier(track, term):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    teacher.requires_grad_(False)
    hr = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        batch = Batch(hr[..., ::2, ::2], hr, torch.tensor([0, 3]), teacher(hr), (24, 24))
    trained = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)) if track == "adapted" else None
    method = Muller()
    method.recipe = Recipe(losses={term: 1.0}, label_smoothing=0.1, track=track)
    found = method.training_step(batch, teacher, trained)
    assert set(found) == {term}
    judge = trained or teacher
    sr = method(batch.lr, (24, 24))
    expected = (
        nn.functional.cross_entropy(judge(sr), batch.label, label_smoothing=0.1)
        if term == "ce"
        else (judge(sr) - batch.teacher_logits).square().mean()
    )
    torch.testing.assert_close(found[term], expected)
    found[term].backward()
    assert (method.gains.grad != 0).all() and (method.biases.grad != 0).all()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_recipes_cover_both_tracks():
    tracks = {name: recipe.track for name, recipe in Muller.recipes.items()}
    assert tracks["cpu-small"] == tracks["demo"] == tracks["logits"] == "frozen"
    assert tracks["cpu-small-adapted"] == tracks["demo-adapted"] == tracks["gpu"] == tracks["published"] == "adapted"
    assert not Muller.recipes["published"].parameters
    assert all(r.parameters == {"start": "bilinear"} for name, r in Muller.recipes.items() if name != "published")
