"""One writer at a time in a folder: a second run waits, or is told that another is at work."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from srbench.errors import SrbenchError
from srbench.files.atomic import write_error

LOCK_FILE = ".srbench.lock"

_log = logging.getLogger(__name__)


class BusyError(SrbenchError):
    """Another process writes to the folder."""

    exit_code = 1


@contextlib.contextmanager
def only_writer(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back from a process that is killed.

    Args:
        folder: Where files are going to be written; it is made.
        wait: Wait for the other process, after a warning in the log, instead of refusing.

    Raises:
        BusyError: If another process holds it and `wait` is False.
        RecordError: If the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise BusyError(
                    f"another run of srbench writes to {folder}; wait until it has ended, or choose another --out"
                ) from None
            _log.warning("another run of srbench writes to %s; this one goes on when that has ended", folder)
            lock.acquire()
    except NotImplementedError:  # a file system without locks, as some clusters have
        _log.warning("%s lies on a file system without locks; start no second run into it", folder)
        yield
        return
    except OSError as error:
        raise write_error(folder / LOCK_FILE, error) from error
    try:
        yield
    finally:
        lock.release()
