"""`srbench upscale`: sizes, tiles without seams, what is kept of a picture, folders, classifiers, wrong calls."""

from __future__ import annotations

import errno
import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from dummies import CLASSES, make_classifier, pixels, save_gain, trainable
from PIL import Image, ImageCms
from typer.testing import CliRunner

from srbench import weights
from srbench.cli import app
from srbench.errors import SrbenchError, UsageError
from srbench.imaging import codecs
from srbench.imaging.codecs import WRITABLE, made_by, read_picture, without_fringe
from srbench.imaging.resample import resize, to_uint8
from srbench.imaging.tiles import MARGIN, spans, tiled
from srbench.networks.loading import load_classifier
from srbench.upscaling import api, render, upscale
from srbench.upscaling.guesses import Guesser
from srbench.weights import Card

NETWORK = '''"""A network of factor 4 that sees `reach` pixels around each."""

import torch
from torch import nn

from srbench.method import Method, MethodInfo


class Net(Method):
    info = MethodInfo(role="baseline", family="test", version="1", factor=4, channels={channels})

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        layers = []
        for given, made in (({channels}, 8), (8, 8), (8, {channels} * 16)):
            conv = nn.Conv2d(given, made, 2 * {reach} + 1, padding={reach}, bias=False)
            nn.init.normal_(conv.weight, std=3 / (given**0.5 * (2 * {reach} + 1)), generator=generator)
            layers += [conv, nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.PixelShuffle(4))
        self.windows = []

    def forward(self, lr, size):
        self.windows.append(tuple(lr.shape[-2:]))
        return 0.5 + 0.5 * self.layers(lr)
'''


