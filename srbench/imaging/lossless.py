"""Images restored elsewhere as files: which are stored without loss, and their values as they are."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srbench.errors import UnreadableImageError, one_line
from srbench.files.regular import open_regular, read_regular
from srbench.imaging.decode import NPY_ERRORS, PILLOW_ERRORS, decode_bytes, deep_pixels, is_deep_png

_LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".heic", ".heif"})
_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
_OVERSHOOT = 1.0  # kernels leave [0, 1]; 0..255 kept as floats does not stay below 2
_WORKERS = 4


@dataclass(frozen=True)
class RestoredFolder:
    """SR images of some samples, as files.

    Attributes:
        root: The folder.
        files: Relative path of each sample's image, by its id.
        factor: Their enlargement of LR, "any" where they stand at SR size; settled by `fitted`.
        sha256: Hash of the content of the images of a task's samples; "" until `fitted` has read them.
    """

    root: Path
    files: Mapping[str, str]
    factor: int | Literal["any"] = "any"
    sha256: str = ""

    def batch(self, ids: Sequence[str]) -> Tensor:
        """Read the images of samples, `(N, 3, H, W)`, RGB, float32; 8 bits lie in [0, 1].

        Raises:
            UnreadableImageError: If one of them is damaged.
        """
        with ThreadPoolExecutor(_WORKERS) as pool:
            return torch.stack(list(pool.map(self._read, ids)))

    def _read(self, sample_id: str) -> Tensor:
        file = self.files[sample_id]
        return read_restored(self.root / file, f"{self.root.name}/{file}")


def why_lossy(path: Path) -> str | None:
    """Return why a file does not hold the pixels that were restored, or None where it does."""
    suffix = path.suffix.lower()
    if suffix in _LOSSY_SUFFIXES:
        return f"{suffix[1:].upper()} loses detail"
    if suffix == ".npy":
        return None
    try:
        with open_regular(path) as file:
            head = file.read(32)
        if is_deep_png(head) and head[25] != 0:
            return "16 bits in colour, of which 8 would be read"
        if suffix == ".webp" and not _is_lossless_webp(path):
            return "WebP with loss"
        if suffix in (".tif", ".tiff"):
            with open_regular(path) as file, Image.open(file) as image:
                if image.info.get("compression") in _LOSSY_TIFF:
                    return "TIFF with loss"
    except (*PILLOW_ERRORS, OSError):
        return None  # what is wrong with it is said where its size is read
    return None


def read_restored(path: Path, name: str) -> Tensor:
    """Read an image as `(3, H, W)`, RGB, float32: 8 and 16 bits become [0, 1], floats stay as they are.

    Args:
        path: The file.
        name: What error messages call it.

    Raises:
        UnreadableImageError: If it is damaged, or holds values that cannot be an image's.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise UnreadableImageError(f"{name} cannot be read: {error.strerror or error}") from error
    array = _array(data, name)
    if array is None:
        return decode_bytes(data, name).float().div_(255)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[0] not in (1, 3) and array.shape[2] in (1, 3):
        array = np.moveaxis(array, 2, 0)
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise UnreadableImageError(
            f"{name} has the shape {array.shape}; expected (H, W), or one or three channels first or last"
        )
    values = np.array(np.broadcast_to(array, (3, *array.shape[1:])), dtype=np.float32)
    if array.dtype.kind == "f":
        if not (values.min() >= -_OVERSHOOT and values.max() <= 1 + _OVERSHOOT):  # NaN is refused as well
            raise UnreadableImageError(
                f"{name} holds floats from {values.min():g} to {values.max():g}; expected [0, 1], with some overshoot"
            )
        return torch.from_numpy(values)
    if array.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError(f"{name} holds {array.dtype} values; expected uint8, uint16 or floats in [0, 1]")
    # the same division as of 8 bits everywhere, so that equal pixels are equal to the last digit
    return torch.from_numpy(values).div_(255 if array.dtype == np.uint8 else 65535)


def _array(data: bytes, name: str) -> np.ndarray | None:
    """Return the values of an image of more than 8 bits, or of a .npy; None of an image of 8 bits."""
    try:
        if data.startswith(b"\x93NUMPY"):
            return np.load(io.BytesIO(data), allow_pickle=False)
        with Image.open(io.BytesIO(data)) as image:
            return deep_pixels(image) if image.mode.startswith(("I", "F")) else None
    except (*PILLOW_ERRORS, *NPY_ERRORS) as error:
        raise UnreadableImageError(f"{name} cannot be decoded: {one_line(error)}") from error


def _is_lossless_webp(path: Path) -> bool:
    """Say whether the pixels of a WebP file stand in a lossless chunk."""
    with open_regular(path) as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            kind, length = struct.unpack("<4sI", head)
            if kind in (b"VP8L", b"VP8 "):
                return kind == b"VP8L"
            file.seek(length + length % 2, 1)
    return False
