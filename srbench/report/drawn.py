"""A drawn figure with the numbers behind it, and how it becomes SVG or PNG: the seam between figures and page.

Figures are drawn once for light and dark pages: everything but the series (text, axes, ticks, grid) is in `INK` on a
transparent ground, so that a page can replace that one colour with its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#12345a"
SECTIONS = ("cost", "sweep", "training", "classes", "scores", "transfer", "correlation", "resampler")


@dataclass(frozen=True)
class Drawn:
    """One figure of the report.

    Attributes:
        name: File stem, unique within a report, letters, digits and hyphens only.
        section: One of `SECTIONS`.
        task: Id of the task, None where the figure spans several.
        classifier: Id of the classifier, None where the figure spans several or has none.
        title: Plain text.
        caption: What is shown and how to read it, with n and the unit.
        figure: The figure, on a transparent ground, with `INK` for all that is no series.
        data: The numbers that are drawn, plain JSON, unrounded.
    """

    name: str
    section: str
    task: str | None
    classifier: str | None
    title: str
    caption: str
    figure: Figure
    data: Mapping[str, Any]

    def svg(self, *, ground: str | None = None) -> str:
        """Return the figure as SVG text, the same bytes for the same figure.

        Args:
            ground: Colour of the ground, None for a transparent one.
        """
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", facecolor=ground or "none", metadata=metadata)
        return buffer.getvalue()

    def png(self, *, ground: str | None = "white", dpi: float = 150) -> bytes:
        """Return the figure as a PNG file.

        Args:
            ground: Colour of the ground, None for a transparent one.
            dpi: Dots an inch.
        """
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=dpi, facecolor=ground or "none", metadata={"Software": None})
        return buffer.getvalue()
