"""The protocol: every choice that moves a number, its TOML presets, and its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from srbench.errors import ProtocolError, UnknownNameError

Kernel = Literal["nearest", "area", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Geometry:
    """How a source image becomes HR.

    Attributes:
        resize: Shortest side after resizing, pixels; None keeps the source's size.
        crop: Side of the centre crop, pixels; None keeps the whole image.
        modulo: Crop (from the top left) to a multiple of this many pixels; 1 keeps all.
        kernel: Kernel of the resize.
        engine: "tensor" is torchvision's antialiased resize on 8 bits, "pillow" is Pillow's.
    """

    resize: int | None = None
    crop: int | None = None
    modulo: int = 1
    kernel: Literal["bilinear", "bicubic"] = "bicubic"
    engine: Literal["tensor", "pillow"] = "tensor"

    @property
    def fixed_side(self) -> int | None:
        """Side of every HR image where the geometry makes them all square and equal, pixels."""
        return self.crop


@dataclass(frozen=True)
class Degradation:
    """How HR becomes LR: blur, resample, noise, JPEG, rounding, in this order.

    Attributes:
        scale: LR side / HR side, in (0, 1]; the LR side is floor(scale x HR side + 1e-9).
        lr_side: LR side in pixels, instead of a scale.
        none: There is no LR at all: the method receives HR itself (talebi-2021).
        kernel: Resampling kernel.
        antialias: Whether the kernel is widened when shrinking.
        border: "clamp" leaves the border to the resampler, "symmetric" mirrors it first, as MATLAB does.
        blur_sigma: Standard deviation of a Gaussian blur of HR, pixels; 0 is none.
        noise_sigma: Standard deviation of Gaussian noise added to LR, in units of the range [0, 1].
        jpeg_quality: LR is compressed to JPEG at this quality (1..100); None is not at all.
        eight_bit: LR is clamped and rounded to 8 bits.
        given: LR is the data's own (real pairs); nothing is made of HR, and of the fields only `scale` has a meaning.
    """

    scale: float | None = None
    lr_side: int | None = None
    none: bool = False
    kernel: Kernel = "bicubic"
    antialias: bool = True
    border: Literal["clamp", "symmetric"] = "clamp"
    blur_sigma: float = 0.0
    noise_sigma: float = 0.0
    jpeg_quality: int | None = None
    eight_bit: bool = True
    given: bool = False

    def lr_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the LR size in pixels, (height, width), for an HR size in pixels."""
        if self.none:
            return height, width
        if self.lr_side is not None:
            short = min(height, width)
            return tuple(max(1, math.floor(side * self.lr_side / short + 1e-9)) for side in (height, width))  # type: ignore[return-value]
        assert self.scale is not None
        return tuple(max(1, math.floor(self.scale * side + 1e-9)) for side in (height, width))  # type: ignore[return-value]


@dataclass(frozen=True)
class Restoration:
    """What happens to a method's output before it is scored.

    Attributes:
        side: Side of SR in pixels where it is not the HR side (talebi-2021: what the classifier takes).
        kernel: Kernel that brings a network's native factor to the SR size.
        antialias: Whether that kernel is widened when shrinking.
        clamp: SR is clamped to [0, 1] before the classifier sees it.
        round: SR is rounded to 8 bits before the classifier sees it.
    """

    side: int | None = None
    kernel: Kernel = "bicubic"
    antialias: bool = True
    clamp: bool = True
    round: bool = True


@dataclass(frozen=True)
class Scoring:
    """The conventions of the image metrics and of the logits.

    Attributes:
        channels: "rgb", or "y" for the luma of BT.601 limited range.
        crop_border: Pixels shaved off every side before PSNR and SSIM.
        clamp: SR is clamped before PSNR and SSIM, whatever the classifier saw.
        round: SR is rounded to 8 bits before PSNR and SSIM, whatever the classifier saw.
        psnr_reduction: "image" is the mean of one value an image; "batch" pools the MSE of psnr_batch images.
        psnr_batch: Images a pooled batch; with "batch" the last incomplete one is left out of everything.
        logits: "all" lets every class of the classifier compete, "present" only those of the data.
    """

    channels: Literal["rgb", "y"] = "rgb"
    crop_border: int = 0
    clamp: bool = True
    round: bool = True
    psnr_reduction: Literal["image", "batch"] = "image"
    psnr_batch: int = 60
    logits: Literal["all", "present"] = "all"


