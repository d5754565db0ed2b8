"""`srbench choose` never prints what an exhaustive search over the rows rejects."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.errors import DataError, RecordError, UsageError
from srbench.leaderboard.board import Leaderboard
from srbench.leaderboard.choose import Limits, choose
from srbench.leaderboard.rows import Row
from srbench.leaderboard.sendings import Sending, Sendings, read_sendings

PROTOCOL = {"name": "clean", "fields": {"hr": {"crop": 256}, "lr": {"scale": 0.32, "lr_side": None}}}
TASKS = {
    "t": {"protocol": PROTOCOL, "dataset": {"task_type": "classification", "spec": "folder:photos"}, "devices": ["cpu"]}
}


def row(method, accuracy, ms, parameters, *, role="network", status="ok", task="t", network="net", partial=False):
    values = {"accuracy": accuracy, "latency_ms": ms, "parameters": parameters}
    return Row(
        task=task, method=method, weights=None, classifier=network, track="frozen", role=role, status=status,
        reason=None, partial=partial, n=10, values={key: value for key, value in values.items() if value is not None},
        ci={"accuracy": (accuracy - 0.01, accuracy + 0.01)} if accuracy is not None else {},
    )  # fmt: skip


def board(rows, draws=None):
    tasks = dict.fromkeys({each.task for each in rows}, TASKS["t"])
    return Leaderboard(tasks=tasks, rows=tuple(rows), per_class=pd.DataFrame(), bootstrap={}, draws=draws or {})


SHARES = st.integers(0, 20).map(lambda value: value / 20)
COSTS = st.none() | st.integers(0, 12).map(float)
ROWS = st.lists(
    st.tuples(SHARES, COSTS, st.none() | st.integers(0, 4).map(lambda value: value * 500_000),
              st.sampled_from(["network", "baseline", "control", "oracle", "precomputed"]),
              st.sampled_from(["ok", "ok", "ok", "skipped", "error"]), st.booleans()),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(ROWS, COSTS, st.none() | st.integers(0, 8).map(float), st.none() | SHARES)
def test_an_exhaustive_search_agrees(drawn, max_ms, max_mb, at_least):
    rows = [
        row(f"m{number}", accuracy, ms, parameters, role=role, status=status, partial=partial)
        for number, (accuracy, ms, parameters, role, status, partial) in enumerate(drawn)
    ]
    shippable = [
        each for each in rows
        if each.status == "ok" and not each.partial and each.role in {"network", "baseline", "control"}
    ]  # fmt: skip
    limits = Limits(max_ms, max_mb, at_least)
    if not shippable:
        with pytest.raises((DataError, UsageError)):
            choose(board(rows), limits)
        return
    choice = choose(board(rows), limits)

    def fits(each):
        ms, parameters = each["latency_ms"], each["parameters"]
        return (
            (max_ms is None or (ms is not None and ms <= max_ms))
            and (max_mb is None or (parameters is not None and 4 * parameters / 1e6 <= max_mb))
            and (at_least is None or each["accuracy"] >= at_least)
        )

    fitting = [each for each in shippable if fits(each)]
    if not fitting:
        assert choice.chosen is None
        said = choice.lines(board(rows))
        assert choice.nearest.row in shippable and choice.nearest.row.label in said[0]
        assert choice.nearest.misses(limits)
        return
    assert choice.chosen is not None and choice.chosen.row in fitting
    best = max(each["accuracy"] for each in fitting)
    assert choice.chosen.value == best
    faster = [each["latency_ms"] for each in fitting if each["accuracy"] == best and each["latency_ms"] is not None]
    assert not faster or choice.chosen.ms == min(faster)
    assert any(choice.best.row.key == each.row.key for each in choice.frontier)


@settings(max_examples=300, deadline=None)
@given(ROWS)
def test_the_frontier_is_what_an_exhaustive_search_leaves(drawn):
    rows = [row(f"m{number}", accuracy, ms, parameters) for number, (accuracy, ms, parameters, *_) in enumerate(drawn)]
    infinite = float("inf")

    def costs(each):
        ms, parameters = each["latency_ms"], each["parameters"]
        return (-each["accuracy"], infinite if ms is None else ms, infinite if parameters is None else parameters)

    beaten = {
        each.method
        for each in rows
        for other in rows
        if costs(other) != costs(each) and all(a <= b for a, b in zip(costs(other), costs(each), strict=True))
    }
    front = [each.row.method for each in choose(board(rows), Limits()).frontier]
    assert set(front) == {each.method for each in rows} - beaten
    assert front == sorted(front, key=lambda name: costs(next(each for each in rows if each.method == name)))


def sending(accuracy, mean_bytes, method, number=0):
    right = tuple(int(place < round(10 * accuracy)) for place in range(10))
    return Sending(
        side=64, codec="webp", quality=1 + number, method=method, mean_bytes=mean_bytes, accuracy=accuracy,
        ci=(accuracy, accuracy), best_input_sizes=(160, 160), frontier=True, bytes=(1,) * 10, right=right,
    )  # fmt: skip


def sent(settings_):
    return Sendings(1, "net", {}, tuple(map(str, range(10))), tuple(settings_), ())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(1, 9), st.sampled_from(["whole", "a", "b", "gone"])), min_size=1,
             max_size=8),
    st.none() | st.integers(0, 10).map(float), COSTS, st.none() | SHARES,
)  # fmt: skip
def test_an_exhaustive_search_over_what_was_sent_agrees(drawn, max_bytes, max_ms, at_least):
    table = board([row("a", 0.9, 3.0, 500_000), row("b", 0.8, None, 0)])
    known = {"whole": 0.0, "a": 3.0, "b": None, "gone": None}
    made = [sending(share / 10, 1.0 * size, name, at) for at, (share, size, name) in enumerate(drawn)]
    limits = Limits(max_ms=max_ms, at_least=at_least, max_bytes=max_bytes)
    fitting = [
        each for each in made
        if (max_bytes is None or each.mean_bytes <= max_bytes)
        and (max_ms is None or (known[each.method] is not None and known[each.method] <= max_ms))
        and (at_least is None or each.accuracy >= at_least)
    ]  # fmt: skip
    choice = choose(table, limits, sendings=sent(made))
    if not fitting:
        assert choice.chosen is None and choice.nearest.label in choice.lines(table)[0]
        return
    best = max(each.accuracy for each in fitting)
    assert choice.chosen.sending in fitting and choice.chosen.value == best
    assert choice.chosen.bytes == min(each.mean_bytes for each in fitting if each.accuracy == best)


def test_what_is_sent_is_shipped_at_its_own_sizes_and_what_the_limit_of_bytes_costs_is_paired():
    table = board([row("a", 0.9, 3.0, 500_000)])
    sendings = sent([sending(0.9, 9000.0, "whole"), sending(0.8, 3000.0, "a", 1)])
    choice = choose(table, Limits(max_bytes=4000.0), sendings=sendings)
    said = choice.lines(table)
    assert said[0].startswith("64 px webp q2, a, frozen: accuracy 0.8000") and "3,000 bytes an image" in said[0]
    assert choice.difference[0] == pytest.approx(-0.1) and choice.difference[1] <= -0.1 <= choice.difference[2]
    assert said[-1] == ("srbench export a --classifier net --lr-size 64 --protocol clean --input-size 160 --out m.onnx")
    assert choice.header[-1] == "bytes" and choice.frontier_rows()[1][-1] == "3,000"
    assert "no method runs" in choose(table, Limits(), sendings=sendings).lines(table)[-1]
    with pytest.raises(UsageError, match="measured with net"):
        choose(table, Limits(), network="other", sendings=sendings)


def test_a_limit_of_bytes_needs_one_rate_json(tmp_path):
    with pytest.raises(UsageError, match="none of the folders"):
        read_sendings([tmp_path])
    (tmp_path / "rate.json").write_text("{}")
    with pytest.raises(RecordError, match="run srbench rate again"):
        read_sendings([tmp_path])


def test_what_the_limits_cost_has_a_paired_interval_and_a_verdict():
    rows = [row("slow", 0.80, 100.0, 600_000), row("fast", 0.78, 10.0, 100_000), row("bilinear", 0.5, 1.0, 0)]
    noise = np.random.default_rng(0).normal(0, 0.03, 1000)
    draws = {
        each.key: {"accuracy": each["accuracy"] + noise + shift}
        for each, shift in zip(rows, (0.0, np.random.default_rng(1).normal(0, 0.004, 1000), 0.0), strict=True)
    }
    table = board(rows, draws)
    choice = choose(table, Limits(max_ms=20.0, margin=0.01))
    assert choice.chosen.row.method == "fast"
    loss, low, high = choice.difference
    assert loss == pytest.approx(-0.02) and -0.03 < low < -0.02 < high < -0.01  # the noise that both share is gone
    assert choice.non_inferior is False
    assert choose(table, Limits(max_ms=20.0, margin=0.05)).non_inferior is True
    said = choice.lines(table)
    assert "the limits cost 0.0200" in said[1] and "may be inferior" in said[1]
    assert said[-1] == "srbench export fast --classifier net --lr-size 81 --protocol clean --out m.onnx"
    assert [each.row.method for each in choice.frontier] == ["slow", "fast", "bilinear"]


def test_an_exported_row_counts_its_file_and_is_exported_as_it_was_made():
    plain = row("a", 0.8, 10.0, 1_000_000)
    int8 = dataclasses.replace(
        plain, method="a[onnx-int8]", runtime="onnx-int8", restoring_mb=1.5, best_input_sizes=(160, 160),
        calibration={"spec": "folder:training", "split": None, "images": 100},
    )  # fmt: skip
    table = board([plain, int8])
    choice = choose(table, Limits(max_mb=2.0))
    assert choice.chosen.row.method == "a[onnx-int8]" and "1.5 MB of the exported file" in choice.lines(table)[0]
    assert choice.lines(table)[-1] == (
        "srbench export a --classifier net --lr-size 81 --protocol clean --input-size 160 --data folder:photos"
        " --precision int8 --calibrate folder:training --calibrate-images 100 --out m.onnx"
    )


def test_without_limits_the_best_is_chosen_at_no_cost():
    rows = [row("slow", 0.80, 100.0, 600_000), row("worse", 0.7, 200.0, 700_000)]
    choice = choose(board(rows), Limits())
    assert "cost nothing" in choice.lines(board(rows))[1]
    assert [each.row.method for each in choice.frontier] == ["slow"]


def test_nothing_fits_says_what_the_nearest_misses():
    rows = [row("slow", 0.80, 66.0, 2_000_000), row("fast", 0.5, 10.0, 0)]
    choice = choose(board(rows), Limits(max_ms=60.0, max_mb=10.0, at_least=0.75))
    assert choice.lines(board(rows)) == [
        "nothing in the records keeps within the limits; nearest is slow: 66 ms, allowed are 60"
    ]


def test_several_tables_need_a_name():
    rows = [row("a", 0.5, 1.0, 0), row("b", 0.6, 1.0, 0, network="other")]
    with pytest.raises(UsageError, match=r"--network: net, other"):
        choose(board(rows), Limits())
    assert choose(board(rows), Limits(), network="other").chosen.row.method == "b"
    with pytest.raises(UsageError, match="not in the records"):
        choose(board(rows), Limits(), network="third")


@pytest.mark.parametrize("limits", [{"max_ms": -1.0}, {"max_bytes": -1.0}, {"max_mb": float("nan")}, {"margin": -0.1}])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(UsageError, match="takes a number"):
        Limits(**limits)
