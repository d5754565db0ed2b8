"""Which device a run computes on, and what is brought there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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


def on_device(values: Any, device: torch.device) -> Any:
    """Return arrays, within lists and mappings too, as tensors on the device."""
    import torch

    if isinstance(values, np.ndarray):
        return torch.from_numpy(values).to(device)
    if isinstance(values, Mapping):
        return {name: on_device(each, device) for name, each in values.items()}
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [on_device(each, device) for each in values]
    return values
