"""Reduces columns of samples to one value, mostly a mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Stored columns of one cell by name; whole numbers are None where one of them is missing, floats are nan there.
Columns = Mapping[str, NDArray[Any] | None]


def mean_of(values: NDArray[np.floating], cap: float | None = None) -> float | None:
    """Return the mean of the values that are not missing, in float64.

    Args:
        values: One value a sample `(n,)`, nan where it is missing.
        cap: What one sample counts at most, so that an exact image, whose PSNR is infinite, takes part in the mean.

    Returns:
        The mean; inf where every value is infinite; None where there is none.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    if np.isposinf(known).all():
        return math.inf
    return float(counted(known, cap).mean(dtype=np.float64))


def counted(values: NDArray[np.floating], cap: float | None) -> NDArray[np.floating]:
    """Return the values as they count in means and draws: those above the cap count as the cap."""
    return values if cap is None else np.minimum(values, values.dtype.type(cap))


def share_equal(columns: Columns, first: str, second: str) -> float | None:
    """Return the share of samples in which two columns of whole numbers agree, None where one is missing."""
    one, other = columns.get(first), columns.get(second)
    return None if one is None or other is None else float((one == other).mean())
