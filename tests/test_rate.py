"""`srbench rate`: bytes are those of the files, BD-rate is that of others, and the cheapest setting is the cheapest."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from srbench.cli import app
from srbench.data.catalogue import open_source
from srbench.data.hr_cache import build_hr_store
from srbench.errors import UsageError
from srbench.evaluation.rate import WHOLE, rate, shrunk
from srbench.evaluation.restored import RestoredBatch
from srbench.imaging.compression import encode
from srbench.leaderboard.sendings import read_sendings
from srbench.metrics.stats.bd_rate import bd_rate, frontier
from srbench.protocol import load_protocol

OPTIONS = {"data": "demo", "classifier": "demo-resnet", "limit": 16, "codecs": ["jpeg", "webp"], "qualities": [20, 80]}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    side = int(build_hr_store(open_source("demo", None), load_protocol("demo").hr, limit=1).shapes.min())
    out = tmp_path_factory.mktemp("rate")
    return out, side, rate(["bilinear", "nearest"], sides=[side, side // 3], out=out, progress=False, **OPTIONS)


def test_every_setting_is_there_once(result):
    _, side, found = result
    made = {(each.setting.side, each.setting.codec, each.setting.quality, each.setting.method) for each in found.scored}
    wanted = {(side, codec, quality, WHOLE) for codec in OPTIONS["codecs"] for quality in OPTIONS["qualities"]}
    wanted |= {
        (side // 3, codec, quality, method)
        for codec in OPTIONS["codecs"] for quality in OPTIONS["qualities"] for method in ("bilinear", "nearest")
    }  # fmt: skip
    assert made == wanted and len(found.scored) == len(wanted)


def test_stored_bytes_are_those_of_a_new_encoding(result):
    out, _, _ = result
    stored = json.loads((out / "rate.json").read_text(encoding="utf-8"))
    protocol = load_protocol("demo")
    store = build_hr_store(open_source("demo", None), protocol.hr, limit=16)
    assert stored["ids"] == [sample.id for sample in store.samples]
    for setting in stored["settings"]:
        for position in (0, 7):
            sent = shrunk(store.batch([position]).float() / 255, setting["side"], protocol)[0]
            data = encode(sent.permute(1, 2, 0).contiguous().numpy(), setting["codec"], setting["quality"])
            assert setting["bytes"][position] == len(data)


def test_what_is_stored_says_what_the_table_says(result):
    out, _, found = result
    stored = json.loads((out / "rate.json").read_text(encoding="utf-8"))["settings"]
    for setting, scored in zip(stored, found.scored, strict=True):
        assert setting["accuracy"] == np.mean(setting["right"]) == scored.point[1]
        assert setting["mean_bytes"] == np.mean(setting["bytes"])
        assert setting["ci"][0] <= setting["accuracy"] <= setting["ci"][1]
    assert [each.label for each in read_sendings([out]).settings] == [each.setting.label for each in found.scored]
    points = [(setting["mean_bytes"], setting["accuracy"]) for setting in stored]
    for number, (point, setting) in enumerate(zip(points, stored, strict=True)):
        beaten = any(other[0] <= point[0] and other[1] >= point[1] and other != point for other in points)
        assert setting["frontier"] == (not beaten and points.index(point) == number)


def test_a_better_quality_takes_more_bytes_and_a_smaller_side_fewer(result):
    _, side, found = result
    mean = {(each.setting.side, each.setting.codec, each.setting.quality): each.point[0] for each in found.scored}
    for codec in OPTIONS["codecs"]:
        assert mean[side, codec, 20] < mean[side, codec, 80]
        assert mean[side // 3, codec, 80] < mean[side, codec, 80]


def test_the_cheapest_setting_is_the_cheapest(result):
    _, _, found = result
    for wanted in (0.0, 0.3, 0.5, 0.7, 0.9):
        enough = [each.point[0] for each in found.scored if each.point[1] >= wanted]
        cheapest = found.cheapest(wanted)
        assert (cheapest is None) == (not enough)
        assert cheapest is None or cheapest.point[0] == min(enough)
    assert found.cheapest(1.01) is None


def test_a_method_of_fixed_factor_runs_once_for_all_input_sizes(monkeypatch):
    batches = []

    class Watched(RestoredBatch):
        def __init__(self, *args):
            super().__init__(*args)
            batches.append(self)

    monkeypatch.setattr("srbench.evaluation.rate.RestoredBatch", Watched)
    found = rate(["darionet", "bilinear"], sides=[16], progress=False, **OPTIONS | {"codecs": ["jpeg"]})
    calls = {name: {each.calls for each in batches if each.loaded.name == name} for name in ("darionet", "bilinear")}
    assert calls["darionet"] == {1}
    assert calls["bilinear"] == {2}  # 32 and 64 pixels
    assert len(found.scored) == 4


# --- BD-rate, held against one written from the papers alone ---------------------------------------------------------


def slopes(x, y):
    """Return the slopes of Fritsch and Butland's monotone cubic, as PCHIP has them."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    if len(x) == 2:
        return np.array([d[0], d[0]])
    m = np.zeros(len(x))
    for k in range(1, len(x) - 1):
        if d[k - 1] * d[k] > 0:
            w1, w2 = 2 * h[k] + h[k - 1], h[k] + 2 * h[k - 1]
            m[k] = (w1 + w2) / (w1 / d[k - 1] + w2 / d[k])
    for end, (a, b) in ((0, (0, 1)), (-1, (-1, -2))):
        slope = ((2 * h[a] + h[b]) * d[a] - h[a] * d[b]) / (h[a] + h[b])
        if np.sign(slope) != np.sign(d[a]):
            slope = 0.0
        elif np.sign(d[a]) != np.sign(d[b]) and abs(slope) > 3 * abs(d[a]):
            slope = 3 * d[a]
        m[end] = slope
    return m