@dataclass(frozen=True)
class Protocol:
    """Every choice that moves a number, in the order in which it acts.

    Attributes:
        name: Name of the preset or stem of the file; a label, not part of the fingerprint.
        description: One sentence; a label too.
        fixed_scale: `--scale` is refused, because the protocol is defined by its LR size; a label too.
    """

    name: str
    description: str = ""
    fixed_scale: bool = False
    hr: Geometry = field(default_factory=Geometry)
    lr: Degradation = field(default_factory=Degradation)
    sr: Restoration = field(default_factory=Restoration)
    score: Scoring = field(default_factory=Scoring)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """The fields that move a number, as plain JSON types."""
        fields = {part: dataclasses.asdict(getattr(self, part)) for part in _PARTS}
        for key in _REAL_NUMBERS:  # 1 and 1.0 are one scale, so they must have one fingerprint
            if fields["lr"][key] is not None:
                fields["lr"][key] = float(fields["lr"][key])
        if self.lr.given:
            fields["lr"] = {"given": True, "scale": fields["lr"]["scale"]}
        else:
            del fields["lr"]["given"]  # it came later than the first records, whose fingerprints lack it
        return fields

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the canonical JSON of `fields`."""
        canonical = json.dumps(self.fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def scale_label(self) -> str:
        """The degradation's size as a short word for ids and tables: "0.32", "56px", "1"."""
        if self.lr.none:
            return "1"
        return f"{self.lr.lr_side}px" if self.lr.lr_side is not None else f"{self.lr.scale:.6g}"

    @property
    def effective_scale(self) -> float | None:
        """LR side / HR side where the protocol fixes it, else None."""
        if self.lr.scale is not None:
            return self.lr.scale
        if self.lr.lr_side is not None and self.hr.crop is not None:
            return self.lr.lr_side / self.hr.crop
        return None

    def sr_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the SR size in pixels, (height, width), for an HR size in pixels."""
        return (height, width) if self.sr.side is None else (self.sr.side, self.sr.side)

    def at_scale(self, scale: float) -> Protocol:
        """Return this protocol with another scale.

        Raises:
            ProtocolError: If the protocol fixes its scale, or the scale is not in (0, 1].
        """
        if self.lr.given:
            raise ProtocolError(
                f"the LR of real pairs is given, at scale {self.scale_label}, so --scale {scale:g} cannot apply;"
                " leave --scale out"
            )
        if self.fixed_scale:
            raise ProtocolError(
                f"protocol {self.name!r} fixes its own LR size ({self.scale_label}), so --scale {scale:g} cannot apply;"
                " leave --scale out or choose the protocol 'clean'"
            )
        return dataclasses.replace(self, lr=dataclasses.replace(self.lr, scale=scale, lr_side=None))

    def of_pairs(self, factor: int) -> Protocol:
        """Return this protocol for real LR-HR pairs: HR keeps its size, LR is given, all that follows is the same.

        Args:
            factor: HR side / LR side of the pairs.

        Raises:
            ProtocolError: If the protocol has no LR.
        """
        if self.lr.none:
            raise ProtocolError(
                f"protocol {self.name!r} has no LR, so it cannot score real pairs; choose the protocol 'clean'"
            )
        return dataclasses.replace(self, hr=Geometry(), lr=Degradation(scale=1 / factor, given=True))


_PARTS: dict[str, type] = {"hr": Geometry, "lr": Degradation, "sr": Restoration, "score": Scoring}
_REAL_NUMBERS = ("scale", "blur_sigma", "noise_sigma")


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
    _check_scale(value)
    return value


def preset_names() -> list[str]:
    """Return the names of the protocols that ship, sorted."""
    return sorted(entry.name[:-5] for entry in _presets().iterdir() if entry.name.endswith(".toml"))


def load_protocol(spec: str) -> Protocol:
    """Return the preset of that name, or the protocol of a TOML file.

    Raises:
        UnknownNameError: If it is neither a preset nor a path ending in .toml.
        ProtocolError: If the file is missing, unreadable, or holds a field that does not exist.
    """
    if spec.endswith(".toml"):
        path = Path(spec)
        if not path.is_file():
            raise ProtocolError(
                f"there is no protocol file {spec}; give a path to a .toml file or one of {preset_names()}"
            )
        try:
            return parse_protocol(path.read_text(encoding="utf-8"), name=path.stem, origin=spec)
        except UnicodeDecodeError as error:
            raise ProtocolError(f"protocol {spec} is not valid TOML: {error}") from None
    if spec not in preset_names():
        raise UnknownNameError("protocol", spec, preset_names())
    text = (_presets() / f"{spec}.toml").read_text(encoding="utf-8")
    return parse_protocol(text, name=spec, origin=spec)


def parse_protocol(text: str, *, name: str, origin: str) -> Protocol:
    """Read a protocol from TOML text; `origin` names it in error messages.

    Raises:
        ProtocolError: If the text is no TOML, or a field is unknown or out of range.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProtocolError(f"protocol {origin} is not valid TOML: {error}") from None
    top = {key: raw.pop(key) for key in _LABELS if key in raw}
    for key, value in top.items():
        kind, expected = _LABELS[key]
        if not isinstance(value, kind):
            raise ProtocolError(f"protocol {origin}: {key} must be {expected}, got {value!r}")
    unknown = sorted(set(raw) - set(_PARTS))
    if unknown:
        raise ProtocolError(f"protocol {origin} has an unknown table or key {unknown[0]!r}; known: {sorted(_PARTS)}")
    protocol = Protocol(name=name, **top, **{key: _part(key, value, origin) for key, value in raw.items()})
    if protocol.lr.given:
        raise ProtocolError(f"protocol {origin}: lr.given is set by the data (pairs:LR_DIR,HR_DIR); leave it out")
    return protocol


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Name the fields in which two protocols' `fields` differ, each as "lr.scale: 0.32 against 0.5"."""
    lines = []
    for part in sorted(set(first) | set(second)):
        ours, theirs = first.get(part, {}), second.get(part, {})
        for key in sorted(set(ours) | set(theirs)):
            if ours.get(key) != theirs.get(key):
                lines.append(f"{part}.{key}: {ours.get(key)} against {theirs.get(key)}")
    return lines


