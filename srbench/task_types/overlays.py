"""What galleries show of a prediction: the colours of classes over an image, and frames around objects."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0.618034  # of a circle of hues, which steps of it never fill evenly
_FRAME = 160  # pixels of the longer side for each pixel that a frame is wide

Pixels = NDArray[np.uint8]


def class_colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: hues that lie far apart for classes that follow each other."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN) % 1.0, 0.65 + 0.35 * (index % 2), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def tinted(image: Pixels, classes: NDArray[np.int64]) -> Pixels:
    """Mix the grey image half and half with the colour of each pixel's class.

    Args:
        image: `(H, W, 3)`, RGB.
        classes: `(H, W)`; pixels below 0 stay grey.
    """
    grey = image.mean(axis=2, keepdims=True)
    colours = np.array([class_colour(index) for index in range(int(classes.max(initial=0)) + 1)], dtype=np.float64)
    known = (classes >= 0)[..., None]
    return np.where(known, 0.5 * grey + 0.5 * colours[np.maximum(classes, 0)], grey).round().astype(np.uint8)


def framed(image: Pixels, edges: NDArray[np.floating], classes: NDArray[np.integer]) -> Pixels:
    """Draw a frame in the colour of its class around each object of the grey image; later ones lie on earlier ones.

    Args:
        image: `(H, W, 3)`, RGB.
        edges: `(k, 4)`, left, top, right and bottom edge, pixels; what lies outside the image is cut off.
        classes: `(k,)`.
    """
    height, width = image.shape[:2]
    drawn = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).round().astype(np.uint8)
    wide = max(1, round(max(height, width) / _FRAME))
    for box, index in zip(edges, classes, strict=True):
        left, right = (round(float(edge)) for edge in np.clip(box[0::2], 0, width))
        top, bottom = (round(float(edge)) for edge in np.clip(box[1::2], 0, height))
        colour = class_colour(int(index))
        drawn[top : min(top + wide, bottom), left:right] = colour
        drawn[max(bottom - wide, top) : bottom, left:right] = colour
        drawn[top:bottom, left : min(left + wide, right)] = colour
        drawn[top:bottom, max(right - wide, left) : right] = colour
    return drawn
