"""Decoding, HR geometry, and every way of opening a dataset."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from srbench.data import catalogue, readers
from srbench.data.catalogue import list_datasets, open_source
from srbench.data.geometry import crop_hr
from srbench.data.source import Sample, SampleList, sample_list_sha256
from srbench.errors import DataError, UnknownNameError, UnreadableImageError, UsageError
from srbench.imaging import decode as decode_module
from srbench.imaging.decode import decode, from_array
from srbench.protocol import Geometry

REAL = Path(os.environ.get("SRBENCH_REAL", Path(__file__).parents[1].parent / "shared" / "real"))


FLAT = '''"""Images of one value."""
import torch

from srbench.data.dataset import DatasetInfo
from srbench.data.source import Sample, Source

FLAT = DatasetInfo(
    name="flat",
    opener="open_flat",
    description="one grey image",
    argument="[VALUE]",
    splits=("all",),
    labels="none",
    protocol="native",
)


class FlatSource(Source):
    def __init__(self, value, split):
        self.name = self.spec = "flat"
        self.split, self.value, self.classes, self.samples = split, int(value or 0), None, (Sample("a"),)

    def read(self, index):
        return torch.full((3, 8, 8), self.value, dtype=torch.uint8)

    def stamps(self, indices):
        return [(self.value,)] * len(indices)


def open_flat(argument, split):
    return FlatSource(argument, FLAT.choose_split(split))
'''


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """A smooth colour picture with some texture, so that JPEG keeps it alive."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    base = np.stack([rows * 5 % 256, columns * 4 % 256, (rows + columns) * 3 % 256], axis=-1)
    return np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).convert(mode).save(path, **options)
    return path


