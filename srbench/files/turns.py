"""One writer at a time in a folder: a second run waits, or is told that another is at work."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.errors import SrbenchError
from srbench.files.atomic import write_error

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_FILE = ".srbench.lock"
MARKER_FILE = ".srbench.lock.marker"
# What a file system answers that cannot lock, as some clusters have; filelock itself sees to ENOSYS.
_CANNOT_LOCK = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})

_log = logging.getLogger(__name__)


class BusyError(SrbenchError):
    """Another process writes to the folder."""

    exit_code = 1


@contextlib.contextmanager
def only_writer(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the folder's lock, which is free again when the process that holds it is killed.

    The system keeps the lock, by the file `LOCK_FILE`, which stays. Where the file system cannot lock, the file
    `MARKER_FILE` stands for it: it names its process, and is taken over where that process has ended on this machine.

    Args:
        folder: Where files are going to be written; it is made.
        wait: Wait for the other process, after a warning in the log, instead of refusing.

    Raises:
        BusyError: If another process holds it and `wait` is False.
        RecordError: If the folder cannot be written.
    """
    from filelock import Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock_of(folder)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise BusyError(
                    f"another run of srbench writes to {folder}; wait until it has ended, or choose another --out"
                ) from None
            _log.warning("another run of srbench writes to %s; this one goes on when that has ended", folder)
            lock.acquire()
    except OSError as error:
        raise write_error(folder / LOCK_FILE, error) from error
    try:
        yield
    finally:
        lock.release()


def _lock_of(folder: Path) -> BaseFileLock:
    """Return the lock that works on the folder's file system, not yet held.

    Raises:
        OSError: If the folder cannot be written.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    lock = FileLock(folder / LOCK_FILE)
    try:
        with lock.acquire(blocking=False):
            return lock
    except Timeout:
        return lock
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        return SoftFileLock(folder / MARKER_FILE)
