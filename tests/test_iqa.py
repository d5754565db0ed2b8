"""Image quality: made and rated data, the loss, the correlations, and the way from training to the table."""

from __future__ import annotations

import io
import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr, rankdata, spearmanr
from training_world import make_classifier

import srbench
from srbench.data.catalogue import default_task_type, open_source
from srbench.data.hr_cache import build_hr_store
from srbench.data.source import Sample, sample_list_sha256
from srbench.data.synthetic import demo, iqa
from srbench.errors import DataError, TooManyUnreadableError, UnknownNameError, UsageError
from srbench.leaderboard import tables
from srbench.method import Batch
from srbench.metrics import stats
from srbench.protocol import Geometry
from srbench.records import schema as records
from srbench.records.samples import score_columns
from srbench.registry import Registry
from srbench.report import write_report
from srbench.task_types import task_type, task_type_names
from srbench.task_types.image_quality import NAMES, earth_movers, emd, mean_rating
from srbench.training import losses
from srbench.training.api import train_network
from srbench.training.options import TrainOptions

HALVES = torch.tensor([[0.5, 0.25, 0.25]])
OTHER = torch.tensor([[0.25, 0.25, 0.5]])
BY_HAND = math.sqrt((0.25**2 + 0.25**2 + 0.0) / 3)  # their cumulative sums differ by 1/4, 1/4 and 0


# --- the loss ----------------------------------------------------------------------------------------------------


def test_the_loss_equals_a_case_by_hand():
    kind = task_type("iqa")
    assert (
        kind.loss(HALVES.log(), OTHER).item() == pytest.approx(BY_HAND, abs=1e-6) == pytest.approx(0.204124, abs=1e-6)
    )
    assert earth_movers(HALVES.log(), OTHER).tolist() == pytest.approx([BY_HAND], abs=1e-7)
    both = torch.cat([HALVES, OTHER])
    assert emd(both.log(), torch.cat([OTHER, OTHER])).item() == pytest.approx(BY_HAND / 2, abs=1e-6), "a mean of images"
    with pytest.raises(UsageError, match="label_smoothing"):
        kind.loss(HALVES.log(), OTHER, smoothing=0.1)


def test_the_joint_resizer_is_trained_by_that_loss_against_the_ratings():
    method = Registry().get("learned_resizer")(filters=4)
    method.recipe = method.recipes["iqa"]
    assert dict(method.recipe.losses) == {"emd": 1.0} and method.recipe.track == "adapted"
    ratings = torch.tensor([iqa.ratings_of(0.0), iqa.ratings_of(0.9)])
    scores = torch.linspace(-1, 1, 10).repeat(2, 1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 10))
    torch.nn.init.zeros_(network[1].weight)
    with torch.no_grad():
        network[1].bias.copy_(scores[0])
    # the teacher's logits are of no use here: with them the loss would be zero
    batch = Batch(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16), ratings, scores, (16, 16), task_type="iqa")
    found = method.training_step(batch, None, network)
    by_rows = earth_movers(scores, ratings)
    assert set(found) == {"emd"} and found["emd"].item() == pytest.approx(by_rows.mean().item(), abs=1e-5)
    assert by_rows.min() > 0.1


def test_terms_of_class_labels_are_refused_in_one_sentence():
    batch = Batch(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.ones(1, 10) / 10, None, (8, 8), task_type="iqa")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    with pytest.raises(UsageError, match=r"'ce' needs class labels.*'emd'"):
        losses.terms({"ce": 1.0}, batch.hr, batch, network=network)
    with pytest.raises(UsageError, match="'ce_sr' needs class labels"):
        losses.classifier_terms({"ce_sr": 1.0}, batch.hr, batch, network)


# --- the correlations --------------------------------------------------------------------------------------------


