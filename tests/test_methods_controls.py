"""Controls that change the network behind: adabn its statistics, fixres its last layers, lr_student its strides."""

from __future__ import annotations

import copy
import json

import pytest
import timm
import torch
import training_world as world
from srbench.methods.fixres import FixRes
from srbench.methods.lr_student import LrStudent
from torch import nn
from typer.testing import CliRunner

from srbench import evaluate, train, weights
from srbench.cli import app
from srbench.compute.timing import count_macs
from srbench.errors import UsageError
from srbench.networks.classifiers import Classifier, ClassifierInfo
from srbench.networks.loading import load_classifier
from srbench.training import images, method_run
from srbench.training.network_behind import last_layer, shrink_input
from srbench.training.norms import batch_norms, folded_norms

SHORT = ("steps_per_epoch=3", "batch_size=4", "augment.flip=false")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """The classifier's norms have statistics, and those of another have been folded away."""
    with world.own_place(tmp_path_factory, count=40, side=48) as root:
        save_again("tiny", perturbed)
        world.make_classifier("folded")
        save_again("folded", folded)
        yield root


def save_again(name, change) -> None:
    """Change the network of a classifier that was saved."""
    classifier = load_classifier(name)
    change(classifier.network)
    path = weights.weights_dir() / "classifiers" / f"{name}.safetensors"
    card = weights.read_card(path)
    assert card is not None
    weights.save(path, classifier.network.state_dict(), card)


@torch.no_grad()
def perturbed(network: nn.Module) -> None:
    for norm in batch_norms(network):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2.0)


@torch.no_grad()
def folded(network: nn.Module) -> None:
    for norm in batch_norms(network):
        norm.bias.normal_()


@pytest.fixture
def run(place, tmp_path):
    """Train a control for three steps of four images."""

    def call(method, *overrides, classifier="tiny", **options):
        return train(
            method,
            data=f"folder:{place / 'photos'}",
            classifier=classifier,
            protocol=str(place / "half.toml"),
            out=tmp_path / f"{method}-{len(list(tmp_path.iterdir()))}",
            device="cpu",
            progress=False,
            overrides=[*SHORT, *overrides],
            **({"recipe": "default", "epochs": 1} | options),
        )

    return call


def states(result, classifier="tiny"):
    """Return what the network behind was, and what it became."""
    loaded = weights.load(result.weights)
    assert loaded.classifier_state is not None
    before = load_classifier(classifier).network.state_dict()
    return before, before | loaded.classifier_state


def moved(before, after) -> set[str]:
    """Return the names of what changed by more than 16 bits lose."""
    return {
        name
        for name, value in before.items()
        if not name.endswith("num_batches_tracked") and not torch.equal(value.half(), after[name].half())
    }


def test_adabn_moves_the_statistics_to_those_of_the_images_and_nothing_else(run) -> None:
    result = run("adabn", "norm_steps=3")
    before, after = states(result)
    changed = moved(before, after)
    assert changed and {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var"}
    card = result.weights.card
    assert (result.steps, result.images) == (0, 12) and card.extra["image_steps"] == 12
    assert card.track == "adapted" and card.recipe["losses"] == {}
    stored = {name.rpartition(".")[2] for name in weights.load(result.weights).classifier_state}
    assert stored == {"running_mean", "running_var", "num_batches_tracked"}  # all else is in the classifier's own file


def test_adabn_estimates_what_the_images_have(place, run) -> None:
    """The first norm sees the first convolution's output of the bilinear images: its mean is theirs."""
    from srbench.methods.adabn import AdaBN

    classifier = load_classifier("tiny")
    norm = batch_norms(classifier)[0]
    seen = []
    norm.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    control = AdaBN()
    generator = torch.Generator().manual_seed(0)
    batch = world_batch(generator)
    classifier.train()
    norm.reset_running_stats()
    norm.momentum = None
    with torch.no_grad():
        assert control.training_step(batch, None, classifier) == {}
    assert torch.allclose(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-6)
    dropouts = [each for each in classifier.modules() if isinstance(each, nn.Dropout | nn.Linear)]
    assert dropouts and not any(each.training for each in dropouts)


def world_batch(generator):
    from srbench.method import Batch

    lr, hr = torch.rand(3, 3, 12, 12, generator=generator), torch.rand(3, 3, 24, 24, generator=generator)
    return Batch(lr=lr, hr=hr, label=torch.arange(3), teacher_logits=None, sr_size=(24, 24))


def test_adabn_refuses_networks_without_norms_and_with_folded_ones(run) -> None:
    with pytest.raises(UsageError, match="classifier folded have been folded into its convolutions"):
        run("adabn", "norm_steps=3", classifier="folded")
    from srbench.methods.adabn import AdaBN

    with pytest.raises(UsageError, match="has none; choose another classifier"):
        AdaBN().adapt(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))


