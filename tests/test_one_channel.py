"""A file that stores one channel is Y itself under a protocol of Y: from the file over the cache to records."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from srbench import metrics
from srbench.data.catalogue import open_source
from srbench.data.hr_cache import build_hr_store
from srbench.evaluation import evaluate
from srbench.imaging.decode import decode_stored
from srbench.leaderboard import tables
from srbench.protocol import Geometry

FACTOR_DB = 20 * math.log10(255 / 219)  # the range of luma is 219 of 255 levels, so its errors are shrunk by that


def _pixels(rng, side=48):
    coarse = rng.integers(0, 256, (side // 4, side // 4), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def _repeated(grey):
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.fixture
def folder(tmp_path):
    grey = _pixels(np.random.default_rng(0))
    Image.fromarray(grey).save(tmp_path / "bridge.png")
    Image.fromarray(_repeated(grey)).save(tmp_path / "man.png")
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        *[("L", "png", 1), ("L", "jpg", 1), ("LA", "png", 1), ("1", "png", 1), ("I;16", "png", 1), ("L", "bmp", 1)],
        *[("RGB", "png", 3), ("RGB", "jpg", 3), ("RGBA", "png", 3), ("P", "png", 3), ("CMYK", "tif", 3)],
    ],
)
def test_a_file_says_how_many_channels_it_stores(tmp_path, mode, suffix, channels):
    image = Image.fromarray(_pixels(np.random.default_rng(1)))
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    stored = decode_stored(tmp_path / f"a.{suffix}")
    assert stored.channels == channels and stored.pixels.shape == (3, 48, 48)


@pytest.mark.parametrize(("shape", "channels"), [((8, 9), 1), ((1, 8, 9), 1), ((8, 9, 1), 1), ((3, 8, 9), 3)])
def test_an_array_says_how_many_channels_it_stores(tmp_path, shape, channels):
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.uint8))
    assert decode_stored(tmp_path / "a.npy").channels == channels


def test_the_cache_keeps_the_stored_channels(folder):
    for _ in range(2):  # decoded, then read from the cache
        store = build_hr_store(open_source(f"images:{folder}"), Geometry())
        assert [sample.id for sample in store.samples] == ["bridge.png", "man.png"]
        assert store.stored_channels.tolist() == [1, 3]
    assert store.decoded == 0


def test_y_of_a_grey_file_and_of_its_rgb_copy_differ_by_the_range_of_luma(folder, tmp_path):
    result = evaluate(
        ["bicubic", "lanczos"], data=f"images:{folder}", protocol="sr-classic", out=tmp_path / "out", measure=False
    )
    for method in ("bicubic", "lanczos"):
        rows = result.samples[result.samples.method == method].set_index("sample_id")
        grey, copy = rows.loc["bridge.png"], rows.loc["man.png"]
        assert copy["psnr"] - grey["psnr"] == pytest.approx(FACTOR_DB, abs=1e-4)
        assert copy["mse"] / grey["mse"] == pytest.approx((219 / 255) ** 2, rel=1e-4)
        assert copy["ssim"] > grey["ssim"]  # the constants of SSIM weigh more where the range is narrower
    assert {cell.record.dataset.n_one_channel for cell in result.cells} == {1}
    (_, _, shown), *_ = tables.groups(result.board)
    (task,) = result.board.tasks
    note = "1 of 2 images are stored with one channel, which is taken as Y itself"
    assert note in tables.notes(result.board, task, shown)


def test_rgb_protocols_do_not_ask_for_the_channels(folder, tmp_path):
    result = evaluate(["bicubic"], data=f"images:{folder}", protocol="native", out=tmp_path / "out", measure=False)
    rows = result.samples[result.samples.method == "bicubic"].set_index("sample_id")
    assert rows.loc["bridge.png"]["psnr"] == rows.loc["man.png"]["psnr"]
    (task,) = result.board.tasks
    assert not [line for line in tables.notes(result.board, task, result.board.rows) if "one channel" in line]


def test_grey_images_may_share_a_batch_with_colour():
    generator = torch.Generator().manual_seed(0)
    hr, sr = torch.rand(2, 1, 3, 16, 16, 1, generator=generator).squeeze(-1).repeat(1, 2, 1, 1, 1)
    hr, sr = (each[:, :1].repeat(1, 3, 1, 1) for each in (hr, sr))
    mixed = metrics.mse_per_image(sr, hr, channels="y", grey=torch.tensor([True, False]))
    plain = ((sr[:, 0] - hr[:, 0]) ** 2).mean(dim=(1, 2)).double()
    assert mixed[0] == pytest.approx(float(plain[0]), rel=1e-5)
    assert mixed[1] == pytest.approx(float(plain[1]) * (219 / 255) ** 2, rel=1e-5)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_files_that_ask_to_be_turned_are_counted_in_a_note(tmp_path, suffix):
    image, exif = Image.fromarray(_pixels(np.random.default_rng(1))), Image.Exif()
    (tmp_path / "photos").mkdir()
    image.save(tmp_path / "photos" / f"none.{suffix}")
    for name, orientation in (("upright", 1), ("turned", 6)):
        exif[0x0112] = orientation
        image.save(tmp_path / "photos" / f"{name}.{suffix}", exif=exif)
    store = build_hr_store(open_source(f"images:{tmp_path / 'photos'}"), Geometry())
    assert {sample.id.split(".")[0]: turned for sample, turned in zip(store.samples, store.turned, strict=True)} == {
        "none": 0, "turned": 1, "upright": 0
    }  # fmt: skip
    result = evaluate(
        ["bicubic"], data=f"images:{tmp_path / 'photos'}", protocol="native", out=tmp_path / "out", measure=False
    )
    assert "1 of 3 images ask by EXIF to be turned; all are scored as they are stored" in tables.markdown(result.board)
