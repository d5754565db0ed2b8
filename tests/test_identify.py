"""`srbench identify-resize`: ten planted pipelines are named rightly, an eleventh is not."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import DataError
from srbench.imaging.identify import _matrix, identify, test_images
from srbench.imaging.resample import resize

SENT, UP, DOWN = (60, 48), (150, 131), (37, 29)


def with_torch(size, mode, *, antialias=False, align=False):
    def pipeline(image):
        lr = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        return F.interpolate(lr, size=size, mode=mode, antialias=antialias, align_corners=align)[0].numpy()

    return pipeline


def with_cv2(size, name):
    cv2 = pytest.importorskip("cv2")
    return lambda image: cv2.resize(image, size[::-1], interpolation=getattr(cv2, name))


def with_pillow(size, filter_, *, in_float=False):
    def pipeline(image):
        if not in_float:
            return np.asarray(Image.fromarray(image).resize(size[::-1], filter_))
        planes = [Image.fromarray(image[..., k].astype(np.float32)).resize(size[::-1], filter_) for k in range(3)]
        return np.stack([np.asarray(plane) for plane in planes], -1) / 255

    return pipeline


def half_a_pixel_off(image):
    """Sample pixel k at k * source / target, as TensorFlow 1 did: nothing of identify's own takes part."""
    rows, columns = (np.arange(target) * source / target for source, target in zip(SENT, UP, strict=True))
    grid = np.meshgrid(rows, columns, indexing="ij")
    planes = [map_coordinates(image[..., k] / 255, grid, order=1, mode="nearest") for k in range(3)]
    return np.stack(planes).astype(np.float32)


