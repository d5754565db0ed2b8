"""What stops a command: Ctrl-C, SIGTERM, and a terminal that is closed."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from srbench.compute.stopping import ask_to_stop

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last
_TOGETHER_S = 1.0  # who stops a command may send a signal twice, to the process and to its group
_AT_ONCE = b"srbench: stopped at once; the same command goes on where it was, srbench train with --resume\n"
STOPPED = 130  # the exit code


def stop_on_signals() -> None:
    """Have each signal that stops a command end it with a sentence, and nothing half-written.

    What ignores a signal goes on ignoring it, such as what `nohup` or a shell's background has started. A rank of
    torchrun may wait inside a collective, where Python sees no signal, so there SIGTERM and SIGHUP end the process.
    """
    sys.unraisablehook = _say_unraisable
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    stop = _Stop()
    for name in _NAMES if alone else _NAMES[:1]:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def _say_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Print what Python cannot raise where it happened, but for the stop, which the next step raises again."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def leave_stopped() -> NoReturn:
    """End the process of a stopped command as it stands; all that it writes appears by renaming, so nothing is torn.

    The end of a Python process takes down modules and libraries one by one. Where work was interrupted, that was seen
    to abort the process, "terminate called without an active exception", with a code other than 130.
    """
    atexit._run_exitfuncs()  # temporary folders, and what other libraries have to tidy up
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
            stream.flush()
    os._exit(STOPPED)


class _Stop:
    """Stops a command in order at the first signal; at a later one, because that takes too long, at once."""

    def __init__(self) -> None:
        self._first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            ask_to_stop()
            raise KeyboardInterrupt
        if now - self._first > _TOGETHER_S:
            with contextlib.suppress(OSError):
                os.write(2, _AT_ONCE)
            os._exit(STOPPED)
