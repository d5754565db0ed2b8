"""What the command line sets for its process; importing or calling srbench from Python sets none of it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

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


class FreedMemory:
    """Hands freed memory back in the course of a loop over batches, whenever what lies free has become much more.

    What is kept for the next allocation fits it less and less: small blocks that stay lie between large ones that come
    and go, so that the heap grows from batch to batch although nothing more is in use. A batch after memory was handed
    back takes it anew, a few per cent of its time, so that this is done only where the heap has grown by `most` bytes
    over what a batch needs.
    """

    def __init__(self, most: int = 2**25) -> None:
        """Begin before the first batch."""
        self._most = most
        self._needed = 0
        self._is_fresh = True

    def after_batch(self) -> None:
        """Look at the memory of this process; nothing happens where no /proc tells it."""
        now = _anonymous_bytes()
        if self._is_fresh:
            # What a batch takes that begins with nothing kept is needed, however much that is.
            self._needed, self._is_fresh = max(self._needed, now), False
        elif now > self._needed + self._most:
            give_back_freed_memory()
            self._is_fresh = True


def _anonymous_bytes() -> int:
    """Return how much memory of this process belongs to no file; 0 where the system does not tell."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _glibc(function: str, *arguments: int) -> None:
    """Call a function that only glibc has; nothing happens where it is missing."""
    call = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if call is not None:
        call(*arguments)
