"""Chunk files of the HR cache: the pixels of up to 256 images, their index, and how both are read.

A file holds the pixels one image after another, each with what the data say about places in it, then the index as
JSON, then a footer with the two lengths and the checksum of the index, which holds one of each image's pixels. It is
written under another name, flushed to the disk and renamed, so a chunk is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from srbench.errors import SrbenchError
from srbench.files.atomic import write_bytes
from srbench.files.regular import open_regular

_FOOTER = struct.Struct("<8sQQI")  # magic, bytes of pixels, bytes of index, CRC-32 of the index
_MAGIC = b"srbhr\x00\x00\x02"
_LONGEST_SIDE = 1 << 20
_OPEN_MAPS = 32

# One readable image of a chunk: position in the list, offset, HR (h, w), source (h, w), LR (h, w) or zeros, the
# channels that its file stores, the bytes of its target, a .npy file behind HR and LR, or 0, whether its EXIF asks for
# turning, and the CRC-32 of HR, of LR and of the target.
ROW = (
    *("position", "offset", "hr_h", "hr_w", "source_h", "source_w", "lr_h", "lr_w"),
    *("channels", "target", "turned", "hr_crc", "lr_crc", "target_crc"),
)


@dataclass(frozen=True)
class Chunk:
    """The index of a chunk file; `seconds` is what decoding it took, whichever run did it."""

    rows: NDArray[np.int64]  # one row an image, as `ROW` names it
    unreadable: list[tuple[int, str]]
    pixels: int  # bytes
    seconds: float


@dataclass(frozen=True)
class DecodedImage:
    """HR `(3, H, W)`, LR `(3, h, w)` of real pairs, uint8, the target, and what the file was before the geometry."""

    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8] | None
    source_shape: tuple[int, int]
    channels: int
    target: NDArray[Any] | None = None
    turned: bool = False


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
                parts = [image.hr.data, b"" if image.lr is None else image.lr.data, target]
                sizes = [*image.hr.shape[1:], *image.source_shape, *lr_shape, image.channels, len(target)]
                rows.append([position, pixels_end, *sizes, int(image.turned), *map(zlib.crc32, parts)])
                for part in parts:
                    pixels_end += file.write(part)
            advance(1)
        seconds = time.perf_counter() - began
        index = {"rows": rows, "unreadable": unreadable, "transient": transient, "seconds": seconds}
        encoded = json.dumps(index, separators=(",", ":")).encode()
        file.write(encoded)
        file.write(_FOOTER.pack(_MAGIC, pixels_end, len(encoded), zlib.crc32(encoded)))

    write_bytes(path, write)
    return Chunk(_table(rows), unreadable, pixels_end, seconds)


def load_chunk(path: Path, wanted: range, *, retry: bool) -> Chunk | None:
    """Read the index of a chunk file, or None where it is missing, damaged, of other images, or worth another try."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            if size < _FOOTER.size:
                return None
            file.seek(size - _FOOTER.size)
            magic, pixels, index, checksum = _FOOTER.unpack(file.read(_FOOTER.size))
            if magic != _MAGIC or pixels + index + _FOOTER.size != size:
                return None
            file.seek(pixels)
            encoded = file.read(index)
            if zlib.crc32(encoded) != checksum:
                return None
            content = json.loads(encoded)
        if retry and content["transient"]:
            return None
        unreadable = [(int(position), str(reason)) for position, reason in content["unreadable"]]
        chunk = Chunk(_table(content["rows"]), unreadable, pixels, float(content["seconds"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return chunk if _fits(chunk, wanted) else None


def check_part(path: Path, part: NDArray[np.uint8], checksum: int) -> None:
    """Compare a part of a chunk file with its checksum; a file that is damaged is removed.

    Raises:
        SrbenchError: If they differ.
    """
    if zlib.crc32(part.data) == checksum:
        return
    with contextlib.suppress(OSError):
        path.unlink()
    raise SrbenchError(
        f"the HR cache file {path} is damaged and was removed; run the same command again, which makes it anew"
    )


def _fits(chunk: Chunk, wanted: range) -> bool:
    """Say whether an index is that of these images, and stays within the pixels of its file."""
    rows = chunk.rows
    positions = sorted([*rows[:, 0].tolist(), *(position for position, _ in chunk.unreadable)])
    if positions != list(wanted) or bool((rows < 0).any()) or bool((rows[:, 2:8] > _LONGEST_SIDE).any()):
        return False
    starts = rows[:, 1] + 3 * (rows[:, 2] * rows[:, 3] + rows[:, 6] * rows[:, 7])
    return bool(((rows[:, 1] <= chunk.pixels) & (starts <= chunk.pixels) & (rows[:, 9] <= chunk.pixels - starts)).all())


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
    return np.array(rows, dtype=np.int64).reshape(-1, len(ROW))


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
