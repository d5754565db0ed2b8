"""Files that people write or damage: whatever they hold, the answer is a value or one sentence of the right class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval
from damage import HUGE, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.errors import ProtocolError, RecordError, SrbenchError, UsageError
from srbench.files.atomic import write_text
from srbench.files.strict import canonical_json, read_json
from srbench.files.validate import Count, Number, PlainJson, check, validated
from srbench.protocol import load_protocol, parse_protocol, preset_names
from srbench.training.recipe import Recipe, apply_overrides, load_recipe

DEEP = 900


@dataclass(frozen=True)
class Inner:
    side: Annotated[int, Interval(ge=1, le=8)] | None = None
    kernel: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    count: Count
    names: tuple[str, ...]
    factor: int | Literal["any"] = "any"
    share: Annotated[float, Ge(0)] = 0.5
    inner: Inner | None = None
    parts: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] | None = None
    value: Annotated[float, Number()] | None = None
    span: tuple[float, float] = (0, 1)
    anything: Annotated[dict[str, Any], PlainJson()] | None = None


GOOD: dict[str, Any] = {"count": 1, "names": ["x"]}


def build(raw: Any) -> Outer:
    return validated(Outer, raw, origin="a.json", error=RecordError)


def test_what_fits_is_read_with_defaults_and_tuples():
    raw = GOOD | {
        "inner": {"side": 3},
        "parts": [{}, {"kernel": "b"}],
        "value": "inf",
        "share": 2,
        "anything": {"a": 1},
    }
    value = build(json.dumps(raw).encode())
    assert value == build(raw)
    assert (value.names, value.inner, value.parts) == (("x",), Inner(3), (Inner(), Inner(kernel="b")))
    assert value.value == float("inf") and isinstance(value.share, float)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cuont": 1}, "a.json has no field 'cuont'; did you mean count?"),
        ({"inner": {"sid": 1}}, "a.json: inner has no field 'sid'; did you mean side?"),
        ({"count": "1"}, "a.json: count must be a whole number of at least 0, got '1'"),
        ({"count": True}, "a.json: count must be a whole number of at least 0, got True"),
        ({"count": HUGE}, "a.json: count must be a whole number of at least 0, got 1000"),
        ({"count": -1}, "a.json: count must be a whole number of at least 0, got -1"),
        ({"names": "x"}, "a.json: names must be a list, got 'x'"),
        ({"names": ["x", 2]}, r"a.json: names\[1\] must be text, got 2"),
        ({"factor": "some"}, "a.json: factor must be a whole number or 'any', got 'some'"),
        ({"share": float("nan")}, "a.json: share must be a finite number of at least 0, got nan"),
        ({"inner": 3}, "a.json: inner must be an object, or null, got 3"),
        ({"inner": {"side": 9}}, "a.json: inner.side must be a whole number from 1 to 8, or null, got 9"),
        ({"parts": [{}, {"kernel": "c"}]}, r"a.json: parts\[1\].kernel must be one of a, b, got 'c'"),
        ({"by_name": {"k": {"side": 0}}}, "a.json: by_name.k.side must be a whole number from 1 to 8"),
        ({"span": [0.5]}, r"a.json: span must be a list of 2, got \[0.5\]"),
        ({"span": [0, 1, 2]}, r"a.json: span must be a list of 2, got \[0, 1, 2\]"),
        ({"span": [0, "x"]}, r"a.json: span\[1\] must be a finite number, got 'x'"),
        ({"value": "nan"}, "a.json: value must be a number"),
        ({"anything": {"a": [1, float("inf")]}}, r"a.json: anything.a\[1\] is inf"),
        ({"anything": {"a": HUGE}}, "a.json: anything.a is a whole number beyond 64 bits"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(change, sentence):
    with pytest.raises(RecordError, match=sentence) as caught:
        build(GOOD | change)
    assert len(str(caught.value)) < 250


def test_a_missing_field_is_named():
    with pytest.raises(RecordError, match=r"a\.json lacks the field 'names'; expected count, names, "):
        build({"count": 1})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"3",
        b'{"count": NaN, "names": []}',
        b'{"count": 1, "names": ["\\ud800"]}',
        b'{"count": 1, "names": ["x"], "anything": ' + b'{"a":' * DEEP + b"1" + b"}" * (DEEP + 1),
        b"[" * 100_000,
        b'{"count": 1' + b"0" * 5000 + b', "names": []}',
        b'{"count": 1, "names": [], "share": 1' + b"0" * 400 + b"}",
        b'{"count": 1, "names": [], "share": 1e999}',
        b'{"count": 1, "names": [], "anything": {"a": 1e999}}',
    ],
    ids=range(12),
)
def test_damaged_json_is_one_sentence(tmp_path, text):
    with pytest.raises(RecordError) as caught:
        build(text)
    assert str(caught.value).startswith("a.json") and "\n" not in str(caught.value)
    (tmp_path / "a.json").write_bytes(text)
    try:
        canonical_json(read_json(tmp_path / "a.json"))
    except RecordError as error:
        assert "\n" not in str(error)


def test_fields_are_checked_where_they_are_given_in_code():
    check(Outer(1, ("x",), inner=Inner(2)), origin="here", error=UsageError)
    with pytest.raises(UsageError, match=r"here: inner\.side must be a whole number from 1 to 8, or none, got 20"):
        check(Outer(1, ("x",), inner=Inner(20)), origin="here", error=UsageError)


def test_text_that_no_file_can_hold_is_refused(tmp_path):
    with pytest.raises(RecordError, match="half a character"):
        write_text(tmp_path / "a.json", "a\ud800")
    assert not list(tmp_path.iterdir())


# --- whatever somebody writes ------------------------------------------------------------------------------------


def toml(raw: dict[str, Any]) -> str:
    """Write plain data as TOML, in inline tables; null has no word there and is left out."""

    def word(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {word(v)}" for k, v in value.items() if v is not None) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(word(each) for each in value if each is not None) + "]"
        if isinstance(value, float):
            return repr(value)
        return json.dumps(value).replace("\\u007f", "").replace("\x7f", "")

    return "".join(f"{json.dumps(key)} = {word(value)}\n" for key, value in raw.items() if value is not None)


def one_sentence(error: SrbenchError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 1500


PROTOCOL = {"description": "x"} | {
    part: {key: value for key, value in fields.items() if value is not None}
    for part, fields in load_protocol("clean").fields.items()
}
RECIPE = {
    key: value
    for key, value in Recipe(losses={"l1": 1.0, "ce": 0.5}, parameters={"blocks": 2}).to_json().items()
    if value is not None
}


def test_the_good_files_are_read(tmp_path):
    assert parse_protocol(toml(PROTOCOL), name="p", origin="p").fingerprint == load_protocol("clean").fingerprint
    (tmp_path / "r.toml").write_text(toml(RECIPE))
    assert load_recipe(str(tmp_path / "r.toml"), {}).to_json() == Recipe().to_json() | RECIPE
    assert preset_names()


@settings(max_examples=150, deadline=None)
@given(damaged(PROTOCOL))
def test_any_protocol_is_read_or_refused(raw):
    try:
        parse_protocol(toml(raw), name="p", origin="p")
    except ProtocolError as error:
        one_sentence(error)


@settings(max_examples=150, deadline=None)
@given(raw=damaged(RECIPE))
def test_any_recipe_is_read_or_refused(raw, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "r.toml"
    file.write_text(toml(raw), encoding="utf-8")
    try:
        canonical_json(load_recipe(str(file), {}).to_json())
    except UsageError as error:
        one_sentence(error)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*RECIPE, "losses.l1", "augment.flip", "parameters.x"]), st.text(max_size=8))
def test_any_override_is_taken_or_refused(key, text):
    try:
        apply_overrides(Recipe(), [f"{key}={text}"])
    except UsageError as error:
        assert len(str(error)) < 1500


def test_deep_toml_is_one_sentence(tmp_path):
    deep = "[" * DEEP + "]" * DEEP
    with pytest.raises(ProtocolError, match="nested too deep"):
        parse_protocol(f"lr = {deep}", name="p", origin="p")
    (tmp_path / "r.toml").write_text(f"[parameters]\nx = {deep}\n")
    with pytest.raises(UsageError, match="nested too deep"):
        load_recipe(str(tmp_path / "r.toml"), {})
    with pytest.raises(UsageError, match="not valid TOML"):
        (tmp_path / "r.toml").write_text("lr = 1" + "0" * 5000)
        load_recipe(str(tmp_path / "r.toml"), {})
    with pytest.raises(UsageError, match=r"parameters\.day is of type date"):
        (tmp_path / "r.toml").write_text("[parameters]\nday = 2026-01-01\n")
        load_recipe(str(tmp_path / "r.toml"), {})
