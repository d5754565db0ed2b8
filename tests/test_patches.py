"""Patches for training: several of an image, turned all ways, none of them flat, and nobody's earlier draws moved."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
import training_world as world
from PIL import Image

from srbench import weights
from srbench.data.catalogue import open_source
from srbench.errors import UsageError
from srbench.protocol import Geometry
from srbench.training import checkpoint
from srbench.training.api import train
from srbench.training.crops import detail, read_cropped
from srbench.training.images import ImageSet
from srbench.training.plan import epoch_plan
from srbench.training.recipe import Augment, Recipe, apply_overrides

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """The world with further images, and with a protocol of noise and JPEG."""
    with world.own_place(tmp_path_factory) as root:
        world.make_images(root / "plain", 12, labelled=False)
        (root / "worn.toml").write_text("[lr]\nscale = 0.5\nnoise_sigma = 0.05\njpeg_quality = 60\n")
        yield root


def images_of(folder, split="all"):
    return ImageSet([open_source(f"images:{folder}", split)], Geometry(), label_map=None)


def batches_of(images, recipe, *, rank=0, world=1, epoch=1):
    plan = epoch_plan(images, recipe, seed=0, epoch=epoch, rank=rank, world=world)
    return [batch for step in plan for batch in step]


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        (Recipe(), "cb22e8e16d1a6251"),
        (Recipe(augment=Augment(flip=True)), "0a312c3a16bc2e49"),
        (Recipe(patch=12), "9f4591e760348e1d"),
        (Recipe(patch=10, augment=Augment(flip=True, shift=3)), "dbf4b22924b6f9aa"),
        (Recipe(augment=Augment(flip=True, shift=4)), "cd410f1a1087de27"),
    ],
)
def test_what_recipes_without_the_new_settings_draw_has_not_moved(place, recipe, digest):
    images, seen = images_of(place / "plain"), hashlib.sha256()
    recipe = dataclasses.replace(recipe, batch_size=5, accumulate=2)
    for rank, ranks in ((0, 1), (1, 2)):
        for step in epoch_plan(images, recipe, seed=3, epoch=2, rank=rank, world=ranks):
            for number, positions in enumerate(step):
                raw = read_cropped(images, positions, recipe, np.random.default_rng([3, 3, 2, number, rank]))
                for array in (raw.positions, raw.hr.numpy(), raw.flipped):
                    seen.update(np.ascontiguousarray(array).tobytes())
    assert seen.hexdigest()[:16] == digest, "recorded before patches_per_image, min_detail and rotate were added"


def test_a_batch_comes_from_few_images_and_an_epoch_still_sees_each_equally_often(place):
    images = images_of(place / "plain")
    recipe = Recipe(batch_size=6, patch=8, patches_per_image=3)
    batches = batches_of(images, recipe)
    assert [len(batch) for batch in batches] == [6] * 6
    assert all(batch.tolist() == np.repeat(batch[::3], 3).tolist() for batch in batches)
    assert np.bincount(np.concatenate(batches)).tolist() == [3] * 12
    one = batches_of(images, dataclasses.replace(recipe, patches_per_image=6))
    assert len(one) == 12 and all(len(set(batch.tolist())) == 1 for batch in one), "one image, a batch of its patches"
    more = batches_of(images, dataclasses.replace(recipe, patches_per_image=9))
    assert [batch.tolist() for batch in more] == [batch.tolist() for batch in one]
    uneven = batches_of(images, dataclasses.replace(recipe, patches_per_image=4))
    assert [np.unique(batch, return_counts=True)[1].max() for batch in uneven] == [4] * 6 and len(uneven[0]) == 6


def test_patches_of_one_image_differ_and_lie_in_it(place):
    images = images_of(place / "plain")
    recipe = Recipe(batch_size=6, patch=8, patches_per_image=6)
    (positions, *_) = batches_of(images, recipe)
    hr = read_cropped(images, positions, recipe, np.random.default_rng(0)).hr
    whole = images.read(positions[:1])[0][0]
    windows = whole.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 8, 8)
    assert all((windows == patch).flatten(1).all(dim=1).any() for patch in hr)
    assert len({patch.numpy().tobytes() for patch in hr}) == 6


def test_ranks_share_no_image_and_get_batches_of_one_size(place):
    images = images_of(place / "plain")
    recipe = Recipe(batch_size=4, patch=8, patches_per_image=2)
    parts = [batches_of(images, recipe, rank=rank, world=2) for rank in range(2)]
    assert [list(map(len, part)) for part in parts] == [[4] * 3] * 2
    assert not set(np.concatenate(parts[0]).tolist()) & set(np.concatenate(parts[1]).tolist())


def test_turning_gives_all_eight_ways_and_keeps_pairs_aligned(tmp_path):
    hr = world.make_images(tmp_path / "hr", 12, labelled=False)
    (tmp_path / "lr").mkdir()
    for file in hr.iterdir():
        pixels = np.asarray(Image.open(file))
        Image.fromarray(pixels.reshape(12, 2, 12, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)).save(
            tmp_path / "lr" / file.name
        )
    images = ImageSet([open_source(f"pairs:{tmp_path / 'lr'},{tmp_path / 'hr'}", "all")], Geometry(), label_map=None)
    whole, _ = images.read(np.array([5]))
    ways = {turn: torch.rot90(whole[0], turn, (-2, -1)) for turn in range(4)}
    recipe = Recipe(augment=Augment(rotate=True, flip=True))
    seen = set()
    for draw in range(8):
        raw = read_cropped(images, np.full(8, 5), recipe, np.random.default_rng(draw))
        coarse = raw.hr.float().reshape(8, 3, 12, 2, 12, 2).mean(dim=(3, 5))
        assert (coarse - raw.lr).abs().max() <= 0.5, "LR is turned with its HR"
        for patch, flipped in zip(raw.hr, raw.flipped.tolist(), strict=True):
            (turn,) = (turn for turn, way in ways.items() if torch.equal(way, patch))
            seen.add((turn, flipped))
    assert len(seen) == 8
    Image.new("RGB", (20, 12), (9, 9, 9)).save(tmp_path / "wide.png")
    wide = np.zeros((12, 20, 3), np.uint8)
    wide[0, 0] = 255
    (tmp_path / "oblong").mkdir()
    Image.fromarray(wide).save(tmp_path / "oblong" / "wide.png")
    turned = read_cropped(images_of(tmp_path / "oblong"), np.zeros(16, np.int64), recipe, np.random.default_rng(0)).hr
    assert turned.shape == (16, 3, 12, 20), "what is not square is turned by halves"
    assert {tuple(patch[0].nonzero()[0].tolist()) for patch in turned} == {(0, 0), (11, 19)}


def test_detail_is_the_larger_mean_deviation_along_a_side():
    wall = torch.full((3, 8, 8), 77, dtype=torch.uint8)
    assert detail(wall) == 0
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(4).expand(3, 8, 8)
    assert detail(stripes) == pytest.approx(0.5) == detail(stripes.mT), "0 and 1 deviate by a half from their mean"
    dot = wall.clone()
    dot[:, 0, 0] = 77 + 128  # one column of eight: sqrt(1/8 - 1/64) of 128/255 deviates, seven do not
    assert detail(dot) == pytest.approx(128 / 255 * (1 / 8 - 1 / 64) ** 0.5 / 8)


def test_flat_patches_are_drawn_again_and_the_least_flat_is_kept(tmp_path):
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[:, 40:] = np.random.default_rng(0).integers(0, 256, (64, 24, 3))
    (tmp_path / "half").mkdir()
    Image.fromarray(pixels).save(tmp_path / "half" / "half.png")
    images, positions = images_of(tmp_path / "half"), np.zeros(64, np.int64)

    def details(**changes):
        recipe = Recipe(batch_size=64, patch=8, patches_per_image=64, **changes)
        raw = read_cropped(images, positions, recipe, np.random.default_rng(2))
        return np.array([detail(patch) for patch in raw.hr]), raw.hr

    (plain, first), (chosen, second), (again, third) = details(), details(min_detail=0.1), details(min_detail=0.1)
    assert (plain < 0.1).mean() > 0.3 and (chosen < 0.1).mean() < 0.05
    assert torch.equal(second, third) and (again == chosen).all()
    kept = plain >= 0.1
    assert torch.equal(first[torch.from_numpy(kept)], second[torch.from_numpy(kept)]), "a good first draw stays"
    unreachable, _ = details(min_detail=0.9)
    assert (unreachable >= plain).all() and (unreachable > plain).mean() > 0.5, "then the most detailed of eight"


def test_settings_about_patches_need_patches(place, tmp_path):
    shared = {"data": [f"folder:{place / 'photos'}"], "recipe": "pixels", "plugins": [place / "tiny_method.py"]}
    for setting in ("patches_per_image=4", "min_detail=0.1"):
        with pytest.raises(UsageError, match=rf"{setting.split('=')[0]} is about patches, but none are cut.*patch=96"):
            train("tiny_method", out=tmp_path / "run", device="cpu", overrides=[setting], **shared)
    for setting in ("patches_per_image=0", "min_detail=1", "min_detail=-0.1"):
        with pytest.raises(UsageError, match=f"{setting.partition('=')[0]} must be"):
            apply_overrides(Recipe(), [setting])


def test_training_on_worn_turned_patches_resumes_to_the_bit(place, tmp_path, monkeypatch):
    options = ["patch=12", "patches_per_image=4", "min_detail=0.12", "augment.rotate=true", "augment.flip=true"]

    def run(out, **more):
        result = train(
            "tiny_method",
            data=[f"folder:{place / 'photos'}"],
            recipe="pixels",
            protocol=str(place / "worn.toml"),
            overrides=[*options, "checkpoint_every=2", "select=none"],
            out=tmp_path / out,
            plugins=[place / "tiny_method.py"],
            device="cpu",
            progress=False,
            **more,
        )
        return weights.read_state(result.weights.path), result

    whole, result = run("whole")
    assert result.images == 2 * 4 * 49, "each of the 49 images gives four patches an epoch"
    real, seen = checkpoint.write, []

    def write(path, content):
        real(path, content)
        seen.append(path)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", write)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    torch.rand(5)
    resumed, _ = run("stopped", resume=True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
