"""Where srbench keeps what it makes or fetches on this computer."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of everything that can be made again; $SRBENCH_CACHE overrides it."""
    return _folder("SRBENCH_CACHE", "XDG_CACHE_HOME", ".cache", "")


def data_dir() -> Path:
    """Return the folder in which datasets named without a path are looked for; $SRBENCH_DATA overrides it."""
    return _folder("SRBENCH_DATA", "XDG_DATA_HOME", ".local/share", "data")


def weights_dir() -> Path:
    """Return the folder of the user's own weights, one folder a method; $SRBENCH_WEIGHTS overrides it."""
    return _folder("SRBENCH_WEIGHTS", "XDG_DATA_HOME", ".local/share", "weights")


def _folder(override: str, base: str, fallback: str, leaf: str) -> Path:
    if os.environ.get(override):
        return Path(os.environ[override])
    return Path(os.environ.get(base) or Path.home() / fallback) / "srbench" / leaf
