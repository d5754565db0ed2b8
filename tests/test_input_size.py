"""Several input sizes: which ones, what classifiers see, cells and resume, the best size, rows, tables."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dummies import CLASSES, evaluator, make_classifier
from PIL import Image
from record_factory import commit, make_record, make_samples

from srbench import leaderboard
from srbench.errors import UsageError
from srbench.evaluation import EvalOptions
from srbench.evaluation.sizes import further_sizes
from srbench.imaging.sizes import at_side, sweep
from srbench.leaderboard import tables
from srbench.leaderboard.board import Leaderboard
from srbench.leaderboard.notes import cautions
from srbench.metrics.stats import cross_fitted, mcnemar_exact, second_half
from srbench.networks.loading import load_classifier
from srbench.records.cells import cell_folder, find_records, load_cell
from srbench.report import write_report
from srbench.report.figures import draw_all

pytestmark = pytest.mark.usefixtures("few_draws", "short_shards")

SIDE, PER_CLASS = 64, 20
N = 3 * PER_CLASS
PROTOCOL = "[lr]\nscale = 0.25\n"

TWICE = """
from torch.nn.functional import interpolate
from srbench.method import Method, MethodInfo


class Twice(Method):
    info = MethodInfo(role="baseline", family="test", version="1", factor=2)

    def forward(self, lr, size):
        out = interpolate(lr, scale_factor=2, mode="nearest")
        lr.zero_()
        return out
"""


@pytest.fixture
def run(images, card, tmp_path):
    """Return a function that evaluates methods with everything else filled in."""
    protocol = tmp_path / "quarter.toml"
    protocol.write_text(PROTOCOL)

    return evaluator(images, card, protocol, tmp_path / "out")


def twice(folder: Path) -> Path:
    path = folder / "twice.py"
    path.write_text(TWICE)
    return path


def cell_of(result, method: str, size: int | None):
    (found,) = [
        each for each in result.cells if (each.record.cell.method, each.record.cell.input_size) == (method, size)
    ]
    return found


def row_of(result, method: str):
    (found,) = [row for row in result.board.rows if row.method == method]
    return found


def lr_of(images: Path) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Read ids, HR and LR, float, with nothing of srbench."""
    files = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    hr = torch.stack([torch.from_numpy(np.array(Image.open(images / name))) for name in files])
    hr = hr.permute(0, 3, 1, 2).float() / 255
    side = SIDE // 4
    lr = F.interpolate(hr, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1).mul(255).round() / 255
    return files, hr, lr


def eight_bit(image: torch.Tensor) -> torch.Tensor:
    return image.clamp(0, 1).mul(255).round() / 255


# --- which sizes -------------------------------------------------------------------------------------------------


def test_a_sweep_begins_just_above_lr_and_ends_at_hr() -> None:
    assert sweep(81, 256) == (96, 128, 160, 192, 224, 256)
    assert sweep(96, 250) == (128, 160, 192, 224)
    assert sweep(40, 48) == ()


def test_sizes_are_those_beside_the_protocols_own() -> None:
    assert further_sizes(["sweep"], low=81, high=256, own=256) == (96, 128, 160, 192, 224)
    assert further_sizes(["sweep"], low=81, high=256, own=224) == (96, 128, 160, 192, 256)
    assert further_sizes([160, 100, 160, 256], low=81, high=256, own=256) == (100, 160)
    assert further_sizes([], low=81, high=256, own=256) == ()


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((256, 256), 160, (160, 160)), ((200, 300), 100, (100, 150)), ((301, 200), 100, (150, 100)), ((3, 2), 2, (3, 2))],
)
def test_the_shortest_side_is_the_size_and_the_aspect_stays(size, side, expected) -> None:
    assert at_side(size, side) == expected


@pytest.mark.parametrize("size", ["big", 0, -32, 16.5, True])
def test_a_size_that_is_none_is_refused(size) -> None:
    with pytest.raises(UsageError, match="--input-size takes a side in pixels"):
        EvalOptions("all", input_sizes=[size])


def test_input_sizes_need_a_network_that_names_a_class(run, images) -> None:
    with pytest.raises(UsageError, match="give --classifier SPEC"):
        run(data=f"images:{images}", classifiers=(), input_sizes=32)


