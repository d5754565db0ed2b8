"""How long a call takes, what it keeps in memory, and how large a network is.

Apart from the pass that scores: the caller has put the input on the device and entered inference mode.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from srbench.compute.numerics import Numerics, tf32_allowed
from srbench.errors import UsageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds that one call on one batch takes.

    Attributes:
        median_s: Median over the repeats.
        p10_s: 10th percentile.
        p90_s: 90th percentile.
        repeats: Number of timed calls.
        batch_size: Images per call.
    """

    median_s: float
    p10_s: float
    p90_s: float
    repeats: int
    batch_size: int

    @property
    def images_per_s(self) -> float:
        """Images per second at the median."""
        return self.batch_size / self.median_s


def measure(
    call: Callable[[], object],
    *,
    device: torch.device | str,
    batch_size: int,
    budget_s: float = 1.0,
    min_repeats: int = 3,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time repeated calls until the budget, warm-up included, is used up.

    Warm-up ends early once it has used half the budget. `min_repeats` may stretch the measurement to twice
    the budget, no further: a call slower than the budget is timed once, after one warm-up.

    Args:
        call: What is timed; its inputs lie on the device.
        device: Device it runs on; work queued there is waited for before and after each call.
        batch_size: Images per call.
        budget_s: Seconds to spend.
        min_repeats: Timed calls wanted, at least one.
        warmup: Calls before the first timed one, at most.
        clock: Source of seconds.

    Raises:
        UsageError: If a number is out of its range.
    """
    if batch_size < 1 or min_repeats < 1 or warmup < 0 or budget_s <= 0:
        raise UsageError(
            "a measurement needs batch_size >= 1, min_repeats >= 1, warmup >= 0 and budget_s > 0, "
            f"got {batch_size}, {min_repeats}, {warmup} and {budget_s}"
        )
    where = torch.device(device)
    spent = 0.0
    for _ in range(warmup):
        spent += _seconds(call, where, clock)
        if spent >= budget_s / 2:
            break
    timed: list[float] = []
    while not timed or spent < budget_s or (len(timed) < min_repeats and spent < 2 * budget_s):
        timed.append(_seconds(call, where, clock))
        spent += timed[-1]
    p10, median, p90 = (float(value) for value in np.percentile(timed, (10, 50, 90)))
    return Timing(median_s=median, p10_s=p10, p90_s=p90, repeats=len(timed), batch_size=batch_size)


def _seconds(call: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    _synchronize(device)
    start = clock()
    call()
    # Without waiting, only the time to queue the kernels would be measured.
    _synchronize(device)
    return clock() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class MatrixProduct:
    """What the device reaches on a product of two large square matrices, the yardstick of a network's speed.

    Attributes:
        side: Rows and columns of the matrices.
        arithmetic: "float32", "tf32" or "bfloat16".
        flops_per_s: Median floating-point operations a second, 2 x side^3 a product.
    """

    side: int
    arithmetic: str
    flops_per_s: float


def measure_matrix_product(
    device: torch.device | str, numerics: Numerics, *, side: int | None = None, budget_s: float = 1.0
) -> MatrixProduct:
    """Time the product of two random square matrices on a device, with the threads that torch uses now.

    Args:
        device: Where it is computed.
        numerics: Arithmetic of the product.
        side: Rows and columns; None is large enough to fill the device: 2048 on a CPU, 8192 on a GPU.
        budget_s: Seconds to spend.
    """
    where = torch.device(device)
    side = side or (8192 if where.type == "cuda" else 2048)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(where, numerics.dtype) for _ in range(2))
    out = torch.empty_like(left)
    with tf32_allowed(numerics.tf32):
        timing = measure(lambda: torch.mm(left, right, out=out), device=where, batch_size=1, budget_s=budget_s)
    return MatrixProduct(side, numerics.arithmetic, 2 * side**3 / timing.median_s)


def count_macs(module: nn.Module, *inputs: object) -> int | None:
    """Multiply-accumulates of `module(*inputs)` in its convolutions, matrix products and attention.

    Counted on the meta device, in eval mode, where nothing is computed: on the CPU, torch's counter sees no attention.
    Interpolations, norms and activations count zero. The module itself is untouched.

    Args:
        module: The network.
        inputs: Its arguments; only the shape and dtype of tensors matter.

    Returns:
        Half the counted FLOPs, or None where something in the module cannot run on the meta device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad():
            skeleton = _on_meta(module).eval()
            arguments = tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), inputs)
            counter = FlopCounterMode(display=False)
            with counter:
                skeleton(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a foreign module does without real numbers
        _log.info("no MACs for %s: %s", type(module).__name__, error)
        return None
    return int(counter.get_total_flops()) // 2


def _on_meta(module: nn.Module) -> nn.Module:
    """Copy a module onto the meta device without copying its parameters, which may fill the device."""
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    # `to` gives modules that move plain tensors along with themselves the chance to do so.
    return copy.deepcopy(module, memo).to("meta")


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones counted once; buffers are none."""
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass
class PeakMemory:
    """Memory of a block, known when the block has ended.

    Attributes:
        mb: Most memory that the block and what it works on held at once, in 10^6 bytes; None where the device does not
            tell (a CPU), or before the end.
    """

    mb: float | None = None


@contextmanager
def peak_memory(device: torch.device | str, *held: nn.Module | Tensor) -> Iterator[PeakMemory]:
    """Note the peak of the allocated memory of a CUDA device while the block runs.

    What lies on the device before the block does not count, such as other networks, unless it is named as `held`.

    Args:
        device: Where the block computes. On a CPU nothing honest and cheap is known, and `mb` stays None.
        held: What the block works on: its network, its input. They are on the device already, and count.
    """
    where = torch.device(device)
    peak = PeakMemory()
    if where.type != "cuda":
        yield peak
        return
    torch.cuda.synchronize(where)
    torch.cuda.reset_peak_memory_stats(where)
    before = torch.cuda.memory_allocated(where)
    yield peak
    torch.cuda.synchronize(where)
    peak.mb = (torch.cuda.max_memory_allocated(where) - before + _bytes_of(held)) / 1e6


def _bytes_of(held: Iterable[nn.Module | Tensor]) -> int:
    """Count the bytes of tensors and of the parameters and buffers of networks, what is shared once."""
    tensors = [
        tensor
        for each in held
        for tensor in ([each] if isinstance(each, Tensor) else [*each.parameters(), *each.buffers()])
    ]
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())