def _presets() -> Any:
    return resources.files("srbench.protocol") / "presets"


def _part(key: str, value: Any, origin: str) -> Any:
    part = _PARTS[key]
    if not isinstance(value, dict):
        raise ProtocolError(f"protocol {origin}: [{key}] must be a table, got {value!r}")
    known = {item.name for item in dataclasses.fields(part)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise ProtocolError(f"protocol {origin}: [{key}] has no field {unknown[0]!r}; known: {sorted(known)}")
    return part(**value)


def _check_scale(scale: Any) -> None:
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale <= 1:
        raise ProtocolError(
            f"scale is LR side / HR side and must lie in (0, 1], got {scale!r}; a typical value is 0.32"
        )


_LABELS: dict[str, tuple[type, str]] = {"description": (str, "text"), "fixed_scale": (bool, "true or false")}
_CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("hr", "kernel"): ("bilinear", "bicubic"),
    ("hr", "engine"): ("tensor", "pillow"),
    ("lr", "kernel"): ("nearest", "area", "bilinear", "bicubic", "lanczos"),
    ("lr", "border"): ("clamp", "symmetric"),
    ("sr", "kernel"): ("nearest", "area", "bilinear", "bicubic", "lanczos"),
    ("score", "channels"): ("rgb", "y"),
    ("score", "psnr_reduction"): ("image", "batch"),
    ("score", "logits"): ("all", "present"),
}
_POSITIVE = (
    ("hr", "resize"),
    ("hr", "crop"),
    ("hr", "modulo"),
    ("lr", "lr_side"),
    ("sr", "side"),
    ("score", "psnr_batch"),
)
_FLAGS = (
    ("lr", "none"),
    ("lr", "antialias"),
    ("lr", "eight_bit"),
    ("lr", "given"),
    ("sr", "antialias"),
    ("sr", "clamp"),
    ("sr", "round"),
    ("score", "clamp"),
    ("score", "round"),
)


def _check(protocol: Protocol) -> None:
    def at(part: str, key: str) -> Any:
        return getattr(getattr(protocol, part), key)

    def refuse(part: str, key: str, expected: str) -> None:
        raise ProtocolError(f"protocol {protocol.name!r}: {part}.{key} must be {expected}, got {at(part, key)!r}")

    for (part, key), choices in _CHOICES.items():
        if at(part, key) not in choices:
            refuse(part, key, f"one of {', '.join(choices)}")
    for part, key in _POSITIVE:
        value = at(part, key)
        if value is not None and (not _is_whole(value) or value < 1):
            refuse(part, key, "a whole number of at least 1")
    for part, key in _FLAGS:
        if not isinstance(at(part, key), bool):
            refuse(part, key, "true or false")
    if not _is_whole(protocol.score.crop_border) or protocol.score.crop_border < 0:
        refuse("score", "crop_border", "a whole number of pixels, at least 0")
    for key in ("blur_sigma", "noise_sigma"):
        value = at("lr", key)
        if not (_is_whole(value) or isinstance(value, float)) or not 0 <= value < math.inf:
            refuse("lr", key, "a finite number of at least 0")
    quality = protocol.lr.jpeg_quality
    if quality is not None and (not _is_whole(quality) or not 1 <= quality <= 100):
        refuse("lr", "jpeg_quality", "a whole number from 1 to 100")
    given = [protocol.lr.scale is not None, protocol.lr.lr_side is not None, protocol.lr.none]
    if sum(given) != 1:
        raise ProtocolError(f"protocol {protocol.name!r}: [lr] needs exactly one of scale, lr_side and none = true")
    if protocol.lr.scale is not None:
        _check_scale(protocol.lr.scale)
    for (part, key), (other_part, other_key) in (
        (("hr", "crop"), ("hr", "resize")),
        (("lr", "lr_side"), ("hr", "crop")),
    ):
        inner, outer = at(part, key), at(other_part, other_key)
        if inner is not None and outer is not None and inner > outer:
            raise ProtocolError(
                f"protocol {protocol.name!r}: {part}.{key} ({inner}) must not be larger than {other_part}.{other_key}"
                f" ({outer})"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
