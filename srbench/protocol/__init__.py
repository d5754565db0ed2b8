"""The protocol: every choice that moves a number, its TOML presets, and its fingerprint."""

from srbench.protocol.load import load_protocol, parse_protocol, parse_scale, preset_names
from srbench.protocol.schema import Degradation, Geometry, Kernel, Protocol, Restoration, Scoring, difference

__all__ = [
    "Degradation",
    "Geometry",
    "Kernel",
    "Protocol",
    "Restoration",
    "Scoring",
    "difference",
    "load_protocol",
    "parse_protocol",
    "parse_scale",
    "preset_names",
]
