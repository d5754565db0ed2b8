"""Tiny ImageNet in its layout as distributed, from the folder to a table; and fewer classes of any labelled dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import training_world as world
from PIL import Image
from typer.testing import CliRunner

from srbench import weights
from srbench.cli import app
from srbench.data.catalogue import open_source
from srbench.errors import DataError, UnknownNameError, UsageError, WeightsError
from srbench.networks.loading import load_classifier
from srbench.protocol import load_protocol
from srbench.training.api import train_network
from srbench.training.options import TrainOptions
from srbench.training.prepare import choose_protocol
from srbench.training.splits import open_splits

torch.set_num_threads(1)

WNIDS = ("n02124075", "n01443537", "n04067472", "n02795169")  # not sorted, as in wnids.txt
WORDS = ("Egyptian cat", "goldfish, Carassius auratus", "reel", "barrel, cask")


def make_tiny_imagenet(root: Path, *, train: int = 6, val: int = 8) -> Path:
    """Write `train` images a class and `val` images in all, 64 x 64, with every file that the archive has."""
    generator = np.random.default_rng(0)

    def save(path: Path, kind: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.5 + 0.4 * np.sin(np.linspace(0, 3 * (kind + 1), 64) + generator.uniform(0, 6))
        plane = np.tile(wave, (64, 1))[..., None] * generator.uniform(0.6, 1, 3)
        grey = path.name.endswith("_1.JPEG")  # a few per cent of the real ones are grey
        image = Image.fromarray((plane * 255).astype(np.uint8))
        (image.convert("L") if grey else image).save(path, quality=95)

    for kind, wnid in enumerate(WNIDS):
        for number in range(train):
            save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", kind)
        boxes = "".join(f"{wnid}_{number}.JPEG\t0\t10\t63\t58\n" for number in range(train))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    lines = []
    for number in range(val):
        save(root / "val" / "images" / f"val_{number}.JPEG", number % len(WNIDS))
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % len(WNIDS)]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    for number in range(2):
        save(root / "test" / "images" / f"test_{number}.JPEG", 0)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    more = [("n00001740", "entity")]  # words.txt names far more than the 200
    words = [*zip(WNIDS, WORDS, strict=True), *more]
    (root / "words.txt").write_text("".join(f"{wnid}\t{word}\n" for wnid, word in words))
    return root


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_imagenet(tmp_path_factory.mktemp("data") / "tiny-imagenet-200")


# The layout


def test_splits_classes_and_labels(tiny):
    train, val = open_source(f"tiny-imagenet:{tiny}", "train"), open_source(f"tiny-imagenet:{tiny}")
    assert train.classes == val.classes == tuple(sorted(WNIDS))
    assert len(train.samples) == 24 and [sample.label for sample in train.samples] == sorted([0, 1, 2, 3] * 6)
    by_id = {sample.id: val.classes[sample.label] for sample in val.samples}
    assert by_id == {f"val_{number}.JPEG": WNIDS[number % 4] for number in range(8)}
    assert val.split == "val" and val.read(0).shape == train.read(0).shape == (3, 64, 64)
    with pytest.raises(UsageError, match="its splits are train, val"):
        open_source(f"tiny-imagenet:{tiny}", "test")


def test_its_own_splits_train_and_validate(tiny):
    training, validation = open_splits([f"tiny-imagenet:{tiny}"], None)
    assert [len(source.samples) for source in (*training, *validation)] == [24, 8]
    assert (training[0].split, validation[0].split) == ("train", "val")


def test_a_class_that_was_not_unpacked_is_named(tmp_path):
    root = make_tiny_imagenet(tmp_path / "tiny", train=1, val=1)
    with (root / "wnids.txt").open("a") as file:
        file.write("n09999999\n")
    with pytest.raises(DataError, match=r"lacks 1 of the 5 classes in wnids\.txt, such as n09999999"):
        open_source(f"tiny-imagenet:{root}", "train")


def test_its_protocol_leaves_the_images_as_they_are(tiny):
    spec = f"tiny-imagenet:{tiny}"
    for data in ([spec], [f"{spec}?classes={WNIDS[0]}"], [spec, spec]):
        assert choose_protocol(None, None, data=data).name == "native"
    assert choose_protocol(None, None, data=[spec, "imagenette"]).name == "clean"
    native = load_protocol("native")
    assert native.lr.lr_size(64, 64) == (20, 20) and native.sr_size(64, 64) == (64, 64)
    assert native.fingerprint == load_protocol("demo").fingerprint, "the demo's patches are taken as they are too"


# From the folder to a table


def test_from_a_folder_to_a_table(tiny, own_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def srbench(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, (done.exception, done.output)
        return done.stdout

    spec = f"tiny-imagenet:{tiny}"
    narrow = ["args.channels=[8,8,8,8]", "args.stem_width=8", "steps_per_epoch=2", "batch_size=8"]
    sets = [word for each in narrow for word in ("--set", each)]
    srbench("train", "classifier", "resnet18", "--data", spec, "--name", "t", "--epochs", 1, "--device", "cpu", *sets)
    teacher = load_classifier("t")
    assert teacher.info.classes == tuple(sorted(WNIDS)) and teacher.info.n_classes == 4
    card = weights.find("classifiers", "t").card
    read = [(each["split"], each["n"]) for each in (*card.data["train"], *card.data["val"])]
    assert read == [("train", 24), ("val", 8)]
    assert card.extra["protocol"]["name"] == "native"

    common = ["--data", spec, "--classifier", "t", "--epochs", 1, "--device", "cpu"]
    common += ["--set", "steps_per_epoch=2", "--set", "batch_size=4"]
    small = ["--set", "parameters.blocks=1", "--set", "parameters.features=4"]
    srbench("train", "darionet", "--recipe", "tiny-imagenet", "--name", "d", *common, *small)
    srbench("train", "learned_resizer", "--recipe", "tiny-imagenet", "--name", "l", *common, "--set", "norm_steps=1")
    given = ["--weights", "darionet=d", "--weights", "learned_resizer=l"]
    srbench("eval", "darionet", "learned_resizer", *given, "--data", spec, "--classifier", "t", "--out", "o")
    rows = json.loads(Path("o/leaderboard.json").read_text())["rows"]
    done = {row["method"]: row for row in rows if row["status"] == "ok"}
    assert set(done) == {"original", "none", "bilinear", "darionet", "learned_resizer"}
    assert {row["n"] for row in done.values()} == {8} and "tiny-imagenet-val-native-0.32" in rows[0]["task"]
    assert done["learned_resizer"]["track"] == "adapted" and done["darionet"]["psnr"] > 10


# Fewer classes


def test_fewer_classes_are_labelled_anew_and_keep_the_datasets_order(tiny):
    spec = f"tiny-imagenet:{tiny}?classes={WNIDS[2]},{WNIDS[1]}"
    whole, some = open_source(f"tiny-imagenet:{tiny}"), open_source(spec)
    assert some.classes == (WNIDS[1], WNIDS[2])
    kept = [sample for sample in whole.samples if whole.classes[sample.label] in some.classes]
    assert [(sample.id, some.classes[sample.label]) for sample in some.samples] == [
        (sample.id, whole.classes[sample.label]) for sample in kept
    ]
    for index, sample in enumerate(some.samples):
        place = [each.id for each in whole.samples].index(sample.id)
        assert torch.equal(some.read(index), whole.read(place)) and some.stamps([index]) == whole.stamps([place])
    assert some.spec == f"tiny-imagenet:tiny-imagenet-200?classes={WNIDS[2]},{WNIDS[1]}"
    assert open_source(spec, "train").classes == some.classes and len(open_source(spec, "train").samples) == 12


def test_subsets_of_as_many_classes_are_not_mistaken_for_one_another(tiny):
    names = [open_source(f"tiny-imagenet:{tiny}?classes={a},{b}").name for a, b in (WNIDS[:2], WNIDS[2:], WNIDS[1::-1])]
    assert names[0] == names[2] != names[1] and names[0].startswith("tiny-imagenet-2-classes-")


def test_a_list_may_be_a_file(tiny, tmp_path):
    listing = tmp_path / "two.txt"
    listing.write_text(f"{WNIDS[0]}\tEgyptian cat\n\n{WNIDS[3]}\n")
    source = open_source(f"tiny-imagenet:{tiny}?classes={listing}")
    assert source.classes == tuple(sorted((WNIDS[0], WNIDS[3]))) and source.spec.endswith("?classes=two.txt")
    whole = open_source(f"tiny-imagenet:{tiny}?classes={tiny / 'wnids.txt'}")
    assert whole.classes == open_source(f"tiny-imagenet:{tiny}").classes


@pytest.mark.parametrize("split", ["all", "train"])
def test_every_labelled_dataset_has_them(tmp_path, split):
    photos = world.make_images(tmp_path / "photos", count=30)
    source = open_source(f"folder:{photos}?classes=spots,across", split)
    assert source.classes == ("across", "spots") and source.split == split
    assert {sample.id.split("/")[0] for sample in source.samples} == {"across", "spots"}
    assert {sample.id for sample in source.samples} <= {s.id for s in open_source(f"folder:{photos}", split).samples}


def test_training_holds_out_the_same_images_with_fewer_classes(tmp_path):
    photos = world.make_images(tmp_path / "photos", count=60)
    ids = [
        {sample.id for part in parts for sample in part.samples if not sample.id.startswith("down")}
        for parts in open_splits([f"folder:{photos}"], None)
    ]
    fewer = [
        {sample.id for part in parts for sample in part.samples}
        for parts in open_splits([f"folder:{photos}?classes=across,spots"], None)
    ]
    assert fewer == ids and all(ids)


def test_a_classifier_of_fewer_classes_starts_from_one_of_all(tmp_path, own_folders):
    photos = world.make_images(tmp_path / "photos", count=30)
    world.make_classifier("all")
    base = load_classifier("all").network.state_dict()
    options = {"device": "cpu", "progress": False, "epochs": 1, "protocol": world.make_protocol(tmp_path)}
    settings = ["args.channels=[8,8,8,8]", "args.layers=[1,1,1,1]", "args.stem_width=8", "lr=1e-12", "weight_decay=0"]
    data = [f"folder:{photos}?classes=across,spots"]
    train_network(
        "resnet10t",
        TrainOptions(data=data, init_from="all", name="two", out=tmp_path / "o", overrides=settings, **options),
    )
    found = load_classifier("two").network.state_dict()
    assert found["fc.weight"].shape == (2, 8)
    for name, parameter in load_classifier("two").network.named_parameters():
        assert name.startswith("fc.") or torch.allclose(parameter, base[name], atol=1e-6), name
    with pytest.raises(WeightsError, match="have another shape"):
        wider = ["args.channels=[8,8,8,16]", *settings[1:]]
        train_network(
            "resnet10t", TrainOptions(data=data, init_from="all", out=tmp_path / "p", overrides=wider, **options)
        )


@pytest.mark.parametrize(
    ("classes", "error", "words"),
    [
        ("n02124076", UnknownNameError, "did you mean n02124075"),
        ("", UsageError, "names no class"),
        ("absent.txt", DataError, "there is no file absent.txt"),
    ],
)
def test_wrong_classes_get_a_sentence(tiny, classes, error, words):
    with pytest.raises(error, match=words):
        open_source(f"tiny-imagenet:{tiny}?classes={classes}")


def test_unlabelled_images_have_no_classes(tiny):
    with pytest.raises(UsageError, match="has no labels"):
        open_source(f"images:{tiny}?classes=n02124075")


def test_a_split_without_these_classes_says_so(tiny, tmp_path):
    root = make_tiny_imagenet(tmp_path / "few", val=1)
    with pytest.raises(DataError, match="the split 'val' holds no image of these classes"):
        open_source(f"tiny-imagenet:{root}?classes={WNIDS[3]}")