def network(folder: Path, reach: int = 3, channels: int = 3) -> Path:
    path = folder / "net.py"
    path.write_text(NETWORK.format(reach=reach, channels=channels))
    return path


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    """Pixels as hard as they come: every one is drawn for itself."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def direct(array: np.ndarray, size: tuple[int, int], kernel: str = "bicubic") -> np.ndarray:
    """What a resampling of the whole picture in floating point gives."""
    planes = array if array.ndim == 3 else array[..., None]
    lr = torch.from_numpy(planes.transpose(2, 0, 1).copy())[None].float() / 255
    sr = to_uint8(resize(lr, size, kernel))[0].permute(1, 2, 0).numpy()
    return sr if array.ndim == 3 else sr[..., 0]


@pytest.fixture(autouse=True)
def here(own_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["upscale", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def profile(space: str = "sRGB") -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


# --- sizes and tiles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 301), (211, 1), (37, 53)])
@pytest.mark.parametrize("factor", [4.0, 2.5, 1.0, 0.3])
@pytest.mark.parametrize("tile", [None, 16])
def test_any_size_and_factor(here, size, factor, tile):
    source = save(here / "in.png", noise(*size, 3))
    result = upscale([source], "bicubic", out="out.png", factor=factor, tile=tile)
    wanted = tuple(max(1, int(side * factor + 0.5)) for side in size)
    assert result.images[0].lr_size == size and result.images[0].sr_size == wanted
    assert opened(Path("out.png")).shape == (*wanted, 3)


@pytest.mark.parametrize(
    "method",
    [
        "bicubic_opencv",
        "bicubic_pillow",
        "lanczos",
        "area",
        "nearest",
        "bilinear",
        "esrgan",
        "darionet",
        "learned_resizer",
    ],
)
def test_every_method_takes_one_pixel_and_a_line(here, method):
    for name, size in (("dot", (1, 1)), ("line", (1, 70))):
        source = save(here / f"{name}.png", noise(*size, 3))
        upscale([source], method, out=f"{name}-large.png", factor=3, weights="demo-x4" if method == "esrgan" else None)
        assert opened(Path(f"{name}-large.png")).shape == (3, 3 * size[1], 3)


@pytest.mark.parametrize(
    "method", ["bilinear", "bicubic", "bicubic_opencv", "bicubic_pillow", "lanczos", "nearest", "area"]
)
@pytest.mark.parametrize("factor", [4.0, 2.5, 0.5])
def test_tiles_of_interpolations_leave_no_trace_where_pixels_align(here, method, factor):
    source = save(here / "in.png", noise(95, 131, 3))
    for tile in (None, 20):
        upscale([source], method, out=f"{tile}.png", factor=factor, tile=tile)
    difference = np.abs(opened(Path("None.png")).astype(int) - opened(Path("20.png")))
    # sums in another order may round the other way
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize(("method", "bound"), [("bilinear", 3), ("bicubic", 4), ("bicubic_opencv", 4), ("lanczos", 4)])
def test_tiles_of_interpolations_where_no_pixels_align(here, method, bound):
    source = save(here / "in.png", noise(560, 40, 3))
    for tile in (None, 30):
        upscale([source], method, out=f"{tile}.png", factor=3.14159, tile=tile)
    difference = np.abs(opened(Path("None.png")).astype(int) - opened(Path("30.png")))
    assert difference.max() <= bound and (difference > 1).mean() < 0.01


@pytest.mark.parametrize("method", ["nearest", "area"])
def test_tiles_of_methods_that_jump_from_pixel_to_pixel(here, method):
    source = save(here / "in.png", noise(560, 40, 3))
    for tile in (None, 30):
        upscale([source], method, out=f"{tile}.png", factor=3.14159, tile=tile)
    assert (opened(Path("None.png")) != opened(Path("30.png"))).mean() < 0.02


@pytest.mark.parametrize(("factor", "bound"), [(4.0, 1), (2.0, 1), (8.0, 1), (2.7, 1), (2.71828, 3)])
def test_tiles_of_a_network_that_sees_no_further_than_the_margin(here, factor, bound):
    plugin = network(here, reach=3)
    source = save(here / "in.png", noise(100, 83, 3))
    for tile in (None, 24):
        upscale([source], "net", out=f"{tile}.png", factor=factor, tile=tile, plugins=[plugin])
    whole, parts = opened(Path("None.png")).astype(int), opened(Path("24.png")).astype(int)
    assert whole.std() > 25  # there is something to be seen
    assert np.abs(whole - parts).max() <= bound


def test_a_factor_is_what_was_asked_for_also_on_odd_sides(here):
    """A ramp of one level a pixel climbs 0.4 levels a pixel at factor 2.5, wherever it ends."""
    ramp = np.broadcast_to(np.arange(99, dtype=np.uint8), (9, 99))
    source = save(here / "in.png", np.ascontiguousarray(ramp))
    upscale([source], "bilinear", out="out.png", factor=2.5)
    result = opened(Path("out.png"))
    assert result.shape == (23, 248)
    expected = (np.arange(240) + 0.5) / 2.5 - 0.5
    assert np.abs(result[10, 5:240] - expected[5:]).max() <= 0.51


def test_a_margin_that_is_too_small_shows(here):
    """What the tests above would miss if the margin did nothing."""
    array = noise(60, 60, 3)
    kernel = torch.ones(3, 1, 9, 9) / 81

    def blurred(lr, size):
        return resize(torch.nn.functional.conv2d(lr, kernel, padding=4, groups=3), size, "nearest")

    whole = tiled(array, (120, 120), blurred, tile=None).astype(int)
    assert np.abs(whole - tiled(array, (120, 120), blurred, tile=20, margin=4)).max() <= 1
    assert np.abs(whole - tiled(array, (120, 120), blurred, tile=20, margin=1)).max() > 10


def test_no_window_is_larger_than_tile_and_margins(here, monkeypatch):
    plugin = network(here)
    source = save(here / "in.png", noise(150, 260, 3))
    seen = []
    loaded = api.load_method

    def remember(*arguments):
        seen.append(loaded(*arguments))
        return seen[-1]

    monkeypatch.setattr(api, "load_method", remember)
    upscale([source], "net", out="out.png", tile=40, plugins=[plugin])
    windows = seen[0].method.windows
    assert len(windows) == 4 * 7
    assert max(map(max, windows)) == 40 + 2 * MARGIN


def test_windows_cover_the_result_once_and_lie_on_the_grid():
    for side, target, tile in ((100, 400, 16), (97, 305, 16), (97, 305, 1), (1000, 13, 50), (5, 3000, 2), (64, 64, 64)):
        covered = np.zeros(target, dtype=int)
        for span in spans(side, target, tile, MARGIN):
            covered[span.filled] += 1
            assert 0 <= span.read.start < span.read.stop <= side
            assert 0 <= span.kept.start <= span.kept.stop <= span.size
            assert span.kept.stop - span.kept.start == span.filled.stop - span.filled.start
            for edge, place in (
                (span.read.start, span.filled.start - span.kept.start),
                (span.read.stop, span.filled.start - span.kept.start + span.size),
            ):
                assert abs(edge * target / side - place) <= 1 / 32
        assert (covered == 1).all()


def test_the_return_to_the_asked_factor_is_the_protocol_s(here):
    plugin = network(here)
    array = noise(20, 30, 3)
    source = save(here / "in.png", array)
    upscale([source], "net", out="four.png", factor=4, plugins=[plugin])
    upscale([source], "net", out="three.png", factor=3, plugins=[plugin])
    from srbench.registry import Registry

    method = Registry([plugin]).get("net")().eval()
    lr = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        native = method(lr, (60, 90))
    expected = to_uint8(resize(native, (60, 90), "bicubic"))[0].permute(1, 2, 0).numpy()
    assert np.abs(opened(Path("three.png")).astype(int) - expected).max() <= 1
    assert np.abs(opened(Path("four.png")).astype(int) - to_uint8(native)[0].permute(1, 2, 0).numpy()).max() <= 1


# --- what is kept of a picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp"])
def test_orientation_is_applied_once_and_the_camera_stays(here, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    exif.get_ifd(0x8769)[0xA002] = 12
    source = save(here / "in.png", noise(8, 12, 3), exif=exif)
    upscale([source], "nearest", out=f"out{suffix}", factor=2)
    with Image.open(f"out{suffix}") as image:
        written = image.getexif()
        assert written.get(0x0112, 1) == 1 and written[0x010F] == "Maker"
        if suffix != ".tiff":
            assert written.get_ifd(0x8769)[0xA002] == image.width
        shown = np.array(image)
    with Image.open(source) as image:
        from PIL import ImageOps

        upright = np.array(ImageOps.exif_transpose(image))
    expected = direct(upright, (upright.shape[0] * 2, upright.shape[1] * 2), "nearest").astype(int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < (25 if suffix == ".jpg" else 1e-9)


def test_colour_profiles_that_fit_are_kept(here):
    icc = profile()
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        source = save(here / f"in{suffix}", noise(6, 6, 3), icc_profile=icc)
        upscale([source], "bicubic", out=f"out{suffix}", factor=2)
        with Image.open(f"out{suffix}") as image:
            assert image.info["icc_profile"] == icc
    grey = save(here / "grey.png", noise(6, 6), icc_profile=icc)  # a profile for RGB on grey pixels is an error
    upscale([grey], "bicubic", out="grey-out.png")
    with Image.open("grey-out.png") as image:
        assert image.mode == "L" and "icc_profile" not in image.info


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_enlarged_by_bicubic_and_colours_do_not_fringe(here, mode):
    colour = (200, 60, 20) if mode == "RGBA" else (200,)
    bands = len(colour)
    array = np.zeros((16, 20, bands + 1), dtype=np.uint8)  # what is transparent is black
    array[4:12, 5:15, :bands] = colour
    array[4:12, 5:15, bands] = 255
    array[4, 5:15, bands] = 90
    source = save(here / "in.png", array)
    for tile in (None, 6):
        upscale([source], "bicubic", out="out.png", tile=tile)
        result = opened(Path("out.png"))
        with Image.open("out.png") as image:
            assert image.mode == mode
        np.testing.assert_array_equal(result[..., bands], direct(array[..., bands], (64, 80)))
        assert (result[..., :bands][result[..., bands] > 0] == colour).all()
    # without care the black shines through
    bare = direct(array[..., :bands], (64, 80))
    assert (bare[result[..., bands] > 0] != colour).any()


def test_pictures_that_are_opaque_are_restored_as_without_alpha(here):
    array = noise(10, 12, 3)
    save(here / "rgb.png", array)
    save(here / "rgba.png", np.dstack([array, np.full((10, 12), 255, np.uint8)]))
    for name in ("rgb", "rgba"):
        upscale([here / f"{name}.png"], "lanczos", out=f"{name}-out.png")
    result = opened(Path("rgba-out.png"))
    assert (result[..., 3] == 255).all()
    np.testing.assert_array_equal(result[..., :3], opened(Path("rgb-out.png")))
    upscale([here / "rgba.png"], "lanczos", out="rgba-out.jpg")  # nothing is lost
    nothing = np.zeros((3, 3), np.uint8)
    np.testing.assert_array_equal(without_fringe(array[:3, :3], nothing), array[:3, :3])


def test_pictures_of_every_mode(here):
    colour, grey = Image.fromarray(noise(9, 11, 3)), Image.fromarray(noise(9, 11))
    sixteen = noise(9, 11).astype(np.uint16) * 257
    palette = colour.quantize(16)
    sources = {
        "grey.png": (grey, "L"),
        "bits.png": (grey.convert("1"), "L"),
        "grey-alpha.png": (Image.fromarray(noise(9, 11, 2) | 1), "LA"),
        "palette.png": (palette, "RGB"),
        "sixteen.png": (Image.fromarray(sixteen), "L"),
        "cmyk.tif": (colour.convert("CMYK"), "RGB"),
        "plain.gif": (palette, "RGB"),
        "other.bmp": (colour, "RGB"),
        "float.tif": (Image.fromarray(noise(9, 11).astype(np.float32) / 255), "L"),
    }
    for name, (image, _) in sources.items():
        image.save(name)
    palette.save("transparent.png", transparency=3)
    code, _, err = run(*sources, "transparent.png", "--method", "nearest", "--factor", "2", "--out", "out")
    assert code == 0, err
    for name, (image, mode) in sources.items():
        target = Path("out") / (name if Path(name).suffix in WRITABLE else f"{Path(name).stem}.png")
        with Image.open(target) as large:
            assert large.mode == mode and large.size == (22, 18), name
            shown = np.array(large)
        if name == "sixteen.png":
            expected = (sixteen // 257).astype(np.uint8)
        elif name == "float.tif":
            expected = noise(9, 11)
        else:
            expected = np.array(image.convert(mode))
        if mode == "LA":  # alpha is bicubic, whatever the method
            shown, expected = shown[..., 0], expected[..., 0]
        np.testing.assert_array_equal(shown, expected.repeat(2, 0).repeat(2, 1), err_msg=name)
    with Image.open("out/transparent.png") as large, Image.open("transparent.png") as small:
        assert large.mode == "RGBA"
        np.testing.assert_array_equal(
            np.array(large)[..., 3], direct(np.array(small.convert("RGBA"))[..., 3], (18, 22))
        )
    assert "sixteen.png has more than 8 bits a channel, the result has 8" in err
    assert "cmyk.tif is CMYK, the result is RGB" in err


def test_cmyk_goes_through_its_own_profile(here, monkeypatch):
    image = Image.fromarray(noise(4, 4, 3)).convert("CMYK")
    image.save("in.tif", icc_profile=b"\0" * 16 + b"CMYK" + b"damaged")
    plain = read_picture(Path("in.tif"), "in.tif")  # a damaged profile is as none
    np.testing.assert_array_equal(plain.pixels, np.array(image.convert("RGB")))
    converted = Image.new("RGB", (4, 4), (1, 2, 3))
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda stream: "theirs")
    monkeypatch.setattr(
        ImageCms,
        "profileToProfile",
        lambda image, theirs, ours, **options: (
            converted if (theirs, options) == ("theirs", {"outputMode": "RGB"}) else 0
        ),
    )
    found = read_picture(Path("in.tif"), "in.tif")
    assert found.icc is None and (found.pixels == (1, 2, 3)).all()


def test_what_moves_or_has_pages_is_refused(here):
    frames = [Image.fromarray(noise(5, 5, 3, seed=seed)) for seed in range(3)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save("pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save("moving.png", save_all=True, append_images=frames[1:])
    frames[0].save("phone.jpg", format="MPO", save_all=True, append_images=frames[1:])
    for name in ("moving.gif", "pages.tif", "moving.png"):
        with pytest.raises(SrbenchError, match=f"{name} holds 3 frames or pages; save the one"):
            upscale([name], "nearest", out="out.png")
    upscale(["phone.jpg"], "nearest", out="out.png", factor=1)
    assert np.abs(opened(Path("out.png")).astype(int) - opened(Path("phone.jpg"))).max() == 0


@pytest.mark.parametrize("suffix", WRITABLE)
def test_formats_by_suffix(here, suffix):
    array = noise(7, 9, 3)
    source = save(here / "in.png", array)
    upscale([source], "bilinear", out=f"deep/er/out{suffix.upper()}", factor=3)
    target = Path(f"deep/er/out{suffix.upper()}")
    with Image.open(target) as image:
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix[1:4], suffix[1:].upper())
        assert image.format == ("JPEG" if "jp" in suffix else kind)
        difference = np.abs(np.array(image).astype(int) - direct(array, (21, 27), "bilinear"))
    assert difference.max() == 0 if "jp" not in suffix else difference.mean() < 4
    assert list(target.parent.iterdir()) == [target]


def test_grey_pictures_stay_grey(here):
    array = noise(12, 14)
    source = save(here / "in.png", array)
    upscale([source], "bicubic", out="out.png", factor=2)
    np.testing.assert_array_equal(opened(Path("out.png")), direct(array, (24, 28)))
    plugin = network(here)
    upscale([source], "net", out="net.png", plugins=[plugin])
    assert opened(Path("net.png")).shape == (48, 56)
    (here / "one").mkdir()
    one = network(here / "one", channels=1)
    upscale([source], "net", out="one.png", plugins=[one])
    assert opened(Path("one.png")).shape == (48, 56)
    save(here / "colour.png", noise(4, 4, 3))
    with pytest.raises(SrbenchError, match=r"colour\.png: method 'net' takes grey images alone"):
        upscale(["colour.png"], "net", out="refused.png", plugins=[one])


def test_grey_pictures_are_the_mean_of_what_a_network_tints_as_in_an_evaluation(here):
    Path("tinted.py").write_text(
        "import torch\nfrom srbench.imaging.resample import resize\nfrom srbench.method import Method, MethodInfo\n"
        "class Tinted(Method):\n    info = MethodInfo(role='baseline', family='test', version='1')\n"
        "    def forward(self, lr, size):\n"
        "        tint = torch.tensor([24.0, -12.0, -12.0]).view(1, 3, 1, 1) / 255\n"
        "        return resize(lr, size, 'bilinear') * 0.5 + 0.25 + tint\n"
    )
    array = noise(12, 14)
    upscale([save(here / "in.png", array)], "tinted", out="out.png", factor=2, plugins=["tinted.py"])
    expected = direct(array, (24, 28), "bilinear") * 0.5 + 255 / 4
    assert np.abs(opened(Path("out.png")) - expected).max() <= 1.0


def test_arrays_are_pictures_too(here):
    array = noise(5, 6, 3)
    np.save("in.npy", array)
    upscale(["in.npy"], "nearest", out="out.png", factor=2)
    np.testing.assert_array_equal(opened(Path("out.png")), array.repeat(2, 0).repeat(2, 1))


def test_damaged_exif_does_no_harm(here):
    source = save(here / "in.jpg", noise(6, 6, 3), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f\0\0")
    upscale([source], "nearest", out="out.jpg", factor=2)
    assert opened(Path("out.jpg")).shape == (12, 12, 3)


# --- folders -------------------------------------------------------------------------------------------------------


def folder_of_images(root: Path) -> Path:
    save(root / "a.png", noise(5, 6, 3))
    save(root / "deep" / "er" / "b.jpg", noise(6, 5, 3))
    save(root / "deep" / "c.bmp", noise(4, 4, 3))
    save(root / ".hidden" / "d.png", noise(4, 4, 3))
    (root / "notes.txt").write_text("no image")
    return root


def test_folders_are_mirrored_and_what_cannot_be_read_is_named_last(here):
    root = folder_of_images(here / "photos")
    (root / "torn.png").write_bytes((root / "a.png").read_bytes()[:60])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.webp").write_text("hello")
    code, out, err = run(root, "--method", "bicubic", "--factor", "2", "--out", "big")
    assert code == 1 and out == ""
    written = {str(path.relative_to("big")) for path in Path("big").rglob("*") if path.is_file()}
    assert written == {"a.png", "deep/er/b.jpg", "deep/c.png"}
    lines = err.splitlines()
    assert lines[0] == "srbench: enlarged 3 images x2 by bicubic"
    assert [re.split(r" (?:is|cannot)", line)[0] for line in lines[1:]] == [
        f"srbench: failed: {name}" for name in ("empty.jpg", "text.webp", "torn.png")
    ]


def test_a_second_call_goes_on_and_another_method_is_refused(here):
    root = folder_of_images(here / "photos")
    words = (root, "--factor", "2", "--out", "big")
    assert run(*words, "--method", "bicubic")[0] == 0
    Path("big/deep/c.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in Path("big").rglob("*.*")}
    code, _, err = run(*words, "--method", "bicubic", "--tile", "4")
    assert code == 0 and "deep/c.bmp from 4 x 4 to 8 x 8 pixels by bicubic: big/deep/c.png; 2 were there already" in err
    assert before.items() <= {path: path.stat().st_mtime_ns for path in Path("big").rglob("*.*")}.items()
    for other in (("--method", "lanczos"), ("--method", "bicubic", "--factor", "3")):
        code, _, err = run(*words, *other)
        assert code == 2 and "big/a.png exists already and was not made by this call" in err
    save(root / "a.png", noise(5, 6, 3, seed=9))  # another picture under the same name
    code, _, err = run(*words, "--method", "bicubic")
    assert code == 2 and "big/a.png exists already" in err


def test_files_go_into_a_folder_each_under_its_name(here):
    one, two = save(here / "x" / "a.png", noise(3, 3, 3)), save(here / "y" / "b.jpg", noise(3, 3, 3))
    result = upscale([one, two, one], "nearest", out="big", factor=2)
    assert [image.target for image in result.images] == [Path("big/a.png"), Path("big/b.jpg")]
    Path("big.v2").mkdir()
    assert upscale([one], "nearest", out="big.v2").images[0].target == Path("big.v2/a.png")
    assert upscale([one], "nearest", out="new.v2/").images[0].target == Path("new.v2/a.png")


def test_inputs_and_files_of_others_are_never_written_over(here):
    source = save(here / "a.png", noise(4, 4, 3))
    other = save(here / "sub" / "a.jpg", noise(4, 4, 3))
    (here / "link.png").symlink_to(source)
    os.link(source, here / "hard.png")
    foreign = save(here / "big" / "a.png", noise(2, 2, 3))
    before = {path: path.read_bytes() for path in (source, other, foreign)}
    for images, out, sentence in (
        ([source], "a.png", "a.png is an input and would be written over"),
        ([source], "link.png", "link.png is an input"),
        ([source], "hard.png", "hard.png is an input"),
        ([source], ".", "a.png is an input"),
        ([here / "sub"], "sub", "lies inside the folder"),
        ([here / "sub"], "sub/big", "lies inside the folder"),
        ([source], "big", "big/a.png exists already and was not made by this call"),
        ([source, save(here / "z" / "a.png", noise(2, 2, 3))], "new", "would both become new/a.png"),
        ([save(here / "w" / "c.bmp", noise(2, 2, 3)), save(here / "w" / "c.png", noise(2, 2, 3))], "n", "both become"),
    ):
        with pytest.raises(UsageError, match=sentence):
            upscale(images, "nearest", out=out)
    assert before == {path: path.read_bytes() for path in before}
    assert not Path("new").exists()
    upscale([source], "nearest", out="big/a.png", factor=2)  # named itself, it is written over
    assert opened(foreign).shape == (8, 8, 3)


def test_a_full_disk_leaves_the_old_file_and_no_other(here, monkeypatch):
    source = save(here / "a.png", noise(4, 4, 3))
    old = save(here / "out" / "b.png", noise(2, 2, 3)).read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(source, "--method", "nearest", "--out", "out/b.png")
    assert code == 1 and "cannot write out/b.png: No space left on device" in err
    assert [path.name for path in Path("out").iterdir()] == ["b.png"] and Path("out/b.png").read_bytes() == old


def test_results_say_how_they_were_made(here):
    source = save(here / "a.jpg", noise(4, 4, 3))
    digest = weights.file_sha256(source)
    for suffix in WRITABLE:
        upscale([source], "bicubic", out=f"out{suffix}", factor=2.5)
        assert re.fullmatch(
            rf"srbench [\d.]+: bicubic 1, weights none, x2\.5, of {digest[:16]}", made_by(Path(f"out{suffix}")) or ""
        )
    assert made_by(source) is None


def test_a_method_that_fails_is_one_sentence_a_picture(here):
    plugin = here / "frail.py"
    plugin.write_text(
        network(here).read_text().replace("self.windows.append(tuple(lr.shape[-2:]))", "self.check(lr)")
        + "\n    def check(self, lr):\n        if lr.shape[-1] == 7:\n            raise ValueError('seven')\n"
        "        if lr.shape[-1] == 9:\n            raise MemoryError\n"
    )
    for side in (6, 7, 9):
        save(here / "in" / f"{side}.png", noise(side, side, 3))
    code, _, err = run(here / "in", "--method", "frail", "--plugin", plugin, "--out", "out")
    assert code == 1 and [path.name for path in Path("out").iterdir()] == ["6.png"]
    assert "failed: 7.png: method 'frail' fails on 7 x 7 pixels: ValueError: seven" in err
    assert "failed: 9.png: 9 x 9 pixels at once are too many for the memory; try --tile 16" in err


# --- weights -------------------------------------------------------------------------------------------------------


def test_weights_by_default_are_those_that_can_be_meant(here, own_folders):
    gain = trainable(here)
    source = save(here / "in.png", noise(4, 4, 3))
    home = own_folders / "weights" / "gain"

    def used(**options) -> str | None:
        return upscale([source], "gain", out="out.png", plugins=[gain], **options).weights

    with pytest.raises(UsageError, match="method 'gain' needs weights and has none here that fit"):
        used()
    save_gain(home / "for-demo.safetensors", 0.5, tasks=("demo",))
    assert used() == "for-demo"
    save_gain(home / "first.safetensors", 0.25)
    assert used() == "first"  # what is for a task alone stands behind
    assert np.abs(opened(Path("out.png")).astype(int) - direct(opened(source), (16, 16), "bilinear") / 4).max() <= 1
    save_gain(home / "second.safetensors", recipe={"init": "gain:first"})
    assert used() == "second"  # what another was started from is none
    save_gain(home / "third.safetensors")
    with pytest.raises(UsageError, match="has several sets of weights here: second, third; choose one"):
        used()
    assert used(weights="first") == "first"
    assert used(weights="gain=third") == "third"
    assert used(weights=str(home / "second.safetensors")) == "second"


def test_weights_that_ship_run_by_default(here):
    source = save(here / "in.png", noise(6, 6, 3))
    for method, label in (("esrgan", "demo-x4"), ("learned_resizer", "demo-frozen")):
        result = upscale([source], method, out="out.png")
        assert result.weights == label and "were trained for demo alone" in result.notes[0]
    result = upscale([source], "darionet", out="out.png")  # it has a set for photographs beside that of the demo
    assert result.weights == "photos-x4" and not any("demo" in note for note in result.notes)
    with pytest.raises(UsageError, match="several sets of weights here: demo-resnet, demo-vit; choose one"):
        upscale([source], "retrained", out="out.png")


# --- the classifier ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("card"), side=24)


def test_a_classifier_is_asked_before_and_after(here, card):
    array = pixels(1, 3, 12)
    source = save(here / "in.png", array)
    for tile in (None, 5):
        result = upscale([source], "lanczos", out="out.png", factor=2, classifier=str(card), tile=tile)
        (image,) = result.images
        judge = load_classifier(str(card))
        for guesses, kernel in ((image.before, "bilinear"), (image.after, "lanczos")):
            seen = torch.from_numpy(direct(array, (24, 24), kernel)).permute(2, 0, 1)[None].float() / 255
            with torch.inference_mode():
                expected = judge(seen)[0].softmax(0)
            assert len(guesses) == len(CLASSES) and sum(guess.probability for guess in guesses) == pytest.approx(1)
            assert [guess.name for guess in guesses] == [CLASSES[i] for i in expected.argsort(descending=True)]
            for guess in guesses:
                assert guess.probability == pytest.approx(float(expected[CLASSES.index(guess.name)]), abs=0.02)
    (table,) = render(result)
    assert table.row_count == 3


def test_the_table_is_printed(here, card):
    save(here / "in" / "[bold]a.png", pixels(0, 1, 12))
    save(here / "in" / "b.png", pixels(1, 1, 12))
    words = (here / "in", "--method", "bicubic", "--factor", "2", "--out", "out", "--classifier", card)
    code, out, err = run(*words)
    assert code == 0 and "[bold]a.png: dummy" in out and "b.png: dummy" in out
    assert len(re.findall(r"^ *1 +(?:bar|dot|net) +0\.\d{3}|1\.000 +(?:bar|dot|net) +[01]\.\d{3}", out, re.M)) >= 2
    assert re.search(
        r"enlarged 2 images x2 by bicubic; dummy decides otherwise than before on [012] of 2$", err.strip()
    )
    code, again, err = run(*words)  # the results that are there are shown as well
    assert code == 0 and again == out and "enlarged 0 images x2 by bicubic; 2 were there already" in err


def test_a_classifier_of_fixed_size_gets_its_size_and_others_no_more_than_the_protocol_s(here, card, monkeypatch):
    sizes = []
    guess = Guesser._guess

    def remember(self, network, image):
        sizes.append(tuple(image.shape[-2:]))
        return guess(self, network, image)

    monkeypatch.setattr(Guesser, "_guess", remember)
    fixed = make_classifier(here / "fixed", input_size=32)
    source = save(here / "in.png", noise(10, 90, 3))
    upscale([source], "nearest", out="out.png", classifier=str(fixed))
    upscale([source], "nearest", out="out.png", classifier=str(card), factor=4)
    upscale([source], "nearest", out="out.png", classifier=str(card), factor=16, tile=30)
    assert sizes[:4] == [(32, 32)] * 2 + [(40, 360)] * 2
    assert len(set(sizes[4:])) == 1 and np.prod(sizes[4]) == pytest.approx(256 * 256, rel=0.02)


def test_adapted_weights_bring_their_own_classifier(here, card, own_folders):
    gain = trainable(here)
    judge = load_classifier(str(card))
    turned = {key: value.clone() for key, value in judge.network.state_dict().items()}
    last = next(key for key in turned if key.endswith("fc.bias"))
    turned[last] += torch.tensor([0.0, 0.0, 1000.0])
    weights.save(
        own_folders / "weights" / "gain" / "joint.safetensors",
        {"gain": torch.ones(1)},
        Card(
            namespace="gain",
            name="joint",
            track="adapted",
            teacher={"id": "dummy", "sha256": judge.info.weights_sha256},
        ),
        classifier_state=turned,
    )
    source = save(here / "in.png", pixels(0, 2, 12))
    result = upscale([source], "gain", out="out.png", plugins=[gain], classifier=str(card), factor=2)
    assert result.weights == "joint"
    assert result.images[0].after[0].name == CLASSES[2] and result.images[0].after[0].probability > 0.99
    assert result.images[0].before[0].probability < 0.99 or result.images[0].before[0].name != CLASSES[2]
    other = make_classifier(here / "other", "other", seed=5)
    with pytest.raises(UsageError, match="does not apply here: weights 'joint' were adapted together with"):
        upscale([source], "gain", out="o.png", plugins=[gain], classifier=str(other), weights="joint")
    upscale([source], "gain", out="alone.png", plugins=[gain])  # without a classifier the images are wanted alone


def test_a_classifier_that_fails_costs_no_picture(here, card, monkeypatch):
    source = save(here / "in.png", noise(4, 4, 3))

    def broken(self, network, image):
        raise SrbenchError("classifier dummy fails")

    monkeypatch.setattr(Guesser, "_guess", broken)
    code, out, err = run(source, "--method", "nearest", "--out", "out.png", "--classifier", card)
    assert code == 1 and out.strip() == "" and "failed: in.png: classifier dummy fails" in err
    assert opened(Path("out.png")).shape == (16, 16, 3)


# --- wrong calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("a.png --method bicubik --out o.png", "no method named 'bicubik'; did you mean bicubic"),
        ("gone.png --method bicubic --out o.png", "there is no image or folder gone.png; check the path"),
        ("void --method bicubic --out o", "the folder void holds no images"),
        ("a.png --method bicubic --out o.png --factor 0", "--factor takes a number above 0, such as 4 or 2.5, got 0"),
        ("a.png --method bicubic --out o.png --factor -2", "--factor takes a number above 0"),
        ("a.png --method bicubic --out o.png --factor nan", "--factor takes a number above 0.* got nan"),
        ("a.png --method bicubic --out o.png --factor inf", "--factor takes a number above 0.* got inf"),
        ("a.png --method bicubic --out o.png --tile 0", "--tile takes a side in LR pixels of at least 1"),
        ("a.png --method bicubic --out o.png --device tpu", "--device takes auto, cpu or cuda"),
        ("a.png --method bicubic --out o.gif", "--out o.gif: images are written as .png, .jpg, .* not .gif"),
        ("a.png b.png --method bicubic --out o.png", "--out o.png is the name of one image, but several"),
        ("void --method bicubic --out o.png", "--out o.png is the name of one image, but several"),
        ("a.png b.png --method bicubic --out a.png", "--out a.png is the name of one image, but several"),
        ("a.png --method bicubic --out b.png/c.png", "--out b.png is b.png, which is not a folder"),
        ("a.png --method bicubic --out o.png --weights x", "method 'bicubic' takes no weights, so --weights x"),
        ("a.png --method esrgan --out o.png --weights gone.pth", "there is no weights file gone.pth for 'esrgan'"),
        ("a.png --method esrgan --out o.png --weights nosuch", "there is no weights of 'esrgan' named 'nosuch'"),
        ("a.png --method none --out o.png", "method 'none' hands images on as they are; choose one that enlarges"),
        ("a.png --method bicubic --out o.png --classifier nosuch", "no classifier named 'nosuch'"),
        ("a.png --method bicubic --out o.png --plugin gone.py", "--plugin takes a Python file"),
        ("clear.png --method bicubic --out o.jpg", "clear.png is transparent in places, which JPEG cannot keep"),
        ("a.png --method bicubic --out o.webp --factor 9999", "would become 39996 x 29997 pixels, WEBP holds at most"),
        ("a.png --method bicubic --out o.png --factor 1e5", "which is too large; take a smaller factor"),
    ],
)
def test_wrong_call_exits_2_with_one_sentence(here, words, sentence):
    (here / "void").mkdir()
    for name in ("a.png", "b.png"):
        save(here / name, noise(3, 4, 3))
    save(here / "clear.png", noise(3, 4, 4))
    before = sorted(here.rglob("*"))
    code, out, err = run(*words.split())
    (line,) = [line for line in err.splitlines() if line.startswith("srbench: ")]
    assert code == 2 and out == "" and re.search(sentence, line), err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    "words", ["a.png --out o.png", "a.png --method bicubic", "--method bicubic --out o", "a.png b"]
)
def test_what_is_missing_exits_2(here, words):
    assert run(*words.split())[0] == 2


def test_a_single_picture_that_cannot_be_read_exits_1(here):
    Path("a.png").write_bytes(b"GIF89a??")
    code, _, err = run("a.png", "--method", "bicubic", "--out", "o.png")
    assert code == 1 and err.startswith("srbench: a.png ") and len(err.splitlines()) == 1
    assert not Path("o.png").exists()


def test_a_folder_says_which_pictures_it_left_out(here):
    save(here / "in" / "a.png", noise(4, 4, 3))
    (here / "in" / "b.gif").write_bytes(b"GIF89a")
    result = upscale([here / "in"], "nearest", out="out", factor=2)
    assert len(result.images) == 1 and result.notes == (f"{here / 'in'}: left out: 1 .gif",)


def test_progress_counts_tiles(here, monkeypatch):
    from contextlib import contextmanager

    counted = []

    @contextmanager
    def track(description, total, *, show, unit):
        counted.append((total, unit, []))
        yield counted[-1][2].append

    monkeypatch.setattr(api, "track", track)
    save(here / "in" / "a.png", noise(40, 25, 3))
    save(here / "in" / "b.png", noise(9, 9, 3))
    (here / "in" / "torn.png").write_bytes(b"x")
    upscale([here / "in"], "bicubic", out="tiles", tile=20)
    upscale([here / "in"], "bicubic", out="whole")
    assert [(total, unit) for total, unit, _ in counted] == [(4 + 1 + 1, "tiles"), (3, "images")]
    assert [sum(steps) for _, _, steps in counted] == [6, 3]


def test_no_more_than_tiles_is_in_floating_point(here):
    """A long picture: its result in floating point would be 48 MB, what is kept of it is 12 MB in 8 bits."""
    largest = []

    def restore(lr, size):
        largest.append(size[0] * size[1])
        return resize(lr, size, "bicubic")

    result = tiled(noise(100, 2500, 3), (400, 10000), restore, tile=50)
    assert result.dtype == np.uint8 and result.nbytes == 12_000_000
    assert max(largest) <= (4 * (50 + 2 * MARGIN)) ** 2


# --- real pictures -------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_a_photograph_without_seams_and_its_class(here, real):
    photo = next(iter(sorted((real / "photos" / "n02123394").glob("*.jpg"))))
    with Image.open(photo) as image:
        save(here / "in.png", np.array(image.convert("RGB").resize((90, 90))))
    names = {"method": "esrgan", "weights": str(real / "weights" / "realesr-animevideov3.pth")}
    whole = upscale(["in.png"], out="whole.png", **names)
    judge = str(real / "weights" / "mobilenetv2_tfquant.toml")
    parts = upscale(["in.png"], out="parts.png", tile=24, classifier=judge, **names)
    assert whole.images[0].sr_size == (360, 360)
    assert np.abs(opened(Path("whole.png")).astype(int) - opened(Path("parts.png"))).max() <= 1
    guesses = [guess.name for guess in parts.images[0].after]
    assert len(guesses) == 5 and all(re.match(r"n\d{8} \w", name) for name in guesses)


def test_codecs_read_what_they_write(here):
    picture = codecs.Picture(noise(5, 6, 3), alpha=noise(5, 6, seed=1), icc=profile())
    for suffix in (".png", ".webp", ".tif"):
        Path(f"a{suffix}").write_bytes(codecs.encode(picture, suffix, made="by hand"))
        found = read_picture(Path(f"a{suffix}"), "a")
        np.testing.assert_array_equal(found.pixels, picture.pixels)
        np.testing.assert_array_equal(found.alpha, picture.alpha)
        assert found.icc == picture.icc and made_by(Path(f"a{suffix}")) == "by hand"
    with Image.open(io.BytesIO(codecs.encode(picture, ".png", made="x" * 70000))) as image:
        assert len(image.getexif()[0x000B]) == 70000


# --- pictures of any size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITABLE)
def test_own_results_beyond_the_limit_of_pillow_are_known_again(monkeypatch, suffix):
    """A photograph of 12 megapixels becomes 192 at x4: the second call goes on after it, without a warning."""
    save(Path("in") / f"a{suffix}", noise(20, 20, 3))
    call = ("in", "--method", "bilinear", "--out", "out")
    assert run(*call)[0] == 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow refuses twice as many; the result has 6,400
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, _, err = run(*call)
    assert code == 0 and "1 were there already" in err
    assert Image.MAX_IMAGE_PIXELS == 500


def test_a_picture_that_claims_too_many_pixels_is_a_sentence_with_the_option():
    save(Path("a.png"), noise(40, 40, 3))
    code, _, err = run("a.png", "--method", "bilinear", "--out", "b.png", "--max-megapixels", 0.001)
    assert code == 1 and "says that it has 40 x 40 pixels" in err and "--max-megapixels" in err
    assert not Path("b.png").exists()
    assert run("a.png", "--method", "bilinear", "--out", "b.png", "--max-megapixels", 0.0016)[0] == 0
    code, _, err = run("a.png", "--method", "bilinear", "--out", "b.png", "--max-megapixels", 0)
    assert code == 2 and "--max-megapixels takes a number above 0, got 0" in err
