"""Real LR-HR pairs from end to end: what is read, what is refused, scored, trained and fine-tuned on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import training_world as world
from PIL import Image
from typer.testing import CliRunner

from srbench.cli import app
from srbench.data.catalogue import open_source
from srbench.errors import ProtocolError, UnreadableImageError, UsageError
from srbench.imaging.decode import decode
from srbench.imaging.resample import resize
from srbench.protocol import load_protocol, parse_protocol
from srbench.records.schema import Record
from srbench.training.splits import open_splits


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert not isinstance(result.exception, Exception), result.exception
    return result


def sky(seed, side=24):
    """A field of soft blobs, `(side, side)` float in [0, 1]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    field = np.zeros((side, side))
    for _ in range(6):
        y, x, size = *generator.random(2), generator.uniform(0.02, 0.15)
        field += generator.uniform(0.2, 0.6) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * size**2))
    return field.clip(0, 1)


def make_pairs(root, count=30, *, factor=2, classes=(), save=None):
    """Write 12-bit arrays: HR, and LR by another blur and noise; `classes` in folders."""
    for number in range(count):
        hr = sky(number)
        side = hr.shape[0] // factor
        lr = hr.reshape(side, factor, side, factor).mean(axis=(1, 3))
        lr += np.random.default_rng(number).normal(0, 0.01, lr.shape)
        for name, pixels in (("hr", hr), ("lr", lr)):
            place = root / name / classes[number % len(classes)] if classes else root / name
            place.mkdir(parents=True, exist_ok=True)
            counts = np.rint(pixels * 4095).clip(0, 4095).astype(np.uint16)
            (save or np.save)(place / f"{number:02d}.npy", counts)
    return f"pairs:{root / 'lr'},{root / 'hr'}?range=0:4095"


def one_record(out, method):
    for path in out.rglob("record.json"):
        record = Record.from_json(path.read_bytes())
        if record.cell.method == method:
            return record
    raise AssertionError(f"no record of {method}")


class TestRange:
    def test_values_are_scaled_and_clipped(self, tmp_path):
        counts = np.array([[0, 100, 4095], [5000, 2048, 50]], dtype=np.uint16)
        np.save(tmp_path / "a.npy", counts)
        Image.fromarray(counts).save(tmp_path / "a.png")
        Image.fromarray(counts).save(tmp_path / "a.tif")
        Image.fromarray(counts.astype(np.float32)).save(tmp_path / "b.tif")
        wanted = np.rint((counts.astype(float) - 50).clip(0, 4045) / 4045 * 255)
        for name in ("a.npy", "a.png", "a.tif", "b.tif"):
            image = decode(tmp_path / name, value_range=(50.0, 4095.0))
            assert image.dtype == torch.uint8
            assert np.array_equal(image.numpy(), np.broadcast_to(wanted, (3, 2, 3))), name

    def test_what_it_cannot_apply_to(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([[0.0, np.nan]]))
        with pytest.raises(UnreadableImageError, match=r"a\.npy holds NaN"):
            decode(tmp_path / "a.npy", value_range=(0.0, 1.0))

    @pytest.mark.parametrize("text", ["1", "1:0", "a:b", "0:inf", "0:1:2", ""])
    def test_a_range_that_is_none(self, tmp_path, text):
        with pytest.raises(UsageError, match=r"expected \?range=LOW:HIGH"):
            open_source(f"folder:{tmp_path}?range={text}")

    def test_it_stands_in_the_spec_and_in_the_key_of_the_cache(self, tmp_path):
        make_pairs(tmp_path, 2)
        specs = [f"pairs:{tmp_path / 'lr'},{tmp_path / 'hr'}?range=0:{top}" for top in (4095, 8190)]
        sources = [open_source(spec) for spec in specs]
        assert sources[0].spec == "pairs:lr,hr?range=0:4095"
        assert sources[0].stamps([0]) != sources[1].stamps([0])
        assert int(sources[0].read(0).max()) == pytest.approx(2 * int(sources[1].read(0).max()), abs=1)
        assert sources[0].channels == 1
        for kind in ("folder", "images"):  # images of a class folder each, read likewise
            (tmp_path / kind / "one").mkdir(parents=True)
            np.save(tmp_path / kind / "one" / "a.npy", np.full((4, 4), 2048, dtype=np.uint16))
            assert int(open_source(f"{kind}:{tmp_path / kind}?range=0:4096").read(0)[0, 0, 0]) == 128