@pytest.fixture
def undecoded(monkeypatch):
    """Fail where an image is decoded."""
    monkeypatch.setattr(images, "build_hr_store", lambda *args, **options: pytest.fail("images were decoded"))


@pytest.mark.parametrize("control", ["adabn", "fixres", "lr_student", "retrained"])
def test_controls_without_parameters_are_refused_in_the_frozen_track_before_decoding(
    place, tmp_path, undecoded, control
) -> None:
    words = ["train", control, "--data", f"folder:{place / 'photos'}", "--classifier", "tiny", "--set", "track=frozen"]
    words += ["--protocol", str(place / "half.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.split())
    assert f"track 'frozen' trains {control} alone, which has no parameters of its own; train the classifier" in said
    assert "Traceback" not in said and not (tmp_path / "run").exists()


def test_a_control_that_freezes_all_that_it_could_train_is_refused_before_decoding(run, tmp_path, undecoded) -> None:
    plugin = tmp_path / "all_frozen.py"
    plugin.write_text(
        "from srbench.methods.retrained import Retrained\n\n\n"
        'class AllFrozen(Retrained):\n    """Bilinear resizing, and nothing that learns."""\n\n'
        "    def adapt(self, classifier):\n        classifier.requires_grad_(False)\n"
    )
    with pytest.raises(UsageError, match="track 'adapted' leaves neither all_frozen nor the classifier a parameter"):
        run("all_frozen", plugins=[plugin])


def test_what_a_network_behind_lacks_is_said_before_decoding(run, undecoded) -> None:
    with pytest.raises(UsageError, match="have been folded into its convolutions"):
        run("adabn", "norm_steps=3", classifier="folded")


def test_other_methods_are_still_refused_without_losses(run) -> None:
    with pytest.raises(UsageError, match="has no losses; give at least one"):
        run("retrained", "losses.ce=0", "norm_steps=3")


def test_a_folded_norm_stands_still_where_a_classifier_is_trained_along(run) -> None:
    before, after = states(run("retrained", classifier="folded"), "folded")
    changed = moved(before, after)
    assert any(name.endswith("weight") for name in changed)
    assert not any("running_" in name for name in changed)


def test_fixres_trains_the_last_layer_and_the_norms_at_the_size_that_it_chose(run, monkeypatch) -> None:
    before, after = states(run("fixres", "parameters.input_size=16", "optimizer=adam", "lr=0.01"))
    network = load_classifier("tiny").network
    allowed = {
        id(parameter) for layer in (last_layer(network), *batch_norms(network)) for parameter in layer.parameters()
    }
    allowed_names = {name for name, value in network.named_parameters() if id(value) in allowed}
    changed = moved(before, after)
    trained = {name for name in changed if "running_" not in name}
    assert trained and trained <= allowed_names and any("fc" in name for name in trained)


def test_fixres_chooses_the_best_size_and_stores_it() -> None:
    control = FixRes()
    given = {32: 0.7, 64: 0.5, 96: 0.5, 128: 0.9}
    assert control.choose_parameters(list(given), lambda: given[control.input_size]) == {"input_size": 64}
    sr = control(torch.rand(1, 3, 20, 10), (256, 128))
    assert tuple(sr.shape[-2:]) == (128, 64)
    assert FixRes(96).choose_parameters([32], lambda: 0.0) == {}
    with pytest.raises(UsageError, match="at least 1 pixel, or 0 to choose it, got -1"):
        FixRes(-1)


@pytest.mark.parametrize("figure", ["accuracy", "agreement"])
def test_fixres_chooses_by_what_ranks_and_not_by_cross_entropy(run, monkeypatch, figure) -> None:
    by_size = {32: {figure: 0.3, "ce": 1.9, "ce_difference": 0.2}, 48: {figure: 0.6, "ce": 2.9, "ce_difference": 1.2}}
    choose = FixRes.choose_parameters

    def with_these_figures(control, input_sizes, score):
        with monkeypatch.context() as patched:
            patched.setattr(method_run, "figures", lambda sums: by_size[control.input_size])
            return choose(control, input_sizes, score)

    monkeypatch.setattr(FixRes, "choose_parameters", with_these_figures)
    assert run("fixres").weights.card.parameters == {"input_size": 48}


def test_the_chosen_size_travels_with_the_weights_and_is_seen_in_an_evaluation(place, run, tmp_path) -> None:
    result = run("fixres", "parameters.input_size=16", name="own-size")
    assert result.weights.card.parameters == {"input_size": 16}
    chosen = run("fixres").weights.card.parameters["input_size"]
    assert chosen in (32, 48)  # LR has 24 pixels, HR 48
    student = run("lr_student", "parameters.factor=2", "losses.ce=1", name="student")
    board = evaluate(
        ["fixres", "lr_student"],
        data=f"folder:{place / 'photos'}",
        split="test",
        classifiers=["tiny"],
        protocol=str(place / "half.toml"),
        weights={"fixres": [str(result.weights.path)], "lr_student": [str(student.weights.path)]},
        out=tmp_path / "eval",
        device="cpu",
        progress=False,
    )
    records = {cell.record.cell.method: cell.record for cell in board.cells if cell.record.status == "ok"}
    for name in ("fixres", "lr_student"):
        assert records[name].metrics["accuracy"].value is not None
        assert records[name].metrics["psnr"].value is None
    assert "chooses its own size" in records["fixres"].metrics["psnr"].reason
    network = load_classifier("tiny")
    at_own = count_macs(network, torch.empty(1, 3, 16, 16))
    assert records["fixres"].classifier.macs == at_own
    assert records["original"].classifier.macs == count_macs(network, torch.empty(1, 3, 48, 48)) > 4 * at_own
    rows = {row.method: row["total_macs"] for row in board.board.rows if row.status == "ok"}
    assert rows["fixres"] == at_own and rows["bilinear"] == rows["original"]
    assert rows["lr_student"] == rows["original"]  # half the side, and the first stride removed


def classifier_of(network: nn.Module, side: int | None = None) -> Classifier:
    info = ClassifierInfo("it", "timm", "it", {}, "0", (0.5,) * 3, (0.5,) * 3, side, 3, None, 5)
    return Classifier(info, network)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("resnet10t", {}), ("tf_efficientnet_lite0", {}), ("xcit_nano_12_p8_224", {"depth": 1})],
)
def test_maps_of_the_student_are_as_large_as_those_of_hr(name, arguments) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **arguments).eval()
    parameters = {key: value.clone() for key, value in network.state_dict().items()}
    student = classifier_of(copy.deepcopy(network))
    LrStudent(4).adapt(student)
    assert deepest(network, 64) == deepest(student.network, 16)
    for key, value in student.network.state_dict().items():
        assert torch.equal(value, parameters[key])


