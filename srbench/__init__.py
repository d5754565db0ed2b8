"""srbench: which way of resizing small images wins back the most accuracy, and what it costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Arrow, imported later, is to share malloc with everything else: its own allocator holds what is freed by one reading
# of a table apart from the next, which adds up with the images (docs/decisions/0030-memory-of-many-images.md).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
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
