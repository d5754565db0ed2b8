"""Checkpoints: one file, replaced as a whole, read without running code."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from srbench.errors import TrainingError

FORMAT = 1
NAME = "checkpoint.pt"


def write(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically: another name, flushed to the disk, renamed.

    Raises:
        TrainingError: If it cannot be written; the previous checkpoint is then still there.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            torch.save(content | {"format": FORMAT}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        raise TrainingError(
            f"the checkpoint in {path.parent} cannot be written: {error}; free some space or choose another --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        TrainingError: If it is damaged or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 torch raises half a dozen unrelated types for damaged files
        raise TrainingError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); start over with another --out or --force"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TrainingError(f"{path} is no checkpoint of this version of srbench; start over with --force")
    return content


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for part in folder.glob(f".{NAME}.*"):
        part.unlink(missing_ok=True)
