"""The report's figures: their numbers against records and samples, their looks, and every awkward set of records."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from record_factory import FIELDS, commit, make_record, make_samples, predictions, write_board
from scipy.stats import kendalltau, rankdata, spearmanr
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from srbench import leaderboard
from srbench.leaderboard import Leaderboard, Row
from srbench.leaderboard.choose import Limits, choose
from srbench.metrics import stats
from srbench.records.cells import StoredCell, find_records
from srbench.records.schema import DatasetPart, Record, TimingPart
from srbench.report.drawn import INK, Drawn
from srbench.report.figures import draw_all, sections
from srbench.report.figures.style import NEUTRAL, PALETTE, Looks, counted, metric_prefix, plain, slug

SECTIONS = tuple(section.name for section in sections())
# drawn from records of several input sizes, degradations or slices, in test_input_size, test_shift and test_slices
ELSEWHERE = {"box-sizes", "class-scores", "input-size", "shifts", "slices"}
# Those that the lists below speak of; a further section is judged by tests of its own.
LISTED = {"classes", "correlation", "cost", "resampler", "scores", "sweep", "training", "transfer"}

N = 240
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")
TASK = "photos-0.32"
HISTORY = {
    "epoch": [0, 1, 2, 3],
    "loss": [None, 3.0, 2.0, 1.5],
    "loss_l1": [None, 0.05, 0.04, 0.03],
    "loss_logits": [None, 2.5, 1.5, 1.2],
    "val_ce": [1.9, 1.2, 1.0, 1.1],
    "val_ce_hr": [0.8, 0.8, 0.8, 0.8],
    "val_ce_difference": [1.1, 0.4, 0.2, 0.3],
    "val_psnr": [25.0, 24.0, None, 24.5],
    "val_accuracy": [0.5, 0.6, 0.7, 0.65],
    "val_agreement:one": [0.5, 0.7, 0.8, 0.8],
    "val_agreement:two": [0.6, None, 0.6, 0.65],
    "seconds": [None, 9.0, 9.0, 9.0],
}


@dataclass(frozen=True)
class World:
    """Records with their leaderboard and every figure."""

    root: Path
    cells: list[StoredCell]
    board: Leaderboard
    figures: list[Drawn]

    def named(self, start: str) -> Drawn:
        """Return the one figure whose name starts so."""
        (found,) = [drawn for drawn in self.figures if drawn.name.startswith(start)]
        return found

    def row(self, **wanted: Any) -> Row:
        """Return the one row with these values."""
        (found,) = [row for row in self.board.rows if all(getattr(row, k) == v for k, v in wanted.items())]
        return found

    def samples(self, method: str, classifier: str = "net", task: str = TASK) -> pd.DataFrame:
        """Return the samples of a cell."""
        (cell,) = [
            each
            for each in self.cells
            if (each.record.cell.method, each.record.cell.classifier, each.record.cell.task)
            == (method, classifier, task)
        ]
        return cell.samples()


def _world(root: Path, *, draws: int = 60, only: Sequence[str] = SECTIONS) -> World:
    cells, problems = find_records([root])
    assert not problems
    board = leaderboard.build(cells, draws=draws)
    return World(root, cells, board, [drawn for drawn in draw_all(board, cells) if drawn.section in only])


def _fields(scale: float = 0.32, kernel: str = "bicubic", antialias: bool = True) -> dict[str, dict[str, Any]]:
    return {"hr": {"crop": 256}, "lr": {"scale": scale, "lr_side": None, "kernel": kernel, "antialias": antialias},
            "sr": {"kernel": "bicubic", "antialias": True}, "score": dict(FIELDS["score"])}  # fmt: skip


def _scores(labels: np.ndarray, preds: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0.05, 1.0, (len(labels), len(NAMES)))
    noise[np.arange(len(labels)), preds] += 1.2
    return (noise / noise.sum(axis=1, keepdims=True)).astype(np.float32)


def _with_card(record: Record, *, teacher: str | None, history: Any = None, selected: int | None = None) -> Record:
    weights = record.method.weights
    assert weights is not None
    extra = {} if selected is None else {"selected_epoch": selected, "selected_by": "ce_difference"}
    card = {"teacher": None if teacher is None else {"id": teacher, "sha256": "b" * 64}, "extra": extra}
    part = dataclasses.replace(weights, card=card, sha256=weights.label.encode().hex().ljust(64, "0")[:64])
    return dataclasses.replace(
        record,
        method=dataclasses.replace(record.method, weights=part),
        training=None if history is None else {"recipe": {}, "history": history},
    )


def _write_tables(root: Path, tasks: Sequence[tuple[str, str, dict[str, dict[str, Any]], float]]) -> None:
    """Write tables of (task, classifier, fields, how much easier): all methods for TASK and "net", else a few."""
    labels = np.arange(N) % len(NAMES)
    hr = predictions(labels, 0.9, seed=0, classes=len(NAMES))
    plans = [
        ("original", "control", None, "frozen", 0.9, 0.0, None),
        ("none", "control", None, "frozen", 0.3, 0.0, 0.01),
        ("bilinear", "baseline", None, "frozen", 0.45, 0.004, 0.05),
        ("bicubic", "baseline", None, "frozen", 0.52, 0.003, 0.1),
        ("lanczos", "baseline", None, "frozen", 0.55, 0.0028, 0.2),
        ("esrgan", "network", "demo-x4", "frozen", 0.7, 0.006, 13.0),
        ("darionet", "network", "demo-x4", "frozen", 0.8, 0.005, 14.0),
        ("learned_resizer", "network", "demo-adapted", "adapted", 0.85, 0.01, 2.5),
        ("retrained", "control", "demo", "adapted", 0.75, 0.004, 0.1),
    ]
    for place, (task, classifier, fields, shift) in enumerate(tasks):
        for seed, (method, role, weights, track, accuracy, mse, latency) in enumerate(plans):
            if (task, classifier) != (TASK, "net") and method in ("none", "learned_resizer", "retrained"):
                continue
            level = accuracy if method == "original" else accuracy + shift
            if (task, method) == ("photos-linear", "lanczos"):
                level = 0.75
            errors = None if method == "none" else mse * np.random.default_rng(seed).uniform(0.5, 1.5, N)
            preds = predictions(labels, level, seed=seed + 10 * place, classes=len(NAMES))
            record = make_record(
                method, task=task, classifier=classifier, role=role, weights=weights, track=track, n=N,
                fields=fields, names=NAMES,
            )  # fmt: skip
            costs = TimingPart(
                latency_ms=None if latency is None else dataclasses.replace(record.timing.latency_ms, median=latency)
            )
            network = weights is not None and role == "network"
            record = dataclasses.replace(
                record,
                timing=costs,
                method=dataclasses.replace(
                    record.method, n_parameters=10_000 * seed if network else 0, macs=1e8 if network else 0.0
                ),
            )
            if method == "lanczos":
                record = dataclasses.replace(record, method=dataclasses.replace(record.method, macs=None))
            if network:
                history = {"darionet": HISTORY, "esrgan": [dict(zip(HISTORY, line, strict=True)) for line in
                           zip(*HISTORY.values(), strict=True)]}.get(method)  # fmt: skip
                record = _with_card(record, teacher="net", history=history, selected=2 if history else None)
            samples = make_samples(labels, preds, hr_preds=hr, mse=errors, seed=seed)
            scores = _scores(labels, preds, seed)
            samples = pd.concat([samples, pd.DataFrame({f"score_{k:03d}": scores[:, k] for k in range(6)})], axis=1)
            commit(root, record, samples)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One task under two classifiers."""
    root = tmp_path_factory.mktemp("figures")
    _write_tables(root, [(TASK, "net", _fields(), 0.0), (TASK, "vit", _fields(), -0.03)])
    return _world(root)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One classifier at three scales and with three resamplers, the figures that compare them."""
    root = tmp_path_factory.mktemp("family")
    tasks = [
        ("photos-0.25", "net", _fields(0.25), -0.08),
        ("photos-mid", "net", _fields(), 0.0),
        ("photos-0.5", "net", _fields(0.5), 0.05),
        ("photos-linear", "net", _fields(kernel="bilinear", antialias=False), -0.01),
        ("photos-plain", "net", _fields(antialias=False), -0.02),
    ]
    _write_tables(root, tasks)
    return _world(root, only=("sweep", "resampler"))


def _svgs(figures: Sequence[Drawn]) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [drawn.svg() for drawn in figures]


def _check(figures: Sequence[Drawn], *, layout: bool = True) -> list[str]:
    """Check what holds for figures of whatever records, and return their SVG.

    Finding room for labels is half of the time, and can be left out.
    """
    for drawn in () if layout else figures:
        drawn.figure.set_layout_engine("none")
    assert len({drawn.name for drawn in figures}) == len(figures)
    svgs = _svgs(figures)
    for drawn, svg in zip(figures, svgs, strict=True):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", drawn.name), drawn.name
        assert drawn.section in SECTIONS and drawn.title and drawn.caption.endswith("."), drawn.name
        json.dumps(drawn.data, allow_nan=False)
        assert svg.count("<svg") == 1 and "NaN" not in svg and "nan" not in re.sub(r">[^<]*<", "><", svg), drawn.name
        assert set(re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r">[^<]*<", "><", svg))) <= {INK, NEUTRAL, *PALETTE}, (
            drawn.name
        )
    return svgs


# --- all figures -------------------------------------------------------------------------------------------------


def test_every_kind_of_figure_is_drawn_in_ink_and_series_colours_alone(world: World, family: World) -> None:
    together = [*world.figures, *family.figures]
    assert {drawn.section for drawn in together} == set(SECTIONS) - ELSEWHERE
    for each in (world, family):
        assert [d.section for d in each.figures] == sorted((d.section for d in each.figures), key=SECTIONS.index)
        _check(each.figures)
    told = [drawn for drawn in together if drawn.section != "training"]
    assert all(f"{N} images" in drawn.caption for drawn in told)


def test_the_same_records_give_the_same_bytes_twice_over(world: World) -> None:
    again = list(itertools.islice(draw_all(world.board, world.cells), 8))
    assert [drawn.data for drawn in again] == [drawn.data for drawn in world.figures[:8]]
    for first, second in ((world.figures[0], again[0]), (world.figures[7], again[7])):
        assert first.section == second.section and len({first.svg(), second.svg(), second.svg()}) == 1


def test_png_and_ground(world: World) -> None:
    drawn = world.figures[0]
    assert drawn.png(dpi=50).startswith(b"\x89PNG")
    assert "#fefefe" in drawn.svg(ground="#fefefe") and "#fefefe" not in drawn.svg()


def test_no_text_lies_on_another_or_leaves_its_figure(
    world: World, family: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_texts: dict[int, tuple[str, Any]] = {}
    draw = matplotlib.text.Text.draw

    def record(self: matplotlib.text.Text, renderer: Any) -> None:
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            drawn_texts[id(self)] = self.get_text(), self.get_window_extent(renderer)  # the layout draws too

    monkeypatch.setattr(matplotlib.text.Text, "draw", record)
    seen = 0
    for each in (*world.figures, *family.figures):
        # Slanted labels have boxes much larger than their letters; the second classifier's figures are as the first's.
        if "-space-" in each.name or each.classifier == "vit":
            continue
        drawn_texts.clear()
        each.png(dpi=100)
        page = each.figure.bbox
        for text, box in drawn_texts.values():
            assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1, (each.name, text)
            assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, (each.name, text)
        for (one, a), (other, b) in itertools.combinations(drawn_texts.values(), 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            up = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 1 or up < 1, (each.name, one, other)
        seen += len(drawn_texts)
    assert seen > 400


def test_series_colours_have_contrast_on_light_and_dark_pages() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colour in (*PALETTE, NEUTRAL):
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour
        assert (luminance(colour) + 0.05) / (luminance("#14171c") + 0.05) >= 3, colour
    assert INK not in (*PALETTE, NEUTRAL)


def test_a_method_looks_the_same_in_whatever_order_and_controls_are_hollow(world: World) -> None:
    looks, turned = Looks(world.board.rows), Looks(reversed(world.board.rows))
    for row in world.board.rows:
        assert looks.of(row) == turned.of(row)
        assert looks.of(row).hollow == (row.role == "control")
    frozen = {looks.of(row) for row in world.board.rows}
    assert len(frozen) == len({(row.label, row.track) for row in world.board.rows})
    many = [dataclasses.replace(world.board.rows[3], method=f"m{at}") for at in range(40)]
    assert len({Looks(many).of(row) for row in many}) == 40


# --- cost --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["latency_ms", "macs", "parameters"])
def test_cost_shows_the_rows_of_the_leaderboard(world: World, field: str) -> None:
    name = field.removesuffix("_ms")
    data = world.named(f"cost-{name}-photos-0-32-net").data
    rows = [row for row in world.board.rows if (row.task, row.classifier) == (TASK, "net") and row.role != "oracle"]
    known = [row for row in rows if row[field] is not None]
    assert data["left_out"] == [row.label for row in rows if row not in known]
    assert (data["left_out"] == ["lanczos"]) == (field == "macs")
    assert data["oracle"] == world.row(task=TASK, classifier="net", method="original")["accuracy"]
    assert len(data["points"]) == len(known)
    for point, row in zip(data["points"], known, strict=True):
        assert (point["method"], point["weights"], point["track"]) == (row.method, row.weights, row.track)
        assert (point["x"], point["y"]) == (row[field], row["accuracy"])
        assert (point["low"], point["high"]) == row.ci["accuracy"]
        ends = (row["latency_p10_ms"], row["latency_p90_ms"]) if field == "latency_ms" else (None, None)
        assert (point.get("x_low"), point.get("x_high")) == ends
        rivals = [each for each in known if each.track == row.track and each.role != "control"]
        beaten = any(
            rival[field] <= point["x"] and (rival["accuracy"] or 0) >= point["y"]
            and (rival[field], rival["accuracy"]) != (point["x"], point["y"])
            for rival in rivals
        )  # fmt: skip
        assert point["on_front"] == (row.role != "control" and not beaten)
    assert sum(point["on_front"] for point in data["points"]) >= 2


# --- sweep, resampler, transfer ----------------------------------------------------------------------------------


def test_the_frontier_is_what_choose_prints(world: World) -> None:
    for classifier in ("net", "vit"):
        drawn = world.named(f"frontier-photos-0-32-{classifier}")
        choice = choose(world.board, Limits(), task=TASK, network=classifier)
        on_front = [each["method"] for each in drawn.data["candidates"] if each["on_front"]]
        assert on_front == [each.row.method for each in choice.frontier] and "darionet" in on_front
        beaten = len(drawn.data["candidates"]) - len(on_front)
        assert bool(beaten) == (classifier == "net")
        legend = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
        assert len(legend) == len(on_front) + bool(beaten) and legend[0].startswith(on_front[0])


@pytest.mark.parametrize("name", ["accuracy", "psnr"])
def test_a_sweep_follows_each_method_over_the_scales_with_the_area_below(family: World, name: str) -> None:
    drawn = family.named(f"sweep-{name}")
    assert drawn.data["scales"] == [0.25, 0.32, 0.5]
    assert drawn.data["tasks"] == ["photos-0.25", "photos-mid", "photos-0.5"]
    lines = {(line["method"], line["track"]): line for line in drawn.data["series"]}
    assert {method for method, _ in lines} == {"bilinear", "bicubic", "lanczos", "esrgan", "darionet"}
    for (method, track), line in lines.items():
        values = [
            family.row(task=task, classifier="net", method=method, track=track)[name] for task in drawn.data["tasks"]
        ]
        assert [point["value"] for point in line["points"]] == values
        assert line["area"] == pytest.approx(np.trapezoid(values, [0.25, 0.32, 0.5]) / 0.25)
    areas = [line["area"] for line in drawn.data["series"]]
    assert areas == sorted(areas, reverse=True)


def test_a_scale_that_lacks_a_method_leaves_its_area_open(tmp_path: Path) -> None:
    labels = np.arange(60) % 4
    for scale, methods in ((0.25, ("original", "bilinear", "bicubic")), (0.5, ("original", "bilinear"))):
        for seed, method in enumerate(methods):
            record = make_record(method, task=f"t-{scale}", fields=_fields(scale))
            commit(tmp_path, record, make_samples(labels, predictions(labels, 0.8, seed=seed), seed=seed))
    data = _world(tmp_path).named("sweep-accuracy").data
    assert {line["method"]: line["area"] is None for line in data["series"]} == {"bilinear": False, "bicubic": True}


def test_ranks_under_each_resampler(family: World) -> None:
    table, ranks = family.named("resampler-table").data, family.named("resampler-ranks").data
    assert ranks["choices"] == ["bicubic, no antialias", "bicubic, antialias", "bilinear, no antialias"]
    for line in table["rows"]:
        for task, value in zip(table["tasks"], line["values"], strict=True):
            assert (
                value == family.row(task=task, classifier="net", method=line["method"], track=line["track"])["accuracy"]
            )
    assert {line["method"] for line in ranks["rows"]} == {"bilinear", "bicubic", "lanczos", "esrgan", "darionet"}
    expected = np.column_stack(
        [rankdata([-line["values"][at] for line in ranks["rows"]], method="min") for at in range(3)]
    )
    assert [line["ranks"] for line in ranks["rows"]] == expected.astype(int).tolist()
    moved = [line["label"] for line in ranks["rows"] if len(set(line["ranks"])) > 1]
    assert ranks["changed"] == moved and "lanczos" in moved and "bilinear" not in moved


def test_transfer_is_the_recovered_gap_of_each_classifier(world: World) -> None:
    data = world.named("transfer-photos-0-32").data
    assert data["classifiers"] == ["net", "vit"]
    assert [(line["method"], line["teacher"]) for line in data["rows"]] == [("darionet", "net"), ("esrgan", "net")]
    for line in data["rows"]:
        for classifier, gap in line["gaps"].items():
            row = world.row(task=TASK, classifier=classifier, method=line["method"])
            assert gap["value"] == row["recovered_gap"] is not None
            assert (gap["low"], gap["high"]) == row.ci["recovered_gap"]


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["darionet", "esrgan"])
def test_training_curves_are_those_of_the_card_as_columns_or_rows(world: World, method: str) -> None:
    data = world.named(f"training-{method}").data
    assert (data["selected_epoch"], data["selected_by"]) == (2, "ce_difference")
    assert data["history"] == {name: values for name, values in HISTORY.items() if name != "seconds"}


def test_weights_without_a_usable_history_have_no_curves(tmp_path: Path) -> None:
    labels = np.arange(60) % 4
    broken: list[Any] = [
        *(None, {}, [], "text", [1, 2], {"loss": [1.0]}),
        {"epoch": [0, None], "val_psnr": [1.0, 2.0]},
        {"epoch": [0, 1], "val_psnr": [None, None]},
        {"epoch": [0, 1], "val_ce_hr": [0.5, 0.5]},
        {"epoch": [0], "val_psnr": [1.0]},  # one epoch is no curve
    ]
    for at, history in enumerate(broken):
        record = make_record(f"m{at}", role="network", weights=f"w{at}")
        record = _with_card(record, teacher=None, history=history, selected=1)
        commit(tmp_path, record, make_samples(labels, labels, seed=at))
    assert [drawn for drawn in _world(tmp_path).figures if drawn.section == "training"] == []


# --- classes -----------------------------------------------------------------------------------------------------


def _f1(frame: pd.DataFrame) -> np.ndarray:
    return np.asarray(f1_score(frame["label"], frame["pred"], labels=range(len(NAMES)), average=None, zero_division=0))


def test_class_differences_are_those_of_the_samples(world: World) -> None:
    f1 = {name: _f1(world.samples(name)) for name in ("original", "bilinear", "darionet", "learned_resizer")}
    curves = world.named("classes-distribution-photos-0-32-net").data["curves"]
    by_method = {(curve["method"], curve["against"]): curve for curve in curves}
    assert ("bilinear", "original") in by_method and ("bilinear", "bilinear") not in by_method
    for against in ("original", "bilinear"):
        delta = f1["darionet"] - f1[against]
        curve = by_method["darionet", against]
        assert curve["mean"] == pytest.approx(delta.mean())
        assert (curve["lost"], curve["gained"]) == ((delta < -1e-12).mean(), (delta > 1e-12).mean())
        for at, share in zip(curve["delta"], curve["share"], strict=True):
            assert share == (delta <= at + 1e-12).mean()
        assert curve["share"][-1] == 1.0
    difficulty = world.named("classes-difficulty-photos-0-32-net").data
    assert difficulty["difficulty"] == pytest.approx(1 - f1["original"])
    assert [each["method"] for each in difficulty["methods"]] == ["bilinear", "darionet", "learned_resizer"]
    for each in difficulty["methods"]:
        assert each["delta"] == pytest.approx(f1[each["method"]] - f1["original"])
    space = world.named("classes-space-darionet-demo-x4-frozen-photos-0-32-net").data
    assert space["reference_f1"] == pytest.approx(f1["bilinear"])
    assert space["delta"] == pytest.approx(f1["darionet"] - f1["bilinear"])
    hardest = world.named("classes-hardest-photos-0-32-net").data
    order = np.argsort(f1["original"], kind="stable")
    assert hardest["classes"] == [NAMES[at] for at in order]
    for each in hardest["methods"]:
        assert each["f1"] == pytest.approx(f1[each["method"]][order])


@pytest.mark.parametrize("against", ["original", "bilinear"])
def test_the_classes_that_changed_most_have_the_leaderboards_intervals(world: World, against: str) -> None:
    data = world.named(f"classes-extremes-{against}-darionet-demo-x4-frozen-photos-0-32-net").data
    table = world.board.per_class
    table = table[(table["task"] == TASK) & (table["classifier"] == "net") & (table["method"] == "darionet")]
    table = table.set_index("class").loc[data["classes"]]
    for name, column in (("delta", ""), ("low", "_low"), ("high", "_high")):
        assert data[name] == table[f"f1_delta_to_{against}{column}"].tolist()
    assert data["delta"] == sorted(data["delta"], reverse=True)
    assert data["support"] == [N // len(NAMES)] * len(NAMES)


# --- scores ------------------------------------------------------------------------------------------------------


def test_confusions_are_counted_from_the_samples(world: World) -> None:
    data = world.named("scores-confusion-bilinear-frozen-photos-0-32-net").data
    frame = world.samples("bilinear")
    assert data["counts"] == confusion_matrix(frame["label"], frame["pred"], labels=range(6)).tolist()
    assert data["classes"] == data["predicted"] == list(NAMES)


def test_roc_and_calibration_are_those_of_the_samples(world: World) -> None:
    for curve in world.named("scores-roc-photos-0-32-net").data["curves"]:
        frame = world.samples(curve["method"])
        scores = frame[[f"score_{k:03d}" for k in range(6)]].to_numpy()
        positive = frame["label"].to_numpy()[:, None] == np.arange(6)
        assert curve["auc"] == pytest.approx(roc_auc_score(positive.ravel(), scores.ravel()))
        ends = [(curve["false_positive_rate"][at], curve["true_positive_rate"][at]) for at in (0, -1)]
        assert ends == [(0.0, 0.0), (1.0, 1.0)]
        drawn = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        assert drawn == pytest.approx(curve["auc"], abs=2e-3)
    data = world.named("scores-reliability-photos-0-32-net").data
    for method in data["methods"]:
        frame = world.samples(method["method"])
        row = world.row(task=TASK, classifier="net", method=method["method"], track=method["track"])
        assert method["ece"] == row["ece"]
        assert sum(method["count"]) == N
        weights = np.array(method["count"]) / N
        gaps = np.abs(np.array(method["accuracy"]) - np.array(method["confidence"]))
        assert (weights * gaps).sum() == pytest.approx(row["ece"])
        assert (weights * np.array(method["confidence"])).sum() == pytest.approx(frame["confidence"].mean())


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_rank_correlations_of_many_equal_scipy_s(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x = rng.integers(0, levels, 500) / 7
    y = np.round(x + rng.normal(size=500), 1 if levels > 2 else 0)
    assert float(stats.kendall(x, y)) == pytest.approx(kendalltau(x, y).statistic, rel=1e-12)
    assert float(stats.spearman(x, y)) == pytest.approx(spearmanr(x, y).statistic, rel=1e-12)
    assert np.isnan(stats.kendall(x, np.ones(500)))


def test_many_classes_name_their_confusions_and_take_roc_from_histograms(tmp_path: Path) -> None:
    names = tuple(f"c{at}" for at in range(60))
    labels = np.arange(600) % 60
    preds = labels.copy()
    preds[labels == 7] = 8  # ten of ten
    preds[3::60][:4] = 5  # four of ten
    positives, negatives = [1, 2, 30, 500, 67], [30_000, 5_000, 300, 90, 10]
    for method in ("original", "bilinear"):
        record = make_record(method, n=600, names=names)
        record = dataclasses.replace(record, score_histograms={"positives": positives, "negatives": negatives})
        commit(tmp_path, record, make_samples(labels, preds, seed=1))
    made = _world(tmp_path, draws=10)
    pairs = made.named("scores-confusion-bilinear").data
    assert pairs["wrong"] == 14
    told = [(pair["true"], pair["predicted"], pair["count"], pair["support"]) for pair in pairs["pairs"]]
    assert told == [("c7", "c8", 10, 10), ("c3", "c5", 4, 10)]
    (curve, _) = made.named("scores-roc").data["curves"]
    score = np.repeat(np.arange(5), positives).tolist() + np.repeat(np.arange(5), negatives).tolist()
    truth = [1] * sum(positives) + [0] * sum(negatives)
    assert curve["auc"] == pytest.approx(roc_auc_score(truth, score))
    _check(made.figures)


def test_scores_of_the_datas_classes_alone_find_their_labels(tmp_path: Path) -> None:
    fields = {"lr": dict(FIELDS["lr"]), "score": dict(FIELDS["score"]) | {"logits": "present"}}
    labels = np.array([10, 70, 71] * 20)
    scores = np.eye(3, dtype=np.float32)[np.arange(60) % 3] * 0.8 + 0.1
    for method in ("original", "bilinear"):
        record = make_record(method, fields=fields, names=tuple(map(str, range(80))))
        samples = make_samples(labels, labels, seed=0)
        samples = pd.concat([samples, pd.DataFrame({f"score_{k:03d}": scores[:, k] for k in range(3)})], axis=1)
        commit(tmp_path, record, samples)
    curve = _world(tmp_path).named("scores-roc").data["curves"][0]
    assert curve["auc"] == 1.0


# --- correlation -------------------------------------------------------------------------------------------------


def test_rank_correlation_over_methods(world: World) -> None:
    data = world.named("correlation-methods-photos-0-32-net").data
    for quality in ("psnr", "ssim"):
        rows = [
            row
            for row in world.board.rows
            if (row.task, row.classifier, row.track) == (TASK, "net", "frozen")
            and row.role != "oracle"
            and row[quality] is not None
        ]
        assert [point["method"] for point in data[quality]["points"]] == [row.method for row in rows]
        x, y = [row[quality] for row in rows], [row["accuracy"] for row in rows]
        assert data[quality]["n_methods"] == len(rows) == 5
        assert data[quality]["spearman"]["value"] == pytest.approx(spearmanr(x, y).statistic)
        assert data[quality]["kendall"]["value"] == pytest.approx(kendalltau(x, y).statistic)
        for name in ("spearman", "kendall"):
            found = data[quality][name]
            assert -1 <= found["low"] <= found["value"] + 1e-9 <= found["high"] + 2e-9 <= 1 + 3e-9


def test_rank_correlation_over_images(world: World) -> None:
    methods = world.named("correlation-images-photos-0-32-net").data["methods"]
    assert [method["method"] for method in methods] == ["darionet", "esrgan", "lanczos", "learned_resizer"]
    base = world.samples("bilinear")
    for method in methods:
        own = world.samples(method["method"])
        gain = (own["psnr"] - base["psnr"]).to_numpy(dtype=float)
        change = (own["label"] == own["pred"]).astype(int) - (base["label"] == base["pred"]).astype(int)
        sure = np.exp(-own["cross_entropy"].astype(float)) - np.exp(-base["cross_entropy"].astype(float))
        for outcome, values in (("right", change), ("probability", sure)):
            found = method["correlation"]["psnr"][outcome]
            assert found["n"] == N
            assert found["spearman"]["value"] == pytest.approx(spearmanr(gain, values).statistic, abs=1e-5)
            assert found["kendall"]["value"] == pytest.approx(kendalltau(gain, values).statistic, abs=1e-5)
            assert found["spearman"]["low"] < found["spearman"]["value"] < found["spearman"]["high"]
            total = sum(part["n"] * part[outcome]["value"] for part in method["bins"]) / N
            assert total == pytest.approx(values.mean(), abs=1e-5)
        assert sum(part["n"] for part in method["bins"]) == N
        gains = [part["psnr_gain"]["value"] for part in method["bins"]]
        assert gains == sorted(gains)


# --- awkward records ---------------------------------------------------------------------------------------------


def _one_method(root: Path) -> None:
    labels = np.arange(60) % 4
    commit(root, make_record("bilinear"), make_samples(labels, labels, mse=np.full(60, 0.01)))


def _oracle_alone(root: Path) -> None:
    labels = np.arange(60) % 4
    commit(root, make_record("original", role="control"), make_samples(labels, labels, mse=np.zeros(60)))


def _one_class(root: Path) -> None:
    labels = np.zeros(60, dtype=int)
    for seed, method in enumerate(("original", "bilinear", "bicubic", "lanczos", "area", "nearest")):
        preds = predictions(labels, 0.9 - 0.1 * seed, seed=seed)
        commit(root, make_record(method, names=("only",)), make_samples(labels, preds, mse=np.full(60, 0.01)))


def _failures(root: Path) -> None:
    nothing: dict[str, Any] = {"timing": TimingPart(), "per_class": None}
    commit(root, make_record("lanczos", status="skipped", reason="not for this task", **nothing), None)
    commit(
        root, make_record("esrgan", role="network", weights="w", status="error", reason="no memory", **nothing), None
    )


def _no_labels(root: Path) -> None:
    dataset = DatasetPart("shots", "images:shots", "all", "image", "", "7" * 64, 60, 0, (), 0, None)
    labels = np.arange(60) % 4
    for seed, method in enumerate(("original", "bilinear", "bicubic", "lanczos", "area")):
        samples = make_samples(labels, predictions(labels, 0.9 - 0.1 * seed, seed=seed), hr_preds=labels, seed=seed)
        samples = samples.assign(label=pd.NA, top5_hit=pd.NA, cross_entropy=np.nan).astype(samples.dtypes.to_dict())
        commit(root, make_record(method, dataset=dataset, per_class=None), samples)


def _no_classifier(root: Path) -> None:
    dataset = DatasetPart("set5", "images:set5", "all", "image", "", "6" * 64, 5, 0, (), 0, None)
    for scale, (seed, method) in itertools.product((0.25, 0.5), enumerate(("original", "bilinear", "bicubic"))):
        record = make_record(method, task=f"set5-{scale}", classifier=None, n=5, dataset=dataset, fields=_fields(scale))
        errors = np.zeros(5) if method == "original" else scale * 1e-2 * np.random.default_rng(seed).uniform(0.5, 1, 5)
        commit(root, record, make_samples(None, None, mse=errors, seed=seed))


def _infinite_psnr(root: Path) -> None:
    labels = np.arange(60) % 4
    for seed, method in enumerate(("original", "bilinear", "bicubic", "lanczos", "area", "nearest")):
        errors = np.zeros(60) if method != "area" else np.where(labels == 0, 0.0, 0.01)
        commit(root, make_record(method), make_samples(labels, predictions(labels, 0.8, seed=seed), mse=errors))


def _nothing_but_predictions(root: Path) -> None:
    labels = np.arange(60) % 4
    for seed, method in enumerate(("original", "bilinear", "bicubic", "none")):
        samples = make_samples(labels, predictions(labels, 0.8, seed=seed))
        for name in ("confidence", "cross_entropy", "logit_mse_to_hr", "kl_to_hr"):
            samples[name] = np.nan
        record = make_record(method, timing=TimingPart(), per_class=None)
        part = dataclasses.replace(record.method, n_parameters=None, macs=None)
        commit(root, dataclasses.replace(record, method=part), samples.astype(make_samples(labels, labels).dtypes))


def _partial(root: Path) -> None:
    labels = np.arange(60) % 4
    for seed, method in enumerate(("original", "bilinear", "bicubic")):
        commit(root, make_record(method, partial=True), make_samples(labels, predictions(labels, 0.8, seed=seed)))


def _pooled_psnr(root: Path) -> None:
    fields = {"lr": dict(FIELDS["lr"]), "score": {"psnr_reduction": "batch", "psnr_batch": 10}}
    labels = np.arange(60) % 4
    for seed, method in enumerate(("original", "bilinear", "bicubic", "lanczos", "area")):
        errors = 0.001 * (seed + 1) * np.random.default_rng(seed).uniform(0.5, 1.5, 60)
        record = make_record(method, fields=fields, role="control" if method == "original" else "baseline")
        commit(root, record, make_samples(labels, predictions(labels, 0.8, seed=seed), mse=errors))


AWKWARD = (
    "<b>&\"'</b>",
    "$x_{2}$ a$",
    "שלום 🦜",
    "_hidden",
    "two\nlines",
    "x" * 200,
    "日本語の名前",
    "../..",
    "%s {0}",
)


def _awkward_names(root: Path) -> None:
    labels = np.arange(120) % len(AWKWARD)
    for seed, name in enumerate(("original", "bilinear", *AWKWARD)):
        network = seed > 2
        record = make_record(
            name, task="<task & $1$>", classifier=AWKWARD[2], names=AWKWARD, n=120,
            role="network" if network else "baseline", weights=name if network else None,
        )  # fmt: skip
        if network:
            history = HISTORY if seed > 8 else None
            record = _with_card(record, teacher="another $ one", history=history, selected=2)
        preds = predictions(labels, 0.9 if seed == 0 else 0.4 + 0.04 * seed, seed=seed, classes=len(AWKWARD))
        errors = 0.001 * (seed + 1) * np.random.default_rng(seed).uniform(0.5, 1.5, 120)
        commit(root, record, make_samples(labels, preds, mse=errors, seed=seed))


@pytest.mark.parametrize(
    ("write", "sections"),
    [
        (_one_method, {"cost", "scores"}),
        (_oracle_alone, {"classes", "scores"}),
        (_one_class, {"cost", "scores", "correlation"}),
        (_failures, set()),
        (_no_labels, {"cost"}),
        (_no_classifier, {"cost", "sweep"}),
        (_infinite_psnr, {"cost", "classes", "scores", "correlation"}),
        (_nothing_but_predictions, {"classes", "scores"}),
        (_partial, {"cost", "classes", "scores"}),
        (_pooled_psnr, {"cost", "classes", "scores", "correlation"}),
        (write_board, {"cost", "classes", "scores", "correlation"}),
    ],
)
def test_awkward_records_leave_out_what_they_do_not_carry(
    tmp_path: Path, write: Callable[[Path], None], sections: set[str]
) -> None:
    write(tmp_path)
    made = _world(tmp_path, draws=30)
    _check(made.figures, layout=False)
    assert LISTED & {drawn.section for drawn in made.figures} == sections


def test_awkward_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    _awkward_names(tmp_path)
    figures = _world(tmp_path, draws=10).figures
    assert LISTED & {drawn.section for drawn in figures} == {"cost", "training", "classes", "scores", "correlation"}
    text = "".join(_check(figures))
    for shown in ("&lt;b&gt;&amp;", "$x_{2}$ a$", "🦜", " _hidden", "two lines", "日本語の名前", "%s {0}"):
        assert shown in text, shown
    assert "<b>" not in text


def test_a_partial_run_says_so_and_a_full_one_stands_before_it(tmp_path: Path) -> None:
    _partial(tmp_path)
    assert all("partial run" in drawn.caption for drawn in _world(tmp_path).figures)
    labels = np.arange(60) % 4
    for method in ("original", "bilinear"):
        commit(tmp_path, make_record(method), make_samples(labels, labels))
    figures = _world(tmp_path).figures
    assert figures and not any("partial run" in drawn.caption for drawn in figures)


def test_samples_in_another_order_are_paired_by_id(tmp_path: Path) -> None:
    labels = np.arange(60) % 4
    ids = [f"s{at:05d}" for at in range(60)]
    turned = np.random.default_rng(0).permutation(60)
    base = np.linspace(0.001, 0.01, 60)
    gain = np.linspace(0.5, 2.0, 60)
    for method, errors in (("original", 0 * base), ("bilinear", base), ("bicubic", base / 10 ** (gain / 10))):
        order = turned if method == "bicubic" else np.arange(60)
        preds = predictions(labels, 0.8 if method == "bicubic" else 0.6, seed=3)
        samples = make_samples(labels[order], preds[order], mse=errors[order], ids=[ids[at] for at in order])
        commit(tmp_path, make_record(method), samples)
    (method,) = _world(tmp_path, only=("correlation",)).named("correlation-images").data["methods"]
    gains = [part["psnr_gain"]["value"] for part in method["bins"]]
    assert gains == pytest.approx([part.mean() for part in np.array_split(gain, len(gains))], abs=1e-4)


def test_names_of_files_and_words() -> None:
    assert slug("demo-test-demo-0.32-d7315f") == "demo-test-demo-0-32-d7315f"
    assert slug("a/b c") == "a-b-c" and slug(None) == "none"
    names = ["A", "a", "ä", "", "🦜", "x" * 200, "x" * 201]
    assert len({slug(name) for name in names}) == len(names)
    assert plain("a\tb$") == r"a b\$" and plain("x" * 50, 10) == "x" * 9 + "…"
    assert counted(1, "patch") == "1 patch" and counted(2640, "patch") == "2,640 patches"
    assert counted(2, "image") == "2 images"
    assert [metric_prefix(value) for value in (12, 1500, 2.67e8, 1e9)] == ["12", "1.5k", "267M", "1G"]


@pytest.mark.slow
def test_a_thousand_classes_and_twenty_methods_stay_small(tmp_path: Path) -> None:
    names = tuple(f"class number {at}" for at in range(1000))
    labels = np.arange(5000) % 1000
    rng = np.random.default_rng(0)
    for at in range(20):
        method = ("original", "bilinear", "none")[at] if at < 3 else f"method_{at:02d}"
        record = make_record(
            method, names=names, n=5000, role="baseline" if at < 9 else "network", weights=None if at < 9 else f"w{at}",
            track="adapted" if at > 16 else "frozen",
        )  # fmt: skip
        preds = predictions(labels, 0.5 + 0.015 * at, seed=at, classes=1000)
        errors = None if method == "none" else 0.003 * rng.uniform(0.5, 1.5, 5000)
        commit(tmp_path, record, make_samples(labels, preds, mse=errors, seed=at))
    sizes = [len(svg) for svg in _svgs(_world(tmp_path, draws=5).figures)]
    assert len(sizes) > 12
    assert max(sizes) < 150_000 and sum(sizes) < 3_000_000
