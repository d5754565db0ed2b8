"""Holds a figure with its numbers and writes it as SVG or PNG.

Figures are drawn once for light and dark pages: everything but the series (text, axes, ticks, grid) is in `INK` on a
transparent ground, so that a page can replace that one colour with its own.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#12345a"
FONT_PT = 9.5
RASTER_DPI = 120
PNG_DPI = 150
PNG_LEVEL = 4  # of 9: half the time, a few percent more bytes

_SETTINGS: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # the one that ships with matplotlib, so that every machine draws the same
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": FONT_PT - 0.5,
    "ytick.labelsize": FONT_PT - 0.5,
    "legend.fontsize": FONT_PT - 0.5,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "savefig.dpi": RASTER_DPI,
    "figure.dpi": RASTER_DPI,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Settings in which figures are made and written, whatever the user's matplotlibrc says.

    Names from the data may hold letters that the font lacks; a reader's browser has them, so that is no warning.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        yield


@dataclass(frozen=True)
class Drawn:
    """One figure of the report.

    Attributes:
        name: File stem, unique within a report: lower-case letters, digits and hyphens only.
        section: Name of its section; see `figures.section.Section`.
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
        with self._ready(ground, RASTER_DPI), mpl.rc_context({"svg.hashsalt": self.name}):
            FigureCanvasSVG(self.figure).print_svg(buffer, metadata=metadata)
        return buffer.getvalue()

    def png(self, *, ground: str | None = "white", dpi: float = PNG_DPI) -> bytes:
        """Return the figure as a PNG file.

        Args:
            ground: Colour of the ground, None for a transparent one.
            dpi: Dots an inch.
        """
        buffer = io.BytesIO()
        with self._ready(ground, dpi):
            self._agg().print_png(buffer, metadata={"Software": None}, pil_kwargs={"compress_level": PNG_LEVEL})
        return buffer.getvalue()

    @contextlib.contextmanager
    def _ready(self, ground: str | None, dpi: float) -> Iterator[None]:
        """Give labels their room, once for all formats, and set what savefig would; that draws the figure twice."""
        with drawing():
            engine = self.figure.get_layout_engine()
            if engine is not None:
                self.figure.set_dpi(PNG_DPI)
                self._agg()
                engine.execute(self.figure)
                self.figure.set_layout_engine("none")
            before = self.figure.get_facecolor()
            self.figure.set_facecolor(ground or "none")
            self.figure.set_dpi(dpi)
            yield
            self.figure.set_facecolor(before)

    def _agg(self) -> FigureCanvasAgg:
        """Return the figure's canvas for pixels, the same one each time: it remembers how large texts are."""
        canvas = self.figure.canvas
        return canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(self.figure)
