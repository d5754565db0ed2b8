"""srbench: which way of resizing small images wins back the most accuracy, and what it costs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["__version__", "evaluate", "train"]

if TYPE_CHECKING:
    from srbench.evaluation import evaluate
    from srbench.training.api import train


_LAZY = {"evaluate": "srbench.evaluation", "train": "srbench.training.api"}


def __getattr__(name: str) -> Any:
    # torch, timm and Lightning take seconds to import: only who calls these waits for them
    if name not in _LAZY:
        raise AttributeError(f"module 'srbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
