"""Short texts below pictures."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from srbench.leaderboard import Row, texts


def mark(row: Row) -> str:
    """Return the marks of a control and of the adapted track."""
    return (texts.CONTROL_MARK if row.role == "control" else "") + (
        texts.ADAPTED_MARK if row.track == "adapted" else ""
    )


def whole(value: Any) -> int | None:
    """Return a whole number of a table, or None where it is missing."""
    return None if pd.isna(value) else int(value)


def decibels(value: Any) -> str | None:
    """Return a PSNR in dB as text, or None where it is missing."""
    if pd.isna(value):
        return None
    return "identical" if math.isinf(value) else f"{float(value):.1f} dB"
