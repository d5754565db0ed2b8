"""`srbench compare`: the rules of the CI gate, and what it refuses to compare."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from record_factory import commit, make_record, make_samples, predictions
from rich.console import Console

from srbench import leaderboard
from srbench.errors import IncomparableError, UnknownNameError, UsageError
from srbench.leaderboard import Leaderboard, Row, tables
from srbench.leaderboard.changes import render_comparison
from srbench.leaderboard.compare import compare, load_board, parse_rule
from srbench.metrics.catalogue import metric_names
from srbench.records.cells import cell_folder, commit_cell, find_records, load_cell
from srbench.records.schema import NO_WEIGHTS


def board(*rows: Row, sha: str = "5" * 64, scale: float = 0.32, classifier_sha: str = "e" * 64) -> Leaderboard:
    """Return a leaderboard of one task."""
    task = {
        "protocol": {"name": "clean", "fingerprint": str(scale), "fields": {"lr": {"scale": scale}}},
        "dataset": {"sample_list_sha256": sha, "n": 1000, "unit": "image"},
        "classifiers": {"net": {"weights_sha256": classifier_sha}},
    }
    return Leaderboard({"t": task}, rows, pd.DataFrame(), {"draws": 1, "seed": 0, "level": 0.95})


def row(method: str = "esrgan", **values: Any) -> Row:
    """Return an ok row."""
    given = {"task": "t", "weights": None, "classifier": "net", "track": "frozen", "role": "network", "status": "ok"}
    own = {name: values.pop(name) for name in metric_names() if name in values}
    whole = {**given, "reason": None, "partial": False, "n": 1000, "method": method, "values": own, **values}
    return Row(**whole)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "old", "new", "fires"),
    [
        ("accuracy -0.3pp", 0.883, 0.880, False),  # exactly the bound
        ("accuracy -0.3pp", 0.883, 0.8799, True),
        ("accuracy -0.3pp", 0.883, 0.95, False),
        ("accuracy +0.3pp", 0.883, 0.95, True),
        ("accuracy -0pp", 0.883, 0.882999, True),
        ("accuracy -0.003", 0.883, 0.8799, True),
        ("accuracy -1%", 0.5, 0.4951, False),
        ("accuracy -1%", 0.5, 0.4949, True),
        ("psnr -0.1dB", 25.2, 25.05, True),
        ("psnr -0.1 dB", 25.2, 25.15, False),
        ("psnr -0.1dB", math.inf, math.inf, False),
        ("psnr -0.1dB", math.inf, 50.0, True),
        ("psnr -0.1dB", math.inf, 99.95, False),  # every image exact counts 100 dB
        ("psnr -0.1dB", math.inf, 99.8, True),
        ("latency_ms +10%", 10.0, 11.0, False),
        ("latency_ms +10%", 10.0, 11.1, True),
        ("latency_ms +10%", 10.0, 1.0, False),
        ("cross_entropy +.01", 1.0, 1.02, True),
    ],
)
def test_a_rule_fires_beyond_its_bound_and_only_in_its_direction(
    rule: str, old: float, new: float, fires: bool
) -> None:
    parsed = parse_rule(rule)
    outcome = compare(board(row(**{parsed.metric: old})), board(row(**{parsed.metric: new})), [parsed])
    assert bool(outcome.fired) == fires


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "accuracy",
        "accuracy 0.3pp",
        "accuracy -0.3",
        "-0.3pp",
        "accuracy -x",
        "accuracy -0.3 points",
        "accuracy -nan",
    ],
)
def test_bad_rules_are_usage_errors_in_one_sentence(rule: str) -> None:
    if rule == "accuracy -0.3":
        assert parse_rule(rule).bound == 0.3
        return
    with pytest.raises(UsageError, match="--fail-on takes"):
        parse_rule(rule)


def test_unfit_units_and_unknown_metrics_are_told() -> None:
    with pytest.raises(UsageError, match="the unit pp fits accuracy"):
        parse_rule("psnr -0.3pp")
    with pytest.raises(UsageError, match="the unit dB fits psnr"):
        parse_rule("accuracy -0.3dB")
    with pytest.raises(UnknownNameError, match="did you mean accuracy"):
        parse_rule("acuracy -0.3pp")


def test_rows_are_matched_by_all_of_their_identity() -> None:
    old = board(row(weights="a", accuracy=0.9), row(weights="b", accuracy=0.5), row(track="adapted", accuracy=0.7))
    new = board(row(track="adapted", accuracy=0.7), row(weights="b", accuracy=0.5), row(weights="a", accuracy=0.6))
    outcome = compare(old, new, [parse_rule("accuracy -1pp")])
    assert len(outcome.fired) == 1
    assert "esrgan (a)" in outcome.fired[0]
    assert "0.9 to 0.6" in outcome.fired[0]


def test_lost_rows_and_lost_values_fire_with_rules_only() -> None:
    old = board(
        row("gone", accuracy=0.5),
        row("broken", accuracy=0.5),
        row("blind", accuracy=0.5),
        row("never", status="skipped", reason="no weights", n=0),
    )
    new = board(row("broken", status="error", reason="out of memory", n=0), row("blind"), row("fresh", accuracy=0.1))
    outcome = compare(old, new, [parse_rule("accuracy -1pp")])
    assert [line.split(" · ")[2].split(" ")[0].rstrip(":") for line in outcome.fired] == ["gone", "broken", "blind"]
    assert "out of memory" in outcome.fired[1]
    assert {(c.new or c.old).method: c.state for c in outcome.changes} == {  # type: ignore[union-attr]
        "gone": "missing",
        "broken": "failed",
        "blind": "",
        "never": "missing",
        "fresh": "new",
    }
    assert compare(old, new).fired == ()


def test_a_gate_that_cannot_fail_is_refused() -> None:
    with pytest.raises(UsageError, match="could never fire"):
        compare(board(row(accuracy=0.5)), board(row(accuracy=0.5)), [parse_rule("latency_ms +10%")])
    with pytest.raises(UsageError, match="no ok row"):
        compare(board(), board(row(accuracy=0.5)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale": 0.5}, r"lr\.scale: 0\.32 against 0\.5"),
        ({"sha": "6" * 64}, r"dataset\.sample_list_sha256"),
        ({"classifier_sha": "f" * 64}, "classifier net weights_sha256"),
    ],
)
def test_incomparable_leaderboards_are_refused_by_the_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(IncomparableError, match=said):
        compare(board(row(accuracy=0.5)), board(row(accuracy=0.5), **change))


def test_a_partial_run_is_not_compared_with_a_full_one() -> None:
    with pytest.raises(IncomparableError, match="n is 1000 in OLD and 20 in NEW"):
        compare(board(row(accuracy=0.5)), board(row(accuracy=0.5, n=20, partial=True)))


def test_boards_without_a_common_task_are_one_sentence_that_says_what_differs() -> None:
    old, new = board(row(accuracy=0.5)), board(row(accuracy=0.5), scale=0.5)
    far = {**new.tasks["t"], "dataset": {**new.tasks["t"]["dataset"], "spec": "folder:other", "n": 7}}
    new = dataclasses.replace(new, tasks={"far": far, "near": new.tasks["t"]}, rows=())
    said = r"no task in common: 't' of OLD and 'near' of NEW differ in lr\.scale: 0\.32 against 0\.5; compare runs"
    for rules in ([], [parse_rule("accuracy -1pp")]):
        with pytest.raises(IncomparableError, match=said):
            compare(old, new, rules)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_comparison_drops_whole_columns_and_cuts_no_digit(width: int) -> None:
    values = dict.fromkeys(("accuracy", "cross_entropy", "psnr", "ssim", "latency_ms", "images_per_s"), 0.1234)
    label = "df2k.pth?arch=" + "x" * 90
    old = board(row(**values), row("rdn", weights=label, **values))
    new = board(row(**{**values, "accuracy": 0.2345}), row("rdn", weights=label, **values))
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    for part in render_comparison(compare(old, new), width=width):
        console.print(part)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (first,) = [line for line in lines if "esrgan" in line]
    assert max(map(len, lines)) <= width
    assert "0.2345" in first.split() and any("+0.1111" in line.split() for line in lines)
    assert set(first.split()) == {"esrgan", "0.2345"} | ({"0.1234"} if len(first.split()) > 2 else set())
    assert ("a wider terminal shows" in " ".join(lines)) == (width < 80)


def test_methods_without_weights_are_one_line_of_a_comparison() -> None:
    lacking = {"status": "skipped", "reason": f"{NO_WEIGHTS}; give --weights", "n": 0}
    old = board(row(accuracy=0.5), row("rdn", **lacking), row("srgan", accuracy=0.6))
    new = board(row(accuracy=0.5), row("muller", **lacking), row("srgan", **lacking))
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    for part in render_comparison(compare(old, new), width=100):
        console.print(part)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (named,) = [line for line in lines if "rdn" in line or "muller" in line]
    assert named.strip() == "without weights for the task, and not shown: rdn, muller"
    assert any("srgan [skipped]" in line for line in lines)  # it was ok before


def store_run(root: Path, accuracy: float) -> None:
    labels = np.arange(100) % 4
    for method, level in (("original", 0.9), ("bilinear", 0.5), ("bicubic", accuracy)):
        commit(root, make_record(method, n=100), make_samples(labels, predictions(labels, level, seed=0)))
    tables.write(leaderboard.build(find_records([root])[0], draws=50), root)


def test_directories_and_files_are_read_alike(tmp_path: Path) -> None:
    for name, accuracy in (("old", 0.7), ("new", 0.6)):
        store_run(tmp_path / name, accuracy)
    (tmp_path / "kept").mkdir()
    (tmp_path / "old" / "leaderboard.json").rename(tmp_path / "kept" / "leaderboard.json")
    new = load_board(tmp_path / "new")
    for old in (tmp_path / "old", tmp_path / "kept", tmp_path / "kept" / "leaderboard.json"):
        outcome = compare(load_board(old), new, [parse_rule("accuracy -5pp")])
        assert len(outcome.fired) == 1
        assert "bicubic" in outcome.fired[0]
        assert render_comparison(outcome, width=100)


def test_records_count_before_a_stale_leaderboard(tmp_path: Path) -> None:
    store_run(tmp_path / "run", 0.7)
    stale = (tmp_path / "run" / "leaderboard.json").read_text(encoding="utf-8")
    store_run(tmp_path / "run", 0.6)
    (tmp_path / "run" / "leaderboard.json").write_text(stale, encoding="utf-8")
    found = {row.method: row["accuracy"] for row in load_board(tmp_path / "run").rows}
    assert found["bicubic"] == pytest.approx(0.6)


def test_missing_places_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        load_board(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no records"):
        load_board(tmp_path)


def test_failed_cell_in_new_records_fires(tmp_path: Path) -> None:
    store_run(tmp_path / "old", 0.7)
    store_run(tmp_path / "new", 0.7)
    folder = cell_folder(tmp_path / "new", "photos-0.32", "net", "bicubic", None)
    failed = dataclasses.replace(load_cell(folder).record, status="error", reason="NaN in the output")
    commit_cell(folder, failed, None)
    outcome = compare(load_board(tmp_path / "old"), load_board(tmp_path / "new"), [parse_rule("accuracy -50pp")])
    assert [line for line in outcome.fired if "bicubic is error in NEW: NaN in the output" in line]


# --- paired ----------------------------------------------------------------------------------------------------------

LABELS = np.arange(400) % 4


def stored(root: Path, *wrong: int, **options: Any) -> Leaderboard:
    """Store bilinear and a network that is wrong on these of 400 samples; return their board."""
    for method, missed in (("bilinear", range(200)), ("esrgan", wrong)):
        preds = LABELS.copy()
        preds[list(missed)] = (preds[list(missed)] + 1) % 4
        role = "network" if method == "esrgan" else "baseline"
        commit(root, make_record(method, n=400, role=role), make_samples(LABELS, preds))
    return leaderboard.build(find_records([root])[0], draws=1000, **options)


def test_paired_rules_test_non_inferiority_and_say_interval_and_margin(tmp_path: Path) -> None:
    old = stored(tmp_path / "old", *range(40))
    for name, wrong, margin, fires in (
        ("equal", range(40), "-0.3pp", False),  # the same decisions: the interval is 0
        ("swapped", [*range(20), *range(100, 120)], "-1pp", True),  # no change, but 40 decisions of 400 differ
        ("swapped a little", [*range(38), 100, 101], "-2pp", False),
        ("worse", [*range(70)], "-3pp", True),  # 7.5 points, all of the interval beyond the margin
        ("better", [*range(10)], "-0.3pp", False),
    ):
        new = stored(tmp_path / name, *wrong)
        rules = [parse_rule(f"accuracy {margin}")]
        result = compare(old, new, rules, paired=True)
        assert bool(result.fired) == fires, (name, result.fired)
        change = next(change for change in result.changes if change.row.method == "esrgan")
        before, after = change.values["accuracy"]
        assert before is not None and after is not None
        low, high = change.ci["accuracy"]
        assert low <= after - before <= high
        # the textbook interval of a paired difference of shares
        only = [len(set(wrong) - set(range(40))), len(set(range(40)) - set(wrong))]
        width = 1.96 * math.sqrt(sum(only) - (only[0] - only[1]) ** 2 / 400) / 400
        assert (high - low) / 2 == pytest.approx(width, rel=0.15, abs=1e-9)
        if fires:
            (said,) = result.fired
            assert f"[{low:+.4g}, {high:+.4g}] on the same 400 samples" in said and f"'accuracy {margin}'" in said
            assert ("is beyond the margin" in said) == (name == "worse")
    assert not compare(old, stored(tmp_path / "again", *range(20), *range(100, 120)), rules).fired


def test_paired_costs_are_compared_as_they_are(tmp_path: Path) -> None:
    old, new = (stored(tmp_path / name, *range(40)) for name in ("old", "new"))
    slower = tuple(dataclasses.replace(row, values={**row.values, "latency_ms": 9.0}) for row in new.rows)
    rules = [parse_rule("latency_ms +10%"), parse_rule("cross_entropy +0.5")]
    fired = compare(old, dataclasses.replace(new, rows=slower), rules, paired=True).fired
    assert len(fired) == 2 and all("latency_ms went from 4 to 9, beyond" in line for line in fired)


def test_paired_needs_samples_of_both_sides_and_metrics_with_intervals(tmp_path: Path) -> None:
    board = stored(tmp_path / "old", *range(40))
    tables.write(board, tmp_path)
    with pytest.raises(IncomparableError, match="needs the samples of NEW"):
        compare(board, load_board(tmp_path / "leaderboard.json"), paired=True)
    with pytest.raises(IncomparableError, match="drawn otherwise"):
        compare(board, stored(tmp_path / "old", *range(40), seed=7), paired=True)
    with pytest.raises(UsageError, match=r"top5 has no interval here.*accuracy"):
        compare(board, board, [parse_rule("top5 -1pp")], paired=True)
