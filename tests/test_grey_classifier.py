"""Training a classifier of one channel: the split of 90:10, and a backbone that is pretrained where it can be."""

from __future__ import annotations

import pytest
import training_world as world

from srbench import weights
from srbench.data.catalogue import open_source
from srbench.data.readers.files import hash_split
from srbench.errors import SrbenchError, UsageError
from srbench.training import network_run as module
from srbench.training.api import train_network
from srbench.training.options import TrainOptions
from srbench.training.splits import open_splits

SMALL = ["args.channels=[4, 4, 8, 8]", "args.layers=[1, 1, 1, 1]", "args.stem_width=4", "batch_size=8"]


def ids(sources):
    return {sample.id for source in sources for sample in source.samples}


def test_ninety_to_ten_by_hash(tmp_path):
    spec = f"folder:{world.make_images(tmp_path / 'photos', 60)}"
    training, tested = open_splits([spec], "test")
    assert ids(training) | ids(tested) == ids([open_source(spec)])
    assert ids(tested) == {each for each in ids([open_source(spec)]) if hash_split(each) == "test"}
    assert not ids(training) & ids(tested)
    assert [source.split for source in (*training, *tested)] == ["train+val", "test"]


def test_splits_that_the_data_has(tmp_path):
    training, tested = open_splits(["lens"], "test")
    assert [source.split for source in (*training, *tested)] == ["train", "test"]
    for split in ("train", "val"):
        world.make_images(tmp_path / "photos" / split, 6)
    with pytest.raises(UsageError, match="no test split; name one with --val SPEC"):
        open_splits([f"folder:{tmp_path / 'photos'}"], "test")


@pytest.fixture
def offline(monkeypatch):
    """Build networks, but never with the library's weights; list what was asked for."""
    asked = []
    build = module.create_network

    def create_network(library, name, args, *, pretrained=False):
        asked.append(pretrained)
        if pretrained:
            raise SrbenchError("the weights of timm:resnet10t could not be fetched (ConnectError); download them")
        return build(library, name, args)

    monkeypatch.setattr(module, "create_network", create_network)
    return asked


def test_it_begins_from_scratch_where_no_weights_can_be_had_and_says_so(own_folders, tmp_path, offline):
    spec = f"folder:{world.make_images(tmp_path / 'photos', 40)}"
    protocol = world.make_protocol(tmp_path)

    def train(name, *more):
        options = TrainOptions(
            data=[spec],
            val="test",
            protocol=protocol,
            epochs=1,
            progress=False,
            device="cpu",
            recipe="deeplense",
            overrides=[*SMALL, *more],
            name=name,
            out=tmp_path / name,
        )
        return train_network("resnet10t", options, in_chans=1)

    result = train("mine")
    assert offline == [True, False]
    assert "from scratch: the weights of timm:resnet10t could not be fetched (ConnectError)" in result.notes[0]
    notes = [line for line in result.summary().splitlines() if line.startswith("note: ")]
    assert notes[0].startswith("note: resnet10t was trained from scratch")
    card = weights.find("classifiers", "mine").card
    assert card.extra["pretrained"] is False
    assert card.extra["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    plain = train("plain", "args.pretrained=false")
    assert plain.weights.sha256 != result.weights.sha256  # the cards differ ...
    ours, theirs = (each.network.state_dict() for each in (result, plain))
    assert all(ours[key].equal(theirs[key]) for key in ours)  # ... and the networks do not
    for setting, error in (("true", "could not be fetched"), ("maybe", "true, false or if-available")):
        with pytest.raises(SrbenchError, match=error):
            train("other", f"args.pretrained={setting}")
