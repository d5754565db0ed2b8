"""Images as text inside the page; each distinct image once."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image, features

from srbench.report.galleries.model import Picture, Pixels


class Encoder:
    """Embeds each distinct image once, and remembers what it encoded."""

    def __init__(self) -> None:
        """Start with nothing encoded."""
        self._done: dict[tuple[str, int | None], Picture] = {}

    def picture(self, image: Pixels, quality: int | None) -> Picture:
        """Return the picture of `(H, W, 3)` or `(H, W)` uint8."""
        digest = _digest(image)
        if (digest, quality) not in self._done:
            with io.BytesIO() as stream:
                kind = "webp" if features.check("webp") else "png"
                options: dict[str, Any] = {}
                if kind == "webp":
                    lossless = {"lossless": True, "quality": 40, "method": 2, "exact": True}
                    options = lossless if quality is None else {"quality": quality, "method": 3}
                Image.fromarray(image).save(stream, kind, **options)
                text = base64.b64encode(stream.getvalue()).decode()
            height, width = image.shape[:2]
            self._done[digest, quality] = Picture(
                f"px-{digest[:12]}", width, height, f"data:image/{kind};base64,{text}"
            )
        return self._done[digest, quality]


def _digest(image: Pixels) -> str:
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
