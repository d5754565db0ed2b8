"""What stops a command: Ctrl-C, SIGTERM, and a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last
_TOGETHER_S = 1.0  # who stops a command may send a signal twice, to the process and to its group
_AT_ONCE = b"srbench: stopped at once; the same command goes on where it was, srbench train with --resume\n"
STOPPED = 130  # the exit code


def stop_on_signals() -> None:
    """Have each signal that stops a command end it with a sentence, and nothing half-written.

    What ignores a signal goes on ignoring it, such as what `nohup` or a shell's background has started. A rank of
    torchrun may wait inside a collective, where Python sees no signal, so there SIGTERM and SIGHUP end the process.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    stop = _Stop()
    for name in _NAMES if alone else _NAMES[:1]:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


class _Stop:
    """Stops a command in order at the first signal; at a later one, because that takes too long, at once."""

    def __init__(self) -> None:
        self._first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            raise KeyboardInterrupt
        if now - self._first > _TOGETHER_S:
            with contextlib.suppress(OSError):
                os.write(2, _AT_ONCE)
            os._exit(STOPPED)
