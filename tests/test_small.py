"""Images that are small by nature: read, scored without an original, refused where they stand for large ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dummies import CLASSES, make_classifier, make_images
from PIL import Image
from typer.testing import CliRunner

from srbench import evaluate
from srbench.cli import app
from srbench.data.catalogue import open_source
from srbench.errors import DataError, ProtocolError, UsageError
from srbench.evaluation.sizes import square
from srbench.protocol import load_protocol
from srbench.upscaling import upscale_data

PER_CLASS, SIDE = 8, 48
SMALL = ((36, 36), (42, 36), (36, 40))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs of a large side, shrunk by Pillow and stored small in three shapes, and a classifier of the large."""
    folder = tmp_path_factory.mktemp("place")
    make_images(folder / "large", PER_CLASS, side=SIDE)
    for number, path in enumerate(sorted((folder / "large").rglob("*.png"))):
        height, width = SMALL[number % len(SMALL)]
        target = folder / "crops" / path.relative_to(folder / "large")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((width, height), Image.Resampling.BOX).save(target)
    (folder / "flat").mkdir()
    for path in (folder / "crops").rglob("*.png"):
        (folder / "flat" / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    make_classifier(folder, side=SIDE)
    make_classifier(folder, "strict", side=SIDE, input_size=SIDE)
    return folder


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    def call(*methods, **options):
        filled = {
            "data": f"small:{place / 'crops'}",
            "classifiers": [str(place / "dummy.toml")],
            "input_sizes": [48, 64],
            "out": tmp_path_factory.mktemp("out"),
            "measure": False,
            "progress": False,
        }
        return evaluate(list(methods) or ["bilinear"], **(filled | options))

    return call


@pytest.fixture(scope="module")
def labelled(run):
    return run("bicubic", "nearest", measure=True)


def entries(result):
    rows = json.loads((result.out / "leaderboard.json").read_text())["rows"]
    return {row["method"]: row for row in rows if row["status"] == "ok"}


class TestReading:
    def test_class_folders_are_classes(self, place):
        source = open_source(f"small:{place / 'crops'}")
        assert source.small and source.classes == CLASSES and source.spec == "small:crops"
        assert {tuple(source.read(index).shape[1:]) for index in range(6)} == set(SMALL)

    @pytest.mark.parametrize("spec", ["flat", "crops/bar", "crops?labels=none"])
    def test_no_folders_one_folder_and_labels_none_are_without_labels(self, place, spec):
        source = open_source(f"small:{place / spec}")
        assert source.small and source.classes is None

    def test_splits_are_those_of_folder(self, place):
        small, folder = (open_source(f"{kind}:{place / 'crops'}", "train") for kind in ("small", "folder"))
        assert list(small.samples) == list(folder.samples)

    def test_errors_name_the_spec(self, place, tmp_path):
        with pytest.raises(DataError, match=r"--data small:.*there is no folder"):
            open_source(f"small:{tmp_path / 'nowhere'}")
        with pytest.raises(UsageError, match=r"expected \?labels=none"):
            open_source(f"small:{place / 'crops'}?labels=some")


class TestProtocol:
    def test_it_keeps_what_follows_restoring_and_has_no_scale(self):
        clean = load_protocol("clean")
        small = clean.of_small()
        assert small.is_small and small.fields["lr"] == {"given": True, "scale": None}
        assert (small.sr, small.score) == (clean.sr, clean.score)
        assert small.lr.lr_size(17, 23) == (17, 23) and small.scale_label == "small"
        with pytest.raises(ProtocolError, match=r"--scale 0\.5 cannot apply"):
            small.at_scale(0.5)
        with pytest.raises(ProtocolError, match="has no LR"):
            load_protocol("talebi-2021").of_small()


class TestLabelled:
    def test_there_is_no_original_and_nothing_that_needs_one(self, labelled):
        rows = entries(labelled)
        assert set(rows) == {"none", "bilinear", "bicubic", "nearest"}
        for row in rows.values():
            assert row["n"] == PER_CLASS * len(CLASSES)
            for name in ("psnr", "ssim", "agreement", "recovered_gap", "gap_over_free", "kl_to_hr"):
                assert row[name] is None, name
        note = json.loads((labelled.out / "leaderboard.json").read_text())["tasks"]
        assert all("small by nature" in task["dataset"]["note"] for task in note.values())

    def test_every_method_is_scored_at_every_size(self, labelled):
        rows = entries(labelled)
        own = "160"  # what timm says of this network
        for name in ("bilinear", "bicubic", "nearest"):
            assert set(rows[name]["accuracy_by_size"]) == {"48", "64", own}
            assert rows[name]["accuracy"] == rows[name]["accuracy_by_size"][own]
            assert set(rows[name]["best_input_sizes"]) <= {48, 64, 160}
            assert rows[name]["accuracy_best"] is not None and rows[name]["latency_ms"] > 0

    def test_a_network_knows_more_where_it_sees_the_size_that_it_knows(self, labelled):
        by_size = entries(labelled)["bicubic"]["accuracy_by_size"]
        assert by_size["48"] > by_size["160"]

    def test_it_is_the_images_themselves_that_are_enlarged(self, labelled, place):
        from srbench.imaging.decode import decode
        from srbench.imaging.degrade import round_8bit
        from srbench.imaging.resample import resize
        from srbench.networks.loading import load_classifier

        network = load_classifier(str(place / "dummy.toml"))
        cell = next(
            cell
            for cell in labelled.cells
            if cell.record.cell.method == "bicubic" and cell.record.cell.input_size == 48
        )
        frame = cell.samples(["sample_id", "pred", "cross_entropy"]).set_index("sample_id")
        for sample_id in list(frame.index)[:6]:
            lr = decode(place / "crops" / sample_id)[None].float() / 255
            short = min(lr.shape[-2:])
            size = tuple(max(48, round(side * 48 / short)) for side in lr.shape[-2:])
            logits = network(round_8bit(resize(lr, size, "bicubic")))
            assert int(logits.argmax()) == frame.loc[sample_id, "pred"]
            label = int(np.searchsorted(sorted(CLASSES), sample_id.split("/")[0]))
            assert float(-logits.log_softmax(1)[0, label]) == pytest.approx(
                frame.loc[sample_id, "cross_entropy"], abs=1e-3
            )

    def test_the_same_call_again_computes_nothing(self, run, labelled):
        again = run("bicubic", "nearest", out=labelled.out)
        assert again.counters.sr_classified == {} and again.counters.restored == {}

    def test_it_sweeps_by_itself(self, run):
        result = run("bilinear", input_sizes=())
        assert {int(size) for size in entries(result)["bilinear"]["accuracy_by_size"]} == set(range(64, 257, 32))

    def test_a_network_that_insists_gets_the_square_in_the_middle(self, run, place):
        result = run("bicubic", classifiers=[str(place / "strict.toml")], input_sizes=())
        row = entries(result)["bicubic"]
        assert row["accuracy"] is not None and "accuracy_by_size" not in row
        cell = next(cell for cell in result.cells if cell.record.cell.method == "bicubic")
        assert cell.record.dataset.sr_side == SIDE

    def test_a_report_and_a_table_stand_without_an_original(self, labelled):
        shown = CliRunner().invoke(app, ["report", str(labelled.out)])
        assert shown.exit_code == 0, shown.output
        table = CliRunner().invoke(app, ["leaderboard", str(labelled.out)])
        assert "small by nature" in " ".join(table.output.split())
        assert "original:" not in table.output


class TestUnlabelled:
    def test_no_accuracy_is_made_up(self, run, place):
        result = run("bicubic", "nearest", data=f"small:{place / 'flat'}", input_sizes=())
        rows = entries(result)
        assert all(row["accuracy"] is None and row["rank"] is None for row in rows.values())
        assert rows["bilinear"]["same_as_bilinear"] == 1.0
        ok = [cell for cell in result.cells if cell.record.status == "ok"]
        samples = {cell.record.cell.method: cell.samples(["sample_id", "pred", "confidence"]) for cell in ok}
        same = (samples["nearest"]["pred"] == samples["bilinear"]["pred"]).mean()
        assert rows["nearest"]["same_as_bilinear"] == pytest.approx(same)
        assert rows["nearest"]["confidence"] == pytest.approx(samples["nearest"]["confidence"].mean(), abs=1e-6)


class TestRefusals:
    def test_without_a_classifier_there_is_nothing_to_score(self, run, place):
        with pytest.raises(UsageError, match="only a classifier can tell methods apart"):
            run(classifiers=(), data=f"small:{place / 'flat'}")

    def test_a_scale_has_no_meaning(self, run):
        with pytest.raises(ProtocolError, match="small by nature"):
            run(scales=[0.5])

    def test_a_teacher_needs_originals(self, place):
        shown = CliRunner().invoke(
            app, ["train", "darionet", "--data", f"small:{place / 'crops'}", "--classifier", str(place / "dummy.toml")]
        )
        assert shown.exit_code == 2
        said = " ".join(shown.output.split())
        assert "needs large originals" in said and "folder:PATH" in said and "small:PATH" not in said

    def test_crops_that_would_become_originals(self, run, place):
        with pytest.raises(DataError, match=r"24 of 24 images .* no larger than the LR .* --data small:.*crops"):
            run(data=f"folder:{place / 'crops'}", input_sizes=())

    def test_a_few_of_them_are_said_first(self, run, place, tmp_path):
        mixed = make_images(tmp_path / "mixed", 4, side=120)
        first = next(mixed.rglob("*.png"))
        with Image.open(first) as image:
            image.resize((30, 30)).save(first)
        (tmp_path / "p.toml").write_text("[hr]\nresize = 96\ncrop = 96\n[lr]\nscale = 0.5\n")
        result = run(data=f"folder:{mixed}", input_sizes=(), protocol=str(tmp_path / "p.toml"))
        shown = CliRunner().invoke(app, ["leaderboard", str(result.out)])
        assert shown.output.startswith("caution: 1 of 12 images are already at or below the LR size")


def test_a_folder_written_by_upscale_is_a_row(run, place, tmp_path):
    data = f"small:{place / 'crops'}"
    upscale_data(data, "nearest", out=tmp_path / "up", factor=2, progress=False)
    with Image.open(next((tmp_path / "up").rglob("*.png"))) as image:
        assert (image.height, image.width) in {(2 * h, 2 * w) for h, w in SMALL}
    rows = entries(run("bilinear", precomputed={"mine": tmp_path / "up"}))
    assert rows["mine"]["accuracy_best"] is not None and rows["mine"]["role"] == "precomputed"


def test_square_is_the_middle():
    import torch

    image = torch.arange(24.0).reshape(1, 1, 4, 6)
    assert square(image, 4)[0, 0, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
