"""What the command line sets for its process; importing or calling srbench from Python sets none of it."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def prepare_process() -> None:
    """Set up memory for a process that does nothing but srbench; what the user has set for memory stands.

    Call it before Arrow is imported. A notebook or a program that wants the same speed on a CPU may call it too.
    """
    # Arrow's own allocator holds what one reading of a table frees apart from the next, which adds up with the images
    # (docs/decisions/0030-memory-of-many-images.md).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Figures go to files. What a notebook has set for its own process is of no use here, and may not be installed.
    os.environ["MPLBACKEND"] = "agg"
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have malloc keep what is freed for the next allocation, instead of handing it back to the kernel.

    Activations of a batch are tens of MB. By default glibc maps each of more than 32 MB anew and gives back what is
    free at the end of the heap, and the kernel clears every page again: up to half of the time of a classifier
    (docs/decisions/0028-freed-memory-is-kept.md). Values do not change.
    """
    if not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        _glibc("mallopt", _M_MMAP_MAX, 0)
        _glibc("mallopt", _M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Hand what is freed back to the kernel once, so that no stage holds what only the one before it needed."""
    import pyarrow as pa  # the command line is to start without waiting for Arrow

    pa.default_memory_pool().release_unused()  # where Arrow has an allocator of its own
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    """Call a function that only glibc has; nothing happens where it is missing."""
    call = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if call is not None:
        call(*arguments)
