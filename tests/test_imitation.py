"""A method trained to make the SR of another, frozen one."""

from __future__ import annotations

import pytest
import torch
import training_world as world
from srbench.methods.esrgan import ESRGAN

from srbench import weights
from srbench.errors import UnknownNameError, UsageError
from srbench.protocol import load_protocol
from srbench.restore import restore
from srbench.training import imitation
from srbench.training.api import train
from srbench.training.method_run import MethodRun

torch.set_num_threads(1)
GIVEN = ["imitates=esrgan:demo-psnr-x4", "losses.imitation=1"]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with world.own_place(tmp_path_factory, count=24) as root:
        world.make_classifier("one")
        yield root


@pytest.fixture
def run(place, tmp_path):
    def call(*overrides, out="run", **options):
        small = ["parameters.arch=disp", "parameters.blocks=1", "parameters.features=8", "batch_size=8"]
        return train(
            "darionet",
            **{
                "data": [f"folder:{place / 'photos'}"],
                "protocol": str(place / "half.toml"),
                "out": tmp_path / out,
                "recipe": "cpu-small",
                "epochs": 1,
                "overrides": [*small, "steps_per_epoch=4", "losses.logits=0", *overrides],
                "device": "cpu",
                "progress": False,
            }
            | options,
        )

    return call


@pytest.fixture
def wanted(place):
    """What the imitated method makes of LR."""
    ref = weights.find("esrgan", "demo-psnr-x4", ESRGAN.weights)
    method, protocol = ESRGAN.from_weights(weights.load(ref)).eval(), load_protocol(str(place / "half.toml"))

    @torch.no_grad()
    def call(lr, size):
        return restore(method, lr, size, restoration=protocol.sr, numerics=None).clamp(0, 1)

    return call


def watch(monkeypatch):
    """Keep every batch of the training that follows."""
    batches, step = [], MethodRun.step
    monkeypatch.setattr(MethodRun, "step", lambda self, batch: batches.append(batch) or step(self, batch))
    return batches


@pytest.mark.parametrize("cut", ["patch=16", "augment.shift=4", "augment.blur=1", "augment.rotate=true"])
def test_sr_of_what_is_drawn_is_made_at_each_step(run, wanted, monkeypatch, cut):
    batches = watch(monkeypatch)
    run(*GIVEN, cut, "augment.flip=true")
    for batch in batches:
        torch.testing.assert_close(batch.imitated, wanted(batch.lr, batch.sr_size))


def test_sr_of_whole_images_is_made_once_and_mirrored(run, wanted, monkeypatch, place):
    batches, calls = watch(monkeypatch), []
    compute = imitation.Imitated._restored
    monkeypatch.setattr(imitation.Imitated, "_restored", lambda self, *args: calls.append(1) or compute(self, *args))
    first = run(*GIVEN, "augment.flip=true", epochs=2)
    made = len(calls)
    mirrored = 0
    for batch in batches:
        plain, turned = wanted(batch.lr, batch.sr_size), wanted(batch.lr.flip(-1), batch.sr_size).flip(-1)
        near = [(batch.imitated - each).abs().amax(dim=(1, 2, 3)) <= 0.5 / 255 + 1e-5 for each in (plain, turned)]
        assert bool((near[0] | near[1]).all())
        mirrored += int((~near[0]).sum())
    assert mirrored, "no image was mirrored, or the network does not know left from right"
    again = run(*GIVEN, "augment.flip=true", epochs=2, out="again")
    assert len(calls) == made, "what is in the cache was made again"
    assert all(torch.equal(value, again.network.state_dict()[key]) for key, value in first.network.state_dict().items())


def test_training_comes_nearer_to_the_imitated_method(run):
    history = run(*GIVEN, "lr=1e-3", epochs=6).history
    near = history["loss_imitation"].dropna().to_numpy()
    assert near[-1] < 0.7 * near[0]


def test_the_card_names_what_was_imitated_and_another_is_not_gone_on_with(run):
    card = run(*GIVEN, "epochs=1").weights.card
    ref = weights.find("esrgan", "demo-psnr-x4", ESRGAN.weights)
    assert card.extra["imitates"] == {
        "method": "esrgan",
        "weights": "demo-psnr-x4",
        "sha256": ref.sha256,
        "licence": ref.licence,
    }
    with pytest.raises(UsageError, match="imitates: esrgan:demo-psnr-x4 then, esrgan:demo-x4 now"):
        run("imitates=esrgan:demo-x4", "losses.imitation=1", "epochs=1", resume=True)


@pytest.mark.parametrize(
    ("overrides", "error", "sentence"),
    [
        (["losses.imitation=1"], UsageError, "needs a method to imitate; name it with --set imitates=METHOD:WEIGHTS"),
        (["losses.l1=1", "imitates=esrgan:demo-psnr-x4"], UsageError, "has no effect without its loss term"),
        (["losses.imitation=1", "imitates=esrgan"], UsageError, "imitates='esrgan' names no weights"),
        (["losses.imitation=1", "imitates=nobody:x"], UnknownNameError, "nobody"),
        (["losses.imitation=1", "imitates=esrgan:nothing"], UnknownNameError, "nothing"),
    ],
)
def test_what_cannot_be_imitated_is_refused_before_any_image_is_decoded(run, monkeypatch, overrides, error, sentence):
    monkeypatch.setattr(MethodRun, "_open_images", lambda self: pytest.fail("images were decoded"))
    with pytest.raises(error, match=sentence):
        run(*overrides)


def test_images_of_several_sizes_are_imitated_at_each_step(run, wanted, monkeypatch, tmp_path):
    folders = [world.make_images(tmp_path / str(side), 30, side=side) for side in (24, 32)]
    batches = watch(monkeypatch)
    run(*GIVEN, data=[f"folder:{folder}" for folder in folders], protocol="clean", scale=0.5)
    assert {batch.sr_size for batch in batches} == {(24, 24), (32, 32)}
    for batch in batches:
        torch.testing.assert_close(batch.imitated, wanted(batch.lr, batch.sr_size))
