"""srbench: which way of resizing small images wins back the most accuracy, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srbench._version import __version__

__all__ = ["__version__", "evaluate", "train"]

if TYPE_CHECKING:
    from srbench.evaluation import evaluate
    from srbench.training.api import train


def __getattr__(name: str) -> Any:
    # torch, timm and Lightning take seconds to import: only who calls these waits for them
    if name == "evaluate":
        from srbench.evaluation import evaluate

        return evaluate
    if name == "train":
        from srbench.training.api import train

        return train
    raise AttributeError(f"module 'srbench' has no attribute {name!r}")
