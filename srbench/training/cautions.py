"""Warnings of a training: weights that are no better than chance or untrained, and networks that train mode breaks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.metrics.stats.chance import chance_level, is_at_chance
from srbench.networks.outputs import flat
from srbench.training.images import ImageSet
from srbench.training.norms import batch_norms, folded_norms

_LEAST_SPREAD = 0.1  # of eval mode's spread over images, below which train mode has lost what tells images apart


def about_outcome(epoch: int, steps: int, criterion: str) -> list[str]:
    """Say that the weights handed over are those that training began with, where they are."""
    if epoch != 0 or steps == 0 or criterion == "none":
        return []
    return [
        f"epoch 0 is the best by {criterion}: no epoch was better on the validation data than what training began with,"
        " so these weights are untrained; look at the curve of the loss, lower lr, or train for more epochs"
    ]


def about_chance(metrics: Mapping[str, float], labels: NDArray[np.int64] | None, classes: int) -> list[str]:
    """Say that accuracy on the validation data is that of guessing, how many images these are, and what to look at."""
    accuracy = metrics.get("accuracy")
    if accuracy is None or labels is None or labels.ndim != 1 or not len(labels):
        return []
    chance = chance_level(np.bincount(labels, minlength=classes).tolist(), classes)
    if not is_at_chance(accuracy, len(labels), chance):
        return []
    return [
        f"validation is at chance: accuracy {accuracy:.3f} on {len(labels)} images, where guessing gives {chance:.3f}"
        f" ({classes} classes, the loss of guessing is {np.log(classes):.2f}); look at the curve of the loss, the"
        " labels, lr and the number of epochs, or give more validation images"
    ]


@torch.no_grad()
def about_train_mode(network: nn.Module, images: Tensor, *, who: str, remedy: str) -> list[str]:
    """Say that a network's outputs no longer tell images apart in train mode, and what to do.

    So do those of a network whose batch norms hold no statistics of its features: folded ones, or foreign ones.

    Args:
        network: A trained network in eval mode; it is not changed.
        images: `(N, C, H, W)`, RGB or grey, float, [0, 1], at least two different ones.
        who: What the sentence calls it.
        remedy: What to do, or what is done.
    """
    if not batch_norms(network) or len(images) < 2:
        return []
    trained = copy.deepcopy(network).train()
    for module in [*folded_norms(trained), *(each for each in trained.modules() if isinstance(each, nn.Dropout))]:
        module.eval()  # as training itself treats folded norms; dropout only adds noise
    before, after = (_spread(each(images)) for each in (network, trained))
    if before == 0 or after >= _LEAST_SPREAD * before:
        return []
    return [
        f"in train mode the outputs of {who} spread over images by {after / before:.1%} of what they do in eval mode,"
        f" so its batch norms do not fit its features (they may be folded away); {remedy}"
    ]


def sample_images(images: ImageSet, count: int = 8) -> Tensor:
    """Return the first images of a set that have one shape, `(N, 3, H, W)`, RGB, float32, [0, 1]; at most `count`."""
    group = next(iter(images.batches(count)))
    return images.read(group)[0].float() / 255


def _spread(outputs: Any) -> float:
    """Return the standard deviation over images, root mean square over outputs."""
    return float(flat(outputs).float().std(dim=0).square().mean().sqrt())
