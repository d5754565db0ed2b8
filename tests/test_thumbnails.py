"""Which samples keep their pixels: the rule against a plain reading of it, in whatever order samples are seen."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from srbench.data.source import Sample
from srbench.evaluation import thumbnails


def task(seed: int, *, n: int = 200, classes: int = 9, large: float = 0.1):
    """Samples of the oracle and of bilinear with many ties, and a store with images of two sizes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    original, bilinear = (
        np.where(rng.random(n) < share, label, rng.integers(0, classes + 2, n)) for share in (0.9, 0.5)
    )
    psnr = rng.integers(20, 40, n).astype(np.float32)
    psnr[rng.random(n) < 0.1] = np.nan
    psnr[rng.random(n) < 0.02] = np.inf
    side = np.where(rng.random(n) < large, thumbnails.MAX_SIDE + 1, 64)
    samples = tuple(Sample(f"{seed}-{position}") for position in range(n))
    frames = (pd.DataFrame({"position": range(n), "label": label, "pred": pred}) for pred in (original, bilinear))
    oracle, reference = (frame.astype({"label": "Int32", "pred": "Int32"}) for frame in frames)
    return oracle, reference.assign(psnr=psnr), SimpleNamespace(shapes=np.stack([side, side], 1), samples=samples)


def plainly(oracle: pd.DataFrame, bilinear: pd.DataFrame, store: SimpleNamespace) -> list[int]:
    """Read the rule off whole tables."""
    small = (store.shapes <= thumbnails.MAX_SIDE).all(1)
    oracle, bilinear = oracle[small], bilinear[small]
    present = sorted(oracle["label"].unique())
    f1 = [
        f1_score(
            oracle["label"].astype(int), table["pred"].astype(int), labels=present, average=None, zero_division=0.0
        )
        for table in (oracle, bilinear)
    ]
    fall = pd.Series(f1[1] - f1[0], index=present).sort_values(kind="stable")
    lost = (oracle["pred"] == oracle["label"]) & (bilinear["pred"] != bilinear["label"])
    wanted = []
    for label in fall[fall < 0].index[: thumbnails.LOST_CLASSES]:
        ours = oracle[oracle["label"] == label]
        failing = ours[lost[ours.index]]
        wanted.append((failing if len(failing) else ours)["position"].iloc[0])
    ranked = bilinear.dropna(subset="psnr").sort_values(["psnr", "position"])["position"]
    wanted += [*ranked.iloc[: thumbnails.EXTREMES], *ranked.iloc[::-1].iloc[: thumbnails.EXTREMES]]
    wanted += sorted(oracle["position"], key=lambda at: hashlib.sha256(store.samples[at].id.encode()).hexdigest())
    return sorted(int(position) for position in list(dict.fromkeys(wanted))[: thumbnails.KEPT])


def update(
    selector: thumbnails.ThumbnailSelector, oracle: pd.DataFrame, bilinear: pd.DataFrame, rows: np.ndarray
) -> None:
    selector.update_from_records(oracle.iloc[rows], bilinear.iloc[rows])


@pytest.mark.parametrize("seed", range(20))
def test_the_selection_follows_the_rule_in_any_order_and_in_parts(seed):
    oracle, bilinear, store = task(seed, classes=3 + 4 * (seed % 4), large=0.1 * (seed % 2))
    expected = plainly(oracle, bilinear, store)
    assert len(expected) == thumbnails.KEPT
    whole = thumbnails.ThumbnailSelector(store)
    whole.update_from_records(oracle, bilinear)
    assert whole.selected() == expected
    order = np.random.default_rng(seed).permutation(len(oracle))
    parts = [thumbnails.ThumbnailSelector(store) for _ in range(3)]
    for number, rows in enumerate(np.array_split(order, 17)):
        update(parts[number % 3], oracle, bilinear, rows)
    assert thumbnails.ThumbnailSelector.joined(parts).selected() == expected


def test_nearly_all_of_the_chosen_were_candidates_from_when_they_were_seen():
    chosen = missed = 0
    for seed in range(50):
        oracle, bilinear, store = task(seed, classes=100 * (seed % 2) + 10, n=500)
        selector, taken = thumbnails.ThumbnailSelector(store), set()
        for rows in np.array_split(np.random.default_rng(seed).permutation(len(oracle)), 60):
            update(selector, oracle, bilinear, rows)
            taken = (taken | set(rows.tolist())) & selector.candidates()  # what drops out has no pixels any more
            assert len(taken) <= thumbnails.LIKELY_CLASSES + 2 * thumbnails.EXTREMES + thumbnails.KEPT
        chosen += len(selector.selected())
        missed += len(set(selector.selected()) - taken)
    assert missed / chosen < 0.01


def test_one_that_has_seen_everything_stands_for_all():
    oracle, bilinear, store = task(0)
    selectors = [thumbnails.ThumbnailSelector(store) for _ in range(2)]
    for selector in selectors:
        selector.update_from_records(oracle, bilinear)
    assert thumbnails.ThumbnailSelector.joined(selectors).selected() == plainly(oracle, bilinear, store)


def test_without_labels_or_psnr_the_smallest_hashes_are_chosen():
    oracle, _, store = task(1)
    selector = thumbnails.ThumbnailSelector(store)
    selector.update(np.arange(len(oracle)), label=None, original=None, bilinear=None, psnr=None)
    assert selector.selected() == sorted(thumbnails.smallest_hashes(store))


def test_one_selector_of_few_samples_takes_them_all():
    oracle, bilinear, store = task(2, n=5, large=0.0)
    selector = thumbnails.ThumbnailSelector(store)
    selector.update_from_records(oracle, bilinear)
    assert selector.selected() == [0, 1, 2, 3, 4]
