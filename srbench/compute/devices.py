"""Which device a run computes on, and how the process is prepared for it."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import TYPE_CHECKING

import pyarrow as pa

from srbench.errors import UsageError

if TYPE_CHECKING:
    import torch

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def use_device(name: str) -> torch.device:
    """Return the device that `--device` asks for: "cpu", "cuda", or "auto" for a CUDA device where there is one.

    Where that is the CPU, the process is prepared for it; see `keep_freed_memory`.

    Raises:
        UsageError: If the name is another, or there is no CUDA device.
    """
    import torch

    if name not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device takes auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was given, but torch sees no CUDA device here; use --device cpu or auto")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


@functools.cache
def keep_freed_memory() -> None:
    """Have malloc keep what is freed for the next allocation, instead of handing it back to the kernel.

    Activations of a batch are tens of MB. By default glibc maps each of more than 32 MB anew and gives back what is
    free at the end of the heap, and the kernel clears every page again: up to half of the time of a classifier
    (docs/decisions/0028-freed-memory-is-kept.md). Values do not change. The user's own setting stands.
    """
    if not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        _glibc("mallopt", _M_MMAP_MAX, 0)
        _glibc("mallopt", _M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Hand what is freed back to the kernel, so that no stage holds what only the one before it needed."""
    pa.default_memory_pool().release_unused()  # where Arrow was imported before srbench could choose its allocator
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    """Call a function that only glibc has; nothing happens where it is missing."""
    found = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if found is not None:
        found(*arguments)
