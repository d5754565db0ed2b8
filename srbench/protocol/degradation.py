"""How HR becomes LR: the fields of `[lr]` in a protocol, with what may be drawn anew for each image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval

from srbench.files.validate import Means, NotNegative, Positive, Share

Kernel = Literal["nearest", "area", "bilinear", "bicubic", "lanczos"]
Codec = Literal["jpeg", "webp", "avif"]
CODECS: tuple[Codec, ...] = ("jpeg", "webp", "avif")
SCALE_MEANS = "the share LR side / HR side, above 0 and at most 1, such as 0.32"
Scale = Annotated[float, Interval(gt=0, le=1), Means(SCALE_MEANS)]
Quality = Annotated[int, Interval(ge=1, le=100)]
# A number, or the ends of the range from which it is drawn for each image.
Amount = Annotated[
    NotNegative | tuple[NotNegative, NotNegative],
    Means("a finite number of at least 0, or two of them: the range from which it is drawn for each image"),
]
Qualities = Annotated[
    Quality | tuple[Quality, Quality],
    Means("a whole number from 1 to 100, or two of them: the range from which it is drawn for each image"),
]
Span = tuple[NotNegative, NotNegative]

# What happens to an image on its way to LR beside the resize, with the values that do nothing.
_IDLE: dict[str, Any] = {
    "blur_sigma": 0.0,
    "hr_noise_sigma": 0.0,
    "noise_sigma": 0.0,
    "codec": None,
    "quality": None,
    "jpeg_quality": None,
    "first": None,
    "second": None,
    "final_sinc": 0.0,
}
_REAL_NUMBERS = ("scale", "blur_sigma", "hr_noise_sigma", "noise_sigma", "final_sinc")
# Fields that came later than the first records: left out at their defaults, so that fingerprints stay what they were.
_LATER = ("codec", "quality", "hr_noise_sigma", "first", "second", "final_sinc")


@dataclass(frozen=True)
class Stage:
    """One order of Real-ESRGAN's degradation (Wang et al. 2021): blur, random resize, noise, JPEG; all drawn per image.

    Attributes:
        blur: Probability of a blur.
        sinc: Probability that the kernel of a blur is a sinc filter; else it is a (generalised) Gaussian or a plateau.
        blur_sigma: Range of the standard deviation along each axis of a blur, pixels.
        enlarge: Probability that the image is enlarged, by a factor from 1 to the upper end of `resize`.
        shrink: Probability that it is shrunk, by a factor from the lower end of `resize` to 1; else it keeps its size.
        resize: Range of the factor: of the HR side in the first order, of the LR side in the second.
        gaussian: Probability that the noise is Gaussian; else it is Poisson noise.
        grey_noise: Probability that all channels get the same noise.
        noise_sigma: Range of the standard deviation of Gaussian noise, in units of [0, 1].
        poisson_scale: Range of the factor on Poisson noise.
        quality: Range of JPEG's quality.
    """

    blur: Share
    sinc: Share
    blur_sigma: Span
    enlarge: Share
    shrink: Share
    resize: Span
    gaussian: Share
    grey_noise: Share
    noise_sigma: Span
    poisson_scale: Span
    quality: tuple[Quality, Quality]


@dataclass(frozen=True)
class Degradation:
    """How HR becomes LR: blur, noise, resample, noise, codec, rounding, in this order.

    Attributes:
        scale: LR side / HR side, in (0, 1]; the LR side is floor(scale x HR side + 1e-9).
        lr_side: LR side in pixels, instead of a scale.
        none: There is no LR at all: the method receives HR itself (talebi-2021).
        kernel: Resampling kernel.
        antialias: Whether the kernel is widened when shrinking.
        border: "clamp" leaves the border to the resampler, "symmetric" mirrors it first, as MATLAB does.
        blur_sigma: Standard deviation of a Gaussian blur of HR, pixels, or its range; 0 is none.
        hr_noise_sigma: Standard deviation of Gaussian noise added before resampling, in units of [0, 1], or its range.
        noise_sigma: Standard deviation of Gaussian noise added to LR, in units of the range [0, 1], or its range.
        codec: What LR is compressed with, at `quality`; None is nothing.
        quality: Quality of the codec (1..100), or its range.
        jpeg_quality: Short for the codec "jpeg" at this quality.
        eight_bit: LR is clamped and rounded to 8 bits.
        given: LR is the data's own; nothing is made of HR, and of the fields only `scale` has a meaning: that of real
            pairs, None for images that are small by nature.
        first: First order of a second-order degradation, at the size of HR; the fields above but for the size are not
            used then, and LR has 8 bits.
        second: Its second order, before the image has its size.
        final_sinc: Probability of a sinc filter at the size of LR, just before or after the last JPEG.
    """

    scale: Scale | None = None
    lr_side: Positive | None = None
    none: bool = False
    kernel: Kernel = "bicubic"
    antialias: bool = True
    border: Literal["clamp", "symmetric"] = "clamp"
    blur_sigma: Amount = 0.0
    hr_noise_sigma: Amount = 0.0
    noise_sigma: Amount = 0.0
    codec: Codec | None = None
    quality: Qualities | None = None
    jpeg_quality: Quality | None = None
    eight_bit: bool = True
    given: bool = False
    first: Stage | None = None
    second: Stage | None = None
    final_sinc: Share = 0.0

    def lr_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the LR size in pixels, (height, width), for an HR size in pixels."""
        if self.none or (self.given and self.scale is None):
            return height, width
        if self.lr_side is not None:
            short = min(height, width)
            return tuple(max(1, math.floor(side * self.lr_side / short + 1e-9)) for side in (height, width))  # type: ignore[return-value]
        assert self.scale is not None
        return tuple(max(1, math.floor(self.scale * side + 1e-9)) for side in (height, width))  # type: ignore[return-value]

    @property
    def encoding(self) -> tuple[Codec, int | tuple[int, int]] | None:
        """What LR is compressed with and at which quality, or None."""
        if self.jpeg_quality is not None:
            return "jpeg", self.jpeg_quality
        return None if self.codec is None or self.quality is None else (self.codec, self.quality)

    @property
    def orders(self) -> tuple[Stage, Stage] | None:
        """Both orders of a second-order degradation, or None."""
        return None if self.first is None or self.second is None else (self.first, self.second)

    @property
    def drawn(self) -> bool:
        """Whether parameters are drawn for each image."""
        quality = None if self.encoding is None else self.encoding[1]
        amounts = (self.blur_sigma, self.hr_noise_sigma, self.noise_sigma, quality)
        return self.orders is not None or any(isinstance(amount, tuple) for amount in amounts)

    @property
    def seeded(self) -> bool:
        """Whether LR depends on the seed: noise or parameters are drawn."""
        return self.drawn or bool(self.hr_noise_sigma or self.noise_sigma)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that move a number, as plain JSON types; two ways to write one degradation have the same."""
        fields: dict[str, Any] = {name: _plain(value) for name, value in dataclasses.asdict(self).items()}
        for name in _REAL_NUMBERS:  # 1 and 1.0 are one scale, so they must have one fingerprint
            fields[name] = _real(fields[name])
        if self.given:
            return {"given": True, "scale": fields["scale"]}
        del fields["given"]  # it came later than the first records, whose fingerprints lack it
        if self.codec == "jpeg" and isinstance(self.quality, int):
            fields |= {"jpeg_quality": self.quality, "codec": None, "quality": None}
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name not in _LATER or value != defaults[name]}

    def problem(self) -> str | None:
        """Return what contradicts what, or None: the field, and what it needs."""
        sizes = [self.scale is not None, self.lr_side is not None, self.none]
        if sum(sizes) != 1 and (any(sizes) or not self.given):
            return "[lr] needs exactly one of scale, lr_side and none = true"
        if self.jpeg_quality is not None and (self.codec is not None or self.quality is not None):
            return 'lr.jpeg_quality is short for codec = "jpeg" with quality; give one of the two'
        if (self.codec is None) != (self.quality is None):
            return "lr.codec and lr.quality need each other: which codec, and at which quality"
        if (self.first is None) != (self.second is None):
            return "lr.first and lr.second need each other"
        if self.orders is not None and (self.blur_sigma or self.hr_noise_sigma or self.noise_sigma or self.encoding):
            return "lr.first and lr.second hold blur, noise and codec already; leave those of [lr] out"
        if self.orders is None and self.final_sinc:
            return "lr.final_sinc needs lr.first and lr.second"
        if self.orders is not None and (self.none or not self.eight_bit):
            return "lr.first and lr.second make an LR of 8 bits; leave none and eight_bit out"
        for name, value in self._ranges():
            if value[0] > value[1]:
                return f"lr.{name} is a range, whose lower end comes first, got {list(value)}"
        for name, order in (("first", self.first), ("second", self.second)):
            if order is not None and order.enlarge + order.shrink > 1 + 1e-9:
                return f"lr.{name}: enlarge and shrink are probabilities of the same choice, their sum is above 1"
            if order is not None and not order.resize[0] <= 1 <= order.resize[1]:
                return f"lr.{name}.resize is a range around 1, got {list(order.resize)}"
        return None

    def _ranges(self) -> list[tuple[str, tuple[float, ...]]]:
        held = [("", self), *((f"{name}.", order) for name, order in (("first", self.first), ("second", self.second)))]
        return [
            (f"{prefix}{item.name}", value)
            for prefix, each in held
            if each is not None
            for item in dataclasses.fields(each)
            if isinstance(value := getattr(each, item.name), tuple)
        ]


def without_degradation(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol's `fields` with a resize alone on the way to LR: those of the task that it is compared with."""
    lr = {name: _IDLE.get(name, value) for name, value in fields.get("lr", {}).items() if name not in _LATER}
    return {**fields, "lr": lr}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _real(value: Any) -> Any:
    if isinstance(value, list):
        return [float(each) for each in value]
    return None if value is None else float(value)
