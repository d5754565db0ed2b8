"""The leaderboard's statistics, its rules about what may be ranked, and how it is shown."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import FIELDS, commit, make_record, make_samples, predictions
from rich.console import Console
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from srbench import leaderboard
from srbench.compute.numerics import Numerics
from srbench.errors import IncomparableError, RecordError, UsageError
from srbench.leaderboard import Leaderboard, Row, tables
from srbench.leaderboard.changes import render_comparison
from srbench.leaderboard.compare import compare, parse_rule
from srbench.leaderboard.latex import latex
from srbench.leaderboard.ranks import ordered
from srbench.metrics.catalogue import metric_names
from srbench.records.cells import cell_folder, commit_cell, find_records, load_cell
from srbench.records.schema import DatasetPart, Metric, Spread, TimingPart
from srbench.task_types import classification

FIXTURE = Path(__file__).parent / "fixtures" / "records-v2"
LABELS = np.arange(200) % 4


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    """Return the leaderboard of the committed records."""
    cells, problems = find_records([FIXTURE])
    assert problems == []
    return leaderboard.build(cells, draws=500, seed=0)


def put(
    root: Path, method: str, accuracy: float, *, seed: int = 0, rows: dict[str, Any] | None = None, **options: Any
) -> None:
    """Store a cell of 200 samples with this accuracy."""
    options = {"n": 200, **options}
    samples = make_samples(LABELS, predictions(LABELS, accuracy, seed=seed), seed=seed, **(rows or {}))
    commit(root, make_record(method, **options), samples)


def built(root: Path, **options: Any) -> Leaderboard:
    """Build the leaderboard of a folder with few draws."""
    return leaderboard.build(find_records([root])[0], **{"draws": 200, **options})


def row_of(board: Leaderboard, method: str, **wanted: Any) -> Row:
    """Return the one row of a method."""
    rows = [row for row in board.rows if row.method == method and all(getattr(row, k) == v for k, v in wanted.items())]
    assert len(rows) == 1, [row.key for row in rows]
    return rows[0]


def assert_close(ours: Any, golden: Any, where: str = "") -> None:
    """Compare JSON, numbers to 1e-9."""
    if isinstance(golden, dict):
        later = {name for name in metric_names() if name not in golden}  # metrics that are younger than the file
        assert [key for key in ours if key not in later] == list(golden), where
        for key in golden:
            assert_close(ours[key], golden[key], f"{where}.{key}")
    elif isinstance(golden, list):
        assert len(ours) == len(golden), where
        for at, (one, other) in enumerate(zip(ours, golden, strict=True)):
            assert_close(one, other, f"{where}[{at}]")
    elif isinstance(golden, float):
        assert ours == pytest.approx(golden, abs=1e-9), where
    else:
        assert ours == golden, where


# --- the golden leaderboard --------------------------------------------------------------------------------------


def test_committed_records_give_the_golden_leaderboard(board: Leaderboard) -> None:
    ours = json.loads(json.dumps(board.to_json(), allow_nan=False))
    assert_close(ours, json.loads((FIXTURE / "golden.json").read_text(encoding="utf-8")))
    assert tables.markdown(board) == (FIXTURE / "golden.md").read_text(encoding="utf-8")


def test_json_has_every_key_that_scripts_depend_on(board: Leaderboard) -> None:
    raw = board.to_json()
    keys = [
        "task",
        "method",
        "weights",
        "classifier",
        "track",
        "status",
        "reason",
        "partial",
        "n",
        "accuracy",
        "accuracy_delta",
        "p_holm",
        "top5",
        "cross_entropy",
        "psnr",
        "ssim",
        "agreement",
        "recovered_gap",
        "f1_macro",
        "f1_macro_delta",
        "ece",
        "total_time_s",
        "latency_ms",
        "images_per_s",
        "parameters",
        "macs",
        "peak_memory_mb",
        "ci",
    ]
    assert {"schema_version", "tasks", "rows"} <= set(raw)
    assert len(raw["rows"]) == 12
    for row in raw["rows"]:
        assert set(keys) <= set(row)
    oracle = next(row for row in raw["rows"] if row["method"] == "original")
    assert oracle["psnr"] == "inf"


def test_json_round_trip(board: Leaderboard) -> None:
    back = Leaderboard.from_json(json.loads(json.dumps(board.to_json())), origin="x")
    assert back.rows == board.rows
    assert back.tasks == board.tasks
    with pytest.raises(RecordError, match="schema version 1, its version is 7"):
        Leaderboard.from_json({"schema_version": 7}, origin="x")
    head = {"schema_version": 1, "tasks": {}, "bootstrap": {}, "warnings": []}
    with pytest.raises(RecordError, match=r"x: rows\[0\] lacks the field 'task'.*; make the leaderboard again"):
        Leaderboard.from_json(head | {"rows": [{}]}, origin="x")
    with pytest.raises(RecordError, match="x lacks the field 'rows'"):
        Leaderboard.from_json(head, origin="x")


@functools.cache
def compared_with() -> dict[str, Any]:
    """Return the committed leaderboard.json, of few rows."""
    raw = json.loads((FIXTURE / "golden.json").read_text(encoding="utf-8"))
    return raw | {"rows": raw["rows"][:3]}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_leaderboard_file_is_compared_or_refused(data: st.DataObject) -> None:
    good = Leaderboard.from_json(compared_with(), origin="good")
    try:
        other = Leaderboard.from_json(data.draw(damaged(compared_with())), origin="x")
        compare(other, good, [parse_rule("accuracy -0.3pp")])
    except (RecordError, IncomparableError, UsageError) as error:  # a usage error where no ok row is left
        assert "\n" not in str(error)


# --- against independent computations ----------------------------------------------------------------------------


def test_metrics_equal_independent_ones(board: Leaderboard) -> None:
    cells = {cell.record.cell.method: cell for cell in find_records([FIXTURE])[0] if cell.record.cell.classifier}
    base, hr = cells["bilinear"].samples(), cells["original"].samples()
    for method in ("original", "none", "bicubic", "esrgan", "learned_resizer"):
        row, frame = row_of(board, method, classifier="net"), cells[method].samples()
        hit, base_hit = frame["label"] == frame["pred"], base["label"] == base["pred"]
        assert row["accuracy"] == pytest.approx(hit.mean())
        assert row["accuracy_delta"] == pytest.approx(hit.mean() - base_hit.mean())
        assert row["top5"] == pytest.approx(frame["top5_hit"].astype(float).mean())
        assert row["cross_entropy"] == pytest.approx(frame["cross_entropy"].astype(float).mean())
        assert row["agreement"] == pytest.approx((frame["pred"] == frame["hr_pred"]).mean())
        f1 = f1_score(frame["label"], frame["pred"], average="macro")
        assert row["f1_macro"] == pytest.approx(f1)
        assert row["f1_macro_delta"] == pytest.approx(f1 - f1_score(base["label"], base["pred"], average="macro"))
        gap = (hit.mean() - base_hit.mean()) / ((hr["label"] == hr["pred"]).mean() - base_hit.mean())
        assert row["recovered_gap"] == pytest.approx(gap)
    assert row_of(board, "esrgan")["psnr"] == pytest.approx(cells["esrgan"].samples()["psnr"].astype(float).mean())


def test_per_class_table_equals_scikit_learn(board: Leaderboard) -> None:
    cells = {cell.record.cell.method: cell for cell in find_records([FIXTURE])[0] if cell.record.cell.classifier}
    f1 = {
        name: f1_score(frame["label"], frame["pred"], average=None)
        for name, frame in ((name, cells[name].samples()) for name in ("original", "bilinear", "esrgan"))
    }
    table = board.per_class.query("method == 'esrgan' and classifier == 'net'")
    assert table["class"].tolist() == ["ant", "bee", "cat", "dog"]
    assert table["support"].tolist() == [15] * 4
    np.testing.assert_allclose(table["f1"], f1["esrgan"])
    for name in ("original", "bilinear"):
        delta = f1["esrgan"] - f1[name]
        np.testing.assert_allclose(table[f"f1_delta_to_{name}"], delta)
        assert (table[f"f1_delta_to_{name}_low"] <= delta + 1e-6).all()
        assert (table[f"f1_delta_to_{name}_high"] >= delta - 1e-6).all()
    own = board.per_class.query("method == 'bilinear'")
    assert (own["f1_delta_to_bilinear"] == 0).all()


def test_intervals_are_paired(tmp_path: Path) -> None:
    # Two methods with the same predictions differ by exactly nothing, however uncertain each is alone.
    for method in ("bilinear", "twin"):
        put(tmp_path, method, 0.5)
    put(tmp_path, "original", 0.9)
    twin = row_of(built(tmp_path), "twin")
    assert twin.ci["accuracy_delta"] == (0.0, 0.0)
    assert twin.ci["f1_macro_delta"] == (0.0, 0.0)
    low, high = twin.ci["accuracy"]
    assert high - low > 0.05
    # The width is that of a binomial proportion.
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.25)


def test_rows_are_paired_by_sample_id_not_by_place(tmp_path: Path) -> None:
    put(tmp_path, "original", 0.9)
    put(tmp_path, "bilinear", 0.5)
    turned = LABELS[::-1]
    preds = predictions(LABELS, 0.5, seed=0)[::-1]
    ids = [f"s{i:05d}" for i in range(200)][::-1]
    commit(tmp_path, make_record("twin", n=200), make_samples(turned, preds, ids=ids))
    assert row_of(built(tmp_path), "twin").ci["accuracy_delta"] == (0.0, 0.0)


def test_samples_that_cannot_be_paired_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    ids = [f"s{i:05d}" for i in range(199)] + ["stranger"]
    commit(tmp_path, make_record("other", n=200), make_samples(LABELS, LABELS, ids=ids))
    with pytest.raises(IncomparableError, match="s00199"):
        built(tmp_path)


def test_labels_that_differ_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    commit(tmp_path, make_record("other", n=200), make_samples((LABELS + 1) % 4, LABELS))
    with pytest.raises(IncomparableError, match="labels"):
        built(tmp_path)


def test_seed_decides_the_intervals(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    put(tmp_path, "bicubic", 0.6, seed=1)
    first, again, other = (row_of(built(tmp_path, seed=seed), "bicubic").ci for seed in (1, 1, 2))
    assert first == again
    assert first != other


# --- the Holm family ---------------------------------------------------------------------------------------------


def test_holm_family_is_the_ranked_rows_of_a_track(tmp_path: Path) -> None:
    put(tmp_path, "original", 0.95, role="control")
    put(tmp_path, "none", 0.2, seed=1, role="control")
    put(tmp_path, "bilinear", 0.5, seed=2)
    put(tmp_path, "close", 0.54, seed=3)
    put(tmp_path, "far", 0.6, seed=4)
    put(tmp_path, "farther", 0.7, seed=5)
    put(tmp_path, "learned", 0.56, seed=6, track="adapted", role="network", weights="w")
    put(tmp_path, "retrained", 0.8, seed=7, track="adapted", role="control", weights="w")
    board = built(tmp_path)
    for method in ("original", "none", "bilinear", "retrained"):
        assert row_of(board, method)["p_holm"] is None
    raw = {}
    base = predictions(LABELS, 0.5, seed=2) == LABELS
    for method, accuracy, seed in (("close", 0.54, 3), ("far", 0.6, 4), ("farther", 0.7, 5), ("learned", 0.56, 6)):
        own = predictions(LABELS, accuracy, seed=seed) == LABELS
        wins, losses = int((own & ~base).sum()), int((base & ~own).sum())
        raw[method] = binomtest(wins, wins + losses).pvalue
    # Three frozen rows are corrected together, the adapted one alone.
    assert row_of(board, "learned")["p_holm"] == pytest.approx(raw["learned"])
    ordered = sorted((raw[name], name) for name in ("close", "far", "farther"))
    running = 0.0
    for at, (p, name) in enumerate(ordered):
        running = max(running, min(1.0, p * (3 - at)))
        assert row_of(board, name)["p_holm"] == pytest.approx(running)


# --- ranks and order ---------------------------------------------------------------------------------------------


def test_order_and_ranks_of_the_fixture(board: Leaderboard) -> None:
    shown = [(row.method, row.rank) for row in board.rows if row.classifier == "net"]
    assert shown == [
        ("original", None),
        ("none", None),
        ("esrgan", 1),
        ("bicubic", 2),
        ("bilinear", 3),
        ("retrained", None),
        ("learned_resizer", 1),
        ("darionet", None),
        ("lanczos", None),
    ]
    # Without a classifier PSNR ranks.
    assert [(row.method, row.rank) for row in board.rows if row.classifier is None] == [
        ("original", None),
        ("bicubic", 1),
        ("bilinear", 2),
    ]


def test_rows_ranked_by_what_is_better_when_it_is_less(board: Leaderboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification.Classification, "ranks", ("cross_entropy",))
    rows = ordered([row for row in board.rows if row.classifier == "net"], classification.Classification())
    ranked = [row for row in rows if row.rank is not None and row.track == "frozen"]
    values = [row["cross_entropy"] for row in ranked]
    assert len(values) > 2 and values == sorted(values)
    assert [row.rank for row in ranked] == list(range(1, len(values) + 1))


def test_tracks_are_never_ranked_together_but_share_the_frozen_references(board: Leaderboard) -> None:
    adapted, frozen = row_of(board, "learned_resizer"), row_of(board, "esrgan")
    assert adapted["accuracy"] is not None
    assert frozen["accuracy"] is not None
    assert adapted["accuracy"] > frozen["accuracy"]
    assert (adapted.rank, frozen.rank) == (1, 1)
    assert adapted["accuracy_delta"] == pytest.approx(adapted["accuracy"] - 0.45)
    assert adapted["recovered_gap"] == pytest.approx((0.8 - 0.45) / (0.9 - 0.45))


def test_unlabelled_data_are_ranked_by_agreement(tmp_path: Path) -> None:
    nobody = np.full(200, -1)
    for method, accuracy in (("original", 1.0), ("bilinear", 0.5), ("bicubic", 0.6)):
        samples = make_samples(nobody, predictions(LABELS, accuracy, seed=0), hr_preds=LABELS)
        samples = samples.assign(label=pd.array([pd.NA] * 200, dtype="Int32"))
        commit(tmp_path, make_record(method, n=200, per_class=None), samples)
    rows = built(tmp_path).rows
    assert [(row.method, row.rank) for row in rows] == [("original", None), ("bicubic", 1), ("bilinear", 2)]
    assert rows[1]["agreement"] == pytest.approx(0.6)
    assert rows[1]["accuracy"] is None


def test_equal_scores_share_a_rank(tmp_path: Path) -> None:
    for method, accuracy in (("bilinear", 0.5), ("a", 0.7), ("b", 0.7), ("c", 0.6)):
        put(tmp_path, method, accuracy)
    assert {row.method: row.rank for row in built(tmp_path).rows} == {"a": 1, "b": 1, "c": 3, "bilinear": 4}


def test_skipped_and_failed_rows_keep_their_reason(board: Leaderboard) -> None:
    skipped, failed = row_of(board, "lanczos"), row_of(board, "darionet")
    assert (skipped.status, skipped.reason, skipped.n) == ("skipped", "it is not for this task", 0)
    assert (failed.status, failed.reason, failed["accuracy"]) == ("error", "out of memory", None)


# --- partial runs ------------------------------------------------------------------------------------------------


def test_partial_rows_are_shown_but_never_ranked(tmp_path: Path) -> None:
    put(tmp_path, "original", 0.9)
    put(tmp_path, "bilinear", 0.5)
    put(tmp_path, "bicubic", 0.6, seed=1)
    few = LABELS[:20]
    dataset = dataclasses.replace(make_record("x", n=20).dataset, sample_list_sha256="7" * 64)
    record = make_record("hasty", n=20, partial=True, dataset=dataset)
    commit(tmp_path, record, make_samples(few, few))
    board = built(tmp_path)
    hasty = row_of(board, "hasty")
    assert (hasty["accuracy"], hasty.rank, hasty["p_holm"], hasty["accuracy_delta"]) == (1.0, None, None, None)
    assert "no ok row 'bilinear'" in hasty.notes["accuracy_delta"]
    assert row_of(board, "bicubic").rank == 1
    assert "hasty [partial]" in tables.markdown(board)


def test_a_run_that_is_partial_throughout_has_differences_but_no_ranks(tmp_path: Path) -> None:
    for method, accuracy in (("original", 0.9), ("bilinear", 0.5), ("bicubic", 0.7)):
        put(tmp_path, method, accuracy, partial=True)
    row = row_of(built(tmp_path), "bicubic")
    assert row["accuracy_delta"] == pytest.approx(0.2)
    assert row["recovered_gap"] == pytest.approx(0.5)
    assert (row.rank, row["p_holm"]) == (None, None)


# --- what must not be ranked together ----------------------------------------------------------------------------


def test_another_protocol_is_refused_by_the_field(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    newer = {**FIELDS, "lr": {"scale": 0.5, "kernel": "bicubic"}}
    put(tmp_path, "bicubic", 0.6, fields=newer, created="2027-01-01T00:00:00Z")
    with pytest.raises(IncomparableError, match=r"lr\.scale: 0\.32 against 0\.5; run 'bilinear' again"):
        built(tmp_path)


def test_other_samples_are_refused_by_the_field(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    dataset = dataclasses.replace(make_record("x", n=200).dataset, sample_list_sha256="7" * 64)
    put(tmp_path, "bicubic", 0.6, dataset=dataset)
    with pytest.raises(IncomparableError, match=r"dataset\.sample_list_sha256"):
        built(tmp_path)


def test_other_classifier_weights_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    classifier = make_record("x").classifier
    assert classifier is not None
    put(tmp_path, "bicubic", 0.6, classifier="net")
    folder = cell_folder(tmp_path, "photos-0.32", "net", "bicubic", None)
    cell = load_cell(folder)
    changed = dataclasses.replace(cell.record, classifier=dataclasses.replace(classifier, weights_sha256="0" * 64))
    commit_cell(folder, changed, cell.samples())
    with pytest.raises(IncomparableError, match="weights_sha256"):
        built(tmp_path)


def test_tasks_and_classifiers_stand_apart(tmp_path: Path) -> None:
    for task in ("photos-0.32", "photos-0.5"):
        for classifier in ("net", "vit"):
            put(
                tmp_path,
                "bilinear",
                0.5,
                task=task,
                classifier=classifier,
                fields={**FIELDS, "lr": {"scale": task[-3:]}},
            )
            put(
                tmp_path,
                "bicubic",
                0.6,
                task=task,
                classifier=classifier,
                fields={**FIELDS, "lr": {"scale": task[-3:]}},
            )
    board = built(tmp_path)
    assert [row.rank for row in board.rows] == [1, 2] * 4
    assert [key[:2] for key in tables.groups(board)] == [
        (t, c) for t in ("photos-0.32", "photos-0.5") for c in ("net", "vit")
    ]


def test_a_cell_found_twice_counts_once_and_the_newest(tmp_path: Path) -> None:
    put(tmp_path / "a", "bilinear", 0.5)
    put(tmp_path / "a", "bicubic", 0.6)
    put(tmp_path / "b", "bilinear", 0.5)
    put(tmp_path / "b", "bicubic", 0.7, input_hash="f" * 64, created="2027-01-01T00:00:00Z")
    cells, _ = find_records([tmp_path / "a", tmp_path / "b"])
    board = leaderboard.build(cells, draws=100)
    assert row_of(board, "bicubic")["accuracy"] == pytest.approx(0.7)
    assert len(board.rows) == 2
    assert len(board.warnings) == 1
    assert "bicubic" in board.warnings[0]


# --- what does not apply is null with a reason -------------------------------------------------------------------


def test_gap_is_null_with_a_reason_where_there_is_hardly_one(tmp_path: Path) -> None:
    for method, accuracy in (("original", 0.81), ("bilinear", 0.8), ("bicubic", 0.8)):
        put(tmp_path, method, accuracy)
    board = built(tmp_path)
    row = row_of(board, "bicubic")
    assert row["recovered_gap"] is None
    assert "recovered_gap" not in row.ci
    assert "0.02" in row.notes["recovered_gap"]
    assert "no recovered gap: " in tables.markdown(board)


def test_gap_is_null_where_its_interval_touches_zero(tmp_path: Path) -> None:
    put(tmp_path, "original", 0.53, seed=1)
    put(tmp_path, "bilinear", 0.5, seed=2)
    row = row_of(built(tmp_path), "bilinear")
    assert row["recovered_gap"] is None
    assert "touches 0" in row.notes["recovered_gap"]


def test_without_bilinear_or_original_differences_say_why(tmp_path: Path) -> None:
    put(tmp_path, "bicubic", 0.6)
    row = row_of(built(tmp_path), "bicubic")
    assert (row["accuracy_delta"], row["f1_macro_delta"], row["recovered_gap"], row["p_holm"]) == (None,) * 4
    assert "bilinear" in row.notes["accuracy_delta"]
    assert "original" in row.notes["recovered_gap"]


def test_null_image_metrics_carry_the_records_reason(board: Leaderboard) -> None:
    row = row_of(board, "none")
    assert (row["psnr"], row["ssim"]) == (None, None)
    assert row.notes["psnr"] == "the output stays at LR size"
    assert "no PSNR and no SSIM for none: the output stays at LR size" in tables.markdown(board)
    assert "psnr" not in row_of(board, "original", classifier="net").ci


# --- PSNR by batch -----------------------------------------------------------------------------------------------


def batch_fields(size: int) -> dict[str, Any]:
    return {**FIELDS, "score": {"psnr_reduction": "batch", "psnr_batch": size}}


def test_psnr_pools_batches_in_order_of_position(tmp_path: Path) -> None:
    mse = np.random.default_rng(0).uniform(0.0001, 0.02, 200).astype(np.float32)
    put(tmp_path, "bilinear", 0.5, rows={"mse": mse}, fields=batch_fields(30))
    row = row_of(built(tmp_path), "bilinear")
    pooled = -10 * np.log10(mse[:180].astype(float).reshape(6, 30).mean(axis=1))
    assert row["psnr"] == pytest.approx(pooled.mean(), abs=1e-9)
    low, high = row.ci["psnr"]
    assert pooled.min() <= low < row["psnr"] < high <= pooled.max()


def test_few_batches_have_no_interval_and_too_few_images_no_psnr(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5, rows={"mse": np.full(200, 0.01)}, fields=batch_fields(60))
    row = row_of(built(tmp_path), "bilinear")
    assert row["psnr"] == pytest.approx(20.0, abs=1e-5)
    assert "psnr" not in row.ci
    assert "at least 5" in row.notes["ci.psnr"]
    put(tmp_path, "bilinear", 0.5, rows={"mse": np.full(200, 0.01)}, fields=batch_fields(300))
    row = row_of(built(tmp_path), "bilinear")
    assert row["psnr"] is None
    assert "pools 300 images" in row.notes["psnr"]


# --- files and tables --------------------------------------------------------------------------------------------


def test_written_files_agree(board: Leaderboard, tmp_path: Path) -> None:
    paths = tables.write(board, tmp_path)
    assert [path.name for path in paths] == ["leaderboard.json", "leaderboard.csv", "leaderboard.md", "per_class.csv"]
    assert leaderboard.read_leaderboard(paths[0]).rows == board.rows
    table = pd.read_csv(paths[1], keep_default_na=False, na_values=[""])
    assert table["method"].tolist() == [row.method for row in board.rows]
    esrgan, line = row_of(board, "esrgan"), table[table["method"] == "esrgan"].iloc[0]
    assert line["accuracy"] == esrgan["accuracy"]
    assert line["cross_entropy"] == esrgan["cross_entropy"]
    assert (line["accuracy_low"], line["accuracy_high"]) == pytest.approx(esrgan.ci["accuracy"])
    assert len(pd.read_csv(paths[3])) == len(board.per_class)


def shown(board: Leaderboard, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    for part in tables.render(board, width=width):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 110, 160, 240, 400])
def test_no_number_is_wrapped_or_cut_at_any_width(board: Leaderboard, width: int) -> None:
    text = shown(board, width)
    assert max(map(len, text.splitlines())) <= width
    line = next(line for line in text.splitlines() if "esrgan" in line)
    assert "esrgan (demo-x4)" in line and "…" not in line
    for number in ("0.7500", "[0.650,", "0.875]", "+0.300", "0.67", "4.00"):  # what answers the question goes last
        assert number in line.split()
    left_out = re.search(
        r"a wider terminal, or leaderboard.csv, shows (\d+ more columns|1 more column)\b", " ".join(text.split())
    )
    assert (left_out is not None) == (width < 400)


def test_wider_terminals_show_more(board: Leaderboard) -> None:
    counts = [
        len(next(line for line in shown(board, w).splitlines() if "esrgan" in line).split()) for w in (80, 130, 400)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]


FORMULA = "=cmd|' /C calc'!A1"
MARKUP = "<script>alert(1)</script>|[x](https://example.org)\nnew"


def test_names_of_others_are_no_formula_and_no_markup(tmp_path: Path) -> None:
    methods = [FORMULA, "+1", "@SUM(A1)", "-2", "＝1", MARKUP]
    for method in ["original", "bilinear", *methods]:
        labels = np.arange(8) % 2
        dataset = dataclasses.replace(make_record("x").dataset, n=8, classes=(FORMULA, MARKUP))
        record = dataclasses.replace(make_record(method, n=8), dataset=dataset)
        commit(tmp_path, record, make_samples(labels, labels, hr_preds=labels))
    made = leaderboard.build(find_records([tmp_path])[0], draws=20)
    tables.write(made, tmp_path)
    names = set(pd.read_csv(tmp_path / "leaderboard.csv")["method"])
    assert {f"'{method}" for method in methods[:-1]} <= names and "bilinear" in names
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not [cell for cell in cells if cell.startswith(tuple("=+@")) or (cell[:1] == "-" and not _number(cell))]
    text = (tmp_path / "leaderboard.md").read_text()
    assert "<script>" not in text and "](https" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 + len(methods)
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def _number(text: str) -> bool:
    try:
        return bool(float(text)) or True
    except ValueError:
        return False


def test_a_broken_word_is_whole_where_nothing_breaks_it(board: Leaderboard) -> None:
    text = tables.markdown(board)
    assert "parameters" in text and "para-" not in text and "cross-entropy" in text and "\u00ad" not in text
    console = Console(width=400, file=io.StringIO())
    for each in tables.render(board, width=400):
        console.print(each)
    assert "para-" in console.file.getvalue() and "\u00ad" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_marks_notes_and_cautions(board: Leaderboard) -> None:
    text = tables.markdown(board)
    assert "none †" in text
    assert "retrained (demo) †‡" in text
    assert "lanczos: it is not for this task" in text
    assert "darionet: out of memory" in text
    assert "about 15 a class, a standard error near 13 points" in text
    assert "torn.png" in text
    assert "500 draws, seed 0" in text


@pytest.mark.parametrize(("n", "said"), [(3, "3 images for 4 classes, fewer than one a class"), (8, "about 2 a class")])
def test_few_samples_a_class_are_told(tmp_path: Path, n: int, said: str) -> None:
    labels = np.arange(n) % 4
    commit(tmp_path, make_record("bilinear", n=n), make_samples(labels, labels))
    built = leaderboard.build(find_records([tmp_path])[0], draws=10)
    lines = tables.notes(built, "photos-0.32", built.rows)
    assert any(said in line for line in lines) and not any("about 0" in line for line in lines)


def test_names_of_classes_without_samples_come_from_the_data_where_its_order_is_the_classifier_s() -> None:
    record = make_record("bilinear")
    assert record.per_class is not None and record.classifier is not None
    some = dataclasses.replace(record, per_class=record.per_class[1:3])
    assert classification.class_names([some]) == dict(enumerate(("ant", "bee", "cat", "dog")))
    more = dataclasses.replace(some, classifier=dataclasses.replace(record.classifier, n_classes=1000))
    assert classification.class_names([more]) == {1: "bee", 2: "cat"}
    shuffled = dataclasses.replace(some.dataset, classes=("bee", "ant", "cat", "dog"))
    assert classification.class_names([dataclasses.replace(some, dataset=shuffled)]) == {1: "bee", 2: "cat"}
    assert classification.class_names([dataclasses.replace(some, per_class=None)]) == {}
    assert classification.class_name(1, {1: "bee"}) == "bee" and classification.class_name(7, {1: "bee"}) == "class 7"


def test_dataset_notes_are_shown_with_the_numbers(tmp_path: Path) -> None:
    dataset = DatasetPart(
        "demo",
        "demo",
        "test",
        "patch",
        "A demonstration, not a benchmark.",
        "5" * 64,
        200,
        0,
        (),
        7,
        ("a", "b", "c", "d"),
    )
    put(tmp_path, "bilinear", 0.5, dataset=dataset)
    text = shown(built(tmp_path), 120)
    assert "A demonstration, not a benchmark." in text
    assert "200 patches" in text
    assert "7 of 200 patches are already at or below the LR size" in text


def test_names_in_brackets_survive_markup(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5)
    put(tmp_path, "odd", 0.5, weights="[red]w")
    assert "odd ([red]w)" in shown(built(tmp_path), 200)


def test_names_in_brackets_survive_in_titles(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5, task="[x]-0.32", classifier="[bold]net")
    board = built(tmp_path)
    assert "[x]-0.32 · [bold]net · 200 images" in shown(board, 200)
    console = Console(width=200, file=io.StringIO())
    for part in render_comparison(compare(board, board), width=200):
        console.print(part)
    assert "[x]-0.32 · [bold]net · new" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_labels_are_cut_in_the_middle_and_numbers_stay(tmp_path: Path, width: int) -> None:
    label = "df2k.pth?arch=" + "x" * 90 + "(tile=64)"
    put(tmp_path, "bilinear", 0.5)
    put(tmp_path, "esrgan", 0.75, weights=label, role="control")
    board = built(tmp_path)
    lines = shown(board, width).splitlines()
    (line,) = [line for line in lines if "esrgan (" in line and "0.75" in line]
    name = line.split("†")[0]
    assert ("esrgan (" if width == 60 else "esrgan (df2") in name and "…" in name and "=64))" in name
    assert "[0.6" in next(line for line in lines if "esrgan (" in line)  # the interval of its accuracy
    assert "0.7500" in line.split() and max(map(len, lines)) <= width
    whole = f"esrgan ({label})"
    assert whole in tables.markdown(board) and whole in shown(board, 1000)
    assert label in board.frame["weights"].tolist() and row_of(board, "esrgan").weights == label


@pytest.mark.parametrize(("share", "filled"), [(-1.0, 0), (0.0, 0), (0.5, 4), (1.0, 8), (3.0, 8)])
def test_bar_is_proportional_and_cut_off(share: float, filled: int) -> None:
    assert tables.bar(share).count("█") == filled
    assert len(tables.bar(share)) == 8


def test_damaged_samples_name_their_file(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE / "records", tmp_path / "records")
    victim = next((tmp_path / "records").rglob("bicubic@none/samples.parquet"))
    victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(RecordError, match=r"bicubic@none.samples\.parquet"):
        built(tmp_path)


def test_metric_reasons_reach_the_row(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5, metrics={"ssim": Metric(None, 0, 0, "under 11 pixels")})
    assert row_of(built(tmp_path), "bilinear").notes["ssim"] == "under 11 pixels"


# --- arithmetic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (Numerics("cpu", "bf16"), r"numerics: precision \(fp32 and bf16\)|numerics: precision \(bf16 and fp32\)"),
        (Numerics("cuda"), "numerics: device"),
        (Numerics("cuda", tf32=True), "tf32"),
    ],
)
def test_rows_of_other_arithmetic_are_never_ranked_together(tmp_path: Path, other: Numerics, field: str) -> None:
    put(tmp_path, "bilinear", 0.5)
    put(tmp_path, "bicubic", 0.6, numerics=other)
    with pytest.raises(IncomparableError, match=field) as refused:
        built(tmp_path)
    assert "'bilinear'" in str(refused.value) and "'bicubic'" in str(refused.value)


def test_partial_rows_of_other_arithmetic_are_not_paired(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5, partial=True)
    put(tmp_path, "bicubic", 0.6, partial=True, numerics=Numerics("cpu", "bf16"))
    row = row_of(built(tmp_path), "bicubic")
    assert row["accuracy"] == pytest.approx(0.6) and row["accuracy_delta"] is None and row.rank is None


def test_a_note_says_the_arithmetic(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5, numerics=Numerics("cuda", tf32=True))
    assert "- computed in tf32 on a GPU\n" in tables.markdown(built(tmp_path))


# --- exact images --------------------------------------------------------------------------------------------------


def put_errors(root: Path, method: str, mse: np.ndarray, **options: Any) -> None:
    """Store a cell without a network."""
    options = {"classifier": None, "n": len(mse), **options}
    commit(root, make_record(method, **options), make_samples(None, None, mse=mse))


def test_exact_images_count_for_their_method(tmp_path: Path) -> None:
    # "offbyone" is a little worse on every image; of "bilinear" five are exact, whose PSNR is infinite.
    exact = np.where(np.arange(60) < 5, 0.0, 0.004)
    put_errors(tmp_path, "bilinear", exact)
    put_errors(tmp_path, "offbyone", exact + 1e-5)
    put_errors(tmp_path, "original", np.zeros(60), role="control")
    board = built(tmp_path)
    bilinear, worse = row_of(board, "bilinear"), row_of(board, "offbyone")
    assert bilinear["psnr"] == pytest.approx((5 * 100 + 55 * -10 * math.log10(0.004)) / 60, abs=1e-5)
    assert (bilinear.rank, worse.rank) == (1, 2)
    low, high = bilinear.ci["psnr"]
    assert low < bilinear["psnr"] < high
    assert bilinear.notes["exact.psnr"] == "5 of 60 are exact and count as 100 dB"
    assert "PSNR: 5 of 60 are exact and count as 100 dB: bilinear" in tables.markdown(board)
    oracle = row_of(board, "original")
    assert oracle["psnr"] == math.inf and "exact.psnr" not in oracle.notes and "psnr" not in oracle.ci
    assert oracle.to_json()["psnr"] == "inf"


def test_a_version_that_is_better_everywhere_breaks_no_rule(tmp_path: Path) -> None:
    before = np.linspace(0.001, 0.01, 60)
    for name, errors in (("old", before), ("new", np.where(np.arange(60) < 20, 0.0, before - 1e-6))):
        put_errors(tmp_path / name, "bilinear", errors)
    old, new = built(tmp_path / "old"), built(tmp_path / "new")
    assert compare(old, new, [parse_rule("psnr -0.1dB")]).fired == ()
    assert compare(new, old, [parse_rule("psnr -0.1dB")]).fired


def test_batches_without_error_count_at_the_cap(tmp_path: Path) -> None:
    fields = {**FIELDS, "score": {"psnr_reduction": "batch", "psnr_batch": 10}}
    errors = np.where(np.arange(60) < 10, 0.0, 0.01)
    put_errors(tmp_path, "bilinear", errors, fields=fields)
    row = row_of(built(tmp_path), "bilinear")
    assert row["psnr"] == pytest.approx((100 + 5 * 20) / 6, abs=1e-5)
    low, high = row.ci["psnr"]
    assert 20 <= low < row["psnr"] < high <= 100


def test_a_mean_of_infinite_values_is_missing_with_its_reason(tmp_path: Path) -> None:
    for method, infinite in (("bilinear", 0), ("bicubic", 3)):
        samples = make_samples(LABELS, predictions(LABELS, 0.5, seed=0))
        samples.loc[: infinite - 1, "cross_entropy"] = np.inf
        commit(tmp_path, make_record(method, n=200), samples)
    board = built(tmp_path)
    row = row_of(board, "bicubic")
    assert row["cross_entropy"] is None and "cross_entropy" not in row.ci and row["accuracy"] is not None
    assert row.notes["cross_entropy"] == "3 of 200 values are infinite"
    assert row_of(board, "bilinear")["cross_entropy"] is not None
    assert "no cross-entropy for bicubic: 3 of 200 values are infinite" in tables.markdown(board)
    json.dumps(board.to_json(), allow_nan=False)


# --- latencies -------------------------------------------------------------------------------------------------------


def test_latencies_show_their_spread_and_a_busy_machine_is_named(tmp_path: Path) -> None:
    for method, low, high in (("bilinear", 3.9, 4.3), ("bicubic", 3.0, 4.4), ("lanczos", 3.0, 4.51)):
        timing = TimingPart(1.0, 1.25, latency_ms=Spread(4.0, low, high))
        put(tmp_path, method, 0.5, timing=timing)
    board = built(tmp_path)
    assert (row_of(board, "bicubic")["latency_p10_ms"], row_of(board, "bicubic")["latency_p90_ms"]) == (3.0, 4.4)
    text = tables.markdown(board)
    assert "ms p10 / p90" in text and "| 3.00 / 4.51 |" in " ".join(text.split())
    line = next(line for line in text.splitlines() if "the machine was busy" in line)
    assert "lanczos (3.00 to 4.51)" in line and "bicubic" not in line and "bilinear" not in line


# --- LaTeX -----------------------------------------------------------------------------------------------------------


def test_latex_has_the_core_in_bold_and_no_sign_that_latex_reads(tmp_path: Path) -> None:
    put(tmp_path, "bilinear", 0.5, task="a_b&c-0.32")
    put(tmp_path, "bicubic", 0.52, seed=1, task="a_b&c-0.32")
    put(tmp_path, "esrgan", 0.75, weights="x4_50%", role="network", task="a_b&c-0.32")
    put(tmp_path, "retrained", 0.7, weights="r#1", role="control", track="adapted", task="a_b&c-0.32")
    text = latex(built(tmp_path))
    assert r"\caption{a\_b\&c-0.32 $\cdot$ net $\cdot$ 200 images}" in text
    best = r"^1 & esrgan \(x4\\_50\\%\) & \\textbf\{0\.7500\} & \[0\.\d+, 0\.\d+\] & \+0\.250 "
    assert re.search(best, text, flags=re.M)
    assert text.count(r"\textbf") == 1 and r"retrained (r\#1) $\dagger$$\ddagger$ & 0.7000" in text
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(lines) == 5 and len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    for begin in ("table", "tabular"):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}") == 1
    assert not re.search(r"(?<!\\)[#_%]", text.partition("\n")[2]) and "†" not in text


def test_latex_of_equal_rows_has_nothing_bold(tmp_path: Path) -> None:
    for method in ("bilinear", "bicubic"):
        put(tmp_path, method, 0.5)
    text = latex(built(tmp_path))
    assert r"\textbf" not in text and r"1 $\approx$ & bicubic" in text
