"""JSON and TOML as srbench writes and reads them: plain, finite, and one sentence for everything else."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srbench.errors import RecordError, SrbenchError
from srbench.files.regular import read_regular

MOST_TOML = 16 << 20  # bytes of a file that a person writes
MAX_WHOLE = 2**63 - 1  # what the libraries that compute can hold


def canonical_json(value: Any) -> str:
    """Return JSON text with sorted keys and no spaces.

    Raises:
        RecordError: If the value is not plain JSON, or not finite.
    """
    return _dumps(value, sort_keys=True, separators=(",", ":"))


def json_text(value: Any) -> str:
    """Return JSON text as it is stored: indented, one trailing newline, never NaN.

    Raises:
        RecordError: If the value is not plain JSON, or not finite; the message names where.
    """
    return _dumps(value, indent=1, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RecordError: If it is missing, unreadable, or no JSON.
    """
    from pydantic_core import from_json

    try:
        return from_json(read_regular(path), allow_inf_nan=False)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged, it is not valid JSON ({error}); delete it and make it again") from None


def read_toml(path: Path, *, what: str, error: type[SrbenchError]) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        what: Begins the sentence: "recipe mine.toml".
        error: The error to raise.

    Raises:
        SrbenchError: Of the class `error`, if it cannot be read or is no TOML.
    """
    try:
        return parse_toml(read_regular(path, most=MOST_TOML).decode("utf-8-sig"), what=what, error=error)
    except OSError as problem:
        raise error(f"cannot read {what}: {problem.strerror or problem}") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{what} is not valid TOML: {problem}; save it as UTF-8") from None


def parse_toml(text: str, *, what: str, error: type[SrbenchError]) -> dict[str, Any]:
    """Read TOML text; as `read_toml`."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise error(f"{what} is not valid TOML: it is nested too deep; take the inner levels out") from None
    except ValueError as problem:  # a number of thousands of digits is no TOMLDecodeError
        raise error(f"{what} is not valid TOML: {problem}; mend that line") from None


def first_unstorable(value: Any, where: str = "") -> tuple[str, str] | None:
    """Return the first entry that JSON cannot hold as (path, what it is), or None; `where` begins the path."""
    if isinstance(value, Mapping):
        if (key := next((key for key in value if not isinstance(key, str)), None)) is not None:
            return where, f"a mapping with the key {key!r}, which is no text"
        items = [(f"{where}.{key}".lstrip("."), entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{where}[{i}]", entry) for i, entry in enumerate(value)]
    else:
        what = _unstorable_leaf(value)
        return None if what is None else (where, what)
    return next((first for path, entry in items if (first := first_unstorable(entry, path)) is not None), None)


def _unstorable_leaf(value: Any) -> str | None:
    if isinstance(value, str):
        return None if value.isascii() or _encodes(value) else "text with half a character (a lone surrogate)"
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if abs(value) <= MAX_WHOLE else "a whole number beyond 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else repr(value)
    return f"of type {type(value).__name__}"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dumps(value: Any, **layout: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, RecursionError) or (entry := first_unstorable(value)) is None:
            raise RecordError(f"cannot be stored as JSON: {error}") from None
        raise RecordError(
            f"cannot be stored as JSON: {entry[0] or 'the value'} is {entry[1]}; store null and a reason"
        ) from None