def hermite(x, y, at):
    m = slopes(x, y)
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = x[k + 1] - x[k]
    t = (at - x[k]) / h
    return (
        (1 + 2 * t) * (1 - t) ** 2 * y[k] + t * (1 - t) ** 2 * h * m[k]
        + t**2 * (3 - 2 * t) * y[k + 1] + t**2 * (t - 1) * h * m[k + 1]
    )  # fmt: skip


def independent(reference, other):
    curves = []
    for points in (reference, other):
        kept = [p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)]
        curves.append(np.array(sorted(set(kept))))
    low, high = max(c[0, 1] for c in curves), min(c[-1, 1] for c in curves)
    at = np.linspace(low, high, 20001)
    ours, theirs = (hermite(c[:, 1], np.log(c[:, 0]), at) for c in curves)
    return np.exp((theirs - ours).mean()) - 1


CURVE = st.lists(
    st.tuples(st.integers(200, 20000).map(float), st.integers(0, 200).map(lambda value: value / 200)),
    min_size=2, max_size=7, unique_by=(lambda point: point[0], lambda point: point[1]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(CURVE, CURVE)
def test_bd_rate_equals_an_independent_implementation(reference, other):
    found = bd_rate(reference, other)
    edges = [frontier(points) for points in (reference, other)]
    shares = min(edge[-1][1] for edge in edges) > max(edge[0][1] for edge in edges)
    assert (found is None) == (min(map(len, edges)) < 2 or not shares)
    assume(found is not None)
    assert found == pytest.approx(independent(reference, other), rel=2e-3, abs=2e-4)


def test_bd_rate_of_known_curves():
    curve = [(1000.0, 0.4), (2000.0, 0.6), (4000.0, 0.7)]
    assert bd_rate(curve, curve) == pytest.approx(0.0)
    assert bd_rate(curve, [(rate / 2, quality) for rate, quality in curve]) == pytest.approx(-0.5)
    assert bd_rate(curve, [(rate * 3, quality) for rate, quality in curve]) == pytest.approx(2.0)
    assert bd_rate(curve, [(1000.0, 0.8), (2000.0, 0.9)]) is None


@pytest.mark.parametrize(
    ("wrong", "option"),
    [({"sides": []}, "--side"), ({"codecs": ["gif"]}, "--codec"), ({"qualities": [0]}, "--quality")],
)
def test_settings_that_cannot_be_are_refused(wrong, option):
    with pytest.raises(UsageError, match=option):
        rate(**({"sides": [20]} | OPTIONS | wrong))


def test_the_command_writes_table_and_figure(tmp_path):
    words = ["rate", "--data", "demo", "--classifier", "demo-resnet", "--side", "20", "--quality", "40"]
    done = CliRunner().invoke(app, [*words, "--limit", "12", "--at-least", "0.01", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "cheapest for accuracy 0.01: 20 px jpeg q40, bilinear" in done.output
    assert (tmp_path / "rate.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert json.loads((tmp_path / "rate.json").read_text(encoding="utf-8"))["settings"][0]["codec"] == "jpeg"
