"""Decodes one image file to RGB of 8 bits, whatever format, depth and channels it was saved with."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
import math
import struct
import tokenize
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from srbench.errors import UnreadableImageError, one_line
from srbench.files.regular import open_regular, read_regular

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # torchvision has announced to remove it; Pillow gives the same pixels, more slowly
    decode_jpeg = None

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".npy"})
_HEIF = frozenset({".heic", ".heif"})
# Images too, which are counted where they are left out: no decoder here, several frames, or no pixels yet.
UNREAD_SUFFIXES = _HEIF | {
    *(".avif", ".gif", ".jp2", ".j2k", ".jxl", ".psd", ".svg", ".tga", ".exr", ".hdr", ".dcm", ".fits", ".npz"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}

_EXIF_BEGINS_WITHIN = 1 << 16  # bytes of a JPEG; other segments seldom come first
_GREY_MODES = ("1", "L", "I", "F")  # how the names of Pillow's modes of one channel begin

# What Pillow's plugins raise on damaged files, beside OSError.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RuntimeError,
    Image.DecompressionBombError,
)
# What reading a damaged .npy raises; its header is Python's own syntax.
NPY_ERRORS = (
    *(OSError, ValueError, EOFError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError),
    tokenize.TokenError,
)


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the suffixes of files that are read as images: HEIC too where the package pillow-heif is installed."""
    if importlib.util.find_spec("pillow_heif") is None:
        return IMAGE_SUFFIXES
    importlib.import_module("pillow_heif").register_heif_opener()
    return IMAGE_SUFFIXES | _HEIF


@dataclass(frozen=True)
class StoredImage:
    """A decoded file.

    Attributes:
        pixels: `(3, H, W)`, RGB, uint8.
        channels: Channels that the file stores: 1 for grey, which `pixels` repeats, 3 for colour. Alpha does not count.
        turned: Whether its EXIF orientation asks that viewers turn or mirror it; `pixels` are as they are stored.
        target: What the data say about places in the image, of a form of `srbench.data.targets`; or None.
    """

    pixels: Tensor
    channels: int
    target: NDArray[Any] | None = None
    turned: bool = False


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        channels: 1 for grey, 3 for colour.
    """

    height: int
    width: int
    channels: int


def header_of(path: Path) -> Header | None:
    """Read size and channels without decoding, or return None where the file is no image."""
    try:
        if path.suffix.lower() == ".npy" and path.is_file():
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if len(shape) == 2:
                shape = (1, *shape)
            elif len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3):
                shape = (shape[2], *shape[:2])
            return Header(shape[1], shape[2], shape[0]) if len(shape) == 3 and 0 not in shape else None
        with open_regular(path) as file, Image.open(file) as image:
            return Header(image.height, image.width, _channels(image))
    except (*PILLOW_ERRORS, *NPY_ERRORS):
        return None


Range = tuple[float, float]  # the values that are black and white


def decode(path: Path, name: str | None = None, value_range: Range | None = None) -> Tensor:
    """Decode an image file as `(3, H, W)`, RGB, uint8.

    Grey and palette images are repeated or looked up, CMYK is converted, 16 bits are divided by 257 (a 16-bit
    colour PNG keeps its high byte), an alpha channel is dropped as ImageFolder's loader does, EXIF orientation
    is ignored. A .npy holds (H, W), or one or three channels first or last (first where both fit), as uint8,
    uint16, or floats in [0, 1]. Floats are rounded to 8 bits. Other integers do not say what is white and need a range.

    Args:
        path: The file.
        name: What error messages call it; the file's name where None.
        value_range: Values that become 0 and 255, those beyond are clipped; None takes the whole range of the file's
            type, and [0, 1] of floats, which must not leave it.

    Raises:
        UnreadableImageError: If it is missing, empty, truncated, or no image.
    """
    return decode_stored(path, name, value_range).pixels


def decode_stored(path: Path, name: str | None = None, value_range: Range | None = None) -> StoredImage:
    """Decode an image file and say how many channels it stores; see `decode`.

    Raises:
        UnreadableImageError: If it is missing, empty, truncated, or no image.
    """
    name = path.name if name is None else name
    try:
        data = read_regular(path)
    except OSError as error:
        raise UnreadableImageError(f"{name} cannot be read: {error.strerror or error}") from error
    return decode_stored_bytes(data, name, value_range)


def decode_bytes(data: bytes, name: str, value_range: Range | None = None) -> Tensor:
    """Decode an encoded image as `(3, H, W)`, RGB, uint8; see `decode`.

    Raises:
        UnreadableImageError: If it is empty, truncated, or no image.
    """
    return decode_stored_bytes(data, name, value_range).pixels


def decode_stored_bytes(data: bytes, name: str, value_range: Range | None = None) -> StoredImage:
    """Decode an encoded image and say how many channels it stores; see `decode`.

    Raises:
        UnreadableImageError: If it is empty, truncated, or no image.
    """
    if not data:
        raise UnreadableImageError(f"{name} is empty (0 bytes)")
    if data.startswith(b"\x93NUMPY"):
        return _decode_npy(data, name, value_range)
    if value_range is None and decode_jpeg is not None and _is_plain_jpeg(data):
        try:
            encoded = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
            return StoredImage(decode_jpeg(encoded, mode=ImageReadMode.RGB), 3, turned=_is_turned_jpeg(data))
        except RuntimeError:
            pass  # Pillow decides below, and says what is wrong with it in words
    return _decode_pillow(data, name, value_range)


def from_array(pixels: NDArray[Any], name: str, value_range: Range | None = None) -> Tensor:
    """Convert pixels of one or three channels, first or last (first where both fit), to `(3, H, W)`, RGB, uint8.

    Raises:
        UnreadableImageError: If the shape or the values are not those of an image.
    """
    return _stored(pixels, name, value_range).pixels


def _stored(pixels: NDArray[Any], name: str, value_range: Range | None, channels: int | None = None) -> StoredImage:
    """Return pixels as an image of as many channels as the file had, or as the array has where that is None."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
        pixels = np.moveaxis(pixels, 2, 0)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.size == 0:
        raise UnreadableImageError(
            f"{name} has the shape {pixels.shape}; expected (H, W), or one or three channels first or last"
        )
    eight_bit = _to_eight_bit(pixels, name) if value_range is None else _scaled(pixels, name, value_range)
    repeated = torch.from_numpy(np.broadcast_to(eight_bit, (3, *eight_bit.shape[1:])).copy())
    return StoredImage(repeated, len(pixels) if channels is None else channels)


