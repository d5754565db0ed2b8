"""Rows of images restored elsewhere: written by `upscale --data`, read back, refused where they do not fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dummies import evaluator, make_classifier, make_images
from PIL import Image
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import DataError, UnreadableImageError, UsageError
from srbench.imaging.lossless import read_restored, why_lossy
from srbench.upscaling import upscale_data
from srbench.upscaling.dataset import MADE, file_names

PER_CLASS, SIDE = 6, 24
UNKNOWN_ELSEWHERE = ("total_time_s", "latency_ms", "images_per_s", "parameters", "macs", "peak_memory_mb")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of two sizes, a classifier that knows them, and protocols that round and that do not."""
    folder = tmp_path_factory.mktemp("place")
    make_images(folder / "photos", PER_CLASS, side=SIDE)
    for path in sorted((folder / "photos").rglob("*.png"))[::2]:
        with Image.open(path) as image:
            image.crop((0, 0, SIDE, SIDE - 4)).save(path)
    make_classifier(folder, side=SIDE)
    (folder / "half.toml").write_text("[lr]\nscale = 0.5\n")
    (folder / "bare.toml").write_text("[lr]\nscale = 0.5\n[sr]\nround = false\nclamp = false\n")
    return folder


@pytest.fixture
def run(place, own_folders, tmp_path):
    return evaluator(place / "photos", place / "dummy.toml", place / "half.toml", tmp_path / "out")


@pytest.fixture
def written(place, own_folders, tmp_path):
    def call(method="bicubic", protocol="half", name="up", **options):
        out = tmp_path / name
        upscale_data(
            f"folder:{place / 'photos'}",
            method,
            out=out,
            protocol=str(place / f"{protocol}.toml"),
            progress=False,
            **options,
        )
        return out

    return call


def entry(result, method):
    rows = json.loads((result.out / "leaderboard.json").read_text())["rows"]
    return next(row for row in rows if row["method"] == method)


def test_images_that_nothing_restored_are_called_lr(place, own_folders, tmp_path):
    asked = {"protocol": str(place / "half.toml"), "progress": False}
    done = [upscale_data(f"folder:{place / 'photos'}", name, out=tmp_path / name, **asked) for name in ("none", "area")]
    assert "images of LR to" in done[0].summary() and "NAME=FOLDER` makes what is made of them" in done[0].summary()
    assert f"images restored by area to {tmp_path / 'area'}" in done[1].summary()


@pytest.mark.parametrize(("protocol", "suffix"), [("half", ".png"), ("bare", ".npy")])
def test_what_upscale_wrote_gives_the_row_of_the_method_to_the_last_digit(run, place, written, protocol, suffix):
    folder = written(protocol=protocol)
    assert {path.suffix for path in folder.rglob("*.*") if path.name != MADE} == {suffix}
    result = run("bicubic", protocol=str(place / f"{protocol}.toml"), precomputed={"theirs": folder})
    own, theirs = entry(result, "bicubic"), entry(result, "theirs")
    for row in (own, theirs):
        row["ci"].pop("best_delta", None)  # one of two equal rows is the best, to which the other is compared
    apart = {name for name in own if own[name] != theirs[name]}
    assert apart <= {"method", "role", "rank", *UNKNOWN_ELSEWHERE}
    assert theirs["role"] == "precomputed" and theirs["psnr"] is not None and theirs["rank"] == own["rank"]
    assert all(theirs[name] is None for name in UNKNOWN_ELSEWHERE)
    stored = {cell.record.cell.method: cell for cell in result.cells}
    columns = ["pred", "cross_entropy", "psnr", "ssim", "logit_mse_to_hr"]
    assert stored["theirs"].samples(columns).equals(stored["bicubic"].samples(columns))