# --- what is computed --------------------------------------------------------------------------------------------


def test_what_the_classifier_sees_at_each_size_is_what_is_said(run, images, card, tmp_path) -> None:
    result = run("bilinear", "twice", plugins=[twice(tmp_path)], input_sizes=[48, 24])
    files, hr, lr = lr_of(images)
    classifier = load_classifier(str(card))
    doubled = F.interpolate(lr, scale_factor=2, mode="nearest")
    for size in (24, 48):
        seen = {
            "bilinear": F.interpolate(lr, size=(size, size), mode="bilinear", antialias=True),
            "twice": F.interpolate(doubled, size=(size, size), mode="bicubic", antialias=True),
            "original": F.interpolate(hr, size=(size, size), mode="bicubic", antialias=True),
        }
        for method, image in seen.items():
            frame = cell_of(result, method, size).samples().set_index("sample_id").loc[files]
            with torch.inference_mode():
                logits = classifier(eight_bit(image))
            assert (frame["pred"].to_numpy() == logits.argmax(1).numpy()).all(), (method, size)
            np.testing.assert_allclose(frame["confidence"], logits.softmax(1).amax(1), rtol=1e-3)
            assert frame["psnr"].isna().all() and frame["ssim"].isna().all()
            record = cell_of(result, method, size).record
            assert record.metrics["psnr"].reason == "PSNR and SSIM belong to the protocol's own input size"
            assert record.timing.latency_ms is None and record.timing.pass_s is not None
            assert not cell_of(result, method, size).thumbnails()


def test_a_network_of_fixed_factor_runs_once_and_others_once_a_size(run, tmp_path) -> None:
    result = run("twice", plugins=[twice(tmp_path)], input_sizes="sweep", batch_size=N)
    assert result.counters.restored["twice"] == N
    assert result.counters.restored["bilinear"] == 2 * N
    assert result.counters.sr_classified["twice dummy"] == 2 * N
    assert result.counters.sr_classified["original dummy"] == N  # at 32; at 64 it is classified as HR
    assert result.counters.degraded == N


def test_the_protocols_own_cells_are_those_of_a_run_without_sizes(run, tmp_path) -> None:
    plain = run("bicubic", out=tmp_path / "plain")
    run("bicubic", out=tmp_path / "swept", input_sizes=32)
    for cell in plain.cells:
        twin = load_cell(tmp_path / "swept" / cell.folder.relative_to(tmp_path / "plain"))
        assert twin.record.input_hash == cell.record.input_hash and twin.record.metrics == cell.record.metrics
        if cell.record.status == "ok":
            assert twin.samples().equals(cell.samples())
            assert twin.thumbnails().keys() == cell.thumbnails().keys()
    again = run("bicubic", out=tmp_path / "plain", input_sizes=32)
    assert again.counters.restored == {"bilinear": N, "bicubic": N}  # at 32 alone
    assert again.counters.hr_classified == {}


def test_cells_of_other_sizes_resume_on_their_own(run, tmp_path) -> None:
    first = run(input_sizes=[32, 48])
    folder = cell_of(first, "bilinear", 48).folder
    assert folder == cell_folder(tmp_path / "out", first.cells[0].record.cell.task, "dummy", "bilinear", None, 48)
    assert folder.name == "bilinear@none@48px"
    before = cell_of(first, "bilinear", 48).samples()
    (folder / "record.json").unlink()
    again = run(input_sizes=[32, 48])
    assert again.counters.restored == {"bilinear": N}
    assert again.counters.sr_classified == {"bilinear dummy": N}
    assert cell_of(again, "bilinear", 48).samples().equals(before)
    assert run(input_sizes=[32, 48]).counters.sr_classified == {}


def test_networks_of_fixed_size_are_skipped_at_others_with_the_reason(run, images, tmp_path) -> None:
    fixed = make_classifier(tmp_path / "fixed", side=SIDE, input_size=48)
    result = run("bilinear", classifiers=[str(fixed)], input_sizes=[32, 48])
    reason = cell_of(result, "bilinear", 32).record.reason
    assert reason == "classifier dummy takes no other input size than its 48 pixels"
    assert [each for each in result.cells if each.record.cell.input_size == 48] == []  # 48 is its own size
    row = row_of(result, "bilinear")
    assert row.status == "ok" and row.accuracy_by_size == {} and row["accuracy_best"] is None


