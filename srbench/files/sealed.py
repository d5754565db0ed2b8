"""Files that end in the sha256 of all that comes before it, so that no damaged one is read as something else."""

from __future__ import annotations

import hashlib

_SEAL = b"srbench sha256 "  # before the hash, at the end of the file


def seal_of(body: bytes | memoryview) -> bytes:
    """Return what stands behind `body` in its file."""
    return _SEAL + hashlib.sha256(body).digest()


def unsealed(content: bytes) -> bytes:
    """Return the body of a whole file.

    Raises:
        ValueError: If it is not what was written.
    """
    end = len(content) - len(_SEAL) - hashlib.sha256().digest_size
    body = content[: max(end, 0)]
    if content[len(body) :] != seal_of(body):
        raise ValueError("the checksum differs")
    return body