def test_images_at_a_whole_factor_of_lr_are_brought_to_size_as_a_networks_are(run, place, written, tmp_path):
    folder = tmp_path / "x4"
    for path in (place / "photos").rglob("*.png"):
        target = folder / path.relative_to(place / "photos")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
            half.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(target)
    result = run("nearest", precomputed={"big": folder})
    record = next(cell.record for cell in result.cells if cell.record.cell.method == "big")
    assert record.method.factor == 4
    assert len(record.method.parameters["images_sha256"]) == 64
    # each LR pixel is a block of four: the way back by bicubic is no nearest, but near it
    assert entry(result, "big")["psnr"] == pytest.approx(entry(result, "nearest")["psnr"], abs=3)


def test_other_content_is_computed_anew_and_the_same_is_not(run, written):
    folder = written()
    first = run(precomputed={"mine": folder})
    before = entry(first, "mine")["psnr"]
    again = run(precomputed={"mine": folder})
    assert again.counters.sr_classified == {}
    path = next(folder.rglob("*.png"))
    with Image.open(path) as image:
        dark = image.point(lambda value: value // 2)
    dark.save(path)
    changed = run(precomputed={"mine": folder})
    assert set(changed.counters.sr_classified) == {"mine dummy"}
    assert entry(changed, "mine")["psnr"] < before
    hashes = {result.cells[-1].record.method.parameters["images_sha256"] for result in (first, again, changed)}
    assert len(hashes) == 2


def test_a_limit_needs_the_images_of_its_samples_alone(run, written):
    folder = written(limit=5)
    result = run(precomputed={"mine": folder}, limit=5)
    assert entry(result, "mine")["n"] == 5
    with pytest.raises(DataError, match=r"13 samples of folder:photos have no image: .* and 8 more"):
        run(precomputed={"mine": folder})


def test_it_goes_with_a_report_and_without_a_classifier(run, place, written, tmp_path):
    folder = written()
    result = run("bicubic", data=f"images:{place / 'photos'}", classifiers=(), precomputed={"mine": folder})
    assert entry(result, "mine")["psnr"] == entry(result, "bicubic")["psnr"]
    shown = CliRunner().invoke(app, ["report", str(result.out)])
    assert shown.exit_code == 0, shown.output
    assert "mine" in (result.out / "report.html").read_text()


class TestRefusals:
    def test_extra_images(self, run, written):
        folder = written()
        shutil.copy(next(folder.rglob("*.png")), folder / "stranger.png")
        with pytest.raises(DataError, match=r"1 images belong to no sample of 'folder:photos': stranger\.png"):
            run(precomputed={"mine": folder})

    def test_missing_images(self, run, written):
        folder = written()
        (folder / "bar" / "0003.png").unlink()
        with pytest.raises(DataError, match=r"1 samples of .* have no image: bar/0003\.png; a row needs every"):
            run(precomputed={"mine": folder})

    def test_wrong_sizes(self, run, written):
        folder = written()
        for name in ("bar/0001", "dot/0002"):
            Image.new("RGB", (7, 9)).save(folder / f"{name}.png")
        with pytest.raises(DataError, match=r"2 of 18 images .* bar/0001\.png \(9 x 7, expected 24 x 24\), dot/0002"):
            run(precomputed={"mine": folder})

    def test_two_images_of_one_sample(self, run, written):
        folder = written()
        np.save(folder / "bar" / "0001.npy", np.zeros((24, 24, 3), dtype=np.float32))
        with pytest.raises(DataError, match=r"bar/0001\.npy and bar/0001\.png belong to one sample"):
            run(precomputed={"mine": folder})

    def test_formats_with_loss(self, run, written):
        folder = written()
        path = folder / "bar" / "0001.png"
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
        with pytest.raises(DataError, match=r"bar/0001\.jpg \(JPG loses detail\).*save them as 8-bit PNG"):
            run(precomputed={"mine": folder})

    @pytest.mark.parametrize("name", ["bicubic", "original", "a/b", ".x"])
    def test_names_that_cannot_be(self, run, written, name):
        with pytest.raises(UsageError, match=r"choose another one|a row's name is made of"):
            run(precomputed={name: written()})

    def test_several_scales(self, run, place, written):
        with pytest.raises(UsageError, match="holds images of one scale"):
            run(precomputed={"mine": written()}, scales=[0.5, 0.25])

    def test_a_folder_that_is_not_there(self, run, tmp_path):
        with pytest.raises(DataError, match=r"--precomputed mine=.*nowhere: there is no folder"):
            run(precomputed={"mine": tmp_path / "nowhere"})

    def test_the_command_line_says_what_it_takes(self):
        shown = CliRunner().invoke(app, ["eval", "--precomputed", "folder"])
        assert shown.exit_code == 2 and "NAME=DIR" in shown.output


class TestFiles:
    def test_which_formats_are_without_loss(self, tmp_path):
        image = Image.effect_noise((16, 16), 40).convert("RGB")
        image.save(tmp_path / "a.webp", lossless=True)
        image.save(tmp_path / "b.webp", quality=80)
        image.save(tmp_path / "c.tif", compression="tiff_adobe_deflate")
        image.save(tmp_path / "d.tif", compression="jpeg")
        found = {path.name: why_lossy(path) for path in sorted(tmp_path.iterdir())}
        assert found == {"a.webp": None, "b.webp": "WebP with loss", "c.tif": None, "d.tif": "TIFF with loss"}

    def test_values_come_as_they_are(self, tmp_path):
        floats = np.linspace(-0.2, 1.2, 48, dtype=np.float32).reshape(4, 4, 3)
        np.save(tmp_path / "a.npy", floats)
        assert np.array_equal(read_restored(tmp_path / "a.npy", "a").permute(1, 2, 0).numpy(), floats)
        Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16)).save(tmp_path / "b.png")
        assert read_restored(tmp_path / "b.png", "b").unique().tolist() == [1.0]
        np.save(tmp_path / "c.npy", floats * 255)
        with pytest.raises(UnreadableImageError, match=r"holds floats from -51 to 306"):
            read_restored(tmp_path / "c.npy", "c")

    def test_ids_that_differ_in_their_suffix_alone_keep_it(self):
        assert file_names(["a/1.jpg", "a/2.jpg", "a/2.png", "n.5"], ".png") == [
            "a/1.png",
            "a/2.jpg.png",
            "a/2.png.png",
            "n.5.png",
        ]