def test_correlations_equal_scipys_with_ties_and_in_every_draw():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 12, 60) / 2.0
    predicted = np.column_stack([truth + generator.normal(0, 2, 60), np.round(generator.normal(0, 1, 60), 1)])
    for column in predicted.T:
        plcc, srcc = stats.correlations(column, truth)
        assert plcc == pytest.approx(pearsonr(column, truth).statistic)
        assert srcc == pytest.approx(spearmanr(column, truth).statistic)
    drawn = stats.bootstrap_correlations(predicted, truth, draws=20, seed=3)
    (counts,) = stats.resample_counts(60, 20, seed=3)
    for draw, each in enumerate(counts.astype(int)):
        rows = np.repeat(np.arange(60), each)
        for column in range(2):
            assert drawn.plcc[draw, column] == pytest.approx(pearsonr(predicted[rows, column], truth[rows]).statistic)
            assert drawn.srcc[draw, column] == pytest.approx(spearmanr(predicted[rows, column], truth[rows]).statistic)


def test_what_does_not_vary_correlates_with_nothing():
    assert all(math.isnan(value) for value in stats.correlations(np.full(5, 0.1), np.arange(5.0)))
    with pytest.raises(UsageError, match="same samples"):
        stats.correlations(np.zeros(3), np.zeros(4))


# --- the seam ----------------------------------------------------------------------------------------------------


def test_kinds_are_reached_by_name():
    assert task_type_names() == ("classification", "detection", "iqa", "segmentation")
    assert (task_type("iqa").loss_term, task_type("classification").loss_term) == ("emd", "ce")
    with pytest.raises(UnknownNameError, match="task type"):
        task_type("depth")
    assert default_task_type(["iqa"]) == default_task_type(["ava:x"]) == "iqa"
    assert default_task_type(["demo"]) == default_task_type(["demo", "iqa"]) == "classification"


@pytest.mark.parametrize("name", ["classification", "iqa"])
def test_every_column_that_a_kind_shows_is_known(name):
    kind = task_type(name)
    assert [column.name for column in tables.columns(name)] == list(kind.shown)
    assert set(kind.essential) <= set(kind.shown)


def test_ratings_are_part_of_the_list_of_samples():
    rated = (Sample("a", ratings=(0.5, 0.5)),)
    assert sample_list_sha256(rated) != sample_list_sha256((Sample("a", ratings=(0.4, 0.6)),))


def test_a_fresh_network_begins_with_filters_that_do_not_answer_to_brightness():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    later = network[2].weight.clone()
    task_type("iqa").begin(network)
    assert network[0].weight.sum(dim=(2, 3)).abs().max() < 1e-6 and network[0].weight.abs().max() > 0.01
    assert torch.equal(network[2].weight, later)
    before = network[2].weight.clone()
    task_type("classification").begin(network)
    assert torch.equal(network[2].weight, before)


# --- the made set ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits():
    return {split: open_source("iqa", split) for split in iqa.IQA.splits}


def test_the_ratings_follow_from_the_severity(splits):
    source = splits["test"]
    assert len(source.samples) == len(source.distortions) == 48 * 11
    severity = np.array([each.severity for each in source.distortions])
    ratings = np.array([sample.ratings for sample in source.samples])
    assert np.allclose(ratings.sum(axis=1), 1) and ratings.shape[1] == 10
    means = ratings @ np.arange(1, 11)
    assert spearmanr(severity, means).statistic == pytest.approx(-1)
    assert means.max() > 8.5 and means.min() < 2.5
    by_hand = np.exp(-((np.arange(1, 11) - 9.5) ** 2) / 2)
    assert iqa.ratings_of(0.0) == pytest.approx(by_hand / by_hand.sum())
    assert iqa.Distortion(0.5, 0.5, 0.0).severity == pytest.approx(0.75)
    kinds = {each.name for each in source.distortions}
    assert {"pristine", "blur", "noise", "jpeg", "blur-noise", "blur-jpeg", "noise-jpeg", "blur-noise-jpeg"} == kinds