class TestProtocol:
    def test_nothing_is_said_of_a_degradation(self):
        clean = load_protocol("clean")
        given = clean.of_pairs(2)
        assert given.fields["lr"] == {"given": True, "scale": 0.5}
        assert given.fields["hr"]["resize"] is None
        assert given.fields["score"] == clean.fields["score"]
        assert given.effective_scale == 0.5
        assert "given" not in clean.fields["lr"]  # or every fingerprint of before would be another
        with pytest.raises(ProtocolError, match="LR of real pairs is given"):
            given.at_scale(0.25)

    def test_only_the_data_can_give_lr(self):
        with pytest.raises(ProtocolError, match="set by the data"):
            parse_protocol("[lr]\nscale = 0.5\ngiven = true\n", name="mine", origin="mine.toml")
        with pytest.raises(ProtocolError, match="has no LR"):
            load_protocol("talebi-2021").of_pairs(2)


class TestEvaluation:
    def test_without_labels(self, own_folders, tmp_path):
        spec, out = make_pairs(tmp_path / "sky", 6), tmp_path / "out"
        result = invoke("eval", "bicubic", "nearest", "--data", spec, "--out", out)
        assert result.exit_code == 0, result.output
        board = json.loads((out / "leaderboard.json").read_text())
        rows = {row["method"]: row for row in board["rows"]}
        assert rows["bicubic"]["rank"] == 1
        assert rows["bicubic"]["classifier"] is None
        assert rows["bicubic"]["n"] == 6
        record = one_record(out, "bicubic")
        assert record.protocol.name == "clean"
        assert record.protocol.fields["lr"] == {"given": True, "scale": 0.5}
        assert "LR is read from its own files" in record.dataset.note
        assert record.dataset.n_not_degraded == 0
        source = open_source(spec)
        errors = []
        for index in range(6):
            lr, hr = (image[None].float() / 255 for image in (source.read_lr(index), source.read(index)))
            sr = resize(lr, hr.shape[-2:], "bicubic").clamp(0, 1).mul(255).round() / 255
            errors.append(-10 * (sr - hr).square().mean().log10())
        assert rows["bicubic"]["psnr"] == pytest.approx(float(torch.stack(errors).mean()), abs=1e-4)
        limited = invoke("eval", "bicubic", "--data", spec, "--limit", 4, "--out", tmp_path / "few")
        assert limited.exit_code == 0
        few = json.loads((tmp_path / "few" / "leaderboard.json").read_text())["rows"]
        assert {(row["n"], row["partial"], row["rank"]) for row in few if row["status"] == "ok"} == {(4, True, None)}

    def test_with_labels_and_a_classifier(self, own_folders, tmp_path):
        spec = make_pairs(tmp_path / "sky", 9, classes=world.CLASSES)
        source = open_source(spec)
        assert source.classes == world.CLASSES
        assert [sample.label for sample in source.samples] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        judged = invoke("eval", "bicubic", "--data", spec, "--classifier", world.make_classifier(), "--out",
                        tmp_path / "out")  # fmt: skip
        assert judged.exit_code == 0, judged.output
        rows = {row["method"]: row for row in json.loads((tmp_path / "out" / "leaderboard.json").read_text())["rows"]}
        assert 0 <= rows["bicubic"]["accuracy"] <= 1
        assert rows["bicubic"]["psnr"] > 20
        alone = invoke("eval", "bicubic", "--data", spec, "--out", tmp_path / "alone")  # labels do not oblige
        assert alone.exit_code == 0, alone.output

    def test_calls_that_are_refused(self, own_folders, tmp_path):
        spec = make_pairs(tmp_path / "sky", 9)
        scaled = invoke("eval", "bicubic", "--data", spec, "--scale", 0.5, "--out", tmp_path / "out")
        assert scaled.exit_code == 2
        assert "LR of real pairs is given" in scaled.output
        for number in range(8):
            (tmp_path / "sky" / "lr" / f"{number:02d}.npy").rename(tmp_path / "sky" / "lr" / f"other{number:02d}.npy")
        missing = invoke("eval", "bicubic", "--data", spec, "--out", tmp_path / "out")
        assert missing.exit_code == 2
        assert "16 images have no partner of the same name: LR other00.npy" in missing.output
        assert "and 11 more" in missing.output
        wrong = make_pairs(tmp_path / "wrong", 7)
        for number in range(6):
            np.save(tmp_path / "wrong" / "lr" / f"{number:02d}.npy", np.zeros((7, 12), dtype=np.uint16))
        sizes = invoke("eval", "bicubic", "--data", wrong, "--out", tmp_path / "out")
        assert sizes.exit_code == 2
        assert "in 6 pairs HR is no whole multiple of LR: 00.npy (HR 24 x 24, LR 7 x 12)" in sizes.output
        assert "and 1 more" in sizes.output
        assert not (tmp_path / "out").exists()


