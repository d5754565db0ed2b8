"""Which samples keep their pixels in the records, for galleries: a fixed rule, the same for every method of a task.

The rule sees the oracle and bilinear alone. So it does not favour a method, and a method that is added later keeps
the same samples as those that are already there.
"""

from __future__ import annotations

import hashlib
import heapq

import pandas as pd
from sklearn.metrics import f1_score

from srbench.data.cache import HRStore

KEPT = 12
LOST_CLASSES, EXTREMES = 6, 2
MAX_SIDE = 512  # larger images are passed over, so that a cell keeps a few MB at most
COLUMNS = ("position", "sample_id", "label", "pred", "psnr")  # of the samples, all that the choice looks at


def choose(original: pd.DataFrame, bilinear: pd.DataFrame, hr_store: HRStore) -> list[int]:
    """Return the positions of the samples to keep, ascending, at most `KEPT`.

    One sample of each of the six classes whose F1 falls most from the original to bilinear (the first that bilinear
    alone gets wrong, or else the first), the two of the lowest and the two of the highest PSNR under bilinear, and then
    those whose ids have the smallest hashes.

    Args:
        original: Samples of the oracle, `COLUMNS` at least.
        bilinear: Samples of frozen bilinear, in the same order.
        hr_store: The HR images, for their sizes.
    """
    small = (hr_store.shapes[original["position"].to_numpy()] <= MAX_SIDE).all(axis=1)
    if not small.all():
        original, bilinear = (frame.loc[small, list(COLUMNS)] for frame in (original, bilinear))
    by_psnr = bilinear[["psnr", "position"]].dropna(subset="psnr").sort_values("psnr", kind="stable")["position"]
    # Of many samples few are kept: no list of all of them is sorted, and KEPT of the smallest hashes are enough.
    by_hash = heapq.nsmallest(
        KEPT,
        zip(original["sample_id"], original["position"], strict=True),
        key=lambda pair: hashlib.sha256(str(pair[0]).encode()).digest(),
    )
    wanted = [
        *_of_lost_classes(original, bilinear),
        *by_psnr.iloc[:EXTREMES],
        *by_psnr.iloc[::-1].iloc[:EXTREMES],
        *(position for _, position in by_hash),
    ]
    return sorted(int(position) for position in list(dict.fromkeys(wanted))[:KEPT])


def _of_lost_classes(original: pd.DataFrame, bilinear: pd.DataFrame) -> list[int]:
    if original["label"].isna().any() or original.empty:
        return []
    labels = original["label"].astype(int)
    present = sorted(labels.unique())

    def f1(frame: pd.DataFrame) -> pd.Series:
        predicted = frame["pred"].astype(int)
        return pd.Series(f1_score(labels, predicted, labels=present, average=None, zero_division=0.0), index=present)

    fall = (f1(bilinear) - f1(original)).sort_values(kind="stable")
    lost = (original["pred"] == original["label"]) & (bilinear["pred"] != bilinear["label"])
    chosen = []
    for label in fall[fall < 0].index[:LOST_CLASSES]:
        ours = original[labels == label]
        failing = ours[lost[ours.index]]
        chosen.append(int((failing if len(failing) else ours)["position"].iloc[0]))
    return chosen