def test_splits_share_no_pixel_and_reading_is_deterministic(splits):
    for name in demo.PHOTOGRAPHS:
        masks = []
        for source in splits.values():
            mask = np.zeros(demo.photograph(name).shape[-2:], dtype=bool)
            for place in source.positions:
                if place.photograph == name:
                    mask[place.top : place.top + 96, place.left : place.left + 96] = True
            masks.append(mask)
        assert all(mask.any() for mask in masks)
        assert not any((one & other).any() for one, other in combinations(masks, 2)), name
    again = open_source("iqa")
    for index in (0, 77, 300):
        assert torch.equal(again.read(index), splits["test"].read(index))
        assert again.samples[index] == splits["test"].samples[index]


def test_each_distortion_does_what_it_says(splits):
    patch = demo.photograph("gravel")[:, :96, :96].numpy()
    rough = np.abs(np.diff(patch.astype(float))).mean()

    def treated(**severity):
        return iqa.distort(patch, iqa.Distortion(**severity), np.random.default_rng(0)).astype(float)

    assert np.array_equal(treated(), patch)
    assert np.abs(np.diff(treated(blur=0.8))).mean() < 0.4 * rough
    noise = (treated(noise=0.5) - patch)[(patch > 100) & (patch < 150)]
    assert noise.std() == pytest.approx(255 * 0.11, rel=0.1)
    with io.BytesIO() as stream:
        Image.fromarray(patch.transpose(1, 2, 0)).save(stream, "JPEG", quality=30, subsampling=0)
        coded = np.array(Image.open(stream)).transpose(2, 0, 1).astype(float)
    ours = iqa.quantised(patch.astype(float), 30)
    assert np.abs(ours - coded).mean() < 0.5 < 5 < np.abs(coded - patch).mean()


# --- AVA's layout ------------------------------------------------------------------------------------------------


def write_rated(folder, count=4, *, table="ratings.csv", header=True, lines=None):
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{100 + number}.png")
        counts = [0] * 10
        counts[number % 10], counts[(number + 1) % 10] = 3, 1
        rows.append([str(100 + number), *map(str, counts)])
    if table.endswith(".csv"):
        text = ["image," + ",".join(map(str, range(1, 11)))] * header + [",".join(row) for row in rows]
    else:
        text = [" ".join([str(at + 1), *row, "1", "22", "1396"]) for at, row in enumerate(rows)]
    (folder / table).write_text("\n".join([*text, *(lines or [])]) + "\n")
    return folder


@pytest.mark.parametrize(("table", "header"), [("ratings.csv", True), ("ratings.csv", False), ("AVA.txt", False)])
def test_avas_layout_is_read(tmp_path, table, header):
    source = open_source(f"ava:{write_rated(tmp_path / 'rated', table=table, header=header)}")
    assert [sample.id for sample in source.samples] == [f"images/{100 + number}.png" for number in range(4)]
    assert source.samples[2].ratings == (0, 0, 0.75, 0.25, 0, 0, 0, 0, 0, 0)
    assert source.task_type == "iqa" and source.labelled and source.classes is None and source.spec == "ava:rated"
    assert source.read(0).shape == (3, 24, 24)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["100,1,1,1,1,1,1,1,1,1,1"], "line 6 of ratings.csv rates the image '100' a second time"),
        (["100.png,1,1,1,1,1,1,1,1,1,1"], "rates an image twice"),
        (["x,1,1,1"], "line 6 of ratings.csv is 'x 1 1 1'; expected an image's name and ten counts"),
        (["x,1,1,1,1,1,-1,1,1,1,1"], "each count at least 0"),
        (["x,1,1,1,1,1,nan,1,1,1,1"], "each count at least 0"),
        (["x,0,0,0,0,0,0,0,0,0,0"], "no rating at all"),
    ],
)
def test_bad_rows_are_named(tmp_path, lines, said):
    folder = write_rated(tmp_path / "rated", lines=lines)
    with pytest.raises(DataError, match=said):
        open_source(f"ava:{folder}")


