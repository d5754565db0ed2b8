"""The protocol: every choice that moves a number, its TOML presets, and its fingerprint."""

from srbench.protocol.degradation import CODECS, Codec, Degradation, Kernel, Stage, without_degradation
from srbench.protocol.load import load_protocol, parse_protocol, parse_scale, preset_names, shift_names
from srbench.protocol.schema import Geometry, Protocol, Restoration, Scoring, difference

__all__ = [
    "CODECS",
    "Codec",
    "Degradation",
    "Geometry",
    "Kernel",
    "Protocol",
    "Restoration",
    "Scoring",
    "Stage",
    "difference",
    "load_protocol",
    "parse_protocol",
    "parse_scale",
    "preset_names",
    "shift_names",
    "without_degradation",
]