def planes(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


class TestDecode:
    @pytest.mark.parametrize("subsampling", [0, 1, 2])
    @pytest.mark.parametrize("size", [(40, 56), (33, 17), (1, 1)])
    def test_both_jpeg_decoders_give_the_same_pixels(self, tmp_path, monkeypatch, subsampling, size):
        path = save(tmp_path / "a.jpg", picture(*size), quality=87, subsampling=subsampling)
        assert decode_module._is_plain_jpeg(path.read_bytes())
        fast = decode(path)
        monkeypatch.setattr(decode_module, "_is_plain_jpeg", lambda data: False)
        assert torch.equal(fast, decode(path))
        assert fast.shape == (3, *size)
        assert fast.dtype == torch.uint8

    def test_plain_jpeg_takes_the_fast_path(self, tmp_path, monkeypatch):
        def refuse(data, name, value_range):
            raise RuntimeError("Pillow was used")

        monkeypatch.setattr(decode_module, "_decode_pillow", refuse)
        decode(save(tmp_path / "a.jpg"))
        with pytest.raises(RuntimeError, match="Pillow was used"):
            decode(save(tmp_path / "b.jpg", mode="CMYK"))

    @pytest.mark.parametrize(("mode", "options"), [("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})])
    def test_other_jpegs_equal_pillow(self, tmp_path, mode, options):
        path = save(tmp_path / "a.jpg", mode=mode, **options)
        assert torch.equal(decode(path), planes(np.asarray(Image.open(path).convert("RGB"))))

    @pytest.mark.parametrize("size", [(40, 56), (1, 1), (1, 3), (3, 7), (7, 3), (3, 3)])
    def test_png_is_exact(self, tmp_path, size):
        assert torch.equal(decode(save(tmp_path / "a.png", picture(*size))), planes(picture(*size)))

    def test_grey_is_repeated(self, tmp_path):
        grey = picture()[..., 0]
        Image.fromarray(grey).save(tmp_path / "a.png")
        assert torch.equal(decode(tmp_path / "a.png"), torch.from_numpy(grey).expand(3, -1, -1))

    def test_sixteen_bits_are_divided_by_257(self, tmp_path):
        grey = picture()[..., 0].astype(np.uint16) * 257
        grey[0, 0], grey[0, 1] = 128, 129  # 0.498 and 0.502 of a step of 8 bits
        Image.fromarray(grey).save(tmp_path / "a.png")
        image = decode(tmp_path / "a.png")
        assert image[:, 0, :2].tolist() == [[0, 1]] * 3
        assert torch.equal(image[1].flatten()[2:], torch.from_numpy(picture()[..., 0]).flatten()[2:])

    def test_palette_is_looked_up_without_a_warning(self, tmp_path):
        image = Image.fromarray(picture()).quantize(16)
        image.save(tmp_path / "a.png", transparency=bytes(range(16)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoded = decode(tmp_path / "a.png")
        assert torch.equal(decoded, planes(np.asarray(image.convert("RGB"))))

    def test_alpha_is_dropped(self, tmp_path):
        pixels = np.dstack([picture(), np.full((40, 56), 3, dtype=np.uint8)])
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert torch.equal(decode(tmp_path / "a.png"), planes(picture()))

    def test_exif_orientation_is_ignored(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        save(tmp_path / "a.jpg", exif=exif)
        save(tmp_path / "b.jpg")
        assert torch.equal(decode(tmp_path / "a.jpg"), decode(tmp_path / "b.jpg"))

    @pytest.mark.parametrize("suffix", ["webp", "bmp", "tif", "ppm"])
    def test_other_formats(self, tmp_path, suffix):
        options = {"lossless": True} if suffix == "webp" else {}
        assert torch.equal(decode(save(tmp_path / f"a.{suffix}", **options)), planes(picture()))

    @pytest.mark.parametrize("kind", ["int64", "int32", "uint32", "int16", "int8"])
    def test_integers_that_do_not_say_what_is_white_are_refused_without_a_range(self, tmp_path, kind):
        values = np.array([[0, 100, 127]], dtype=kind)
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(UnreadableImageError, match=rf"a.npy holds {kind} values from 0 to 127, .*\?range=0:255"):
            decode(tmp_path / "a.npy")
        assert decode(tmp_path / "a.npy", value_range=(0, 255))[0].tolist() == values.tolist()
        if kind == "int32":
            Image.fromarray(values).save(tmp_path / "a.tif")
            with pytest.raises(UnreadableImageError, match=r"a\.tif holds int32 values"):
                decode(tmp_path / "a.tif")

    def test_sixteen_bits_of_a_pgm_are_read_as_such(self, tmp_path):
        (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + np.array([0, 257 * 7, 65535], dtype=">u2").tobytes())
        assert decode(tmp_path / "a.pgm")[0].tolist() == [[0, 7, 255]]

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
    def test_truncated_jpeg_is_refused(self, tmp_path, keep, progressive):
        path = save(tmp_path / "cut.jpg", picture(200, 200), progressive=progressive)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(UnreadableImageError, match=r"^class/cut\.jpg "):
            decode(path, "class/cut.jpg")

    @pytest.mark.parametrize("suffix", ["png", "webp", "tif", "npy"])
    def test_truncated_others_are_refused(self, tmp_path, suffix):
        path = tmp_path / f"cut.{suffix}"
        np.save(path, picture()) if suffix == "npy" else save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UnreadableImageError, match="cut"):
            decode(path)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [(b"", r"a\.jpg is empty"), (b"hello, this is no picture\n", r"a\.jpg is not an image")],
    )
    def test_no_image_at_all(self, tmp_path, content, sentence):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(UnreadableImageError, match=sentence) as caught:
            decode(tmp_path / "a.jpg")
        assert str(tmp_path) not in str(caught.value)

    def test_missing_file_is_named_without_its_folder(self, tmp_path):
        with pytest.raises(UnreadableImageError, match=r"^gone\.png cannot be read: No such file") as caught:
            decode(tmp_path / "gone.png")
        assert str(tmp_path) not in str(caught.value)

    @pytest.mark.parametrize("shape", [(40, 56), (1, 40, 56), (40, 56, 1), (3, 40, 56), (40, 56, 3)])
    def test_npy_layouts(self, tmp_path, shape):
        values = np.random.default_rng(0).random(shape).astype(np.float32)
        np.save(tmp_path / "a.npy", values)
        first = values if values.ndim == 2 else values[..., 0] if shape[2] in (1, 3) else values[0]
        image = decode(tmp_path / "a.npy")
        assert image.shape == (3, 40, 56)
        assert np.array_equal(image[0].numpy(), np.rint(first.astype(np.float64) * 255))

    @pytest.mark.parametrize(
        "array",
        [
            np.full((4, 4), 1.5),
            np.full((4, 4), -0.1),
            np.full((4, 4), np.nan),
            np.zeros((4, 4, 4, 4)),
            np.zeros((2, 5, 5)),
            np.zeros((0, 5)),
            np.full((4, 4), 70000),
            np.zeros((4, 4), dtype=np.complex64),
        ],
    )
    def test_arrays_that_are_no_images(self, array):
        with pytest.raises(UnreadableImageError, match="odd"):
            from_array(array, "odd")

    def test_pickled_npy_is_never_unpickled(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(UnreadableImageError, match=r"a\.npy"):
            decode(tmp_path / "a.npy")


class TestGeometry:
    @pytest.mark.parametrize("size", [(40, 57), (57, 40), (31, 31), (299, 301)])
    @pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
    def test_tensor_engine_is_torchvisions(self, size, kernel):
        image = planes(picture(*size))
        expected = v2.CenterCrop(24)(v2.Resize(32, interpolation=v2.InterpolationMode(kernel), antialias=True)(image))
        assert torch.equal(crop_hr(image, Geometry(resize=32, crop=24, kernel=kernel)), expected)

    @pytest.mark.parametrize("size", [(40, 57), (57, 40), (299, 301)])
    @pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
    def test_pillow_engine_is_torchvisions_on_pillow_images(self, size, kernel):
        pixels = picture(*size)
        chain = v2.Compose([v2.Resize(32, interpolation=v2.InterpolationMode(kernel)), v2.CenterCrop(27)])
        expected = planes(np.array(chain(Image.fromarray(pixels))))
        geometry = Geometry(resize=32, crop=27, kernel=kernel, engine="pillow")
        assert torch.equal(crop_hr(planes(pixels), geometry), expected)

    def test_modulo_crops_from_the_top_left(self):
        image = planes(picture(41, 58))
        assert torch.equal(crop_hr(image, Geometry(modulo=4)), image[:, :40, :56])

    def test_nothing_to_do_changes_nothing(self):
        image = planes(picture())
        assert torch.equal(crop_hr(image, Geometry()), image)

    def test_smaller_than_the_crop(self):
        with pytest.raises(UnreadableImageError, match=r"a\.png is 20 x 30 .* centre crop of 24"):
            crop_hr(planes(picture(20, 30)), Geometry(crop=24), name="a.png")

    def test_nothing_left_after_modulo(self):
        with pytest.raises(UnreadableImageError, match=r"1 x 1 .* multiple of 4"):
            crop_hr(planes(picture(1, 1)), Geometry(modulo=4))

    def test_one_pixel_can_be_enlarged(self):
        image = crop_hr(planes(picture(1, 1)), Geometry(resize=16, crop=16))
        assert image.shape == (3, 16, 16)
        assert (image == image[:, :1, :1]).all()

    def test_a_thread_of_pixels_is_refused_before_it_fills_the_memory(self):
        with pytest.raises(UnreadableImageError, match="too long"):
            crop_hr(torch.zeros(3, 1, 5000, dtype=torch.uint8), Geometry(resize=256, crop=256))


def class_folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> Path:
    for number, name in enumerate(classes):
        for index in range(count):
            save(root / name / f"{index:03d}.png", picture(8, 8, seed=10 * number + index))
    return root


class TestFolder:
    def test_samples_labels_and_names(self, tmp_path):
        root = class_folders(tmp_path / "photos", ("dog", "cat"))
        save(root / "dog" / "deep" / "er" / "x.JPG")
        (root / "ATTRIBUTION.csv").write_text("a,b\n")
        (root / "dog" / "notes.txt").write_text("no image")
        save(root / "dog" / ".hidden.png")
        save(root / ".thumbs" / "y.png")
        source = open_source(f"folder:{root}")
        assert (source.name, source.spec, source.split) == ("photos", "folder:photos", "all")
        assert source.classes == ("cat", "dog")
        assert [sample.id for sample in source.samples] == [
            *(f"cat/{index:03d}.png" for index in range(3)),
            *(f"dog/{index:03d}.png" for index in range(3)),
            "dog/deep/er/x.JPG",
        ]
        assert [sample.label for sample in source.samples] == [0, 0, 0, 1, 1, 1, 1]
        assert torch.equal(source.read(3), planes(picture(8, 8, seed=0)))
        content = (root / "dog" / "000.png").read_bytes()
        assert source.stamps([3]) == [(hashlib.blake2b(content, digest_size=16).hexdigest(),)]
        assert source.read_lr(0) is None

    def test_name_of_the_current_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(class_folders(tmp_path / "photos"))
        assert open_source("folder:.").spec == "folder:photos"

    def test_hashed_splits_part_the_ids_and_ignore_the_rest(self, tmp_path):
        root = tmp_path / "many"
        for index in range(400):
            (root / "a").mkdir(parents=True, exist_ok=True)
            (root / "a" / f"{index}.png").touch()
        parts = {
            split: {s.id for s in open_source(f"folder:{root}", split).samples} for split in ("train", "val", "test")
        }
        assert sum(len(ids) for ids in parts.values()) == 400
        assert len(set.union(*parts.values())) == 400
        assert 280 < len(parts["train"]) < 360
        assert len(parts["val"]) > 15
        assert len(parts["test"]) > 15
        for index in range(0, 400, 2):
            (root / "a" / f"{index}.png").unlink()
        assert {sample.id for sample in open_source(f"folder:{root}", "val").samples} <= parts["val"]

    def test_split_folders(self, tmp_path):
        class_folders(tmp_path / "set" / "train", ("cat", "dog", "emu"))
        class_folders(tmp_path / "set" / "val", ("dog",))
        source = open_source(f"folder:{tmp_path / 'set'}", "val")
        assert source.classes == ("cat", "dog", "emu")
        assert {sample.label for sample in source.samples} == {1}
        assert source.samples[0].id == "dog/000.png"
        assert source.spec == "folder:set"
        with pytest.raises(UsageError, match="choose one with --split"):
            open_source(f"folder:{tmp_path / 'set'}")
        with pytest.raises(UsageError, match=r"no split 'test'; its splits are train, val"):
            open_source(f"folder:{tmp_path / 'set'}", "test")

    def test_a_class_may_be_called_train(self, tmp_path):
        root = class_folders(tmp_path / "vehicles", ("bus", "train"))
        assert open_source(f"folder:{root}").classes == ("bus", "train")
        root = class_folders(tmp_path / "one", ("train",))
        assert open_source(f"folder:{root}").classes == ("train",)

    def test_split_folders_in_any_case(self, tmp_path):
        class_folders(tmp_path / "set" / "Train")
        class_folders(tmp_path / "set" / "TEST", count=1)
        source = open_source(f"folder:{tmp_path / 'set'}", "test")
        assert (source.split, source.classes, len(source.samples)) == ("test", ("cat", "dog"), 2)
        assert len(open_source(f"images:{tmp_path / 'set'}", "train").samples) == 6
        with pytest.raises(UsageError, match="holds the splits test, train; choose one"):
            open_source(f"folder:{tmp_path / 'set'}")
        class_folders(tmp_path / "set" / "train")
        with pytest.raises(DataError, match=r"TEST/ and Train/ and train/, which differ in case alone"):
            open_source(f"folder:{tmp_path / 'set'}")

    def test_half_a_layout_is_refused(self, tmp_path):
        class_folders(tmp_path / "set" / "train")
        save(tmp_path / "set" / "test" / "a.png")
        for split in (None, "train", "test"):
            with pytest.raises(DataError, match=r"train/ with class folders, but test/ holds images .*set/train"):
                open_source(f"folder:{tmp_path / 'set'}", split)
        assert open_source(f"folder:{tmp_path / 'set' / 'train'}").classes == ("cat", "dog")
        class_folders(tmp_path / "other" / "train")
        class_folders(tmp_path / "other" / "val")
        save(tmp_path / "other" / "samples" / "a.png")
        with pytest.raises(DataError, match=r"train/ and val/ with class folders, but samples/ beside them is none"):
            open_source(f"folder:{tmp_path / 'other'}")

    def test_images_that_are_not_read_are_counted(self, tmp_path):
        root = class_folders(tmp_path / "photos")
        save(root / "cat" / "a.jfif", format="JPEG")
        (root / "cat" / "b.gif").write_bytes(b"GIF")
        (root / "dog" / "c.HEIC").write_bytes(b"x")
        (root / "dog" / "d.heic").write_bytes(b"x")
        for spec in (f"folder:{root}", f"images:{root}"):
            source = open_source(spec)
            assert source.note == "left out: 1 .gif, 2 .heic" and len(source.samples) == 7
        assert "cat/a.jfif" in [sample.id for sample in source.samples]
        (root / "emu").mkdir()
        (root / "emu" / "e.heic").write_bytes(b"x")
        with pytest.raises(DataError, match=r"the class emu has images as \.heic alone.*pillow-heif"):
            open_source(f"folder:{root}")
        with pytest.raises(DataError, match=r"holds no images .*; left out: 1 \.heic"):
            open_source(f"images:{root / 'emu'}")

    def test_results_and_what_systems_leave_are_no_data(self, tmp_path):
        root = class_folders(tmp_path / "photos")
        for folder, file in (("out/photos", "leaderboard.json"), ("page", "report.html"), ("run", "checkpoint.pt")):
            save(root / folder / "figures" / "a.png")
            (root / folder / file).write_text("{}")
        for folder in ("cat/@eaDir", "$RECYCLE.BIN", "__MACOSX"):
            save(root / folder / "a.png")
        source = open_source(f"folder:{root}")
        assert source.classes == ("cat", "dog") and len(source.samples) == 6
        assert source.note == (
            "left out: the folders $RECYCLE.BIN, __MACOSX, cat/@eaDir and 3 more (results of srbench, or a system's)"
        )
        (root / "report.html").write_text("")  # results beside the data do not hide them
        assert len(open_source(f"folder:{root}").samples) == 6

    def test_links_that_lead_back_up_end(self, tmp_path):
        root = class_folders(tmp_path / "photos")
        (root / "cat" / "up").symlink_to(root, target_is_directory=True)
        (root / "dog" / "broken.png").symlink_to(root / "nowhere.png")
        source = open_source(f"folder:{root}")
        assert [s.id for s in source.samples if "up" in s.id] == []
        broken = [s.id for s in source.samples].index("dog/broken.png")
        assert source.stamps([broken]) == [("",)]

    def test_a_folder_that_cannot_be_read_is_named(self, tmp_path, monkeypatch):
        root = class_folders(tmp_path / "photos")
        scandir, stat = os.scandir, os.stat

        def refuse(path):
            if Path(path).name == "cat":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scandir(path)

        def refuse_inside(path, *given, **options):
            if not isinstance(path, int) and os.path.basename(os.path.dirname(path)) == "cat":  # noqa: PTH119, PTH120
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return stat(path, *given, **options)

        monkeypatch.setattr(os, "scandir", refuse)
        monkeypatch.setattr(os, "stat", refuse_inside)
        for kind in ("folder", "images"):
            with pytest.raises(DataError, match=r"photos/cat cannot be read: Permission denied; check its permissions"):
                open_source(f"{kind}:{root}")

    def test_a_link_to_itself_is_no_folder(self, tmp_path):
        root = class_folders(tmp_path / "photos")
        expected = len(open_source(f"folder:{root}").samples)
        (root / "cat" / "round").symlink_to("round")
        (root / "round").symlink_to("round")
        assert len(open_source(f"folder:{root}").samples) == expected

    def test_names_that_are_not_unicode_get_ids_that_are(self, tmp_path):
        root = class_folders(tmp_path / "photos")
        try:
            os.rename(os.fsencode(root / "cat" / "000.png"), os.fsencode(root / "cat") + b"/\xff.png")  # noqa: PTH104
        except OSError:
            pytest.skip("this file system takes only UTF-8 names")
        source = open_source(f"folder:{root}")
        ids = [sample.id for sample in source.samples]
        assert "cat/\\xff.png" in ids
        assert len(sample_list_sha256(source.samples)) == 64
        assert source.read(ids.index("cat/\\xff.png")).shape == (3, 8, 8)
        renamed = os.fsencode(tmp_path) + b"/ph\xfftos"
        os.rename(root, renamed)  # noqa: PTH104
        for kind in ("folder", "images"):
            source = open_source(f"{kind}:{os.fsdecode(renamed)}")
            assert (source.name, source.spec) == ("ph\\xfftos", f"{kind}:ph\\xfftos")
            assert source.read(0).shape == (3, 8, 8)

    @pytest.mark.parametrize("kind", ["folder", "images"])
    def test_missing_empty_or_a_file(self, tmp_path, kind):
        with pytest.raises(DataError, match="there is no folder"):
            open_source(f"{kind}:{tmp_path / 'gone'}")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="holds no images"):
            open_source(f"{kind}:{tmp_path / 'empty'}")
        with pytest.raises(DataError, match="is a file") as caught:
            open_source(f"{kind}:{save(tmp_path / 'a.png')}")
        assert caught.value.exit_code == 2

    def test_without_class_folders_images_is_offered(self, tmp_path):
        save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"no class folders.*images:"):
            open_source(f"folder:{tmp_path}")

    def test_wrong_split(self, tmp_path):
        with pytest.raises(UsageError, match=r"no split 'dev'; its splits are all, train, val, test"):
            open_source(f"folder:{class_folders(tmp_path)}", "dev")


class TestImages:
    def test_any_depth_without_labels(self, tmp_path):
        save(tmp_path / "set" / "b.png")
        save(tmp_path / "set" / "x" / "a.png")
        source = open_source(f"images:{tmp_path / 'set'}")
        assert [sample.id for sample in source.samples] == ["b.png", "x/a.png"]
        assert source.classes is None
        assert not source.labelled
        assert source.spec == "images:set"

    def test_split_folder(self, tmp_path):
        save(tmp_path / "train" / "b.png")
        save(tmp_path / "val" / "a.png")
        source = open_source(f"images:{tmp_path}", "val")
        assert [sample.id for sample in source.samples] == ["a.png"]
        assert len(open_source(f"images:{tmp_path}").samples) == 2

    def test_split_without_any_image(self, tmp_path):
        save(tmp_path / "b.png")
        refused = 0
        for split in ("train", "val", "test"):
            try:
                assert len(open_source(f"images:{tmp_path}", split).samples) == 1
            except DataError as error:
                assert "none of its 1 images" in str(error)
                refused += 1
        assert refused == 2


class TestImagenetFamily:
    @pytest.mark.parametrize(
        ("dataset", "folder", "name"),
        [
            ("imagenet", "imagenet", "imagenet"),
            ("imagenette", "imagenette2-160", "imagenette-160"),
            ("imagewoof", "imagewoof2", "imagewoof"),
        ],
    )
    def test_found_in_the_data_folder_or_at_a_path(self, tmp_path, monkeypatch, dataset, folder, name):
        monkeypatch.setenv("SRBENCH_DATA", str(tmp_path))
        class_folders(tmp_path / folder / "train", ("n01440764", "n02102040"))
        class_folders(tmp_path / folder / "val", ("n01440764", "n02102040"), count=2)
        source = open_source(dataset)
        assert (source.name, source.spec, source.split) == (name, dataset, "val")
        assert source.classes == ("n01440764", "n02102040")
        assert len(source.samples) == 4
        assert len(open_source(dataset, "train").samples) == 6
        assert ("have seen" in source.note) == (dataset != "imagenet")
        elsewhere = open_source(f"{dataset}:{tmp_path / folder}")
        assert elsewhere.samples == source.samples
        assert elsewhere.spec == f"{dataset}:{folder}"
        with pytest.raises(UsageError, match="its splits are train, val"):
            open_source(dataset, "test")

    @pytest.mark.parametrize("dataset", ["imagenet", "imagenette", "imagewoof", "tiny-imagenet"])
    def test_missing(self, tmp_path, monkeypatch, dataset):
        monkeypatch.setenv("SRBENCH_DATA", str(tmp_path))
        with pytest.raises(DataError, match="SRBENCH_DATA"):
            open_source(dataset)
        with pytest.raises(DataError, match="must hold train/<wnid>"):
            open_source(f"{dataset}:{tmp_path}")

    def test_flat_validation_images(self, tmp_path):
        save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
        with pytest.raises(DataError, match="lie flat"):
            open_source(f"imagenet:{tmp_path}")

    def test_tiny_imagenet(self, tmp_path):
        root = tmp_path / "tiny-imagenet-200"
        for wnid in ("n02", "n01"):
            save(root / "train" / wnid / "images" / f"{wnid}_0.JPEG")
        for index in range(3):
            save(root / "val" / "images" / f"val_{index}.JPEG")
        lines = ["val_0.JPEG\tn02\t0\t0\t9\t9", "val_1.JPEG\tn01\t0\t0\t9\t9", "val_2.JPEG\tn02\t0\t0\t9\t9"]
        annotations = root / "val" / "val_annotations.txt"
        annotations.write_text("\n".join(lines) + "\n")
        val = open_source(f"tiny-imagenet:{root}")
        assert val.classes == ("n01", "n02")
        assert [(s.id, s.label) for s in val.samples] == [("val_0.JPEG", 1), ("val_1.JPEG", 0), ("val_2.JPEG", 1)]
        train = open_source(f"tiny-imagenet:{root}", "train")
        assert train.classes == val.classes
        assert [(s.id, s.label) for s in train.samples] == [("n01/images/n01_0.JPEG", 0), ("n02/images/n02_0.JPEG", 1)]
        annotations.write_text("\n".join(lines[:2]))
        with pytest.raises(DataError, match=r"val_2\.JPEG has no line"):
            open_source(f"tiny-imagenet:{root}")
        annotations.write_text("\n".join([*lines, "val_3.JPEG\tn09"]))
        with pytest.raises(DataError, match="n09"):
            open_source(f"tiny-imagenet:{root}")


class TestPairs:
    def make(self, root: Path, suffix: str = "", count: int = 4) -> str:
        for index in range(count):
            save(root / "LR" / f"{index}{suffix}.png", picture(5 + index, 7, seed=index))
            save(root / "HR" / f"{index}.png", picture(4 * (5 + index), 28, seed=index))
        return f"pairs:{root / 'LR'},{root / 'HR'}"

    @pytest.mark.parametrize("suffix", ["", "x4"])
    def test_partners(self, tmp_path, suffix):
        source = open_source(self.make(tmp_path / "set", suffix))
        assert (source.name, source.spec, source.split) == ("set-LR", "pairs:LR,HR", "all")
        assert source.paired
        assert source.factor == 4
        assert source.classes is None
        assert [sample.id for sample in source.samples] == ["0.png", "1.png", "2.png", "3.png"]
        for index in range(4):
            assert torch.equal(source.read(index), planes(picture(4 * (5 + index), 28, seed=index)))
            assert torch.equal(source.read_lr(index), planes(picture(5 + index, 7, seed=index)))

    def test_stamp_changes_with_either_partner(self, tmp_path):
        source = open_source(self.make(tmp_path))
        before = source.stamps([0, 1])
        for folder in ("LR", "HR"):
            (tmp_path / folder / "0.png").write_bytes((tmp_path / folder / "1.png").read_bytes())
            after = source.stamps([0, 1])
            assert after[0] != before[0] and after[1] == before[1]
            before = after

    def test_float_arrays_of_one_channel(self, tmp_path):
        values = np.random.default_rng(0).random((1, 6, 8)).astype(np.float32)
        for folder, array in (("LR", values), ("HR", values.repeat(2, axis=1).repeat(2, axis=2))):
            (tmp_path / folder).mkdir()
            np.save(tmp_path / folder / "a.npy", array)
        source = open_source(f"pairs:{tmp_path / 'LR'},{tmp_path / 'HR'}")
        assert source.factor == 2
        assert source.read(0).shape == (3, 12, 16)
        assert np.array_equal(source.read_lr(0)[2].numpy(), np.rint(values[0].astype(np.float64) * 255))

    def test_missing_partners_are_listed(self, tmp_path):
        spec = self.make(tmp_path)
        (tmp_path / "LR" / "1.png").rename(tmp_path / "LR" / "one.png")
        with pytest.raises(DataError, match=r"2 images have no partner.*LR one\.png, HR 1\.png"):
            open_source(spec)

    def test_two_partners_or_twice_the_name(self, tmp_path):
        spec = self.make(tmp_path)
        save(tmp_path / "LR" / "1x4.png")
        with pytest.raises(DataError, match="two LR partners"):
            open_source(spec)
        save(tmp_path / "LR" / "1.tif")
        with pytest.raises(DataError, match="holds both"):
            open_source(spec)

    def test_sizes_that_do_not_fit(self, tmp_path):
        spec = self.make(tmp_path)
        save(tmp_path / "LR" / "1.png", picture(6, 8))
        with pytest.raises(DataError, match=r"no whole multiple of LR: 1\.png \(HR 24 x 28, LR 6 x 8\)"):
            open_source(spec)
        save(tmp_path / "LR" / "1.png", picture(12, 14))
        with pytest.raises(DataError, match=r"different factors: x2 \(1\.png\), x4 \(0\.png\)"):
            open_source(spec)

    def test_an_unreadable_header_is_left_to_decoding(self, tmp_path):
        spec = self.make(tmp_path)
        (tmp_path / "LR" / "1.png").write_bytes(b"text")
        source = open_source(spec)
        with pytest.raises(UnreadableImageError, match=r"the LR of 1\.png is not an image"):
            source.read_lr(1)

    @pytest.mark.parametrize("argument", ["only", "a,", ",b", "a,b,c"])
    def test_not_two_folders(self, argument):
        with pytest.raises(UsageError, match="LR_DIR,HR_DIR"):
            open_source(f"pairs:{argument}")

    def test_missing_or_empty_folder(self, tmp_path):
        save(tmp_path / "LR" / "a.png")
        with pytest.raises(DataError, match="there is no folder"):
            open_source(f"pairs:{tmp_path / 'LR'},{tmp_path / 'HR'}")
        (tmp_path / "HR").mkdir()
        with pytest.raises(DataError, match="holds no images"):
            open_source(f"pairs:{tmp_path / 'LR'},{tmp_path / 'HR'}")


class FakeRows:
    """As much of datasets.Dataset as srbench touches."""

    def __init__(self, features, rows):
        self.features, self.rows, self._fingerprint = features, rows, "0123456789abcdef"

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    def cast_column(self, column, feature):
        assert feature.decode is False
        return self


def fake_datasets(tmp_path: Path, splits=("train", "validation")) -> types.ModuleType:
    module = types.ModuleType("datasets")
    module.Image = type("Image", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})
    module.ClassLabel = type("ClassLabel", (), {"names": ["cat", "dog"]})
    path = save(tmp_path / "0.png")
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": None}, "label": 1},
        {"image": {"bytes": None, "path": str(path)}, "label": 0},
    ]
    module.get_dataset_split_names = lambda repo: list(splits)
    module.load_dataset = lambda repo, split: FakeRows({"image": module.Image(), "label": module.ClassLabel()}, rows)
    return module


class TestHub:
    def test_missing_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UsageError, match=r"srbench-resizing\[hub\]"):
            open_source("hf:someone/pets")

    def test_rows(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", fake_datasets(tmp_path))
        source = open_source("hf:someone/pets")
        assert (source.name, source.spec, source.split) == ("pets", "hf:someone/pets", "validation")
        assert source.classes == ("cat", "dog")
        assert [sample.label for sample in source.samples] == [1, 0]
        assert torch.equal(source.read(0), planes(picture()))
        assert torch.equal(source.read(1), planes(picture()))
        assert open_source("hf:someone/pets", "val").split == "validation"
        with pytest.raises(UsageError, match="its splits are train, validation"):
            open_source("hf:someone/pets", "test")

    def test_split_must_be_chosen(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", fake_datasets(tmp_path, ("a", "b")))
        with pytest.raises(UsageError, match="choose one"):
            open_source("hf:someone/pets")


class TestSpec:
    def test_every_dataset_is_listed(self):
        listed = {info.name: info for info in list_datasets()}
        assert set(listed) == {
            "demo", "folder", "images", "imagenet", "imagenette", "imagewoof", "tiny-imagenet", "pairs", "lens",
            "lens-pairs", "iqa", "ava", "hf", "small", "coco", "voc", "demo-det", "masks", "voc-seg",
            "camvid", "demo-seg", "shards",
        }  # fmt: skip
        assert listed["pairs"].syntax == "pairs:LR_DIR,HR_DIR"
        assert all(info.description for info in listed.values())

    def test_a_row_can_be_read_without_its_module_and_opens_by_it(self):
        for info, module in catalogue._catalogue().values():
            imported = importlib.import_module(module)
            assert info in vars(imported).values() and callable(getattr(imported, info.opener))

    def test_a_list_imports_no_heavy_library(self):
        code = (
            "import sys; from srbench.data.catalogue import default_protocol, is_paired, list_datasets;"
            "list_datasets(), default_protocol(['demo']), is_paired('pairs:a,b');"
            "assert not {'torch', 'skimage', 'scipy', 'torchvision', 'datasets'} & set(sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_one_file_is_enough_for_a_new_dataset(self, tmp_path, monkeypatch):
        (tmp_path / "flat.py").write_text(FLAT)
        monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path)])
        catalogue._catalogue.cache_clear()
        try:
            assert "flat[:VALUE]" in {info.syntax for info in list_datasets()}
            assert catalogue.default_protocol(["flat:7"]) == "native"
            assert open_source("flat:7").read(0).unique().tolist() == [7]
            with pytest.raises(UsageError, match="has no split 'test'; its splits are all"):
                open_source("flat:7", "test")
        finally:
            catalogue._catalogue.cache_clear()

    def test_unknown_name(self):
        with pytest.raises(UnknownNameError, match="did you mean imagenette"):
            open_source("imagenete")

    def test_a_bare_path(self, tmp_path):
        with pytest.raises(UsageError, match="folder:"):
            open_source(str(tmp_path))

    @pytest.mark.parametrize("spec", ["folder", "folder:", "images:", "pairs", "hf:", "imagenet:", "demo:x", "demo:"])
    def test_paths_lacking_or_too_many(self, spec):
        with pytest.raises(UsageError, match="expected"):
            open_source(spec)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real photographs beside the project")
def test_real_photographs_decode_alike(monkeypatch):
    source = open_source(f"folder:{REAL / 'photos'}")
    assert len(source.samples) == 500
    chosen = range(0, 500, 50)
    fast = [source.read(index) for index in chosen]
    monkeypatch.setattr(decode_module, "_is_plain_jpeg", lambda data: False)
    assert all(torch.equal(image, source.read(index)) for image, index in zip(fast, chosen, strict=True))
    assert {tuple(image.shape) for image in fast} == {(3, 299, 299)}


class TestSampleList:
    SAMPLES = (Sample("a/é.png", 3), Sample("b", None), Sample("c", 0, (0.1, 0.2, 0.7)))

    def test_it_is_the_sequence_it_was_made_of(self):
        packed = SampleList.of(self.SAMPLES)
        assert packed == self.SAMPLES and list(packed) == list(self.SAMPLES) == [packed[place] for place in range(3)]
        assert (len(packed), packed[-1], packed[np.int64(1)]) == (3, self.SAMPLES[2], self.SAMPLES[1])
        assert packed[1:] == self.SAMPLES[1:] and packed[::-1] == self.SAMPLES[::-1]
        assert packed != self.SAMPLES[:2] and packed != (*self.SAMPLES[:2], Sample("c", 0))
        assert sample_list_sha256(packed) == sample_list_sha256(self.SAMPLES)
        with pytest.raises(IndexError):
            packed[3]

    def test_some_of_it(self):
        packed = SampleList.of(self.SAMPLES)
        assert packed.take([2, 0, 2]) == tuple(self.SAMPLES[place] for place in (2, 0, 2))
        assert packed.take(range(3)) is packed and packed.take([1, 0, 2]) is not packed
        assert pickle.loads(pickle.dumps(packed)) == self.SAMPLES

    def test_none(self):
        assert SampleList.of(()) == () == SampleList(()).take([]) and not SampleList(())
        assert sample_list_sha256(SampleList(())) == sample_list_sha256(())

    def test_of_columns(self):
        assert SampleList(["a", "b"], [1, 0]) == (Sample("a", 1), Sample("b", 0))
        assert SampleList(["a"])[0] == SampleList(["a"]).take([0])[0] == Sample("a")
        assert SampleList(["a"], ratings=[(0.5, 0.5)])[0] == Sample("a", None, (0.5, 0.5))
