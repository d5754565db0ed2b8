"""The control: its classifier learns on exactly the images that it is scored on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from srbench.methods.muller import Muller
from srbench.methods.retrained import Retrained
from torch import Tensor, nn

from srbench.imaging.degrade import for_classifier
from srbench.method import Batch
from srbench.protocol import load_protocol


class Seen(nn.Module):
    """A classifier of two classes that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.image: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        self.image = image.detach().clone()
        return self.head(image.mean(dim=(2, 3)))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(2, 3, 5, 7, generator=generator).mul(255).round().div(255)
    hr = torch.rand(2, 3, 16, 22, generator=generator)
    return Batch(lr=lr, hr=hr, label=torch.tensor([0, 1]), teacher_logits=None, sr_size=(16, 22))


def shown(method, protocol) -> Tensor:
    method.prepare(protocol)
    method.recipe = dataclasses.replace(method.recipe, losses={"ce": 1.0})
    classifier = Seen()
    method.training_step(batch(), None, classifier)["ce"].backward()
    assert classifier.head.weight.grad is not None
    assert classifier.image is not None
    return classifier.image


@pytest.mark.parametrize("name", ["clean", "sr4ir-x4"])
def test_the_control_is_shown_what_the_protocol_shows(name: str) -> None:
    protocol = load_protocol(name)
    given = batch()
    expected = for_classifier(Retrained()(given.lr, given.sr_size), protocol)
    assert torch.equal(shown(Retrained(), protocol), expected)


def test_rounding_is_left_out_where_a_gradient_must_pass() -> None:
    levels = shown(Muller(start="bilinear"), load_protocol("clean")) * 255
    assert (levels - levels.round()).abs().max() > 0.1
