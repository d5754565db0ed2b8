"""Method and classifier trained one after the other in every step: the loop's phases, and the classifier's terms."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
import training_world as world
from test_training import equal, interrupted_after, tensors
from torch import nn

from srbench import weights
from srbench.errors import TrainingError, UnknownNameError, UsageError
from srbench.method import Batch
from srbench.networks.loading import load_classifier
from srbench.training import checkpoint, losses
from srbench.training.api import train
from srbench.training.features import FeatureExtractor
from srbench.training.recipe import Recipe, apply_overrides

torch.set_num_threads(1)

IN_TURN = ["track=adapted", "classifier_losses.ce_sr=1", "classifier_lr=0.05", "select=none"]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with world.own_place(tmp_path_factory, count=40) as root:
        world.make_images(root / "unlabelled", count=40, labelled=False)
        yield root


@pytest.fixture
def run(place, tmp_path):
    """Call `train` with what most tests share."""

    def call(*overrides, method="tiny_method", out="run", plugin=None, data=None, **options):
        return train(
            method,
            **{
                "data": [data or f"folder:{place / 'photos'}"],
                "classifier": "tiny",
                "protocol": str(place / "half.toml"),
                "out": tmp_path / out,
                "plugins": [plugin or place / "tiny_method.py"],
                "device": "cpu",
                "epochs": 1,
                "progress": False,
                "overrides": list(overrides),
            }
            | options,
        )

    return call


def test_the_method_is_stepped_first_and_the_classifier_on_what_it_then_makes(run, tmp_path):
    body = f"""
        assert not any(p.requires_grad for p in classifier.parameters()) and not classifier.training
        assert all(p.requires_grad for p in self.parameters()) and self.training
        torch.save([batch.lr, batch.hr, batch.label], {str(tmp_path / "batch.pt")!r})
    """
    plugin = world.make_method(tmp_path / "plugins", body=body)
    steps = ["steps_per_epoch=1", "optimizer=sgd", "momentum=0", "lr=0.1", "losses.l1=1", "unit_scale=false"]
    both = run(*IN_TURN, *steps, "label_smoothing=0.1", plugin=plugin)
    alone = run(*steps, "select=none", out="alone")
    loaded = weights.load(both.weights)
    assert equal(loaded.state, tensors(alone)), "the classifier's phase must not move the method"
    lr, hr, label = torch.load(tmp_path / "batch.pt")
    with torch.no_grad():
        sr = both.network.train()(lr, tuple(hr.shape[-2:]))
    expected = load_classifier("tiny").train()
    loss = nn.functional.cross_entropy(expected(sr), label, label_smoothing=0.1)
    loss.backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter -= 0.05 * parameter.grad
    assert both.history["loss_ce_sr"].iloc[-1] == pytest.approx(loss.item(), rel=1e-5)
    assert both.history["loss"].iloc[-1] == pytest.approx(
        sum(both.history[f"loss_{name}"].iloc[-1] for name in ("l1", "logits", "ce_sr")), rel=1e-6
    )
    base, changed = load_classifier("tiny").network.state_dict(), loaded.classifier_state
    for key, value in expected.network.state_dict().items():
        torch.testing.assert_close(changed.get(key, base[key]), value, rtol=1e-4, atol=1e-6)
    assert all(parameter.requires_grad for parameter in both.network.parameters())


def test_every_method_can_be_trained_so_and_both_learn(run):
    more = ["classifier_losses.ce_hr=1", "classifier_losses.ce_mix=1", "losses.l1=1", "losses.logits=0"]
    result = run(*IN_TURN, *more, "classifier_lr=0.003", epochs=3)
    history = result.history
    for name in ("l1", "ce_sr", "ce_hr", "ce_mix"):
        assert history[f"loss_{name}"].iloc[-1] < history[f"loss_{name}"].iloc[1], name
    assert result.images == 3 * 32 and result.steps == 12, "a step of two phases is one step, its images count once"
    assert result.weights.card.recipe["classifier_losses"] == {"ce_sr": 1.0, "ce_hr": 1.0, "ce_mix": 1.0}
    assert result.weights.card.track == "adapted"


def test_the_control_without_parameters_leaves_the_phase_to_the_classifier(run):
    result = run(*IN_TURN, "classifier_losses.ce_mix=1", method="retrained")
    assert {"loss_ce_sr", "loss_ce_mix"} <= set(result.history) and "loss_ce" not in result.history
    assert not equal(weights.load(result.weights).classifier_state, load_classifier("tiny").network.state_dict())


OPTIONS = [
    *IN_TURN,
    "classifier_losses.ce_hr=0.5",
    "classifier_losses.ce_mix=0.5",
    "classifier_optimizer=sgd",
    "optimizer=adamw",
    "augment.flip=true",
    "ema=0.9",
    "accumulate=2",
    "batch_size=4",
    "checkpoint_every=2",
    "clip_norm=1",
    "losses.l1=0.5",
    "parameters.norm=true",
    "norm_steps=2",
]


@pytest.mark.parametrize("writes", [2, 3])
def test_resume_equals_the_uninterrupted_run_to_the_bit(run, monkeypatch, writes):
    whole = run(*OPTIONS, out="whole", epochs=2)
    with monkeypatch.context() as patch:
        interrupted_after(patch, writes)
        with pytest.raises(KeyboardInterrupt):
            run(*OPTIONS, epochs=2)
    torch.rand(3), np.random.rand(3)  # what the process drew meanwhile must not matter
    resumed = run(*OPTIONS, epochs=2, resume=True)
    assert equal(tensors(whole), tensors(resumed))
    columns = [name for name in whole.history if name not in {"seconds", "images_per_s", "wait_share"}]
    pd.testing.assert_frame_equal(whole.history[columns], resumed.history[columns])


def test_accumulated_batches_equal_one_larger_batch(run):
    shared = [*IN_TURN, "classifier_losses.ce_hr=1", "optimizer=sgd", "lr=0.05", "steps_per_epoch=2"]
    shared += ["classifier_train_mode=false", "unit_scale=false"]
    large = run(*shared, "batch_size=8", out="large")
    small = run(*shared, "batch_size=4", "accumulate=2", out="small")
    for key, value in tensors(large).items():
        torch.testing.assert_close(tensors(small)[key], value, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_from_before_there_were_phases_is_gone_on_with(run, tmp_path, monkeypatch):
    whole = run(out="whole", epochs=2)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(epochs=2)
    file = tmp_path / "run" / checkpoint.NAME
    content = checkpoint.read(file)
    assert content.pop("optimizers_of_later_phases") == []
    settings = json.loads(content["settings"])
    assert settings["recipe"].pop("classifier_losses") == {} and settings["recipe"].pop("classifier_optimizer") is None
    checkpoint.write(file, content | {"settings": json.dumps(settings)})
    assert equal(tensors(whole), tensors(run(epochs=2, resume=True)))


def test_a_checkpoint_with_the_names_of_0_1_0_is_gone_on_with(run, tmp_path, monkeypatch):
    whole = run(*IN_TURN, out="whole", epochs=2)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(*IN_TURN, epochs=2)
    file = tmp_path / "run" / checkpoint.NAME
    content = checkpoint.read(file)
    content["optimizers_of_later_turns"] = content.pop("optimizers_of_later_phases")
    settings = json.loads(content["settings"])
    settings["recipe"]["flatness"] = settings["recipe"].pop("min_detail")
    checkpoint.write(file, content | {"settings": json.dumps(settings)})
    assert equal(tensors(whole), tensors(run(*IN_TURN, epochs=2, resume=True)))


def test_a_classifier_that_breaks_down_stops_the_run_and_names_its_term(run, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch 1, step \d+ .*term ce_sr.*checkpoint\.pt \(epoch 0, step 0\)"):
        run(*IN_TURN, "losses.logits=0", "losses.l1=1", "classifier_lr=1e30", "classifier_optimizer=sgd")


def test_norms_of_method_and_classifier_are_estimated_anew(run):
    loaded = weights.load(run(*IN_TURN, "parameters.norm=true", "norm_steps=2", "lr=1e-9").weights)
    base = load_classifier("tiny").network.state_dict()
    key = next(key for key in base if key.endswith("running_mean"))
    assert torch.isfinite(loaded.classifier_state[key]).all() and loaded.classifier_state[key].any()
    assert not torch.equal(loaded.classifier_state[key], base[key]) and loaded.state["body.1.running_mean"].any()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["classifier_losses.ce_sr=1"], "track 'frozen' leaves alone"),
        (["track=adapted", "classifier_optimizer=sgd"], "name its terms too"),
        (["track=adapted", "classifier_losses.ce_lr=1"], "ce_lr"),
        (["classifier_losses.ce_sr=-1"], "classifier_losses.ce_sr must be a finite number above 0"),
    ],
)
def test_a_wrong_recipe_gets_a_sentence(run, overrides, words):
    with pytest.raises((UsageError, UnknownNameError), match=words):
        run(*overrides)


def test_unlabelled_data_cannot_train_the_classifier(run, place):
    with pytest.raises(UsageError, match="'ce_sr' needs labels"):
        run(*IN_TURN, data=f"images:{place / 'unlabelled'}")


def test_a_weight_of_zero_takes_a_term_out():
    recipe = apply_overrides(Recipe(classifier_losses={"ce_sr": 1.0, "ce_mix": 1.0}), ["classifier_losses.ce_mix=0"])
    assert recipe.classifier_losses == {"ce_sr": 1.0}


# The classifier's own terms


def _batch(n: int = 2, side: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(n, 3, side, side, generator=generator)
    return Batch(hr[..., ::2, ::2], hr, torch.arange(n) % 2, None, (side, side))


def test_a_mix_takes_every_cell_from_one_of_the_two():
    sr, hr = torch.zeros(64, 3, 10, 16), torch.ones(64, 3, 10, 16)
    torch.manual_seed(0)
    mix = losses.patch_mix(sr, hr)
    cells = mix[:, :1, [0, 3, 5, 8]][..., [0, 4, 8, 12]]  # nearest: rows 0-2, 3-4, 5-7, 8-9 and columns of four
    assert set(mix.unique().tolist()) == {0.0, 1.0}
    rows = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    expected = cells[:, :, rows].repeat_interleave(4, dim=-1).expand_as(mix)
    torch.testing.assert_close(mix, expected)
    assert 0.45 < float(cells.mean()) < 0.55 and len({tuple(each.flatten().tolist()) for each in cells}) > 60
    torch.manual_seed(0)
    assert torch.equal(mix, losses.patch_mix(sr, hr))


def test_the_classifiers_terms_by_hand():
    class Mean(nn.Module):
        """Scores 0 and ten times the mean."""

        def forward(self, image):
            mean = image.mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(mean), 10 * mean], dim=1)

    batch = Batch(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 8, 8), 0.2), torch.tensor([0, 1]), None, (8, 8))
    sr = torch.full((2, 3, 8, 8), 0.1)
    found = losses.classifier_terms({"ce_sr", "ce_hr"}, sr, batch, Mean())
    # labels 0 and 1 against the score s: log(1 + e^s) and log(1 + e^-s), s = 1 for SR and 2 for HR
    assert set(found) == {"ce_sr", "ce_hr"}
    assert float(found["ce_sr"]) == pytest.approx((1.3132617 + 0.3132617) / 2, rel=1e-6)
    assert float(found["ce_hr"]) == pytest.approx((2.1269280 + 0.1269280) / 2, rel=1e-6)
    mixed = losses.classifier_terms({"ce_mix"}, batch.hr, batch, Mean())
    assert float(mixed["ce_mix"]) == pytest.approx(float(found["ce_hr"]), rel=1e-6)
    with pytest.raises(UsageError, match="compares images of one size"):
        losses.classifier_terms({"ce_mix"}, sr[..., :4], batch, Mean())


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet10t", "layer4"), ("mobilenetv2_035", "bn2"), ("deit_tiny_patch16_224", "norm")]
)
def test_the_last_features_are_those_before_the_head(name, layer):
    args = {"img_size": 64} if "deit" in name else {}
    network = timm.create_model(name, pretrained=False, num_classes=5, **args).eval()
    extractor = FeatureExtractor(network, "last")
    assert extractor.layer == layer
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(extractor(image), network.forward_features(image))


def test_maps_of_the_scores_are_no_features():
    network = torchvision.models.squeezenet1_1(num_classes=7).eval()
    assert (
        FeatureExtractor(network, "last").layer == "classifier.0" and network.features[12].expand3x3.out_channels == 256
    )


# Two ranks

RANKS = """
import json, sys
import torch
torch.set_num_threads(1)
from srbench.training.api import train
for name, options in json.loads(sys.argv[1]):
    result = train("tiny_method", **options)
    rank = torch.distributed.get_rank()
    found = {"state": result.network.state_dict(), "loss": result.history["loss"].tolist()}
    torch.save(found, f"{options['out']}/{name}-rank{rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_train_in_turn_resume_and_equal_one_process(run, place):
    sgd = [*IN_TURN, "classifier_losses.ce_hr=1", "optimizer=sgd", "lr=0.05", "classifier_train_mode=false"]
    sgd += ["steps_per_epoch=4", "unit_scale=false"]
    shared = {
        "data": [f"folder:{place / 'photos'}"],
        "classifier": "tiny",
        "protocol": str(place / "half.toml"),
        "plugins": [str(place / "tiny_method.py")],
        "device": "cpu",
        "progress": False,
    }
    jobs = [
        ("sgd", shared | {"out": str(place / "sgd"), "overrides": [*sgd, "batch_size=4"], "epochs": 1}),
        ("all", shared | {"out": str(place / "all"), "overrides": OPTIONS, "epochs": 1}),
        ("more", shared | {"out": str(place / "all"), "overrides": OPTIONS, "epochs": 2, "resume": True}),
        ("whole", shared | {"out": str(place / "whole"), "overrides": OPTIONS, "epochs": 2}),
    ]
    world.run_two_ranks(place / "ranks.py", RANKS, jobs, timeout=800)
    ended = {
        name: [torch.load(f"{options['out']}/{name}-rank{rank}.pt", weights_only=False) for rank in range(2)]
        for name, options in jobs
    }
    for first, second in ended.values():
        assert equal(first["state"], second["state"])
    files = {name: tensors_of(place / name / "weights") for name in ("sgd", "all", "whole")}
    assert equal(files["all"], files["whole"]), "a resumed run ends as the uninterrupted one"
    alone = run(*sgd, "batch_size=8")
    assert any(key.startswith("classifier.") for key in files["sgd"])
    for key, value in tensors(alone).items():
        torch.testing.assert_close(files["sgd"][key], value, rtol=1e-3, atol=1e-5)


def tensors_of(folder):
    (file,) = folder.glob("*.safetensors")
    return weights.read_state(file)
