"""Makes a figure that somebody else drew safe to show: only shapes and texts stay, nothing runs, nothing is fetched."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from srbench.errors import RecordError

MOST_BYTES = 4_000_000
_SHAPES = frozenset(
    {
        "svg",
        "g",
        "defs",
        "path",
        "rect",
        "circle",
        "ellipse",
        "line",
        "polyline",
        "polygon",
        "text",
        "tspan",
        "use",
        "clipPath",
        "image",
        "symbol",
        "marker",
        "pattern",
        "mask",
        "linearGradient",
        "radialGradient",
        "stop",
    }
)
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=\s]*")
_ADDRESS = re.compile(r"url\((?!\s*['\"]?#)", re.IGNORECASE)
_SVG = "{http://www.w3.org/2000/svg}"


def harmless_svg(content: bytes, *, origin: str) -> str:
    """Return the shapes and texts of an SVG document as an SVG document.

    Left out are scripts, style sheets, foreign elements, handlers, links, and whatever would be fetched.

    Args:
        content: The bytes of the document.
        origin: Begins the sentence of an error.

    Raises:
        RecordError: If it is no SVG, declares entities, or is larger than `MOST_BYTES`.
    """
    if len(content) > MOST_BYTES:
        raise RecordError(f"{origin} holds {len(content)} bytes, a figure may hold {MOST_BYTES}; leave it out")
    # The parser expands entities; a few hundred bytes of them can stand for gigabytes.
    if b"<!ENTITY" in content or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RecordError(f"{origin} declares entities or is not UTF-8, which no figure needs; save it as plain SVG")
    try:
        root = ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise RecordError(f"{origin} is no SVG ({error}); save it again, or leave it out") from None
    if root.tag != f"{_SVG}svg":
        raise RecordError(f"{origin} is no SVG, its first element is {root.tag!r}; save it again, or leave it out")
    stack = [root]
    while stack:
        element = stack.pop()
        element.attrib = {key: value for key, value in element.attrib.items() if _harmless(key, value)}
        for child in list(element):
            if isinstance(child.tag, str) and child.tag.startswith(_SVG) and child.tag[len(_SVG) :] in _SHAPES:
                stack.append(child)
            else:
                element.remove(child)
    ET.register_namespace("", _SVG[1:-1])
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    try:
        return ET.tostring(root, encoding="unicode")
    except RecursionError:
        raise RecordError(f"{origin} is nested too deep; leave it out") from None


def _harmless(key: str, value: str) -> bool:
    name = key.rpartition("}")[2].lower()
    if name.startswith("on"):
        return False
    if name == "href":
        return value.startswith("#") or _PICTURE.fullmatch(value) is not None
    return not (_ADDRESS.search(value) or "\\" in value or "@import" in value.lower())
