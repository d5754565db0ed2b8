"""Lightning Fabric for a run, and what its ranks exchange."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from srbench.compute.devices import use_device
from srbench.compute.numerics import Numerics
from srbench.training.validation import Sums


def choose_numerics(device: str, precision: str) -> Numerics:
    """Return the arithmetic that training computes in; "auto" is bf16 on a GPU that has it, else fp32.

    Raises:
        UsageError: If the device or precision is not there.
    """
    where = use_device(device)
    has_bf16 = where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Numerics.of(where, precision, auto="bf16" if has_bf16 else "fp32")


def make_fabric(numerics: Numerics) -> Fabric:
    """Return Fabric for an arithmetic; under torchrun it joins the other ranks."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=numerics.device,
        devices=local if world > 1 else 1,
        num_nodes=max(1, world // local) if world > 1 else 1,
        # Buffers are levelled by hand before they are used: a broadcast inside forward would overwrite what a second
        # forward pass of the same step still needs for its gradient.
        strategy=DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if world > 1 else "auto",
        precision="bf16-mixed" if numerics.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def mean_of_ranks(fabric: Fabric, value: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks, float32, detached."""
    mean = fabric.all_reduce(value.detach().float(), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def sum_of_ranks(fabric: Fabric, sums: Sums) -> Sums:
    """Add up the ranks' sums; a rank that had no batch knows no names."""
    if fabric.world_size == 1:
        return sums
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, (sums.totals, sums.counts))
    total = Sums()
    for totals, counts in gathered:
        for name in totals:
            total.totals[name] = total.totals.get(name, 0.0) + totals[name]
            total.counts[name] = total.counts.get(name, 0) + counts[name]
    return total


def level(fabric: Fabric, module: nn.Module, *, parameters: bool = False) -> None:
    """Give every rank the buffers of rank 0, and with `parameters` its parameters too."""
    if fabric.world_size == 1:
        return
    for tensor in [*module.buffers(), *(module.parameters() if parameters else ())]:
        torch.distributed.broadcast(tensor.data, src=0)