@torch.no_grad()
def deepest(network: nn.Module, side: int) -> tuple[int, ...]:
    shapes = []
    hooks = [
        module.register_forward_hook(lambda module, given, output: shapes.append(tuple(output.shape[-2:])))
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    network(torch.rand(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return shapes[-1]


def test_patches_of_a_transformer_are_resampled_and_its_tokens_stay() -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=1, img_size=64)
    student = classifier_of(vit, 64)
    tokens = vit.patch_embed.num_patches
    before = vit.patch_embed.proj.weight.detach().clone()
    shrink_input(student, 4)
    assert student.info.input_size == 16 and vit.patch_embed.num_patches == tokens
    assert vit.patch_embed.proj.kernel_size == (4, 4)
    assert torch.allclose(vit.patch_embed.proj.weight, timm.layers.resample_patch_embed(before, [4, 4]))
    assert student(torch.rand(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.parametrize(
    ("network", "side", "sentence"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            None,
            "no early strides",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), None, "largest factor is 2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), None, "does not run on images of 128 pixels"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten()), 24, "takes only 24 x 24 images and is no transformer"),
    ],
)
def test_networks_that_cannot_be_changed_are_refused(network, side, sentence) -> None:
    with pytest.raises(UsageError, match=sentence) as error:
        shrink_input(classifier_of(network, side), 4)
    assert "\n" not in str(error.value)


def test_a_factor_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(UsageError, match="power of two, got 3"):
        LrStudent(3)


def test_recipes_of_the_controls_have_the_image_steps_of_retrained() -> None:
    from srbench.methods.adabn import AdaBN
    from srbench.methods.retrained import Retrained

    demo = Retrained.recipes["demo"]
    expected = demo.epochs * demo.steps_per_epoch * demo.batch_size
    for cls in (FixRes, LrStudent):
        recipe = cls.recipes["demo"]
        assert recipe.epochs * recipe.steps_per_epoch * recipe.batch_size == expected
    recipe = AdaBN.recipes["demo"]
    assert recipe.norm_steps * recipe.batch_size == expected and not recipe.losses
    assert json.dumps(recipe.to_json())


def test_folded_norms_are_told_from_untrained_ones() -> None:
    norm = nn.BatchNorm2d(4)
    assert folded_norms(norm) == []
    nn.init.ones_(norm.bias)
    assert folded_norms(norm) == [norm]
    norm.running_mean.add_(0.1)
    assert folded_norms(norm) == []