class TestUpscaleData:
    def test_lr_itself_is_what_a_method_elsewhere_restores(self, run, written):
        result = run("bicubic", precomputed={"theirs": written("none")})
        own, theirs = entry(result, "bicubic"), entry(result, "theirs")  # the way back to size is bicubic
        assert theirs["psnr"] == own["psnr"] and theirs["cross_entropy"] == own["cross_entropy"]
        record = next(cell.record for cell in result.cells if cell.record.cell.method == "theirs")
        assert record.method.factor == 1

    def test_a_stopped_call_goes_on_and_another_is_refused(self, written, place, tmp_path):
        folder = written()
        path = next(folder.rglob("*.png"))
        before = path.read_bytes()
        path.unlink()
        written()
        assert path.read_bytes() == before
        with pytest.raises(UsageError, match="holds files that this call did not make"):
            written("lanczos")

    def test_ids_that_share_a_name_are_read_back(self, run, own_folders, place, tmp_path):
        data = tmp_path / "twins"
        make_images(data, 2, side=SIDE)
        for path in list(data.rglob("*0001.png")):
            with Image.open(path) as image:
                image.save(path.with_name("0000.bmp"))
        upscale_data(f"folder:{data}", "area", out=tmp_path / "up", protocol=str(place / "half.toml"), progress=False)
        result = run("area", data=f"folder:{data}", precomputed={"mine": tmp_path / "up"})
        assert entry(result, "mine")["psnr"] == entry(result, "area")["psnr"]

    def test_options_of_pictures_and_of_data_do_not_mix(self, tmp_path):
        for options in (
            ["--data", "demo", "--tile", "9"],
            ["x.png", "--split", "val"],
            ["x.png", "--data", "demo"],
            [],
        ):
            shown = CliRunner().invoke(app, ["upscale", *options, "--method", "area", "--out", str(tmp_path / "o")])
            assert shown.exit_code == 2, options
            assert "leave it out" in shown.output or "not both" in shown.output
