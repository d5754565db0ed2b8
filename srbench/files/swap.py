"""A folder that is replaced as a whole: it is made beside the old one, which stays until it is finished."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from srbench.files.atomic import write_error
from srbench.files.turns import only_writer

_AT_FDCWD, _EXCHANGE = -100, 2


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of `folder` when the block ends without an error.

    Until then, and where the block fails or the process is killed, `folder` is as it was. A second process waits for
    the first. What a killed process has left is removed by the next call.

    Args:
        folder: The folder to replace; it may be missing.

    Raises:
        RecordError: If the disk fails.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (a link stays a link's name: only the folder itself is replaced)
    if folder.is_symlink():
        folder = folder.resolve()
    workshop = folder.parent / f".{folder.name}.new"
    try:
        with only_writer(workshop, wait=True):
            fresh = workshop / "folder"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            yield fresh
            _put(fresh, folder, workshop / "old")
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _put(fresh: Path, folder: Path, old: Path) -> None:
    """Give the fresh folder its name; where the system can exchange two names, there is no moment without a folder."""
    if not folder.exists():
        fresh.rename(folder)
        return
    if _exchanged(fresh, folder):
        return
    folder.rename(old)
    try:
        fresh.rename(folder)
    except BaseException:
        old.rename(folder)
        raise


def _exchanged(first: Path, second: Path) -> bool:
    """Exchange the names of two folders in one step; return whether the system can do that."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE)
    return done == 0
