"""Which device a run computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srbench.errors import UsageError

if TYPE_CHECKING:
    import torch


def use_device(name: str) -> torch.device:
    """Return the device that `--device` asks for: "cpu", "cuda", or "auto" for a CUDA device where there is one.

    Raises:
        UsageError: If the name is another, or there is no CUDA device.
    """
    import torch

    if name not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device takes auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was given, but torch sees no CUDA device here; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
