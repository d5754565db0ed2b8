"""Batches that the memory does not hold are halved until they fit, and how many images that left is remembered."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from srbench.errors import MemoryShortError, is_out_of_memory

Result = TypeVar("Result")
_WHATEVER = (0, 0)  # the size where no image's is known

_log = logging.getLogger(__name__)


class BatchLimits:
    """How many images networks take at once: all that come, or what was left after a batch did not fit.

    A network that was once too large for a batch is not tried with as many images of that size again.
    """

    def __init__(self) -> None:
        """Begin without limits."""
        self._limits: dict[tuple[str, tuple[int, int]], int] = {}

    def parts(
        self,
        name: str,
        call: Callable[[Any], Result],
        batch: Any,
        *,
        device: torch.device,
        size: tuple[int, int] = _WHATEVER,
    ) -> list[Result]:
        """Return what `call` makes of a batch, in one part, or in several where the memory does not hold one.

        Args:
            name: Name of what is computed, unique among those that share the limits.
            call: Computes on a part of the batch, which it does not change.
            batch: Images `(N, C, H, W)`, or their positions `(N,)`.
            device: Where it is computed.
            size: Height and width of the images; limits belong to a size.

        Raises:
            MemoryShortError: If not even one image fits.
        """
        count, key = len(batch), (name, size)
        while True:
            at_once = max(min(count, self._limits.get(key, count)), 1)
            try:
                return [call(batch[start : start + at_once]) for start in range(0, max(count, 1), at_once)]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Only here is the error gone, whose traceback holds what the call had allocated.
            pixels = "" if size == _WHATEVER else f" of {size[1]} x {size[0]} pixels"
            if at_once == 1:
                raise MemoryShortError(f"the memory does not hold {name} with a single image{pixels}")
            self._limits[key] = (at_once + 1) // 2
            words = (name, at_once, pixels, self._limits[key])
            _log.warning("the memory does not hold %s with %d images%s at once; it goes on with %d", *words)
            free_memory(device)

    def smallest(self, *names: str) -> int | None:
        """Return the fewest images that one of these took at once, None where all batches fitted."""
        return min((limit for (name, _), limit in self._limits.items() if name in names), default=None)


def halved_until_it_fits(call: Callable[[int], Result], count: int, device: torch.device) -> Result:
    """Return `call(count)`, or the same with half as many images, a quarter, ... where the memory does not hold them.

    Whatever else the call raises, and that not even one image fits, is raised as it is.
    """
    while True:
        try:
            return call(count)
        except Exception as error:
            if not is_out_of_memory(error) or count == 1:
                raise
        count = (count + 1) // 2
        free_memory(device)


def free_memory(device: torch.device) -> None:
    """Give back what a failed call has left, so that the next one finds it free."""
    gc.collect()
    if device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
