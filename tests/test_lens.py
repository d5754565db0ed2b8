"""The simulated lenses: their physics against closed forms, their images, and the task from end to end."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from typer.testing import CliRunner

from srbench import weights
from srbench.cli import app
from srbench.data.catalogue import default_protocol, is_paired, list_datasets, open_source
from srbench.data.synthetic import lens
from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.training.network_run import network_recipes


def skies(**changed):
    """One sky with a round lens of 1 arcsecond, no shear, no halo, and no light."""
    one = {
        "label": np.array([1]),
        "einstein": [1.0],
        "axis_ratio": [0.9999],
        "angle": [0.0],
        "shear": [[0.0, 0.0]],
        "lens_light": [[0.0, 0.3]],
        "subhalos": [[[0.0, 0.0, 0.0]]],
        "galaxies": [[[0.0, 0.0, 0.2, 1.0, 1.0, 0.0, 0.0]]],
    } | changed
    return lens.Skies(
        **{name: np.asarray(value, np.int64 if name == "label" else np.float32) for name, value in one.items()}
    )


def bent(x, y, **changed):
    """Return alpha at single positions, `(P, 2)`."""
    alpha = lens.deflection(skies(**changed), np.asarray(x, np.float32), np.asarray(y, np.float32))
    return np.stack(alpha, axis=-1)[0]


class TestDeflection:
    def test_a_round_lens_pulls_alike_everywhere(self):
        x, y = np.array([0.5, -1.0, 0.3]), np.array([0.0, 1.0, -1.2])
        assert np.allclose(bent(x, y), np.stack([x, y], 1) / np.hypot(x, y)[:, None], atol=1e-4)

    def test_an_ellipsoid_against_its_closed_form(self):
        # q = 0.8, f = 0.6: on the long axis psi = 0.8, on the short one psi = 1
        along, across = bent([1.0, 0.0], [0.0, 1.0], axis_ratio=[0.8])
        assert along == pytest.approx([math.sqrt(0.8) / 0.6 * math.atan(0.75), 0], abs=1e-5)
        assert across == pytest.approx([0, math.sqrt(0.8) / 0.6 * math.atanh(0.6)], abs=1e-5)
        turned = bent([0.0], [1.0], axis_ratio=[0.8], angle=[math.pi / 2])
        assert turned[0] == pytest.approx([0, along[0]], abs=1e-5)

    def test_its_divergence_is_twice_the_convergence_and_it_has_no_curl(self):
        q, at, step = 0.7, np.array([0.8, 0.5]), 1e-2
        places = at + step * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        right, left, down, up = bent(places[:, 0], places[:, 1], axis_ratio=[q], shear=[[0.03, -0.02]])
        divergence = (right[0] - left[0] + down[1] - up[1]) / (2 * step)
        curl = (right[1] - left[1] - down[0] + up[0]) / (2 * step)
        kappa = math.sqrt(q) / (2 * math.hypot(q * at[0], at[1]))  # Kormann et al. 1994; shear has none
        assert divergence == pytest.approx(2 * kappa, rel=1e-3)
        assert curl == pytest.approx(0, abs=1e-3)

    def test_shear_and_haloes_add_up(self):
        plain = bent([0.7], [0.4])
        sheared = bent([0.7], [0.4], shear=[[0.05, 0.02]])
        assert sheared - plain == pytest.approx(
            np.array([[0.05 * 0.7 + 0.02 * 0.4, 0.02 * 0.7 - 0.05 * 0.4]]), abs=1e-6
        )
        halo = bent([0.7], [0.4], subhalos=[[[0.4, 0.8, 0.05]]])
        assert halo - plain == pytest.approx(np.array([[0.05 * 0.6, 0.05 * -0.8]]), abs=1e-6)

    def test_nothing_is_bent_without_a_lens(self):
        assert not bent([0.7], [0.4], einstein=[0.0], shear=[[0.05, 0.02]]).any()


class TestLight:
    @pytest.mark.parametrize("index", [0.8, 1.0, 4.0])
    def test_half_of_a_galaxy_is_within_its_effective_radius(self, index):
        def ring(r):
            flat = {"radius": 1.0, "index": index, "axis_ratio": 1.0, "angle": 0.0}
            shapes = {name: np.full((1, 1), value) for name, value in flat.items()}
            return 2 * math.pi * r * float(lens.sersic(np.array([[r]]), np.zeros((1, 1)), **shapes)[0, 0])

        within, beyond = quad(ring, 0, 1)[0], quad(ring, 1, 1000, limit=500)[0]
        assert ring(1.0) == pytest.approx(2 * math.pi)
        assert within / (within + beyond) == pytest.approx(0.5, abs=0.005)

    def test_a_source_behind_the_middle_becomes_a_ring(self):
        galaxy = [[[0.0, 0.0, 0.05, 1.0, 1.0, 0.0, 1.0]]]
        image = lens.surface_brightness(skies(galaxies=galaxy), 128)[0]
        place = (np.arange(128) + 0.5) * lens.FIELD / 128 - lens.FIELD / 2
        radius = np.hypot(place[:, None], place)
        assert image[abs(radius - 1) < 0.02].min() > 10 * image[abs(radius - 1) > 0.3].max()
        near = abs(radius - 1) < 0.1  # beta is the distance from the ring, and surface brightness is kept
        one = {"radius": 0.05, "index": 1.0, "axis_ratio": 1.0, "angle": 0.0}
        shapes = {name: np.full((1, 1), value) for name, value in one.items()}
        expected = lens.sersic(abs(radius[near] - 1)[None], np.zeros((1, near.sum())), **shapes)[0]
        assert image[near] == pytest.approx(expected, rel=0.02)

    def test_the_haloes_do_not_make_rings_larger(self):
        drawn = [lens.draw_skies(np.full(300, label), np.random.default_rng(1)) for label in (1, 2)]
        place = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        x, y = (1.0 * np.cos(place)).astype(np.float32), (1.0 * np.sin(place)).astype(np.float32)
        pulls = []
        for each in drawn:
            alpha_x, alpha_y = lens.deflection(each, x, y)
            pulls.append((alpha_x * x + alpha_y * y).mean())
        assert pulls[1] == pytest.approx(pulls[0], rel=0.02)
        assert (drawn[1].subhalos[..., 2] > 0).sum(axis=1).min() >= 3
        assert not drawn[0].subhalos[..., 2].any()


class TestTelescope:
    def test_noise_is_that_of_photons_and_detector(self):
        flat = np.full((4, 128, 128), 0.3, dtype=np.float32)
        image = lens.observe(flat, lens.SPACE, np.random.default_rng(0)) / 255
        assert image.mean() == pytest.approx(0.36, abs=1e-3)
        expected = math.sqrt(0.36 / 9000 + 0.006**2 + 1 / 255**2 / 12)
        assert image.std() == pytest.approx(expected, rel=0.03)

    @pytest.mark.parametrize("factor", lens.FACTORS)
    def test_the_second_telescope_sees_the_same_light_less_sharply(self, factor):
        light = np.zeros((50, 128, 128), dtype=np.float32)
        light[:, 62:66, 62:66] = 0.8  # too faint to be clipped
        hr, lr = (
            lens.observe(light, telescope, np.random.default_rng(0)).astype(float) / 255 - telescope.sky
            for telescope in (lens.SPACE, lens.ground(factor))
        )
        assert lr.shape == (50, 64 // factor, 64 // factor)

        def flux(image):  # of the middle, since the noise of all the empty sky adds up
            low, high = 3 * image.shape[1] // 8, 5 * image.shape[1] // 8
            return image[:, low:high, low:high].sum(axis=(1, 2)).mean()

        assert flux(lr) * factor**2 == pytest.approx(flux(hr), rel=0.1)

        def width(image, pixel):
            image = image.mean(axis=0)[image.shape[1] // 4 : -(image.shape[1] // 4)]
            place = (np.arange(image.shape[1]) + 0.5) * pixel - lens.FIELD / 2
            profile, near = image.sum(axis=0), abs(place) < 0.45  # further out is nothing but noise
            return math.sqrt((profile * place**2)[near].sum() / profile[near].sum())

        assert width(lr, lens.FIELD / lr.shape[1]) > 1.3 * width(hr, lens.FIELD / 64)


class TestSource:
    def test_every_image_is_the_same_whatever_was_read_before(self):
        first, second = open_source("lens", "val"), open_source("lens", "val")
        index = 203
        for other in (0, 599, 17):
            second.read(other)
        assert torch.equal(first.read(index), second.read(index))
        assert first.samples[index] == second.samples[index]
        image = first.read(index)
        assert image.shape == (3, 64, 64)
        assert image.dtype == torch.uint8
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])

    def test_splits_are_balanced_sorted_and_share_no_image(self):
        firsts = set()
        for split, count in lens.PER_CLASS.items():
            source = open_source("lens", split)
            assert [sample.label for sample in source.samples] == sorted([0, 1, 2] * count)
            ids = [sample.id for sample in source.samples]
            assert ids == sorted(ids)
            assert source.channels == 1
            firsts.add(bytes(source.read(0).numpy()))
        assert len(firsts) == 3
        assert open_source("lens").split == "test"

    @pytest.mark.parametrize(("spec", "factor"), [("lens-pairs", 2), ("lens-pairs:2", 2), ("lens-pairs:4", 4)])
    def test_pairs(self, spec, factor):
        source = open_source(spec, "train")
        assert (source.paired, source.factor, len(source.samples)) == (True, factor, 300)
        hr, lr = source.read(150), source.read_lr(150)
        assert lr.shape == (3, 64 // factor, 64 // factor)
        made = resize(hr[None].float() / 255, lr.shape[-2:], "bicubic")
        off = made - lr[None].float() / 255
        assert 0.01 < float(off.std()) < 0.1  # the same sky, but not a copy of HR made smaller
        assert is_paired(spec)
        assert default_protocol([spec]) == "clean"

    def test_what_is_said_of_them(self):
        assert default_protocol(["lens"]) == "lens"
        assert default_protocol(["lens", "folder:x"]) == "clean"
        assert {"lens", "lens-pairs[:FACTOR]"} <= {info.syntax for info in list_datasets()}
        for spec, split in (("lens", "all"), ("lens-pairs:3", None), ("lens-pairs", "some"), ("lens:4", None)):
            with pytest.raises(UsageError):
                open_source(spec, split)


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert not isinstance(result.exception, Exception), result.exception
    return result


class TestTask:
    def test_a_classifier_of_one_channel_and_what_it_says(self, own_folders, tmp_path):
        small = [f"args.{key}={value}" for key, value in (("channels", [4, 4, 8, 8]), ("stem_width", 4))]
        trained = invoke("train", "classifier", "resnet10t", "--in-chans", 1, "--data", "lens", "--recipe", "lens",
                         "--limit", 48, "--epochs", 1, "--set", small[0], "--set", small[1], "--set", "batch_size=16",
                         "--name", "tiny", "--out", tmp_path / "train", "--device", "cpu")  # fmt: skip
        assert trained.exit_code == 0, trained.output
        card = weights.find("classifiers", "tiny").card
        assert (card.extra["in_chans"], len(card.extra["mean"]), card.extra["pretrained"]) == (1, 1, False)
        assert card.extra["protocol"]["name"] == "lens"
        out = tmp_path / "out"
        scored = invoke("eval", "bicubic", "--data", "lens", "--classifier", "tiny", "--limit", 24, "--out", out)
        assert scored.exit_code == 0, scored.output
        rows = {row["method"]: row for row in json.loads((out / "leaderboard.json").read_text())["rows"]}
        for method in ("original", "bilinear", "bicubic"):
            assert 0 <= rows[method]["auc"] <= 1
            low, high = rows[method]["ci"]["auc"]
            assert low <= rows[method]["auc"] <= high
        record = json.loads(next(out.rglob("bicubic*/record.json")).read_text())
        assert record["metrics"]["auc"]["value"] == pytest.approx(rows["bicubic"]["auc"], abs=1e-9)
        assert "simulated" in record["dataset"]["note"]
        paired = invoke("eval", "bicubic", "--data", "lens-pairs:4", "--classifier", "tiny", "--limit", 6, "--out",
                        tmp_path / "pairs")  # fmt: skip
        assert paired.exit_code == 0, paired.output
        record = json.loads(next((tmp_path / "pairs").rglob("bicubic*/record.json")).read_text())
        assert record["protocol"]["fields"]["lr"] == {"given": True, "scale": 0.25}

    def test_super_resolution_of_one_channel_from_simulation_to_pairs(self, own_folders, tmp_path):
        small = {
            "channels": 1,
            "factor": 2,
            "blocks": 1,
            "features": 4,
            "discriminator_features": 4,
            "upsampler": "direct",
        }
        few = ["--limit", 24, "--epochs", 1, "--device", "cpu", "--set", "batch_size=8", "--set", "norm_steps=1"]
        shape = [each for name, value in small.items() for each in ("--set", f"parameters.{name}={value}")]
        first = invoke("train", "srgan", "--data", "lens", "--scale", 0.5, "--recipe", "deeplense-a", *shape, *few,
                       "--name", "a", "--out", tmp_path / "a")  # fmt: skip
        assert first.exit_code == 0, first.output
        second = invoke("train", "srgan", "--data", "lens-pairs", "--recipe", "finetune", "--init-from", "a", *few,
                        "--set", "steps_per_epoch=2", "--name", "a-pairs", "--out", tmp_path / "pairs")  # fmt: skip
        assert second.exit_code == 0, second.output
        scored = invoke("eval", "bicubic", "srgan", "--data", "lens-pairs", "--weights", "srgan=a-pairs", "--limit", 6,
                        "--out", tmp_path / "out")  # fmt: skip
        assert scored.exit_code == 0, scored.output
        rows = json.loads((tmp_path / "out" / "leaderboard.json").read_text())["rows"]
        ours = next(row for row in rows if row["method"] == "srgan")
        assert ours["status"] == "ok"
        assert ours["psnr"] > 20
        assert ours["ci"]["psnr"][0] < ours["psnr"] < ours["ci"]["psnr"][1]

    def test_the_recipes_of_the_entry(self):
        recipe = network_recipes()["deeplense"]
        assert (recipe.batch_size, recipe.epochs, recipe.lr) == (32, 12, 1e-3)
        assert recipe.parameters == {"pretrained": "if-available"}
