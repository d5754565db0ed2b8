"""The pixels that are kept of a few samples, for the report."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from srbench.errors import RecordError, one_line
from srbench.records.parquet import read_metadata, read_table, write_table

THUMBNAILS_FILE = "thumbnails.parquet"
_KEY = b"srbench.thumbnails"
_SCHEMA = pa.schema([("position", pa.int32()), ("name", pa.string()), ("png", pa.binary())])


def write_thumbnails(path: Path, images: Mapping[int, Mapping[str, np.ndarray]], *, key: str) -> None:
    """Write a few samples' images atomically, as lossless PNG; `key` says what they were made from.

    Args:
        path: The file.
        images: Position of the sample -> name of the image -> `(H, W, C)` uint8, C being 1 or 3.
        key: What `thumbnails_key` returns.

    Raises:
        RecordError: As `write_bytes`.
    """
    keys = [(position, name) for position, named in images.items() for name in named]
    with ThreadPoolExecutor() as pool:  # the encoder runs outside the interpreter's lock
        encoded = list(pool.map(_png, (images[position][name] for position, name in keys)))
    columns = [[position for position, _ in keys], [name for _, name in keys], encoded]
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA)
    table = table.replace_schema_metadata({_KEY: key.encode()})
    write_table(path, table, compression="none")


# What Pillow raises of a broken PNG, which is a SyntaxError among others.
_DAMAGED = (
    *(OSError, ValueError, KeyError, SyntaxError, TypeError, IndexError, EOFError, AttributeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


def read_thumbnails(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Read what `write_thumbnails` wrote; empty where there is no such file.

    Raises:
        RecordError: If it is damaged.
    """
    if not path.is_file():
        return {}
    images: dict[int, dict[str, np.ndarray]] = {}
    try:
        table = read_table(path, _SCHEMA.names)
        if table.schema != _SCHEMA:
            raise ValueError(f"its columns are {', '.join(table.column_names)}")
        for line in table.to_pylist():
            with Image.open(io.BytesIO(line["png"])) as image:
                pixels = np.array(image)
            images.setdefault(line["position"], {})[line["name"]] = pixels.reshape(*pixels.shape[:2], -1)
    except _DAMAGED as error:
        raise RecordError(f"{path} is damaged ({one_line(error)}); delete it and run the evaluation again") from None
    return images


def thumbnails_key(path: Path) -> str | None:
    """Return the key that kept pixels were written with; None where there are none or they are damaged."""
    try:
        return read_metadata(path).get(_KEY, b"").decode() or None
    except RecordError:
        return None


def _png(image: np.ndarray) -> bytes:
    with io.BytesIO() as stream:
        # runs alone: on photographs quicker than a search for matches, and smaller than its quickest level
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        picture.save(stream, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
        return stream.getvalue()
