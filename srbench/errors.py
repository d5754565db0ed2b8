"""Every error that srbench raises on purpose, with the exit code it maps to."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class SrbenchError(Exception):
    """Something went wrong that a person can act on; the message is one clear sentence (exit code 1)."""

    exit_code = 1


class UsageError(SrbenchError):
    """The call itself was wrong: an option, a name, a combination (exit code 2)."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that nothing is registered under; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the sentence.

        Args:
            kind: What was looked up, in the singular: "method", "classifier", "protocol".
            name: The name that was given.
            known: The names that exist.
        """
        super().__init__(f"there is no {kind} named {name!r}; {nearest_names(name, known)}")
        self.kind = kind
        self.name = name


class DataError(UsageError):
    """A data source that cannot be used as it was named: missing, empty, laid out otherwise (exit code 2)."""


class UnreadableImageError(SrbenchError):
    """One image that cannot be decoded; the harness names it, counts it and leaves it out."""


class TooManyUnreadableError(SrbenchError):
    """More than the tolerated share of a source's images could not be read (exit code 1)."""


class WeightsError(UsageError):
    """A weights file that is missing, damaged, unsafe, or made for another architecture (exit code 2)."""


class ProtocolError(UsageError):
    """A protocol whose fields are unknown, out of range or contradict each other (exit code 2)."""


class ContractError(SrbenchError):
    """A method or classifier returned something that its contract forbids."""


class MemoryShortError(SrbenchError):
    """Memory that does not hold the least that has to be computed at once."""


class RecordError(SrbenchError):
    """A record that cannot be read or written."""


class IncomparableError(UsageError):
    """Cells that must not be ranked against each other; the message names the field that differs."""


class TrainingError(SrbenchError):
    """A training run that cannot go on, such as one whose loss is no longer finite."""


class TrainingStopped(KeyboardInterrupt):
    """Somebody stopped a training run; the message says how to go on (exit code 130)."""


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Return what to say to a name that does not exist: the names that look like it, or all that there are."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(options) or 'none'}."


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the message of another library's error as part of a sentence: in one line, and no longer than that."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


def sentence(error: BaseException) -> str:
    """Return the first line of an error's message, with its type unless it is a plain sentence of srbench's."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return text if isinstance(error, ContractError | MemoryShortError) else f"{type(error).__name__}: {text}"


def traceback_text(error: BaseException) -> str:
    """Return where an error came from, as Python prints it, without its causes.

    Files are named by the last three parts of their paths: what is stored or sent tells nothing of a person's folders.
    """
    lines = ["Traceback (most recent call last):"]
    for frame in traceback.extract_tb(error.__traceback__):
        lines.append(f'  File "{"/".join(Path(frame.filename).parts[-3:])}", line {frame.lineno}, in {frame.name}')
        lines += [f"    {frame.line}"] if frame.line else []
    return "\n".join([*lines, "".join(traceback.format_exception_only(error)).rstrip()])


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory was not enough; torch's allocator on a CPU raises a RuntimeError that only its text tells."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY))
