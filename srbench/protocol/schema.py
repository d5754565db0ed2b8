"""The schema of a protocol: every choice that moves a number, what each may be, and the fingerprint of them all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from srbench.errors import ProtocolError
from srbench.files.validate import Count, Positive, check
from srbench.protocol.degradation import Degradation, Kernel


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

    resize: Positive | None = None
    crop: Positive | None = None
    modulo: Positive = 1
    kernel: Literal["bilinear", "bicubic"] = "bicubic"
    engine: Literal["tensor", "pillow"] = "tensor"

    @property
    def fixed_side(self) -> int | None:
        """Side of every HR image where the geometry makes them all square and equal, pixels."""
        return self.crop


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

    side: Positive | None = None
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
    crop_border: Count = 0
    clamp: bool = True
    round: bool = True
    psnr_reduction: Literal["image", "batch"] = "image"
    psnr_batch: Positive = 60
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
        """Refuse what is of another type, out of range, or contradicts another field.

        Raises:
            ProtocolError: Naming the field.
        """
        origin = f"protocol {self.name!r}"
        check(self, origin=origin, error=ProtocolError)
        if (problem := self.lr.problem()) is not None:
            raise ProtocolError(f"{origin}: {problem}")
        for inner, inside, outer, outside in (
            ("hr.crop", self.hr.crop, "hr.resize", self.hr.resize),
            ("lr.lr_side", self.lr.lr_side, "hr.crop", self.hr.crop),
        ):
            if inside is not None and outside is not None and inside > outside:
                raise ProtocolError(f"{origin}: {inner} ({inside}) must not be larger than {outer} ({outside})")

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """The fields that move a number, as plain JSON types."""
        return {part: dataclasses.asdict(getattr(self, part)) for part in _PARTS} | {"lr": self.lr.fields}

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the canonical JSON of `fields`."""
        canonical = json.dumps(self.fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def is_small(self) -> bool:
        """Whether it scores images that are LR as they are: there is no HR, and no scale."""
        return self.lr.given and self.lr.scale is None

    @property
    def scale_label(self) -> str:
        """The degradation's size as a short word for ids and tables: "0.32", "56px", "1", "small"."""
        if self.is_small:
            return "small"
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
        if self.is_small:
            raise ProtocolError(
                f"images that are small by nature are LR as they are, so --scale {scale:g} cannot apply;"
                " leave --scale out"
            )
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

    def shifted(self, other: Protocol) -> Protocol:
        """Return this protocol with what `other` does to an image on its way to LR: blur, noise, codec.

        Geometry, size of LR, kernel, restoration and scoring stay; so does whatever the method was made for.

        Raises:
            ProtocolError: If there is no LR to degrade, or it is the data's own.
        """
        if self.lr.given or self.lr.none:
            why = "the LR is the data's own" if self.lr.given else f"protocol {self.name!r} has no LR"
            raise ProtocolError(f"{why}, so no further degradation can apply; leave --shift out")
        kept = {name: getattr(self.lr, name) for name in ("scale", "lr_side", "kernel", "antialias", "border")}
        shifted = dataclasses.replace(self, description=other.description, lr=dataclasses.replace(other.lr, **kept))
        same = shifted.fingerprint == other.fingerprint or self.name == "clean"
        return dataclasses.replace(shifted, name=other.name if same else f"{self.name}-{other.name}")

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

    def of_small(self) -> Protocol:
        """Return this protocol for images that are LR as they are: nothing is cropped or degraded, there is no HR.

        What follows is the same: the kernel that brings a network's output to size, clamping and rounding.

        Raises:
            ProtocolError: If the protocol has no LR.
        """
        if self.lr.none:
            raise ProtocolError(
                f"protocol {self.name!r} has no LR, so it cannot score images that are small by nature; choose 'clean'"
            )
        return dataclasses.replace(self, hr=Geometry(), lr=Degradation(given=True))


_PARTS = ("hr", "sr", "score")


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Name the fields in which two protocols' `fields` differ, each as "lr.scale: 0.32 against 0.5"."""
    lines = []
    for part in sorted(set(first) | set(second)):
        ours, theirs = first.get(part, {}), second.get(part, {})
        for key in sorted(set(ours) | set(theirs)):
            if ours.get(key) != theirs.get(key):
                lines.append(f"{part}.{key}: {ours.get(key)} against {theirs.get(key)}")
    return lines