def normalised(image, order=slice(None), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    sr = with_torch(UP, "bilinear")(image)[order]
    return (sr - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]


BICUBIC = Image.Resampling.BICUBIC
PLANTED = {  # what the pipeline is: what must be said
    "OpenCV": (with_cv2(UP, "INTER_CUBIC"), {"kernel": "bicubic, a = -0.75", "rounding": "8 bits, rounded"}),
    "OpenCV shrinking": (
        with_cv2(DOWN, "INTER_LINEAR"),
        {"kernel": "bilinear", "antialias": False, "rounding": "8 bits, rounded"},
    ),
    "Pillow on 8 bits": (
        with_pillow(DOWN, BICUBIC),
        {"kernel": "bicubic, a = -0.5", "antialias": True, "rounding": "8 bits between the passes (Pillow)"},
    ),
    "Pillow in float": (
        with_pillow(DOWN, BICUBIC, in_float=True),
        {"kernel": "bicubic, a = -0.5", "antialias": True, "rounding": "none"},
    ),
    "torch with antialias": (
        with_torch(DOWN, "bilinear", antialias=True),
        {"kernel": "bilinear", "antialias": True, "rounding": "none", "order": "RGB"},
    ),
    "torch without antialias": (with_torch(DOWN, "bilinear"), {"kernel": "bilinear", "antialias": False}),
    "align_corners": (with_torch(UP, "bilinear", align=True), {"kernel": "bilinear", "grid": "align_corners"}),
    "a = -.75": (
        with_torch(DOWN, "bicubic"),
        {"kernel": "bicubic, a = -0.75", "antialias": False, "grid": "half-pixel"},
    ),
    "half a pixel off": (half_a_pixel_off, {"kernel": "bilinear", "grid": "corner"}),
    "BGR": (lambda image: with_torch(UP, "bilinear")(image)[::-1], {"kernel": "bilinear", "order": "BGR"}),
    "wrong mean": (
        lambda image: normalised(image, mean=(0.406, 0.456, 0.485), std=(0.225, 0.224, 0.229)),
        {"order": "RGB", "normalisation": "ImageNet's mean and std, in the order BGR on RGB channels: wrong"},
    ),
    "right mean": (normalised, {"order": "RGB", "normalisation": "ImageNet's mean and std"}),
    "a mean of nobody": (
        lambda image: normalised(image, mean=(0.3, 0.3, 0.3)),
        {"normalisation": "mean (0.3, 0.3, 0.3), std (0.229, 0.224, 0.225), which no known network has"},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_pipeline_is_named(name):
    pipeline, wanted = PLANTED[name]
    images = test_images(*SENT)
    found = identify(images, [pipeline(image) for image in images])
    assert found is not None
    assert {key: getattr(found, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    "strange",
    [
        lambda image: gaussian_filter(with_torch(UP, "bilinear")(image), (0, 0.7, 0.7)),
        lambda image: with_torch(UP, "bilinear")(image) ** 2.2,
        lambda image: with_torch(UP, "bilinear")(image).mean(0, keepdims=True).repeat(3, 0),
        lambda image: with_torch(UP, "bilinear")(image)[:, :, ::-1],
        lambda image: np.zeros((3, *UP), np.float32),
    ],
    ids=["blurred", "gamma", "grey", "mirrored", "black"],
)
def test_what_is_none_of_them_is_not_named(strange):
    images = test_images(*SENT)
    assert identify(images, [strange(image) for image in images]) is None


@pytest.mark.parametrize(("kernel", "ours", "antialias"), [
    ("bilinear", "bilinear", False), ("bilinear", "bilinear", True), ("bicubic", "bicubic, a = -0.75", False),
    ("bicubic", "bicubic, a = -0.5", True), ("area", "area", False), ("nearest", "nearest", False),
])  # fmt: skip
def test_its_kernels_are_those_of_the_harness(kernel, ours, antialias):
    for source, target in ((60, 37), (48, 24)):
        if kernel == "area":  # torch's windows are whole pixels, so only whole factors agree
            source, target = 48, 24
        unit = torch.eye(source, dtype=torch.float64)[None, None]
        wanted = resize(unit, (target, source), kernel, antialias=antialias)[0, 0].numpy()
        assert np.abs(_matrix(ours, antialias, "half-pixel", source, target) - wanted).max() < 1e-6


def test_a_pipeline_that_resizes_nothing_is_an_error():
    images = test_images(*SENT)
    with pytest.raises(DataError, match="nothing was resized"):
        identify(images, images)


def test_the_command_runs_a_pipeline(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys\nfrom PIL import Image\nimport numpy as np\n"
        "image = Image.open(sys.argv[1]).resize((100, 90), Image.Resampling.BILINEAR)\n"
        "np.save(sys.argv[2], np.asarray(image)[..., ::-1])\n"
    )
    done = CliRunner().invoke(app, ["identify-resize", f"{sys.executable} {script} {{image}} {{result}}"])
    assert done.exit_code == 0, done.output
    assert "bilinear" in done.output and "BGR" in done.output and "Pillow" in done.output


@pytest.mark.parametrize(
    ("body", "said", "code"),
    [("raise SystemExit('no camera')", "no camera", 1), ("pass", "without writing", 1)],
)
def test_a_command_that_fails_is_one_sentence(body, said, code, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(body)
    done = CliRunner().invoke(app, ["identify-resize", f"{sys.executable} {script} {{image}} {{result}}"])
    assert (done.exit_code, said in done.output) == (code, True)


def test_a_folder_is_filled_and_then_read(tmp_path):
    where = tmp_path / "mine"
    first = CliRunner().invoke(app, ["identify-resize", str(where), "--size", "40x32"])
    assert first.exit_code == 0 and "run the same command again" in first.output
    for file in (where / "sent").iterdir():
        image = Image.open(file)
        assert image.size == (32, 40)
        image.resize((50, 70), Image.Resampling.LANCZOS).save(where / "results" / file.name)
    second = CliRunner().invoke(app, ["identify-resize", str(where)])
    assert second.exit_code == 0 and "lanczos, 3 lobes" in second.output
    for file in (where / "sent").iterdir():
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)).save(
            where / "results" / file.name
        )
    third = CliRunner().invoke(app, ["identify-resize", str(where)])
    assert (third.exit_code, third.output.strip()) == (1, "none that I know")