def test_lr_that_is_handed_on_has_no_size_to_choose(run) -> None:
    result = run(input_sizes=32)
    assert cell_of(result, "none", 32).record.reason == "none hands LR on as it is, whatever the input size"
    row = row_of(result, "none")
    assert row.accuracy_by_size == {} and row["accuracy_best"] == row["accuracy"] and row["p_best_size"] is None
    assert row.notes["accuracy_by_size"] == "none hands LR on as it is, whatever the input size"


def test_images_of_several_aspects_keep_them(run, tmp_path) -> None:
    for index, (height, width) in enumerate([(40, 60), (60, 40), (50, 50)] * 4):
        folder = tmp_path / "mixed" / CLASSES[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    protocol = tmp_path / "native.toml"
    protocol.write_text("[hr]\n" + PROTOCOL)
    result = run("bilinear", data=f"folder:{tmp_path / 'mixed'}", protocol=str(protocol), input_sizes=[20])
    assert cell_of(result, "bilinear", 20).record.status == "ok"
    assert cell_of(result, "bilinear", None).record.dataset.sr_side == 40
    assert list(row_of(result, "bilinear").accuracy_by_size) == ["20", "40"]


# --- the best size -----------------------------------------------------------------------------------------------


def test_no_sample_is_scored_at_a_size_that_it_helped_to_choose() -> None:
    second = np.array([False] * 4 + [True] * 4)
    right = {
        128: np.array([1, 1, 1, 0, 0, 0, 0, 0], bool),  # best on the first half
        160: np.array([0, 0, 1, 0, 1, 1, 0, 0], bool),  # best on the second, with 192
        192: np.array([0, 0, 0, 0, 0, 0, 1, 1], bool),
    }
    found = cross_fitted(right, second)
    assert found.best == (128, 160)  # the smaller of equals
    assert found.right.tolist() == [False, False, True, False, False, False, False, False]
    assert cross_fitted(right, np.zeros(8, bool)) is None


@pytest.mark.parametrize(("fixed", "broken", "chosen"), [(13, 5, 160), (12, 7, 160), (10, 7, 256), (7, 10, 256)])
def test_the_usual_size_stays_within_one_standard_error(fixed, broken, chosen) -> None:
    """Of 100 samples a half, the other size is right on so many more and wrong on so many that were right."""
    half = np.zeros(100, bool)
    half[:50] = True
    other = half.copy()
    other[:broken], other[50 : 50 + fixed] = False, True
    lead = other.astype(float) - half
    assert (lead.mean() > lead.std() / 10) == (chosen == 160)
    second = np.repeat([False, True], 100)
    right = {160: np.tile(other, 2), 256: np.tile(half, 2)}
    found = cross_fitted(right, second, usual=256)
    assert found.best == (chosen, chosen) and (found.right == right[chosen]).all()
    assert cross_fitted(right, second).best == ((160, 160) if fixed > broken else (256, 256))


def test_halves_depend_on_the_ids_alone() -> None:
    ids = [f"class/{index}.png" for index in range(2000)]
    halves = second_half(ids)
    assert 0.45 < halves.mean() < 0.55
    assert (second_half(ids[::-1])[::-1] == halves).all()
    assert halves[7] == bool(hashlib.sha256(ids[7].encode()).digest()[-1] & 1)


def sized(
    root: Path, name: str, side: int | None, right: np.ndarray, *, weights: str | None = None, **changes: Any
) -> None:
    """Store a cell with these samples right; the protocol's own side is 256."""
    labels = np.arange(len(right)) % 4
    record = dataclasses.replace(make_record(name, n=len(right), weights=weights), **changes)
    record = dataclasses.replace(
        record,
        cell=dataclasses.replace(record.cell, input_size=side),
        dataset=dataclasses.replace(record.dataset, sr_side=256),
    )
    commit(root, record, make_samples(labels, np.where(right, labels, (labels + 1) % 4)))


def test_a_row_joins_its_cells(tmp_path) -> None:
    n = 400
    hard = np.random.default_rng(0).permutation(n) / n
    for method, levels in {
        "original": {None: 0.9, 160: 0.8, 128: 0.7},
        "bilinear": {None: 0.4, 160: 0.6, 128: 0.5},
        "net": {None: 0.7, 160: 0.65, 128: 0.5},
        "weak": {None: 0.55, 160: 0.5, 128: 0.5},
    }.items():
        for side, level in levels.items():
            sized(tmp_path, method, side, hard < level)
    board = leaderboard.build(find_records([tmp_path])[0], draws=200)
    rows = {row.method: row for row in board.rows}
    bilinear, net, weak = rows["bilinear"], rows["net"], rows["weak"]
    assert set(bilinear.accuracy_by_size) == {"128", "160", "256"}
    assert bilinear.accuracy_by_size["256"] == bilinear["accuracy"] == 0.4
    assert bilinear.best_input_sizes == (160, 160) and net.best_input_sizes == (256, 256)
    assert bilinear["accuracy_best"] == bilinear.accuracy_by_size["160"]
    low, high = bilinear.ci["accuracy_best"]
    assert low < bilinear["accuracy_best"] < high and bilinear.ci["accuracy_by_size.160"] == (low, high)
    assert bilinear["gap_over_free"] == 0 and rows["original"]["gap_over_free"] == 1
    free, top = bilinear["accuracy_best"], rows["original"]["accuracy_best"]
    assert net["gap_over_free"] == pytest.approx((net["accuracy_best"] - free) / (top - free))
    assert net["recovered_gap"] == pytest.approx((net["accuracy"] - bilinear["accuracy"]) / (0.9 - 0.4), abs=0.05)
    low, high = net.ci["gap_over_free"]
    assert low < net["gap_over_free"] < high
    assert bilinear["p_best_size"] == bilinear.p_by_size["160"] == mcnemar_exact(hard < 0.6, hard < 0.4) < 1e-9
    assert net["p_best_size"] == 1.0
    # at the protocol's size weak is ahead of bilinear; at their best sizes bilinear is
    assert weak["accuracy"] > bilinear["accuracy"]
    assert [row.method for row in board.rows] == ["original", "net", "bilinear", "weak"]
    assert (net.rank, bilinear.rank, weak.rank) == (1, 2, 3)


def test_fixed_broken_and_p_are_of_the_decisions_that_rank(tmp_path) -> None:
    hard = np.random.default_rng(4).permutation(400) / 400
    for method, levels in {
        "original": {None: 0.9, 160: 0.8},
        "bilinear": {None: 0.4, 160: 0.6},
        "weak": {None: 0.55, 160: 0.5},
    }.items():
        for side, level in levels.items():
            sized(tmp_path, method, side, hard < level)
    board = leaderboard.build(find_records([tmp_path])[0], draws=200)
    weak = next(row for row in board.rows if row.method == "weak")
    # at the protocol's size it fixes 60 images; bilinear at its best size is right on 20 more
    assert weak["accuracy_delta"] == pytest.approx(0.15) and weak["accuracy_best_delta"] == pytest.approx(-0.05)
    assert (weak["fixed"], weak["broken"], weak["broken_original"]) == (0, 20, 140)
    assert weak["p_holm"] == mcnemar_exact(hard < 0.55, hard < 0.4)
    assert weak["p_best_holm"] == mcnemar_exact(hard < 0.55, hard < 0.6) and weak.ci["accuracy_best_delta"][1] < 0
    assert weak.rank_interval == (2, 2) and not weak.tied and weak["best_delta"] == pytest.approx(-0.05)
    power = board.power_of("photos-0.32", "net")
    assert power is not None and power["discordance"] == pytest.approx(0.05)


def test_rows_survive_json_and_stand_in_the_files(tmp_path) -> None:
    hard = np.random.default_rng(1).random(100)
    for method, levels in {"original": {None: 0.9, 160: 0.8}, "bilinear": {None: 0.4, 160: 0.6}}.items():
        for side, level in levels.items():
            sized(tmp_path, method, side, hard < level)
    board = leaderboard.build(find_records([tmp_path])[0], draws=50)
    raw = json.loads(json.dumps(board.to_json()))
    (row,) = [row for row in raw["rows"] if row["method"] == "bilinear"]
    assert row["accuracy_by_size"] == {"160": row["accuracy_best"], "256": row["accuracy"]}
    assert row["best_input_sizes"] == [160, 160] and set(row["p_by_size"]) == {"160"}
    assert {"accuracy_best", "accuracy_by_size.160"} <= set(row["ci"])
    assert Leaderboard.from_json(raw, origin="x").rows == board.rows
    text = tables.markdown(board)
    assert "best size" in text and "accuracy at best size" in text and "gap over free" in text
    line = board.frame.set_index("method").loc["bilinear"]
    assert line["best_input_sizes"] == "160 160" and line["accuracy_best_low"] < line["accuracy_best"]


def test_without_a_sweep_no_row_says_anything_of_sizes(tmp_path) -> None:
    sized(tmp_path, "bilinear", None, np.arange(50) % 2 == 0)
    board = leaderboard.build(find_records([tmp_path])[0], draws=50)
    (row,) = board.to_json()["rows"]
    assert (
        "accuracy_by_size" not in row
        and row["accuracy_best"] is None
        and row["notes"].keys().isdisjoint({"accuracy_best", "gap_over_free"})
    )
    assert "best size" not in tables.markdown(board)


def test_the_report_draws_accuracy_against_size_and_marks_the_best(tmp_path) -> None:
    hard = np.random.default_rng(2).permutation(200) / 200
    for method, levels in {
        "original": {None: 0.9, 160: 0.8, 128: 0.7},
        "bilinear": {None: 0.4, 160: 0.6, 128: 0.5},
        "bicubic": {None: 0.45, 160: 0.5, 128: 0.6},
    }.items():
        for side, level in levels.items():
            sized(tmp_path, method, side, hard < level)
    sized(tmp_path, "lanczos", None, hard < 0.5)
    cells = find_records([tmp_path])[0]
    board = leaderboard.build(cells, draws=50)
    (drawn,) = [each for each in draw_all(board, cells) if each.section == "input-size"]
    series = {each["method"]: each for each in drawn.data["series"]}
    assert set(series) == {"original", "bilinear", "bicubic"}
    points = {each["size"]: each for each in series["bilinear"]["points"]}
    assert [points[size]["accuracy"] for size in (128, 160, 256)] == [0.5, 0.6, 0.4]
    assert points[160]["low"] < 0.6 < points[160]["high"] and points[160]["p"] < 0.01 and points[256]["p"] is None
    assert (series["bilinear"]["best_input_sizes"], series["bicubic"]["best_input_sizes"]) == ([160, 160], [128, 128])
    svg = drawn.svg()
    assert "bilinear: 60.0 % at 160" in svg and "bicubic: 60.0 % at 128" in svg
    assert "256 pixels" in drawn.caption and "1 image" not in drawn.caption
    write_report([tmp_path], progress=False)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "At which size the classifier looks" in page and "best size" in page


def test_a_cell_of_other_weights_does_not_join(tmp_path) -> None:
    right = np.arange(100) % 2 == 0
    sized(tmp_path, "bilinear", None, right)
    sized(tmp_path, "net", None, right, weights="w")
    other = make_record("net", weights="w").method
    assert other.weights is not None
    other = dataclasses.replace(other, weights=dataclasses.replace(other.weights, sha256="b" * 64))
    sized(tmp_path, "net", 160, ~right, weights="w", method=other)
    sized(tmp_path, "gone", 160, right)
    board = leaderboard.build(find_records([tmp_path])[0], draws=50)
    assert {row.method for row in board.rows} == {"bilinear", "net"}
    assert all(row.accuracy_by_size == {} for row in board.rows)
    assert len(board.warnings) == 2 and all("is left out" in line for line in board.warnings)


def test_a_row_that_was_not_swept_stands_at_its_only_size(tmp_path) -> None:
    right = np.arange(100) % 4 != 0
    for side in (None, 160):
        sized(tmp_path, "bilinear", side, right)
    sized(tmp_path, "net", None, right)
    board = leaderboard.build(find_records([tmp_path])[0], draws=50)
    rows = {row.method: row for row in board.rows}
    assert rows["net"].accuracy_by_size == {"256": 0.75} and rows["net"]["accuracy_best"] == 0.75
    assert rows["net"].notes["accuracy_by_size"] == "not scored at 160 pixels"
    (said,) = cautions(board, board.rows[0].task, board.rows)
    assert said.startswith("net: not scored at 160 pixels, so the place is not a fair one; run it again")
