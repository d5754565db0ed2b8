"""From stored thumbnails to what a gallery can show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import RecordError
from srbench.leaderboard import BASELINE, ORACLE, Leaderboard, tables
from srbench.records.cells import StoredCell
from srbench.report.best import scored
from srbench.report.galleries.model import DIRECT, NetworkImages, Pixels, TaskImages
from srbench.report.galleries.text import whole
from srbench.task_types.classification import class_names

COLUMNS = ("position", "sample_id", "label", "pred", "hr_pred", "confidence", "psnr")


def collect(board: Leaderboard, cells: Sequence[StoredCell]) -> tuple[list[TaskImages], list[str]]:
    """Read the kept pixels and the samples that belong to them; return them and what could not be read."""
    by_key = scored(cells)
    problems: list[str] = []
    tasks: dict[str, tuple[dict[int, Pixels], dict[int, Pixels], list[NetworkImages]]] = {}
    for task, classifier, rows in tables.groups(board):
        hr, lr, networks = tasks.setdefault(task, ({}, {}, []))
        sr: dict[Any, Mapping[int, Pixels]] = {}
        samples: dict[Any, pd.DataFrame] = {}
        overlays: dict[Any, Mapping[int, Pixels]] = {}
        truths: dict[int, Pixels] = {}
        for row in rows:
            cell = by_key.get(row.cell_key)
            if cell is None:
                continue
            try:
                kept = cell.thumbnails()
                if not kept and row.method != DIRECT:
                    continue
                if row.method == ORACLE:
                    hr.update({at: _rgb(images["hr"]) for at, images in kept.items() if "hr" in images})
                    lr.update({at: _rgb(images["lr"]) for at, images in kept.items() if "lr" in images})
                elif row.method != DIRECT:
                    sr[row.key] = {at: _rgb(images["sr"]) for at, images in kept.items() if "sr" in images}
                overlays[row.key] = {at: _rgb(images["overlay"]) for at, images in kept.items() if "overlay" in images}
                truths |= {at: _rgb(images["truth"]) for at, images in kept.items() if "truth" in images}
                frame = cell.samples(COLUMNS)
                samples[row.key] = frame[frame["position"].isin(list(kept or hr))].set_index("position")
            except RecordError as error:
                problems.append(str(error))
        classes = board.per_class
        mine = classes[(classes["task"] == task) & (classes["classifier"] == classifier)]
        shown = tuple(row for row in rows if row.key in sr)
        positions = _ordered({at for images in sr.values() for at in images} & set(hr), mine, samples)
        if positions:
            names = class_names(by_key[row.cell_key].record for row in rows if row.cell_key in by_key)
            networks.append(NetworkImages(classifier, shown, positions, sr, samples, names, mine, overlays, truths))
    return [
        TaskImages(task, hr, lr, tuple(networks)) for task, (hr, lr, networks) in tasks.items() if networks
    ], problems


def _ordered(positions: Iterable[int], classes: pd.DataFrame, samples: Mapping[Any, pd.DataFrame]) -> tuple[int, ...]:
    """Positions in the order of how much F1 their class loses from the original to bilinear."""
    table = classes[(classes["method"] == BASELINE) & (classes["track"] == "frozen")]
    known = table.dropna(subset=[f"f1_delta_to_{ORACLE}"])
    falls = dict(zip(known["class_index"].astype(int), known[f"f1_delta_to_{ORACLE}"].astype(float), strict=True))

    def fall(at: int) -> float:
        label = next((whole(frame.at[at, "label"]) for frame in samples.values() if at in frame.index), None)
        return math.inf if label is None else falls.get(label, math.inf)

    return tuple(sorted(positions, key=lambda at: (fall(at), at)))


def _rgb(image: NDArray[np.uint8]) -> Pixels:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
