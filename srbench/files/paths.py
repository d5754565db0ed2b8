"""Where srbench keeps what it makes or fetches on this computer."""

from __future__ import annotations

import os
from pathlib import Path

from srbench.errors import UsageError


def user_path(path: Path | str) -> Path:
    """Return a path that a person wrote, with "~" or "~name" at its start made a home folder.

    A shell leaves the tilde alone in `--out=~/x` and in variables, and no folder is ever meant to be called so.

    Raises:
        UsageError: If there is no such user, or no home folder is known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path} begins with a home folder that is not known here; write the whole path") from None


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
        return user_path(os.environ[override])
    return user_path(os.environ.get(base) or f"~/{fallback}") / "srbench" / leaf
