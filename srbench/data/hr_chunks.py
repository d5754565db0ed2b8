"""Chunk files of the HR cache: the pixels of up to 256 images, their index, and how both are read.

A file holds the pixels one image after another, each with what the data say about places in it, then the index as
JSON, then a footer with the two lengths. It is written under another name, flushed to the disk and renamed, so a chunk
is there as a whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from srbench.errors import RecordError, SrbenchError
from srbench.files.atomic import write_bytes
from srbench.files.paths import cache_dir

_FOOTER = struct.Struct("<8sQQ")  # magic, bytes of pixels, bytes of index
_MAGIC = b"srbhr\x00\x00\x01"
_OPEN_MAPS = 32

# One readable image of a chunk: position in the list, offset, HR (h, w), source (h, w), LR (h, w) or zeros, the
# channels that its file stores, and the bytes of its target, a .npy file behind HR and LR, or 0.
ROW = ("position", "offset", "hr_h", "hr_w", "source_h", "source_w", "lr_h", "lr_w", "channels", "target")


@dataclass(frozen=True)
class Chunk:
    """The index of a chunk file; `seconds` is what decoding it took, whichever run did it."""

    rows: NDArray[np.int64]  # one row an image, as `ROW` names it
    unreadable: list[tuple[int, str]]
    pixels: int  # bytes
    seconds: float


@dataclass(frozen=True)
class DecodedImage:
    """HR `(3, H, W)`, LR `(3, h, w)` of real pairs, uint8; (height, width) and channels before the geometry; target."""

    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8] | None
    source_shape: tuple[int, int]
    channels: int
    target: NDArray[Any] | None = None


@dataclass(frozen=True)
class DecodeFailure:
    """Why an image could not be read."""

    reason: str
    transient: bool  # the file could not be reached, which may change without the file changing


Reader = Callable[[int], DecodedImage | DecodeFailure]  # decodes one image of the list by its position


class MappedChunks:
    """The chunk files that are mapped just now; few at a time, because each map keeps a file open."""

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        """Take the files, each with its bytes of pixels; none is opened yet."""
        self._files = tuple(files)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __reduce__(self) -> tuple[type[MappedChunks], tuple[tuple[tuple[Path, int], ...]]]:
        return MappedChunks, (self._files,)

    def get(self, chunk: int) -> NDArray[np.uint8]:
        """Return the bytes of a chunk file, mapped."""
        with self._lock:
            if chunk not in self._open:
                self._open[chunk] = self._map(*self._files[chunk])
            self._open.move_to_end(chunk)
            while len(self._open) > _OPEN_MAPS:
                self._open.popitem(last=False)
            return self._open[chunk]

    def _map(self, path: Path, pixels: int) -> NDArray[np.uint8]:
        try:
            mapped = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise SrbenchError(f"the HR cache file {path} cannot be read ({error}); run the command again") from error
        # Another process may have replaced it after reaching files that could not be reached before.
        if _FOOTER.unpack(mapped[-_FOOTER.size :].tobytes())[1] != pixels:
            raise SrbenchError(f"the HR cache file {path} was replaced by another run; run the command again")
        return mapped


def write_chunk(
    path: Path,
    wanted: range,
    reader: Reader,
    pool: ThreadPoolExecutor,
    *,
    lookahead: int,
    advance: Callable[[int], None],
) -> Chunk:
    """Decode a chunk into its file, and return its index.

    Raises:
        SrbenchError: If the file cannot be written.
    """
    began = time.perf_counter()
    rows: list[list[int]] = []
    unreadable: list[tuple[int, str]] = []
    pixels_end, seconds = 0, 0.0

    def write(file: BinaryIO) -> None:
        nonlocal pixels_end, seconds
        transient = False
        for position, image in _decoded(wanted, reader, pool, lookahead):
            if isinstance(image, DecodeFailure):
                unreadable.append((position, image.reason))
                transient |= image.transient
            else:
                lr_shape = (0, 0) if image.lr is None else image.lr.shape[1:]
                target = b"" if image.target is None else _npy(image.target)
                sizes = [*image.hr.shape[1:], *image.source_shape, *lr_shape, image.channels, len(target)]
                rows.append([position, pixels_end, *sizes])
                for pixels in (image.hr,) if image.lr is None else (image.hr, image.lr):
                    file.write(pixels.data)
                    pixels_end += pixels.nbytes
                file.write(target)
                pixels_end += len(target)
            advance(1)
        seconds = time.perf_counter() - began
        index = {"rows": rows, "unreadable": unreadable, "transient": transient, "seconds": seconds}
        encoded = json.dumps(index, separators=(",", ":")).encode()
        file.write(encoded)
        file.write(_FOOTER.pack(_MAGIC, pixels_end, len(encoded)))

    try:
        write_bytes(path, write)
    except RecordError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise SrbenchError(
            f"the HR cache in {cache_dir()} cannot be written: {reason};"
            " free some space there, or point SRBENCH_CACHE at another folder"
        ) from error
    return Chunk(_table(rows), unreadable, pixels_end, seconds)


def load_chunk(path: Path, *, retry: bool) -> Chunk | None:
    """Read the index of a chunk file, or None where it is missing, damaged, or worth another try."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < _FOOTER.size:
                return None
            file.seek(size - _FOOTER.size)
            magic, pixels, index = _FOOTER.unpack(file.read(_FOOTER.size))
            if magic != _MAGIC or pixels + index + _FOOTER.size != size:
                return None
            file.seek(pixels)
            content = json.loads(file.read(index))
    except (OSError, ValueError):
        return None
    if retry and content["transient"]:
        return None
    unreadable = [(position, reason) for position, reason in content["unreadable"]]
    return Chunk(_table(content["rows"]), unreadable, pixels, content["seconds"])


def _decoded(
    wanted: range, reader: Reader, pool: ThreadPoolExecutor, lookahead: int
) -> Iterator[tuple[int, DecodedImage | DecodeFailure]]:
    """Yield images in order, with no more than `lookahead` of them in memory."""
    pending: deque[tuple[int, Future[DecodedImage | DecodeFailure]]] = deque()
    try:
        for position in wanted:
            pending.append((position, pool.submit(reader, position)))
            if len(pending) >= lookahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        for _, future in pending:
            future.cancel()


def _table(rows: list[list[int]]) -> NDArray[np.int64]:
    # Rows of a file that is older than targets end before them.
    return np.array([[*row, *[0] * (len(ROW) - len(row))] for row in rows], dtype=np.int64).reshape(-1, len(ROW))


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