def _scaled(pixels: NDArray[Any], name: str, value_range: Range) -> NDArray[np.uint8]:
    if pixels.dtype.kind not in "biuf":
        raise UnreadableImageError(f"{name} holds values of type {pixels.dtype}; expected numbers")
    low, high = value_range
    share = (pixels.astype(np.float64) - low) / (high - low)
    if np.isnan(share).any():
        raise UnreadableImageError(f"{name} holds NaN; write numbers in its place")
    return np.rint(share.clip(0.0, 1.0) * 255.0).astype(np.uint8)


def _to_eight_bit(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind in "iu":  # 0..255 kept as int64 is as likely as 0..65535: nothing says which value is white
        raise UnreadableImageError(
            f"{name} holds {pixels.dtype} values from {pixels.min()} to {pixels.max()}, which do not say what is white;"
            " save it as uint8 or uint16, or read it with ?range=0:255"
        )
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN is refused as well
            raise UnreadableImageError(f"{name} holds floats from {low:g} to {high:g}; expected [0, 1]")
        return np.rint(pixels.astype(np.float64) * 255.0).astype(np.uint8)
    raise UnreadableImageError(
        f"{name} holds values of type {pixels.dtype}; expected uint8, uint16 or floats in [0, 1]"
    )


def _decode_npy(data: bytes, name: str, value_range: Range | None) -> StoredImage:
    try:
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    except NPY_ERRORS as error:
        raise UnreadableImageError(f"{name} is no readable .npy array: {one_line(error)}") from error
    return _stored(pixels, name, value_range)


def _decode_pillow(data: bytes, name: str, value_range: Range | None) -> StoredImage:
    try:
        with Image.open(io.BytesIO(data)) as image:
            channels, turned = _channels(image), _asks_for_turning(image)
            if image.mode.startswith(("I", "F")):
                pixels = deep_pixels(image)
            elif value_range is not None and is_deep_png(data):
                raise UnreadableImageError(
                    f"{name} has 16 bits in colour, of which Pillow keeps the high byte, so a range cannot apply;"
                    " save it as .npy"
                )
            else:
                # Palettes carry their transparency as bytes; going through RGBA keeps Pillow from warning.
                direct = image.convert("RGBA") if "transparency" in image.info else image
                pixels = np.moveaxis(np.array(direct.convert("RGB")), 2, 0)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{name} is not an image in any format known to Pillow") from error
    except PILLOW_ERRORS as error:
        raise UnreadableImageError(f"{name} cannot be decoded: {one_line(error)}") from error
    return dataclasses.replace(_stored(pixels, name, value_range, channels), turned=turned)


def _is_turned_jpeg(data: bytes) -> bool:
    """Say whether a JPEG asks to be turned; most hold no EXIF at all, so its header is not read for nothing."""
    if b"Exif\0\0" not in data[:_EXIF_BEGINS_WITHIN]:
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _asks_for_turning(image)
    except PILLOW_ERRORS:
        return False


def _asks_for_turning(image: Image.Image) -> bool:
    """Say whether EXIF gives an orientation other than upright; damaged EXIF gives none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # noqa: BLE001 Pillow's parser raises many unrelated types, and the pixels are not touched
        return False


def _channels(image: Image.Image) -> int:
    return 1 if image.mode.startswith(_GREY_MODES) else 3


def deep_pixels(image: Image.Image) -> NDArray[Any]:
    """Return the values `(H, W)` of a grey image of more than 8 bits.

    PNG and PGM hold at most 16 bits, which some versions of Pillow give as int32.
    """
    pixels = np.array(image)
    return pixels.astype(np.uint16) if image.mode == "I" and image.format in ("PNG", "PPM") else pixels


def is_deep_png(data: bytes) -> bool:
    """Say whether a file, or its first 25 bytes at least, is a PNG of 16 bits a channel."""
    return data.startswith(b"\x89PNG") and data[24:25] == b"\x10"


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether this is a baseline JPEG of three 8-bit components, the kind that libjpeg turns into RGB in one way."""
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    position = 2
    while position + 10 <= len(data):
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in (0xC0, 0xC1):
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            bomb = height * width > 2 * (Image.MAX_IMAGE_PIXELS or math.inf)  # Pillow looks at that and says so
            return data[position + 4] == 8 and data[position + 9] == 3 and not bomb
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return False
        if marker in (0xD9, 0xDA):
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
