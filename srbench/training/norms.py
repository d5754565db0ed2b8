"""Batch norms: those that were folded away, and statistics estimated anew, since in training they trail the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms of any kind that keep statistics, in the order of the module's definition."""
    return [
        each
        for each in module.modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.track_running_stats
    ]


def folded_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms whose statistics have been folded into the layer before: mean 0 and variance 1 throughout.

    They are what a network without batch norm becomes in an architecture that has them. Statistics of images would
    normalise what was never to be normalised.
    """
    return [
        norm
        for norm in batch_norms(module)
        if norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool(torch.all(norm.running_var == 1))
        and norm.bias is not None
        and bool(norm.bias.any())  # it holds the bias of the layer before; that of an untrained norm is 0
    ]


@contextmanager
def estimating(module: nn.Module) -> Iterator[None]:
    """Reset the statistics of all batch norms in train mode; what is run inside gives their plain mean over batches.

    Args:
        module: Put it into train mode first; norms in eval mode keep their statistics.
    """
    norms = [norm for norm in batch_norms(module) if norm.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
