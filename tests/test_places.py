"""How sure a place is: ties with the best, intervals of ranks, and what a number of images can show."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_factory import commit, make_record, make_samples, predictions
from scipy.stats import binomtest

from srbench import leaderboard
from srbench.errors import UsageError
from srbench.leaderboard import Leaderboard, Row, read_leaderboard, tables
from srbench.metrics.stats import bootstrap_means, mcnemar_power, places, smallest_difference
from srbench.records.cells import find_records


def decisions(random: np.random.Generator, n: int, rows: int, *, noise: float, shift: float = 0.0) -> np.ndarray:
    """Return whether each of n images is right in each row, `(n, rows)`; hard images are hard for all of them."""
    hardness = random.normal(size=(n, 1))
    return hardness + noise * random.normal(size=(n, rows)) + shift * (np.arange(rows) == 0) > -0.3


def placed(right: np.ndarray, *, draws: int, seed: int = 0) -> Any:
    values = right.astype(float)
    return places(
        values.mean(axis=0), bootstrap_means(values, draws=draws, seed=seed), n=len(right), step=1 / len(right)
    )


def test_of_200_boards_without_a_difference_at_most_5_percent_separate_any_row():
    random, separated = np.random.default_rng(3), 0
    for board in range(200):
        n, rows, noise = (60, 200, 350)[board % 3], (2, 5, 9)[board // 3 % 3], (0.2, 0.6, 1.5)[board // 9 % 3]
        separated += not placed(decisions(random, n, rows, noise=noise), draws=300, seed=board).tied.all()
    assert separated <= 10


def test_a_true_difference_is_told_from_chance():
    random = np.random.default_rng(6)
    found = [placed(decisions(random, 300, 5, noise=0.5, shift=1.0), draws=300, seed=seed) for seed in range(20)]
    assert sum(not each.tied.any() and each.best == 0 for each in found) >= 18
    first = found[0]
    assert first.ranks[0].tolist() == [1, 1] and first.delta[0] == first.margin[0] == 0.0
    assert (first.ranks[1:, 0] >= 2).all() and (first.ranks[1:, 1] > first.ranks[1:, 0]).any()
    np.testing.assert_array_equal(first.tied[1:], np.abs(first.delta[1:]) <= first.margin[1:])


def test_equal_rows_share_the_place_and_are_tied():
    right = np.arange(80) % 4 > 0
    found = placed(np.column_stack([right, right, right & (np.arange(80) > 30)]), draws=400)
    assert found.ranks.tolist() == [[1, 1], [1, 1], [3, 3]]
    assert found.tied.tolist() == [True, True, False] and found.margin[1] == 0.0


def test_a_handful_of_images_separates_nothing():
    right = np.ones((40, 2), dtype=bool)
    right[:4, 1] = False  # exact McNemar p of 4 against 0 is 0.125
    assert placed(right, draws=1000).tied.all()
    right[:10, 1] = False  # p = 0.002
    assert not placed(right, draws=1000).tied.any()


def test_places_refuse_draws_of_other_rows():
    with pytest.raises(UsageError, match=r"\(5, 2\) and \(3,\)"):
        places(np.zeros(3), np.zeros((5, 2)), n=4)


# --- power -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "discordance"), [(80, 0.3), (264, 0.12), (400, 0.15), (900, 0.02)])
def test_the_smallest_difference_is_found_in_80_percent_of_simulated_data_sets(n, discordance):
    difference = smallest_difference(n, discordance)
    assert difference is not None
    share = max(discordance, difference)
    random = np.random.default_rng(n)
    counts = random.multinomial(n, [(share + difference) / 2, (share - difference) / 2, 1 - share], size=4000)
    p_of = {pair: binomtest(pair[0], sum(pair)).pvalue if sum(pair) else 1.0 for pair in set(map(tuple, counts[:, :2]))}
    found = np.mean([p_of[tuple(pair)] < 0.05 for pair in counts[:, :2]])
    assert found == pytest.approx(0.8, abs=0.02)
    assert mcnemar_power(n, difference, share) == pytest.approx(found, abs=0.02)


def test_more_images_show_smaller_differences_and_few_show_none():
    found = [smallest_difference(n, 0.2) for n in (20, 100, 1000, 20_000)]
    assert all(one > other for one, other in itertools.pairwise(found))  # type: ignore[operator]
    assert smallest_difference(5, 0.2) is None and mcnemar_power(5, 1.0, 1.0) == 0.0
    # without any discordance the difference itself is the discordance: 8 of 1000 images on one side give p = 0.008
    assert smallest_difference(1000, 0.0) == pytest.approx(0.008, abs=0.0015)
    with pytest.raises(UsageError, match=r"discordance 1\.5"):
        smallest_difference(10, 1.5)


# --- the board -------------------------------------------------------------------------------------------------------

LABELS = np.arange(120) % 4


def put(root: Path, method: str, wrong: range, **options: Any) -> None:
    """Store a cell that is wrong on these of 120 samples."""
    preds = LABELS.copy()
    preds[list(wrong)] = (preds[list(wrong)] + 1) % 4
    commit(root, make_record(method, n=120, **options), make_samples(LABELS, preds))


def built(root: Path) -> Leaderboard:
    return leaderboard.build(find_records([root])[0], draws=400)


def rows_of(board: Leaderboard) -> dict[str, Row]:
    return {row.method: row for row in board.rows}


def test_fixed_and_broken_are_counted_against_bilinear_and_the_original(tmp_path):
    put(tmp_path, "original", range(5), role="control")
    put(tmp_path, "bilinear", range(50))
    put(tmp_path, "esrgan", range(20, 60), role="network", weights="w")
    put(tmp_path, "muller", range(3, 45), role="network", weights="w", track="adapted")
    board = built(tmp_path)
    rows = rows_of(board)
    names = ("fixed", "broken", "fixed_original", "broken_original")
    counts = {method: [row[name] for name in names] for method, row in rows.items()}
    assert counts == {
        "original": [45, 0, None, None],
        "bilinear": [None, None, 0, 45],
        "esrgan": [20, 10, 5, 40],
        "muller": [8, 0, 3, 40],
    }
    for row in rows.values():
        if row["fixed"] is not None and row["broken"] is not None:
            assert row["fixed"] - row["broken"] == pytest.approx(120 * (row["accuracy_delta"] or 0.0))
    assert "20 / 10" in tables.markdown(board) and "fixed / broken" in tables.markdown(board)
    tables.write(board, tmp_path)
    entry = next(e for e in json.loads((tmp_path / "leaderboard.json").read_text())["rows"] if e["method"] == "esrgan")
    places_of = rows["esrgan"].rank_interval
    assert places_of is not None and places_of[0] == 1
    assert (entry["fixed"], entry["broken"], entry["rank_interval"]) == (20, 10, list(places_of)) and entry["tied"]
    again = read_leaderboard(tmp_path / "leaderboard.json")
    assert [(row.rank_interval, row.tied) for row in again.rows] == [
        (row.rank_interval, row.tied) for row in board.rows
    ]
    frame = board.frame.set_index("method")
    assert frame.loc["esrgan", ["fixed", "broken", "rank_low", "rank_high", "tied"]].tolist() == [
        20,
        10,
        *places_of,
        True,
    ]


def test_ties_are_per_track_and_marked(tmp_path):
    put(tmp_path, "bilinear", range(60))
    put(tmp_path, "bicubic", range(20))
    put(tmp_path, "lanczos", range(2, 20))
    put(tmp_path, "muller", range(0), role="network", weights="w", track="adapted")
    rows = rows_of(built(tmp_path))
    assert {name: row.tied for name, row in rows.items()} == {
        "bilinear": False, "bicubic": True, "lanczos": True, "muller": False}  # fmt: skip
    assert rows["muller"].rank_interval == (1, 1) and rows["bilinear"].rank_interval == (3, 3)
    assert rows["bicubic"]["best_delta"] == pytest.approx(-2 / 120) and rows["bicubic"].ci["best_delta"][1] > 0
    assert rows["bilinear"].ci["best_delta"][1] < 0 and "best_delta" not in rows["lanczos"].ci
    text = tables.markdown(built(tmp_path))
    assert "| 1 ≈ | lanczos" in " ".join(text.split()) and "≈ tied with the best of its track" in text


def test_the_power_line_follows_the_discordance_of_the_rows(tmp_path):
    put(tmp_path, "bilinear", range(50))
    put(tmp_path, "bicubic", range(10, 54))
    board = built(tmp_path)
    power = board.power_of("photos-0.32", "net")
    assert power == {"n": 120, "discordance": 14 / 120, "difference": smallest_difference(120, 14 / 120)}
    said = f"could show is {100 * power['difference']:.1f} points (exact McNemar p < 0.05 in 80 % of such data sets)"
    assert said in tables.markdown(board)
    tables.write(board, tmp_path)
    assert said in tables.markdown(read_leaderboard(tmp_path / "leaderboard.json"))


def test_the_power_line_says_where_the_rows_disagree_on_too_few_images(tmp_path):
    put(tmp_path, "bilinear", range(50))
    put(tmp_path, "bicubic", range(52))
    board = built(tmp_path)
    power = board.power_of("photos-0.32", "net")
    assert power["difference"] > power["discordance"] == 2 / 120
    text = tables.markdown(board)
    assert "more than rows and bilinear can differ by here, as they disagree on 1.7 % of them" in text
    assert "where two methods disagree" not in text


def test_without_a_network_psnr_gives_the_places(tmp_path):
    random = np.random.default_rng(0)
    for method, mse in (("bilinear", 0.004), ("bicubic", 0.002), ("lanczos", 0.002)):
        errors = mse * random.uniform(0.9, 1.1, 30)
        commit(tmp_path, make_record(method, classifier=None, n=30), make_samples(None, None, mse=errors))
    rows = rows_of(built(tmp_path))
    assert rows["bilinear"].rank_interval == (3, 3) and not rows["bilinear"].tied
    assert rows["bicubic"].tied and rows["lanczos"].tied
    assert rows["bilinear"]["best_delta"] == pytest.approx(10 * math.log10(0.5), abs=0.2)


def test_equal_agreement_without_labels_is_a_tie(tmp_path):
    hr = LABELS
    for seed, method in enumerate(("bilinear", "bicubic")):
        preds = predictions(LABELS, 0.6, seed=seed)
        frame = make_samples(LABELS, preds, hr_preds=hr)
        frame[["label", "cross_entropy", "top5_hit"]] = None
        frame = frame.astype({"label": "Int32", "cross_entropy": "float32", "top5_hit": "boolean"})
        commit(tmp_path, make_record(method, n=120, per_class=None), frame)
    rows = rows_of(built(tmp_path))
    assert rows["bilinear"]["accuracy"] is None and rows["bilinear"].tied and rows["bicubic"].tied
