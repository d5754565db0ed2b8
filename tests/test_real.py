"""Published and independently measured figures, on the real photographs and weights beside the project."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from srbench import evaluate
from srbench.imaging.degrade import degrade
from srbench.imaging.resample import resize
from srbench.networks.classifiers import imagenet_wnids
from srbench.networks.loading import load_classifier
from srbench.protocol import load_protocol

pytestmark = pytest.mark.real


def metrics(result, method: str):
    (found,) = [cell.record for cell in result.cells if cell.record.cell.method == method]
    assert found.status == "ok", found.reason
    return found.metrics


def test_cards_describe_their_weights(real):
    wnids = tuple((real / "imagenet_wnids.txt").read_text().split())
    assert imagenet_wnids() == wnids
    for stem, side in (("mobilenetv2_tfquant", 160), ("squeezenet1_1", 97)):
        classifier = load_classifier(str(real / "weights" / f"{stem}.toml"))
        assert (classifier.id, classifier.info.classes, classifier.info.input_size) == (stem, wnids, None)
        with torch.inference_mode():
            assert classifier(torch.rand(2, 3, side, side + 3)).shape == (2, 1000)


def matlab_rounded(image: torch.Tensor) -> torch.Tensor:
    """Clamp and round `(N, C, H, W)`, [0, 255], to 8 bits, halves upwards; at x4 many values are exact halves."""
    return (image + 0.5 + 1e-9).floor().clamp(0, 255)


def test_set5_is_degraded_as_matlab_does(real):
    protocol = load_protocol("sr-classic")
    files = sorted((real / "set5" / "HR").glob("*.png"))
    assert len(files) == 5
    for file in files:
        hr = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        hr = hr[..., : hr.shape[-2] // 4 * 4, : hr.shape[-1] // 4 * 4]
        (partner,) = (real / "set5" / "LRx4").glob(f"{file.stem}*")
        published = np.array(Image.open(partner).convert("RGB")).transpose(2, 0, 1).astype(int)
        height, width = (side // 4 for side in hr.shape[-2:])
        # MATLAB resizes 8-bit images in two passes, height first, and rounds to 8 bits after each.
        tall = matlab_rounded(
            resize((hr.double() * 255).round(), (height, hr.shape[-1]), "bicubic", border="symmetric")
        )
        both = matlab_rounded(resize(tall, (height, width), "bicubic", border="symmetric"))
        assert np.array_equal(both[0].numpy().astype(int), published)
        # The protocol stays in floating point in between, which moves a tenth of the pixels by one level.
        ours = degrade(hr, protocol.lr)[0].mul(255).round().numpy().astype(int)
        assert np.abs(ours - published).max() <= 2 and (ours == published).mean() > 0.88


def test_bicubic_on_set5_has_the_published_figures(real, tmp_path):
    result = evaluate(
        ["bicubic"], data=f"images:{real / 'set5' / 'HR'}", protocol="sr-classic", out=tmp_path, measure=False
    )
    assert metrics(result, "bicubic")["psnr"].value == pytest.approx(28.42, abs=0.02)
    assert metrics(result, "bicubic")["ssim"].value == pytest.approx(0.8104, abs=0.002)


def test_disp_as_published_has_its_figure_on_set5(real, tmp_path):
    result = evaluate(
        ["darionet"],
        weights={"darionet": str(real / "weights" / "disp_x4.safetensors")},
        data=f"images:{real / 'set5' / 'HR'}",
        protocol="sr-classic",
        out=tmp_path,
        measure=False,
    )
    assert metrics(result, "darionet")["psnr"].value == pytest.approx(31.94, abs=0.03)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_photographs_under_clean_have_the_figures_measured_elsewhere(real, tmp_path):
    options = {
        "data": f"folder:{real / 'photos'}",
        "classifiers": [str(real / "weights" / "mobilenetv2_tfquant.toml")],
        "protocol": "clean",
        "scales": [0.32],
        "out": tmp_path,
        "measure": False,
    }
    result = evaluate(["bilinear"], **options)
    assert {cell.record.dataset.n for cell in result.cells} == {500}
    assert metrics(result, "original")["accuracy"].value == pytest.approx(0.880, abs=0.006)
    assert metrics(result, "bilinear")["accuracy"].value == pytest.approx(0.468, abs=0.01)
    assert metrics(result, "bilinear")["psnr"].value == pytest.approx(25.20, abs=0.05)
    again = evaluate(["bilinear"], **options)
    assert (again.counters.decoded, again.counters.restored, again.counters.hr_classified) == (0, {}, {})
    unlabelled = options | {"data": f"images:{real / 'photos'}", "classifiers": []}
    assert metrics(evaluate(["bicubic"], **unlabelled), "bicubic")["psnr"].value == pytest.approx(25.82, abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_darionets_conventions_pool_the_error_and_drop_the_last_batch(real, tmp_path):
    photos = f"images:{real / 'photos'}"
    result = evaluate(["bilinear"], data=photos, protocol="darionet-2021", out=tmp_path, measure=False, batch_size=16)
    assert {cell.record.dataset.n for cell in result.cells} == {480}
    (bilinear,) = [cell for cell in result.cells if cell.record.cell.method == "bilinear"]
    samples = bilinear.samples().set_index("sample_id")["psnr"].astype(float)
    assert samples.mean() - bilinear.record.metrics["psnr"].value == pytest.approx(1.3, abs=0.2)
    for name in samples.index[::40]:
        image = Image.open(real / "photos" / name).convert("RGB")
        factor = 256 / min(image.size)
        image = image.resize([int(side * factor) for side in image.size], Image.Resampling.BILINEAR)
        left, top = (round((side - 256) / 2) for side in image.size)
        pixels = np.array(image.crop((left, top, left + 256, top + 256)))
        hr = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255
        lr = F.interpolate(hr, size=(81, 81), mode="bilinear", align_corners=False)
        sr = F.interpolate(lr, size=(256, 256), mode="bilinear", align_corners=False)
        assert samples[name] == pytest.approx(float(-10 * (sr - hr).square().mean().log10()), abs=1e-3)
