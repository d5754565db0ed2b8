"""Names that others gave, in CSV and Markdown: nothing that a spreadsheet would run, and no markup."""

from __future__ import annotations

import re

import pandas as pd

_RUN_BY_SPREADSHEETS = tuple("=+-@\t\r\n＝＋－＠")
_TAG = re.compile(r"<(?=[a-z/!?])", re.IGNORECASE)  # what begins a tag; "p < 0.05" does not


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    safe = frame.map(lambda value: f"'{value}" if isinstance(value, str) and _is_formula(value) else value)
    return safe.to_csv(index=False, lineterminator="\n")


def markdown_line(text: str) -> str:
    """Return a text for one line of Markdown, in which it makes no HTML and no link."""
    text = " ".join(text.splitlines()) if text.splitlines()[1:] else text
    return _TAG.sub("&lt;", text).replace("](", "]\\(")


def markdown_cell(text: str) -> str:
    """Return a text for one cell of a Markdown table."""
    return markdown_line(text).replace("|", "\\|")


def _is_formula(text: str) -> bool:
    return text.startswith(_RUN_BY_SPREADSHEETS)
