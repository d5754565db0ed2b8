"""Batch-norm statistics estimated anew before a validation: during training they drift behind the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def has_batch_norm(module: nn.Module) -> bool:
    """Say whether a module holds batch norms of any kind."""
    return any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in module.modules())


@contextmanager
def estimating(module: nn.Module) -> Iterator[None]:
    """Reset the statistics of all batch norms in train mode; what is run inside gives their plain mean over batches.

    Args:
        module: Put it into train mode first; norms in eval mode keep their statistics.
    """
    norms = [
        each
        for each in module.modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training and each.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
