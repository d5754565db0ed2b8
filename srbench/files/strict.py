"""JSON as srbench writes and reads it: plain types, nothing that is not finite, one sentence for what does not fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srbench.errors import RecordError


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
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged, it is not valid JSON ({error}); delete it and run the evaluation again"
        ) from None


def _dumps(value: Any, **layout: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except (TypeError, ValueError) as error:
        place = _offender(value, "")
        if place is None:
            raise RecordError(f"cannot be stored as JSON: {error}") from None
        raise RecordError(
            f"cannot be stored as JSON: {place[0] or 'the value'} is {place[1]}; store null and a reason"
        ) from None


def _offender(value: Any, where: str) -> tuple[str, str] | None:
    """Return (path, text) of the first entry that JSON cannot hold, or None."""
    if isinstance(value, Mapping):
        items = [(f"{where}.{key}".lstrip("."), entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{where}[{i}]", entry) for i, entry in enumerate(value)]
    elif value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return None
    else:
        return where, repr(value) if isinstance(value, float) else f"of type {type(value).__name__}"
    return next((found for path, entry in items if (found := _offender(entry, path)) is not None), None)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
