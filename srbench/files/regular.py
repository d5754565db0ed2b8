"""Files that somebody names are opened only if they are files: a pipe would hang, and a device would never end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: If it cannot be opened, or is a folder, a pipe or a device.
    """
    descriptor = os.open(path, _FLAGS)  # which waits for nobody to write into a pipe
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def read_regular(path: Path, *, most: int | None = None) -> bytes:
    """Return the bytes of a file.

    Args:
        path: The file.
        most: Bytes that it may have; None allows any number.

    Raises:
        OSError: As `open_regular`, or if it has more.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG, f"it has {size} bytes, more than the {most} that such a file may have", str(path)
            )
        return file.read()


def read_lines(path: Path, *, most: int = 2**24) -> list[str]:
    """Return the lines of a text file, without their ends.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: As `read_regular`.
        UnicodeDecodeError: If it is not UTF-8.
    """
    return read_regular(path, most=most).decode("utf-8-sig").splitlines()
