"""That somebody has asked this process to stop, for work that goes on nevertheless.

Python raises KeyboardInterrupt wherever the main thread happens to be. In `__del__`, and in a callback of the garbage
collector or of a weak reference, Python ignores it and goes on; a library may catch everything. So what works step by
step looks here after each step.
"""

from __future__ import annotations

_is_asked = False


def ask_to_stop() -> None:
    """Remember that the process is to stop; a handler of signals calls this before it raises KeyboardInterrupt."""
    global _is_asked
    _is_asked = True


def check_stop() -> None:
    """Go on, unless somebody has asked to stop.

    Raises:
        KeyboardInterrupt: If `ask_to_stop` has been called.
    """
    if _is_asked:
        raise KeyboardInterrupt
