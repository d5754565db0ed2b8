"""Plain data held against the annotations of a dataclass: strict types and ranges, one sentence for what is wrong."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

from annotated_types import Ge, Gt, Interval, Le, Lt

from srbench.errors import SrbenchError, nearest_names
from srbench.files.strict import MAX_WHOLE, first_unstorable

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import CoreSchema

T = TypeVar("T")
Syntax = Literal["json", "toml"]
Count = Annotated[int, Interval(ge=0, le=MAX_WHOLE)]
Positive = Annotated[int, Interval(ge=1, le=MAX_WHOLE)]
Share = Annotated[float, Interval(ge=0, le=1)]
NotNegative = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
_WORDS: Mapping[Syntax, Mapping[str, str]] = {
    "json": {"mapping": "an object", "list": "a list", "none": "null"},
    "toml": {"mapping": "a table", "list": "a list", "none": "none"},
}


class PlainJson:
    """Marks a part of a file that may hold anything that JSON can: `Annotated[dict[str, Any], PlainJson()]`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Return the schema of the annotated type, followed by a look at all that is inside."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_plain, handler(source))


@dataclasses.dataclass(frozen=True)
class Means:
    """Says in a sentence what an annotation expects, where its type and bounds alone would not be understood."""

    text: str


class Number:
    """Marks a number that may be infinite, in JSON the text "inf" or "-inf": `Annotated[float, Number()]`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Return the schema of a number, preceded by the reading of the text."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            _from_text, core_schema.float_schema(strict=True, allow_inf_nan=True)
        )


def validated(
    kind: type[T],
    raw: Any,
    *,
    origin: str,
    error: type[SrbenchError],
    syntax: Syntax = "json",
    unknown: Literal["forbid", "ignore"] = "forbid",
    remedy: str = "",
) -> T:
    """Build a dataclass from plain data that somebody wrote.

    Args:
        kind: A frozen dataclass whose annotations say what is allowed, with bounds as `Annotated[int, Ge(1)]`.
        raw: What was read from JSON or TOML, or the bytes of a JSON file, which is quicker.
        origin: Begins the sentence: which file it is.
        error: The error to raise.
        syntax: The language of the file, whose words the sentence uses.
        unknown: What becomes of fields that the dataclass does not have.
        remedy: Ends the sentence: what to do.

    Raises:
        SrbenchError: Of the class `error`, if a field is missing, unknown, of another type or out of range.
    """
    from pydantic import ValidationError

    try:
        text = raw if isinstance(raw, bytes) else _as_json(raw)
        values = _adapter(cast(Any, kind), unknown).validate_json(text)
    except ValidationError as problem:
        raise error(f"{origin}{_sentence(kind, problem, syntax)}{remedy}") from None
    except RecursionError:
        raise error(f"{origin} is nested too deep{remedy}") from None
    except TypeError as problem:
        raise error(f"{origin}: {problem}{remedy}") from None
    return kind(**values)


def check(value: Any, *, origin: str, error: type[SrbenchError], syntax: Syntax = "toml") -> None:
    """Hold the fields of a dataclass against their annotations; call it in `__post_init__`.

    Raises:
        SrbenchError: Of the class `error`, if a field is of another type or out of range.
    """
    from pydantic import ValidationError

    fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    try:
        _adapter(cast(Any, type(value)), "forbid").validate_python(fields)
    except ValidationError as problem:
        raise error(f"{origin}{_sentence(type(value), problem, syntax)}") from None


@functools.cache
def _adapter(kind: Any, unknown: Literal["forbid", "ignore"]) -> TypeAdapter[dict[str, Any]]:
    """Return what reads the fields of a dataclass into a dict.

    Not the dataclass itself: its `__post_init__` may call `check`, and the class is not to know of pydantic.
    """
    from typing import NotRequired

    from pydantic import ConfigDict, TypeAdapter
    from typing_extensions import TypedDict

    hints = typing.get_type_hints(kind, include_extras=True)
    required = {
        item.name: item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        for item in dataclasses.fields(kind)
    }
    fields = {name: hints[name] if needed else NotRequired[hints[name]] for name, needed in required.items()}
    shape = TypedDict(kind.__name__, fields)  # type: ignore[misc]
    shape.__pydantic_config__ = ConfigDict(  # type: ignore[attr-defined]
        strict=True, extra=unknown, allow_inf_nan=False, revalidate_instances="always"
    )
    return TypeAdapter(shape)  # type: ignore[arg-type]


def _as_json(raw: Any) -> bytes:
    """Return plain data as JSON, whose reader takes lists for tuples and limits the depth."""
    try:
        return json.dumps(raw).encode()
    except (TypeError, ValueError):
        where, what = first_unstorable(raw) or ("", "what JSON cannot hold")
        raise TypeError(f"{where or 'it'} is {what}") from None


def _plain(value: Any) -> Any:
    if (wrong := first_unstorable(value)) is not None:
        raise ValueError(*wrong)
    return value


def _from_text(value: Any) -> Any:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("", f"{value}")
    return value


# --- sentences ---------------------------------------------------------------------------------------------------


def _sentence(kind: type, problem: ValidationError, syntax: Syntax) -> str:
    """Say what is wrong first: an unknown field before a missing one, and that before a value that does not fit."""
    errors = problem.errors(include_url=False)
    order = {"json_invalid": 0, "extra_forbidden": 1, "unexpected_keyword_argument": 1, "missing": 2}
    first = min(errors, key=lambda each: order.get(each["type"], 3))
    rank = order.get(first["type"], 3)
    if rank == 0:
        reason = first["msg"].removeprefix("Invalid JSON: ")
        return f" is damaged, it is not valid JSON ({reason})"
    loc = first["loc"]
    holder = _without_none(_type_at(kind, loc[:-1])[0])
    if rank in (1, 2) and not dataclasses.is_dataclass(holder):  # a list that is too short
        loc, rank = loc[:-1], 3
    if rank in (1, 2):
        path, name = _path(loc[:-1]), str(loc[-1])
        names = [item.name for item in dataclasses.fields(holder)]
        place = f": {path}" if path else ""
        if rank == 2:
            return f"{place} lacks the field {name!r}; expected {', '.join(names)}"
        return f"{place} has no field {name!r}; {nearest_names(name, names)}"
    expected, depth = _type_at(kind, loc)
    path = _path(loc[:depth])
    if first["type"] == "value_error":
        where, what = first["ctx"]["error"].args
        return f": {path}{'.' if where and where[0] != '[' else ''}{where} is {what}, which JSON cannot hold"
    given = "none" if first["input"] is None else _shortened(repr(first["input"]))
    return f": {path or 'all of it'} must be {_spell(expected, syntax)}, got {given}"


def _path(parts: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def _type_at(kind: Any, parts: tuple[int | str, ...]) -> tuple[Any, int]:
    """Return the annotation at a path, and how many parts of the path lead there.

    Behind those pydantic names the member of a union that it tried.
    """
    for depth, part in enumerate(parts):
        inner = _without_none(kind)
        if dataclasses.is_dataclass(inner):
            hints = typing.get_type_hints(inner, include_extras=True)
            if part not in hints:
                return kind, depth
            kind = hints[part]
            continue
        base = typing.get_args(inner)[0] if typing.get_origin(inner) is Annotated else inner
        arguments = typing.get_args(base)
        if typing.get_origin(base) is tuple and isinstance(part, int):
            kind = arguments[0]
        elif isinstance(typing.get_origin(base), type) and issubclass(typing.get_origin(base), Mapping):
            kind = arguments[1]
        else:
            return kind, depth
    return kind, len(parts)


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    return options[0] if len(options) == 1 else kind


def _spell(kind: Any, syntax: Syntax) -> str:
    words = _WORDS[syntax]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in arguments if option is not type(None)]
        spelled = " or ".join(_spell(option, syntax) for option in options)
        return f"{spelled}, or {words['none']}" if len(options) < len(arguments) else spelled
    if origin is Annotated:
        for each in arguments[1:]:
            if isinstance(each, Means):
                return each.text
            if isinstance(each, Number):
                return 'a number, "inf" or "-inf"'
        return " ".join([_spell(arguments[0], syntax), *filter(None, map(_spell_bound, arguments[1:]))])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else repr(arguments[0])
    if origin is tuple:
        return words["list"] if Ellipsis in arguments else f"{words['list']} of {len(arguments)}"
    if dataclasses.is_dataclass(kind) or origin is not None:
        return words["mapping"]
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}.get(kind, "a value")


def _spell_bound(bound: Any) -> str:
    if isinstance(bound, Interval):
        if bound.ge is not None and bound.le is not None and bound.le != MAX_WHOLE:
            return f"from {bound.ge} to {bound.le}"
        return " and ".join(filter(None, map(_spell_bound, bound)))  # an interval yields its bounds
    if isinstance(bound, Ge):
        return f"of at least {bound.ge}"
    if isinstance(bound, Gt):
        return f"above {bound.gt}"
    if isinstance(bound, Le):
        return "" if bound.le == MAX_WHOLE else f"of at most {bound.le}"
    return f"below {bound.lt}" if isinstance(bound, Lt) else ""


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