def test_other_troubles_of_rated_folders_are_told(tmp_path):
    folder = write_rated(tmp_path / "rated")
    (folder / "more.csv").write_text("")
    with pytest.raises(DataError, match=r"found 2 of them \(more.csv, ratings.csv\)"):
        open_source(f"ava:{folder}")
    (folder / "more.csv").unlink()
    (folder / "images" / "again").mkdir()
    (folder / "images" / "100.png").rename(folder / "images" / "again" / "101.png")
    with pytest.raises(DataError, match="could both be the image '101'"):
        open_source(f"ava:{folder}")
    with pytest.raises(DataError, match="found none"):
        open_source(f"ava:{folder / 'images'}")


def test_missing_images_are_counted_as_unreadable(tmp_path, own_folders):
    lines = ["gone,1,1,1,1,1,1,1,1,1,1"]
    store_ = build_hr_store(open_source(f"ava:{write_rated(tmp_path / 'many', 120, lines=lines)}"), Geometry())
    assert len(store_) == 120 and [name for name, _ in store_.unreadable] == ["gone"]
    with pytest.raises(TooManyUnreadableError, match="gone has ratings, but no image"):
        build_hr_store(open_source(f"ava:{write_rated(tmp_path / 'few', 20, lines=lines)}"), Geometry())


# --- from training to the report ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A quality network trained for two epochs on a few patches, the resizer beside it, and their table."""
    root = tmp_path_factory.mktemp("iqa")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("CACHE", "DATA", "WEIGHTS"):
            patch.setenv(f"SRBENCH_{variable}", str(root / variable))
        shared = {"data": ["iqa"], "device": "cpu", "progress": False, "limit": 48}
        small = ["batch_size=16", "args.channels=[8,8,8,8]", "args.stem_width=8", "warmup_steps=0"]
        network = train_network(
            "resnet10t", TrainOptions(name="rater", epochs=2, overrides=small, out=root / "rater", **shared)
        )
        resizer = srbench.train(
            "learned_resizer",
            classifier="rater",
            epochs=1,
            overrides=["steps_per_epoch=2", "batch_size=8", "warmup_steps=0", "norm_steps=1", "parameters.filters=4"],
            name="joint",
            out=root / "joint",
            **shared,
        )
        result = srbench.evaluate(
            ["bicubic", "learned_resizer"],
            data="iqa",
            classifiers=["rater"],
            limit=60,
            out=root / "out",
            device="cpu",
            progress=False,
            measure=False,
        )
        yield root, network, resizer, result


def test_training_takes_the_kind_from_the_data(world):
    _, network, resizer, _ = world
    assert network.criterion == "emd" and network.weights.card.recipe["losses"] == {"emd": 1.0}
    assert network.weights.card.extra["classes"] == list(NAMES) and network.weights.card.extra["kind"] == "iqa"
    assert {"val_emd", "val_rating_error", "val_emd_bilinear"} <= set(network.history)
    assert "val_ce" not in network.history and "val_accuracy" not in network.history
    assert resizer.criterion == "emd" and resizer.weights.card.track == "adapted"
    assert resizer.weights.card.extra["recipe_name"] == "iqa"
    assert {"loss_emd", "val_emd", "val_emd_hr", "val_psnr"} <= set(resizer.history)


