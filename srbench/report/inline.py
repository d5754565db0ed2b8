"""Makes SVG and JSON safe to embed in the HTML page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from srbench.report.drawn import INK

_DROPPED = {"metadata", "style", "script", "foreignObject", "title"}
_LOCAL = re.compile(r"url\(#([^)]*)\)")
_LONG = re.compile(r"\d+\.\d{3,}")
_COORDINATES = ("d", "x", "y", "points")


def inline_svg(text: str, *, name: str, label: str) -> str:
    """Return an SVG document as an element of an HTML page.

    Ids are made unique by `name`, so that the clip paths of several figures do not collide; `INK` becomes the page's
    own colour of text; coordinates keep two decimals, which is a fortieth of a pixel.

    Args:
        text: The SVG document.
        name: Unique within the page, letters, digits and hyphens.
        label: What a screen reader says of it.
    """
    root = ET.fromstring(text)
    _clean(root, f"{name}-")
    for gone in ("width", "height", "version"):
        root.attrib.pop(gone, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _clean(element: ET.Element, prefix: str) -> None:
    element.tag = _local(element.tag)
    element.attrib = {
        key: _value(key, value, prefix)
        for name, value in element.attrib.items()
        if not (key := _local(name)).lower().startswith("on")
    }
    for child in list(element):
        if not isinstance(child.tag, str) or _local(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _value(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else value
    if key in _COORDINATES:
        return _LONG.sub(lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), value)
    return _LOCAL.sub(rf"url(#{prefix}\1)", value).replace(INK, "currentColor")


def grounded_svg(text: str, ground: str) -> str:
    """Return an SVG document of transparent ground with a ground of this colour below everything."""
    head = re.search(r"<svg[^>]*>", text)
    if head is None:
        raise ValueError("expected an SVG document, found no <svg>")
    rect = f'<rect width="100%" height="100%" fill="{ground}"/>'
    return f"{text[: head.end()]}\n{rect}{text[head.end() :]}"


def script_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Return JSON that cannot end the script element that holds it, nor open a comment in it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
