"""Caches what a frozen network makes of every image of a set: one row an image in a file, with a checksum."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.files.atomic import write_error
from srbench.files.caches import make_room, mark_used
from srbench.files.paths import cache_dir
from srbench.training.images import Positions


class CachedRows:
    """Rows of one shape and type, in a memory-mapped file.

    Every row has a checksum, so a file that a killed run left half-filled is completed and never trusted.
    """

    def __init__(self, folder: str, name: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Open the file, and make it where there is none; rows are computed by `fill`.

        Args:
            folder: Folder in the cache's `teacher`: the network and what its answers depend on.
            name: Name of the file: the images.
            shape: Shape of all rows, the number of images first.
            dtype: Their type.

        Raises:
            SrbenchError: If the file cannot be written, or the disk has no room for it.
        """
        base = cache_dir() / "teacher" / folder / name
        mark_used(base.parent)
        self._rows = _mapped(base.with_suffix(f".{dtype.kind}{8 * dtype.itemsize}"), dtype, shape)
        self._sums = _mapped(base.with_suffix(".adler"), np.dtype(np.uint32), shape[:1])

    def fill(
        self, batches: list[Positions], compute: Callable[[Positions], NDArray[Any]], advance: Callable[[int], None]
    ) -> None:
        """Compute the rows that are missing.

        Args:
            batches: The positions to look at, in batches as `compute` takes them.
            compute: Returns the rows at some positions.
            advance: Called with the number of rows newly done.
        """
        for batch in batches:
            if any(self._sums[row] != _checksum(self._rows[row]) for row in batch):
                for row, values in zip(batch, compute(batch), strict=True):
                    self._rows[row] = values
                    self._sums[row] = _checksum(values)
            advance(len(batch))
        self._rows.flush()
        self._sums.flush()

    def read(self, positions: Positions) -> NDArray[Any]:
        """Return a copy of the rows at `positions`."""
        return np.array(self._rows[positions])


def _checksum(row: NDArray[Any]) -> int:
    return zlib.adler32(np.ascontiguousarray(row).tobytes())  # never zero, which an empty file is full of


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap:
    size = int(np.prod(shape)) * dtype.itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            make_room(size)
        # Opened for appending: another rank may be filling it already.
        with path.open("ab") as stream:
            if stream.tell() != size:
                stream.truncate(size)
            if size and hasattr(os, "posix_fallocate"):
                # Writing to a mapped file for which the disk has no room ends the process by a signal. Where the file
                # system cannot reserve room, this writes zeros, and what another rank has just filled has no checksum.
                os.posix_fallocate(stream.fileno(), 0, size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        raise write_error(path, error) from error