class TestTraining:
    def test_from_scratch_then_fine_tuned_on_few(self, own_folders, tmp_path):
        plugin = world.make_method(tmp_path)
        spec = make_pairs(tmp_path / "sky", 30)
        photos = f"images:{world.make_images(tmp_path / 'photos', 30, labelled=False)}"
        shared = ["train", "tiny_method", "--plugin", plugin, "--recipe", "pixels", "--device", "cpu"]
        first = invoke(*shared, "--data", photos, "--protocol", world.make_protocol(tmp_path), "--name", "before",
                       "--out", tmp_path / "before")  # fmt: skip
        assert first.exit_code == 0, first.output
        second = invoke(*shared, "--data", spec, "--init-from", "before", "--limit", 12, "--name", "after", "--epochs",
                        3, "--set", "patch=16", "--out", tmp_path / "after")  # fmt: skip
        assert second.exit_code == 0, second.output
        card = json.loads((tmp_path / "after" / "weights" / "after.json").read_text())
        assert card["recipe"]["init"] == "before"
        assert card["scale"] == 0.5
        assert card["data"]["train"][0]["n"] == 12
        assert card["data"]["train"][0]["spec"] == "pairs:lr,hr?range=0:4095"
        psnr = card["extra"]["history"]["val_psnr"]
        assert max(psnr[1:]) > psnr[0]
        scored = invoke("eval", "tiny_method", "--plugin", plugin, "--data", spec, "--split", "test", "--weights",
                        "tiny_method=after", "--out", tmp_path / "out")  # fmt: skip
        assert scored.exit_code == 0, scored.output
        row = one_record(tmp_path / "out", "tiny_method")
        assert row.status == "ok"

    def test_calls_that_are_refused(self, own_folders, tmp_path):
        plugin = world.make_method(tmp_path)
        spec = make_pairs(tmp_path / "sky", 30)
        other = make_pairs(tmp_path / "other", 30, factor=4)
        photos = f"images:{world.make_images(tmp_path / 'photos', 30, labelled=False)}"
        shared = ["train", "tiny_method", "--plugin", plugin, "--recipe", "pixels", "--out", tmp_path / "out"]
        for arguments, said in (
            (["--data", spec, "--scale", 0.5], "LR of real pairs is given"),
            (["--data", spec, "--data", photos], "got LR made of HR, pairs of x2"),
            (["--data", spec, "--data", other], "got pairs of x2, pairs of x4"),
            (["--data", spec, "--val", photos], "got LR made of HR, pairs of x2"),
        ):
            result = invoke(*shared, *arguments)
            assert result.exit_code == 2
            assert said in result.output
        training, validation = open_splits([spec], None)
        assert {source.factor for source in [*training, *validation]} == {2}
