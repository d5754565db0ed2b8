"""Checkpoints: one file, replaced as a whole, read without running code."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from srbench.errors import RecordError, TrainingError
from srbench.files.atomic import write_bytes
from srbench.files.regular import read_regular
from srbench.files.sealed import seal_of, unsealed

FORMAT = 2
NAME = "checkpoint.pt"


def write(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically.

    Raises:
        TrainingError: If it cannot be written; the previous checkpoint is then still there.
    """
    buffer = io.BytesIO()
    torch.save(content | {"format": FORMAT}, buffer)
    body = buffer.getbuffer()

    def put(stream: BinaryIO) -> None:
        stream.write(body)
        stream.write(seal_of(body))

    replace_file(path, put)


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file of a run atomically.

    Raises:
        TrainingError: If the disk is full or fails otherwise; the previous file is then still there.
    """
    try:
        write_bytes(path, write)
    except (RecordError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        reason = error.__cause__ or error
        raise TrainingError(f"{path} cannot be written: {reason}; free some space or choose another --out") from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        TrainingError: If it is damaged or of another format.
    """
    try:
        content = torch.load(io.BytesIO(unsealed(read_regular(path))), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 torch raises half a dozen unrelated types for damaged files
        raise TrainingError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); start over with another --out or --force"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TrainingError(f"{path} is no checkpoint of this version of srbench; start over with --force")
    return content


def holds(path: Path, epoch: int, steps: int) -> bool:
    """Say whether a whole checkpoint lies there that was made after so many epochs and steps."""
    try:
        content = read(path)
    except TrainingError:
        return False
    return (content.get("epoch"), content.get("steps")) == (epoch, steps)
