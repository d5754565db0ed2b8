"""Protocols by name and from TOML files."""

from __future__ import annotations

from fractions import Fraction
from importlib import resources
from importlib.resources.abc import Traversable

from srbench.errors import ProtocolError, UnknownNameError
from srbench.files.paths import user_path
from srbench.files.strict import parse_toml, read_toml
from srbench.files.validate import validated
from srbench.protocol.degradation import SCALE_MEANS
from srbench.protocol.schema import Protocol

_SHIFTS = ("blur", "noise", "jpeg", "camera", "second-order")  # from one cause each to all at once


def parse_scale(text: str) -> float:
    """Read a scale such as "0.32" or "1/3".

    Raises:
        ProtocolError: If it is no number, or not in (0, 1].
    """
    above, slash, below = text.partition("/")
    try:
        value = float(Fraction(int(above), int(below))) if slash else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ProtocolError(f"--scale takes a number such as 0.32 or 1/3, got {text!r}") from None
    if not 0 < value <= 1:
        raise ProtocolError(f"--scale takes {SCALE_MEANS}, got {text!r}")
    return value


def preset_names() -> list[str]:
    """Return the names of the protocols that ship, sorted."""
    return sorted(entry.name[:-5] for entry in _presets().iterdir() if entry.name.endswith(".toml"))


def shift_names() -> list[str]:
    """Return the names of the protocols that differ from `clean` in what blurs, disturbs or compresses LR."""
    return list(_SHIFTS)


def load_protocol(spec: str) -> Protocol:
    """Return the preset of that name, or the protocol of a TOML file.

    Raises:
        UnknownNameError: If it is neither a preset nor a path ending in .toml.
        ProtocolError: If the file is missing, unreadable, or holds a field that does not exist.
    """
    if spec.endswith(".toml"):
        path = user_path(spec)
        if not path.is_file():
            raise ProtocolError(
                f"there is no protocol file {spec}; give a path to a .toml file or one of {preset_names()}"
            )
        return _from_raw(read_toml(path, what=f"protocol {spec}", error=ProtocolError), name=path.stem, origin=spec)
    if spec not in preset_names():
        raise UnknownNameError("protocol", spec, preset_names())
    text = (_presets() / f"{spec}.toml").read_text(encoding="utf-8")
    return parse_protocol(text, name=spec, origin=spec)


def parse_protocol(text: str, *, name: str, origin: str) -> Protocol:
    """Read a protocol from TOML text; `origin` names it in error messages.

    Raises:
        ProtocolError: If the text is no TOML, or a field is unknown or out of range.
    """
    return _from_raw(parse_toml(text, what=f"protocol {origin}", error=ProtocolError), name=name, origin=origin)


def _from_raw(raw: dict[str, object], *, name: str, origin: str) -> Protocol:
    if "name" in raw:
        raise ProtocolError(f"protocol {origin} has the field 'name'; leave it out, the name is that of the file")
    protocol = validated(
        Protocol, raw | {"name": name}, origin=f"protocol {origin}", error=ProtocolError, syntax="toml"
    )
    if protocol.lr.given:
        raise ProtocolError(f"protocol {origin}: lr.given is set by the data (pairs:LR_DIR,HR_DIR); leave it out")
    return protocol


def _presets() -> Traversable:
    return resources.files("srbench.protocol") / "presets"