def test_the_record_and_the_table_hold_the_correlations(world):
    _, _, _, result = world
    rows = {row.method: row for row in result.board.rows if row.status == "ok"}
    assert {"original", "none", "bilinear", "bicubic", "learned_resizer"} <= set(rows)
    cells = {cell.record.cell.method: cell for cell in result.cells if cell.record.status == "ok"}
    for name, row in rows.items():
        frame = cells[name].samples().astype({"mean_rating": float, "mean_score": float, "emd": float})
        record = cells[name].record
        assert row["srcc"] == pytest.approx(spearmanr(frame["mean_score"], frame["mean_rating"]).statistic)
        assert row["plcc"] == pytest.approx(pearsonr(frame["mean_score"], frame["mean_rating"]).statistic)
        assert row["emd"] == pytest.approx(frame["emd"].mean())
        assert (record.metrics["srcc"].value, record.metrics["emd"].value) == pytest.approx((row["srcc"], row["emd"]))
        assert row.ci["srcc"][0] <= row["srcc"] <= row.ci["srcc"][1] and row["accuracy"] is None
        assert record.dataset.task_type == "iqa" and frame["label"].isna().all() and frame["pred"].isna().all()
        # the stored distribution is what the numbers were made of
        scores = frame[score_columns(frame.columns)].to_numpy(dtype=np.float64)
        assert scores @ np.arange(1, 11) == pytest.approx(frame["mean_score"].to_numpy(), abs=1e-4)
    bicubic = rows["bicubic"]
    assert bicubic["srcc_delta"] == pytest.approx(bicubic["srcc"] - rows["bilinear"]["srcc"])
    assert bicubic.ci["srcc_delta"][0] <= bicubic["srcc_delta"] <= bicubic.ci["srcc_delta"][1]
    assert rows["original"]["psnr"] == math.inf and 10 < bicubic["psnr"] < 60


def test_rows_are_ranked_by_srcc_where_the_run_is_whole(world):
    kind = task_type("iqa")
    assert kind.ranking_value({"srcc": 0.5, "emd": 9.0}) == 0.5 and kind.ranking_value({"srcc": None}) is None
    _, _, _, result = world
    order = [row["srcc"] for row in result.board.rows if row.role == "baseline" and row.status == "ok"]
    assert order == sorted(order, reverse=True) and len(order) == 2


def test_tables_and_report_show_the_columns_of_the_kind(world):
    root, _, _, result = world
    text = tables.markdown(result.board)
    assert " SRCC |" in text and "EMD" in text and "accuracy" not in text.split("\n\n")[1]
    back = srbench.leaderboard.Leaderboard.from_json(json.loads(json.dumps(result.board.to_json())), origin="x")
    assert back.rows == result.board.rows
    page = write_report([root / "out"], root / "report", progress=False)[0].read_text()
    assert "SRCC" in page and 'data-column="accuracy"' not in page


def test_a_record_says_its_type_of_task(world):
    _, _, _, result = world
    raw = result.cells[0].record.to_json()
    assert raw["dataset"]["task_type"] == "iqa"
    assert records.Record.from_json(json.dumps(raw).encode()) == result.cells[0].record


def test_networks_of_another_kind_are_refused_in_one_sentence(world, tmp_path):
    other = make_classifier("three-classes")
    with pytest.raises(DataError, match="ratings 1 to 10, which classifier three-classes does not give"):
        srbench.evaluate(["bicubic"], data="iqa", classifiers=[other], out=tmp_path / "out", progress=False)
    with pytest.raises(UsageError, match="a classifier is needed"):
        srbench.evaluate(["bicubic"], data="iqa", out=tmp_path / "out", progress=False)
    shared = {"data": ["iqa"], "out": tmp_path / "run", "device": "cpu", "progress": False}
    with pytest.raises(DataError, match="train one that does"):
        srbench.train("learned_resizer", classifier=other, limit=8, **shared)
    with pytest.raises(UsageError, match="'ce' needs class labels"):
        srbench.train("muller", classifier="rater", limit=8, recipe="cpu-small", **shared)
    with pytest.raises(UsageError, match="kinds classification and iqa"):
        srbench.train("learned_resizer", classifier="rater", recipe="iqa", **shared | {"data": ["iqa", "demo"]})
    with pytest.raises(UsageError, match="'emd' alone"):
        train_network("resnet10t", TrainOptions(recipe="default", **shared))


def test_mean_rating_and_ranks_are_what_they_are_called():
    assert mean_rating(torch.eye(10, dtype=torch.float64)).tolist() == list(range(1, 11))
    values = np.array([3.0, 1.0, 3.0, 2.0])
    assert stats.correlation._midranks(values, np.ones((1, 4)))[0] == pytest.approx(rankdata(values))
