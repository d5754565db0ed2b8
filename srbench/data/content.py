"""Hashes the bytes of files and remembers each hash, so that a file is read once.

The caches and the inputs of results are keyed by content: another folder with equal names, sizes and times is other
data, and the same files copied elsewhere are the same data. What was hashed is remembered in the cache folder, one
file for each folder of data, by inode, size and both times; a copy that keeps size and modification time still gets
another inode or another time of change.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from srbench.errors import RecordError
from srbench.files.atomic import STALE_S, sweep_temporary, write_bytes
from srbench.files.paths import cache_dir
from srbench.files.regular import open_regular

_ROW = np.dtype([("identity", "<i8", 4), ("digest", "V16")])  # inode, size, time of modification and of change in ns
_FRESH_NS = 2 * 10**9  # a file may be written again within the resolution of its times
_MOST_WORKERS = 16

Rows = NDArray[np.void]


def _digest(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)


def hash_of(data: bytes) -> str:
    """Return the hash of bytes that are no file of their own, as `content_hashes` gives it."""
    return _digest(data).hexdigest()


def content_hashes(root: Path, files: Iterable[Path]) -> list[str]:
    """Return the hash of each file's bytes, 32 hexadecimal digits, or "" where a file cannot be read.

    Reading such a file as an image fails later, with the sample's name, so that it is counted like any unreadable one.

    Args:
        root: The folder of data, below which the files lie; what is remembered is kept by its path.
        files: The files.
    """
    paths = list(files)
    memory = cache_dir() / "content" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.rows"
    sweep_temporary(memory.parent, older_than_s=STALE_S)
    known = _load(memory)
    identities = np.array([_identity(path) for path in paths], dtype=np.int64).reshape(-1, 4)
    rows = np.zeros(len(paths), dtype=_ROW)
    rows["identity"] = identities
    is_known = _recall(known, rows)
    reachable: NDArray[np.bool_] = (identities != 0).any(axis=1)
    unknown = np.flatnonzero(~is_known & reachable)
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="hash") as pool:
        digests = list(pool.map(_hash, [paths[index] for index in unknown]))
    for index, digest in zip(unknown, digests, strict=True):
        if digest is None:
            reachable[index] = False
        else:
            rows["digest"][index] = np.void(digest)
    settled = identities[:, 2:].max(axis=1, initial=0) < time.time_ns() - _FRESH_NS
    learned = rows[unknown[reachable[unknown] & settled[unknown]]]
    if len(learned):
        _save(memory, known, learned)
    return [bytes(row["digest"]).hex() if there else "" for row, there in zip(rows, reachable, strict=True)]


def _identity(path: Path) -> tuple[int, int, int, int]:
    """Return inode, size and both times of a file, or zeros where it cannot be reached."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0, 0
    return status.st_ino & (2**63 - 1), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, _digest).digest()
    except OSError:
        return None


def _recall(known: Rows, rows: Rows) -> NDArray[np.bool_]:
    """Fill in the digests of rows whose identity is known, and say which these are."""
    if not len(known) or not len(rows):
        return np.zeros(len(rows), dtype=bool)
    nearest = np.searchsorted(known["identity"][:, 0], rows["identity"][:, 0]).clip(max=len(known) - 1)
    same = (known["identity"][nearest] == rows["identity"]).all(axis=1)
    rows["digest"][same] = known["digest"][nearest[same]]
    return same


def _load(memory: Path) -> Rows:
    """Read what is remembered, sorted by inode; nothing where the file is missing or torn."""
    try:
        data = memory.read_bytes()
    except OSError:
        data = b""
    return np.frombuffer(data[: len(data) - len(data) % _ROW.itemsize], dtype=_ROW)


def _save(memory: Path, known: Rows, learned: Rows) -> None:
    """Remember more rows; of an inode that is known, the latest stays. A cache that cannot be written costs time."""
    merged = np.concatenate([learned, known])
    _, first = np.unique(merged["identity"][:, 0], return_index=True)

    def write(file: BinaryIO) -> None:
        file.write(merged[first].tobytes())

    with suppress(RecordError):
        write_bytes(memory, write)
