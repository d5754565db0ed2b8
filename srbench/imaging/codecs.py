"""Picture files as people keep them: read with alpha, orientation and colour profile, and encoded again by suffix."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from srbench.errors import SrbenchError, UnreadableImageError, UsageError, one_line
from srbench.files.regular import open_regular, read_regular
from srbench.imaging.decode import decode_bytes, deep_pixels, from_array

Pixels = NDArray[np.uint8]

_ORIENTATION, _MADE_BY, _EXIF_IFD, _GPS_IFD = 0x0112, 0x000B, 0x8769, 0x8825  # EXIF: 0x000B is ProcessingSoftware
_WIDTH, _HEIGHT, _MAKER_NOTE = 0xA002, 0xA003, 0x927C  # inside the Exif IFD; a maker note holds offsets into the file
_JPEG_EXIF_BYTES = 65533
# What a camera says about the picture is kept; all that describes how the old file stored its pixels is not.
_KEPT_TAGS = frozenset(
    {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, _EXIF_IFD, _GPS_IFD}
)


@dataclass(frozen=True)
class _Format:
    """How a suffix is written: Pillow's name, options, and the longest side that the format can hold, pixels."""

    name: str
    options: Mapping[str, Any]
    longest_side: int
    alpha: bool = True


_JPEG = _Format("JPEG", {"quality": 95, "subsampling": 0}, 65500, alpha=False)
_TIFF = _Format("TIFF", {"compression": "tiff_adobe_deflate"}, 2**31 - 1)
_FORMATS: Mapping[str, _Format] = {
    ".png": _Format("PNG", {}, 2**31 - 1),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Format("WEBP", {"lossless": True, "exact": True}, 16383),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
WRITABLE = tuple(_FORMATS)
MAX_PIXELS = 2 * 2**30 // 12  # what Pillow refuses by default: half a gigabyte of RGB
_limit = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """One picture, upright.

    Attributes:
        pixels: `(H, W, C)` uint8: RGB for C = 3, grey for C = 1.
        alpha: `(H, W)` uint8, or None.
        icc: Colour profile that fits `pixels`, or None.
        exif: What the camera wrote, without orientation and thumbnail; b"" for nothing.
        sha256: Hash of the file it was read from.
        notes: What became of it, one clause each.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    exif: bytes = b""
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def opaque(self) -> bool:
        """Whether nothing of it shines through."""
        return self.alpha is None or bool((self.alpha == 255).all())


def read_picture(path: Path, name: str, *, max_pixels: float = MAX_PIXELS) -> Picture:
    """Read a file.

    Orientation is applied. 16 bits are rounded to 8, palettes become RGB, CMYK becomes sRGB through its own profile.

    Args:
        path: The file.
        name: What error messages call it.
        max_pixels: A file that says that it has more is not decoded; infinite for a file that is trusted.

    Raises:
        UnreadableImageError: If it is missing, damaged, no image, or holds several frames.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise UnreadableImageError(f"{name} cannot be read: {error.strerror or error}") from error
    if not data:
        raise UnreadableImageError(f"{name} is empty (0 bytes)")
    digest = hashlib.sha256(data).hexdigest()
    if data.startswith(b"\x93NUMPY"):
        return Picture(decode_bytes(data, name).permute(1, 2, 0).contiguous().numpy(), sha256=digest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which tiles are for, and of damaged metadata, which is left out
            with _any_size():
                image: Image.Image = Image.open(io.BytesIO(data))
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(
                    f"{name} says that it has {image.width} x {image.height} pixels, more than"
                    f" {max_pixels / 1e6:.0f} million, which a small file can fill the memory with; where it is trusted"
                    " raise the limit with --max-megapixels"
                )
            frames = getattr(image, "n_frames", 1)
            # a telephone's MPO holds the photograph first, then previews and depth maps
            if frames > 1 and image.format != "MPO":
                raise UnreadableImageError(
                    f"{name} holds {frames} frames or pages; save the one that is wanted as an image of its own"
                )
            image.load()
            image = _upright(image)
            return _picture(image, digest, name)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{name} is not an image in any format known to Pillow") from error
    except Exception as error:
        # Pillow's plugins raise a dozen unrelated types on damaged files
        raise UnreadableImageError(f"{name} cannot be decoded: {one_line(error)}") from error


@contextmanager
def _any_size() -> Iterator[None]:
    """Have Pillow open files of any size, for what reads only the head, or looks at the size itself."""
    with _limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def size_of(path: Path) -> tuple[int, int] | None:
    """Return (height, width) from a file's head, as stored, or None where it cannot be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_regular(path) as file, _any_size(), Image.open(file) as image:
                return image.height, image.width
    except Exception:  # noqa: BLE001 as above; what is wrong with the file is said when it is read
        return None


def made_by(path: Path) -> str | None:
    """Return what `encode` was told about how a file was made, or None."""
    try:
        with open_regular(path) as file, _any_size(), Image.open(file) as image:
            # `encode` puts it before the pixels; Pillow would decode all of a PNG to look behind them
            foreign = image.format == "PNG" and "exif" not in image.info
            software = None if foreign else image.getexif().get(_MADE_BY)
    except Exception:  # noqa: BLE001 as above
        return None
    return str(software) if software is not None else None


def check_target(suffix: str, size: tuple[int, int], name: str, *, opaque: bool = True) -> None:
    """Refuse a format that cannot hold a picture of `size`, (height, width) in pixels.

    Raises:
        UsageError: Naming the picture and the formats that can.
    """
    form, (height, width) = _FORMATS[suffix], size
    if max(size) > form.longest_side:
        raise UsageError(
            f"{name} would become {width} x {height} pixels, {form.name} holds at most {form.longest_side} a side;"
            " take a smaller factor or write .png or .tiff"
        )
    if height * width >= 2**31:
        raise UsageError(f"{name} would become {width} x {height} pixels, which is too large; take a smaller factor")
    if not (form.alpha or opaque):
        raise UsageError(f"{name} is transparent in places, which JPEG cannot keep; write .png, .webp or .tiff")


def encode(picture: Picture, suffix: str, *, made: str) -> bytes:
    """Return a picture as a file of the format that goes with `suffix`; `made` says inside how it was made.

    JPEG is written at quality 95 without chroma subsampling, everything else without loss.

    Raises:
        SrbenchError: If the format's encoder refuses it.
    """
    form = _FORMATS[suffix]
    pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    if picture.alpha is not None and form.alpha:
        pixels = np.dstack([picture.pixels, picture.alpha])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    options = dict(form.options)
    if picture.icc is not None and (form.name != "WEBP" or picture.pixels.shape[2] == 3):  # WebP knows no grey
        options["icc_profile"] = picture.icc
    with io.BytesIO() as stream:
        try:
            image.save(stream, form.name, exif=_written_exif(picture, form, made), **options)
        except (OSError, ValueError, RuntimeError, SyntaxError) as error:
            raise SrbenchError(
                f"a picture of {image.width} x {image.height} pixels cannot be encoded: {error}"
            ) from error
        return stream.getvalue()


def without_fringe(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Give every wholly transparent pixel of `(H, W, C)` the colour of the nearest one that can be seen.

    Files hold any colour there, mostly black or white, and a kernel or a network would mix it into the visible edge.
    Multiplying the colour by alpha instead would draw a dark edge for a network to sharpen.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return pixels
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~visible, return_distances=False, return_indices=True)
    return pixels[rows, columns]


def _upright(image: Image.Image) -> Image.Image:
    try:
        image.getexif()
    except Exception:  # noqa: BLE001 a damaged EXIF block does not make a picture unreadable
        return image
    return ImageOps.exif_transpose(image)


def _picture(image: Image.Image, sha256: str, name: str) -> Picture:
    icc = image.info.get("icc_profile")
    exif, notes, alpha = _kept_exif(image), [], None
    if image.mode.startswith(("I", "F")):
        raw = deep_pixels(image)
        pixels = from_array(raw, name).numpy()[0][..., None].copy()
        notes.append("has more than 8 bits a channel, the result has 8")
        if isinstance(image.info.get("transparency"), int):
            alpha = np.where(raw == image.info["transparency"], 0, 255).astype(np.uint8)
    elif image.mode == "CMYK":
        pixels, icc = np.array(_srgb_of_cmyk(image, icc)), None
        notes.append("is CMYK, the result is RGB")
    else:
        grey = image.mode in {"1", "L", "LA", "La"}
        transparent = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
        if image.mode == "P" and transparent:
            image = image.convert("RGBA")
        bands = np.array(image.convert(("LA" if grey else "RGBA") if transparent else ("L" if grey else "RGB")))
        bands = bands if bands.ndim == 3 else bands[..., None]
        pixels, alpha = (bands[..., :-1], bands[..., -1]) if transparent else (bands, None)
    space = b"GRAY" if pixels.shape[2] == 1 else b"RGB "
    fits = isinstance(icc, bytes) and icc[16:20] == space
    return Picture(
        np.ascontiguousarray(pixels),
        None if alpha is None else np.ascontiguousarray(alpha),
        icc if fits else None,
        exif,
        sha256,
        tuple(notes),
    )


def _srgb_of_cmyk(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a damaged profile is as none
        if converted is not None:
            return converted
    return image.convert("RGB")


def _kept_exif(image: Image.Image) -> bytes:
    try:
        exif = image.getexif()
        kept = Image.Exif()
        for tag in _KEPT_TAGS & set(exif):
            kept[tag] = exif.get_ifd(tag) if tag in (_EXIF_IFD, _GPS_IFD) else exif[tag]
        if _EXIF_IFD in kept:
            kept[_EXIF_IFD] = {key: value for key, value in kept[_EXIF_IFD].items() if key != _MAKER_NOTE}
        return kept.tobytes() if len(kept) else b""
    except Exception:  # noqa: BLE001 damaged EXIF is left out; it fails in as many ways as damaged pixels
        return b""


def _written_exif(picture: Picture, form: _Format, made: str) -> Image.Exif:
    exif = Image.Exif()
    if picture.exif:
        exif.load(picture.exif)
        inner = exif.get_ifd(_EXIF_IFD)
        for tag, side in ((_WIDTH, picture.pixels.shape[1]), (_HEIGHT, picture.pixels.shape[0])):
            if tag in inner:
                inner[tag] = side
    exif[_MADE_BY] = made
    if form is _TIFF:  # libtiff takes no tables inside the table
        for tag in (_EXIF_IFD, _GPS_IFD):
            exif.pop(tag, None)
    if form is _JPEG and len(exif.tobytes()) > _JPEG_EXIF_BYTES:
        exif = Image.Exif()
        exif[_MADE_BY] = made
    return exif
