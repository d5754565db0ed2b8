"""Several teachers, networks that only judge, and input sizes drawn for each batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import training_world as world
from srbench.methods.darionet import DarioNet

from srbench import evaluate
from srbench.data.catalogue import open_source
from srbench.errors import UsageError
from srbench.method import Batch
from srbench.networks.loading import load_classifier
from srbench.protocol import Geometry, Restoration
from srbench.restore import restore
from srbench.training import features, losses
from srbench.training.api import train
from srbench.training.crops import read_cropped
from srbench.training.images import ImageSet
from srbench.training.method_run import MethodRun
from srbench.training.recipe import Recipe, apply_overrides
from srbench.training.teacher import freeze, logits_variance, teacher_logits

torch.set_num_threads(1)
SMALL = ["parameters.arch=disp", "parameters.blocks=1", "parameters.features=4", "batch_size=8", "steps_per_epoch=4"]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with world.own_place(tmp_path_factory, count=40) as root:
        for seed, name in enumerate(("one", "two", "judge")):
            world.make_classifier(name, seed=seed)
        world.make_classifier("strangers", ("x", "y"), seed=9)
        yield root


@pytest.fixture
def run(place, tmp_path):
    def call(*overrides, out="run", **options):
        return train(
            "darionet",
            **{
                "data": [f"folder:{place / 'photos'}"],
                "classifier": ["one", "two"],
                "protocol": str(place / "half.toml"),
                "out": tmp_path / out,
                "recipe": "cpu-small",
                "epochs": 1,
                "overrides": [*SMALL, *overrides],
                "device": "cpu",
                "progress": False,
            }
            | options,
        )

    return call


def test_each_teachers_layers_are_chosen_once(run, monkeypatch):
    probed = []
    probe = features._probe
    monkeypatch.setattr(features, "_probe", lambda classifier: (probed.append(classifier.id), probe(classifier))[1])
    assert run("losses.stages=1", epochs=2).steps == 8
    assert probed == ["one", "two"]


def test_teachers_take_turns_and_each_counts_by_its_own_variance(run, monkeypatch):
    asked = []
    step = MethodRun.step

    def watched(self, batch):
        values = step(self, batch)
        teacher = self._classifiers[batch.teacher_number]
        assert torch.equal(batch.teacher_logits, teacher_logits(teacher, batch.hr))
        assert batch.logits_unit == logits_variance(teacher, self.images, torch.device("cpu"))
        asked.append((teacher.id, batch.logits_unit, values["logits"].item()))
        return values

    monkeypatch.setattr(MethodRun, "step", watched)
    result = run("augment.shift=2", epochs=2)
    names, units, values = zip(*asked, strict=True)
    assert names == ("one", "two") * 4
    assert len(set(units)) == 2 and all(0 < value < 20 for value in values)
    expected = [load_classifier(name).info.weights_sha256 for name in ("one", "two")]
    assert [each["sha256"] for each in result.weights.card.extra["teachers"]] == expected
    assert result.weights.card.teacher == {"id": "one", "sha256": expected[0]}
    assert result.weights.path.stem == "cpu-small-one-two"


def test_scores_of_whole_crops_are_kept_for_each_teacher_and_mirrored_too(run, place):
    def kept():
        return {path: path.read_bytes() for path in (place / "cache" / "teacher").glob("*/*.f32")}

    run("augment.flip=true", epochs=8)
    first = kept()
    assert len({path.parent for path in first}) >= 2
    assert {path.stem.rpartition("-")[2] for path in first} == {"plain", "flipped"}
    run("augment.flip=true", epochs=8, out="again")
    assert kept() == first


def test_weights_of_several_teachers_fit_where_one_of_them_is(run, place):
    def fits(*classifiers):
        try:
            result = evaluate(
                ["darionet"],
                data=f"folder:{place / 'photos'}",
                classifiers=list(classifiers),
                protocol=str(place / "half.toml"),
                out=place / "-".join(classifiers),
                limit=2,
                measure=False,
            )
        except UsageError as error:
            return str(error)
        return [cell.record.status for cell in result.cells if cell.record.cell.method == "darionet"]

    run(name="fitting")
    assert set(fits("judge", "two")) == {"ok"}
    assert "were trained against classifiers one and two, none of which is in this run" in fits("judge")


def test_validation_shows_each_teacher_their_mean_and_who_only_judges(run):
    result = run(judge=["judge", "strangers"])
    last = result.history.iloc[-1]
    for figure in ("logits", "agreement", "accuracy", "ce_difference"):
        ones, twos = last[f"val_{figure}:one"], last[f"val_{figure}:two"]
        assert last[f"val_{figure}"] == pytest.approx((ones + twos) / 2)
    assert 0 <= last["val_accuracy:judge"] <= 1
    assert "val_accuracy:strangers" not in last and 0 <= last["val_agreement:strangers"] <= 1
    without = run(out="without")
    assert torch.equal(*(each.network.state_dict()["first.weight"] for each in (result, without)))


def test_a_single_teacher_keeps_the_plain_names_and_the_plain_loss(run):
    history = run(classifier="one").history
    assert "val_logits" in history and not [name for name in history if ":" in name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classifier": ["one", "one"]}, "one was given twice"),
        ({"judge": ["two"]}, "two was given twice"),
        ({"overrides": [*SMALL, "track=adapted", "losses.ce=1"]}, "trains one classifier along, got 2"),
        ({"overrides": [*SMALL, "input_sizes=[0]"]}, "input_sizes"),
        ({"classifier": "one", "overrides": [*SMALL, "track=adapted", "input_sizes=[8]"]}, "input_sizes are drawn"),
    ],
)
def test_a_wrong_call_gets_a_sentence(run, options, words):
    with pytest.raises(UsageError, match=words):
        run(**options)


def test_input_sizes_move_nothing_else_that_is_drawn_and_come_in_their_shares(place):
    images = ImageSet([open_source(f"folder:{place / 'photos'}", "all")], Geometry(), label_map=None)
    plain = apply_overrides(Recipe(), ["augment.flip=true", "augment.shift=4"])
    sized = apply_overrides(plain, ["input_sizes=[16, 20, 20]"])
    seen = []
    for number in range(60):
        first, second = (
            read_cropped(images, np.arange(4), recipe, np.random.default_rng(number)) for recipe in (plain, sized)
        )
        assert torch.equal(first.hr, second.hr) and np.array_equal(first.flipped, second.flipped)
        assert first.input_size is None
        seen.append(second.input_size)
    assert set(seen) == {16, 20} and 30 <= seen.count(20) <= 50


def test_the_teacher_sees_hr_at_the_size_at_which_it_sees_sr(run, monkeypatch):
    sizes = set()
    step = MethodRun.step

    def watched(self, batch):
        values = step(self, batch)
        native = self._method(batch.lr, batch.sr_size)
        kernel = Restoration()
        shown = restore(self._method, batch.lr, batch.shown_size or batch.sr_size, restoration=kernel, numerics=None)
        teacher = self._classifiers[batch.teacher_number]
        assert torch.allclose(batch.teacher_logits, teacher_logits(teacher, batch.shown_hr), atol=1e-5)
        expected = losses.logits(teacher(shown), batch.teacher_logits) / batch.logits_unit
        assert values["logits"].item() == pytest.approx(expected.item(), rel=1e-5)
        sizes.add((tuple(native.shape[-2:]), tuple(batch.shown_hr.shape[-2:])))
        return values

    monkeypatch.setattr(MethodRun, "step", watched)
    run("input_sizes=[16, 20, 24]", "losses.l1=1", epochs=4)
    assert sizes == {((48, 48), (side, side)) for side in (16, 20, 24)}


def test_sr_that_equals_hr_costs_nothing_at_any_size():
    """Whatever size is drawn, the target is of the same size, so that nothing but sharpness is asked for."""
    teacher = load_classifier("one")
    freeze(teacher)
    hr = torch.rand(2, 3, 24, 24)
    shown = restore_to(hr, (16, 16))
    batch = Batch(hr, hr, None, teacher_logits(teacher, shown), (24, 24), shown_size=(16, 16), shown_hr=shown)
    terms = losses.terms({"logits", "l1"}, hr, batch, shown=shown, network=teacher)
    assert float(terms["logits"]) == 0 and float(terms["l1"]) == 0


def restore_to(image, size):
    from srbench.imaging.degrade import restore_size

    return restore_size(image, size, Restoration())


def test_a_method_with_a_step_of_its_own_cannot_draw_sizes(run, place):
    plugin = world.make_method(place)
    with pytest.raises(UsageError, match="input_sizes"):
        train(
            "tiny_method",
            data=[f"folder:{place / 'photos'}"],
            classifier="one",
            protocol=str(place / "half.toml"),
            plugins=[plugin],
            overrides=["input_sizes=[16]"],
            device="cpu",
            progress=False,
            out=place / "own",
        )


def test_disp_starts_as_bilinear_and_has_the_published_size():
    method = DarioNet(blocks=4, features=32, arch="disp")
    assert sum(value.numel() for value in method.parameters()) == 163_792
    lr = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        sr = method(lr, (36, 36))
    bilinear = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bilinear")
    assert torch.allclose(sr[..., 4:-4, 4:-4], bilinear[..., 4:-4, 4:-4], atol=1e-6)
