"""Classifiers: cards, names, label maps, normalisation, and what is refused in which words."""

from __future__ import annotations

import re

import numpy as np
import pytest
import timm
import torch
from dummies import ARCH, CLASSES, make_classifier, pixels, write_card
from safetensors.torch import save_file
from torch import nn

from srbench import weights
from srbench.errors import DataError, SrbenchError, UnknownNameError, UsageError, WeightsError
from srbench.imaging.resample import resize
from srbench.networks import loading
from srbench.networks.classifiers import Classifier, ClassifierInfo, imagenet_wnids, label_map
from srbench.networks.loading import load_classifier
from srbench.networks.pretrained import fixed_side, own_weights
from srbench.weights import Card


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A card that is right in every respect."""
    return make_classifier(tmp_path_factory.mktemp("cards"))


def fields(card) -> dict:
    import tomllib

    return tomllib.loads(card.read_text())


def changed(card, tmp_path, **changes):
    """Write the card beside its weights again with some fields replaced (None removes one)."""
    path = card.parent / f"{tmp_path.name}.toml"
    return write_card(path, fields(card) | changes)


def info(**changes) -> ClassifierInfo:
    plain = {
        "id": "net",
        "library": "timm",
        "name": "x",
        "args": {},
        "weights_sha256": "0" * 64,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.5),
        "input_size": None,
        "in_chans": 3,
        "classes": None,
        "n_classes": 3,
    }
    return ClassifierInfo(**(plain | changes))  # type: ignore[arg-type]


class Echo(nn.Module):
    """Returns what it is given, so that a test can see what the network saw."""

    def forward(self, image):
        return image


# --- cards -------------------------------------------------------------------------------------------------------


def test_card_describes_the_classifier(card):
    loaded = load_classifier(str(card))
    sha256 = weights.file_sha256(card.with_suffix(".safetensors"))
    assert loaded.info == ClassifierInfo(
        id="dummy",
        library="timm",
        name=ARCH,
        args={"num_classes": 3},
        weights_sha256=sha256,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        input_size=None,
        in_chans=3,
        classes=CLASSES,
        n_classes=3,
    )
    assert not loaded.training and not loaded.network.training
    network = timm.create_model(ARCH, num_classes=3).eval()
    weights.fill_state(network, weights.read_state(card.with_suffix(".safetensors")), origin="", expected="")
    batch = torch.from_numpy(np.stack([pixels(label, 99, 24) for label in range(3)])).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        torch.testing.assert_close(loaded(batch), network((batch - 0.5) / 0.25))
        assert loaded(batch).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"library": None}, "lacks the field 'library'; expected library, name, weights, mean, std, args"),
        ({"weights": None}, "lacks the field 'weights'"),
        ({"mean": None}, "lacks the field 'mean'"),
        ({"waits": "x"}, "has no field 'waits'; did you mean weights"),
        ({"library": "keras"}, "library must be one of timm, torchvision, smp, got 'keras'"),
        ({"library": 3}, "library must be one of timm, torchvision, smp, got 3"),
        (
            {"name": "resnet_of_nobody"},
            "timm cannot build 'resnet_of_nobody': .* look the name up in timm's model list",
        ),
        ({"library": "torchvision", "name": "resnet0"}, "torchvision cannot build 'resnet0'"),
        ({"args": {"no_such_argument": 3}}, f"timm cannot build '{ARCH}'"),
        ({"args": "none"}, "args must be a table, got 'none'"),
        ({"weights": "gone.safetensors"}, "names the weights 'gone.safetensors', but there is no such file beside it"),
        ({"weights": 3}, "weights must be text"),
        ({"weights": "https://host/w.pth"}, "weights from an address need https:// and their sha256"),
        ({"sha256": "0" * 64}, r"has sha256 .*\.\.\., card .* expects 000000000000"),
        ({"sha256": 5}, "sha256 must be text"),
        ({"sha256": ""}, "sha256 must be at least 8 hexadecimal digits, got ''"),
        ({"weights": "http://host/w.pth", "sha256": "0" * 64}, "weights from an address need https://"),
        ({"mean": [0.5, 0.5]}, r"mean must be a list of 3 numbers, got \[0.5, 0.5\]"),
        ({"mean": ["a", "b", "c"]}, r"mean\[0\] must be a finite number, got 'a'"),
        ({"std": 0.5}, "std must be a list, got 0.5"),
        ({"std": [0.5, 0.0, 0.5]}, "every std must be above 0"),
        ({"std": [0.5, float("nan"), 0.5]}, r"std\[1\] must be a finite number, got nan"),
        ({"in_chans": 2}, "in_chans must be one of 1, 3, got 2"),
        ({"input_size": "24"}, "input_size must be a whole number of at least 1, or none, got '24'"),
        ({"input_size": 0}, "input_size must be a whole number of at least 1, or none, got 0"),
        ({"classes": "gone.txt"}, "classes must be 'imagenet-1k' or a file with one name a line, got 'gone.txt'"),
        ({"classes": "imagenet-1k"}, "1000 class names for 3 outputs; they must be as many"),
        ({"args": {"num_classes": 5}}, r"dummy.safetensors does not fit timm:test_resnet: .*another shape"),
        ({"name": "test_byobnet"}, "dummy.safetensors does not fit timm:test_byobnet: .*missing"),
        ({"name": "test_vit", "args": {}}, "dummy.safetensors does not fit timm:test_vit"),
    ],
)
def test_bad_card_is_refused_with_a_sentence(card, tmp_path, changes, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        load_classifier(str(changed(card, tmp_path, **changes)))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_card_that_is_no_card_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no classifier card"):
        load_classifier(str(tmp_path / "gone.toml"))
    for data in (b"library = ", b"\xff\xfe", b"[weights"):
        (tmp_path / "bad.toml").write_bytes(data)
        with pytest.raises(UsageError, match=r"classifier card bad.toml is not valid TOML"):
            load_classifier(str(tmp_path / "bad.toml"))


def test_class_names_must_be_text_and_differ(card, tmp_path):
    (card.parent / "twice.txt").write_text("bar\ndot\nbar\n")
    with pytest.raises(UsageError, match=r"twice.txt names the class 'bar' more than once"):
        load_classifier(str(changed(card, tmp_path, classes="twice.txt")))
    (card.parent / "latin.txt").write_bytes("bär\ndot\nnet\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"'latin.txt' are not UTF-8"):
        load_classifier(str(changed(card, tmp_path, classes="latin.txt")))


def test_sha256_of_a_card_may_be_short_and_of_either_case(card, tmp_path):
    sha256 = weights.file_sha256(card.with_suffix(".safetensors"))
    assert load_classifier(str(changed(card, tmp_path, sha256=sha256[:12].upper()))).info.weights_sha256 == sha256


@pytest.mark.parametrize("names", [[str(number) for number in range(12)], ["Zebra", "ant", "bee"], ["img10", "img9"]])
def test_unnamed_outputs_are_not_matched_by_an_order_that_could_be_another(names):
    info = ClassifierInfo("c", "timm", ARCH, {}, "", (0.5,) * 3, (0.5,) * 3, None, 3, None, len(names))
    with pytest.raises(DataError, match=r"unnamed outputs, .* \(2 before 10\) .* different orders: give the names"):
        label_map(info, sorted(names))
    assert label_map(info, [f"{number:02d}" for number in range(len(names))]).tolist() == list(range(len(names)))
    if sorted(names) != names:  # data that give an order of their own mean it
        assert label_map(info, names).tolist() == list(range(len(names)))


def test_network_that_does_not_run_at_any_size_says_so(tmp_path):
    args = {"num_classes": 3, "img_size": 80, "dynamic_img_size": False}
    network = timm.create_model("test_vit", **args)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    plain = {"library": "timm", "name": "test_vit", "args": args}
    plain |= {"weights": "vit.safetensors", "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(UsageError, match=r"vit.toml: the network does not run on .* give its input_size"):
        load_classifier(str(write_card(tmp_path / "vit.toml", plain)))
    fixed = load_classifier(str(write_card(tmp_path / "vit.toml", plain | {"input_size": 80})))
    assert fixed(torch.rand(2, 3, 24, 30)).shape == (2, 3) and fixed.info.classes is None


def test_network_of_torchvision(tmp_path):
    from torchvision.models import get_model

    save_file(get_model("squeezenet1_1", num_classes=4).state_dict(), tmp_path / "s.safetensors")
    plain = {"library": "torchvision", "name": "squeezenet1_1", "args": {"num_classes": 4}, "weights": "s.safetensors"}
    loaded = load_classifier(str(write_card(tmp_path / "s.toml", plain | {"mean": [0.5] * 3, "std": [0.5] * 3})))
    assert loaded.info.n_classes == 4 and loaded(torch.rand(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_card_rescales_the_input_as_torchvision_does_with_its_weights(tmp_path, name):
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(name, weights=None, init_weights=False, transform_input=True).eval()
    save_file(network.state_dict(), tmp_path / "n.safetensors")
    plain = {"library": "torchvision", "name": name, "args": {"init_weights": False}, "weights": "n.safetensors"}
    plain |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    image = torch.rand(1, 3, 80, 80)
    loaded = load_classifier(str(write_card(tmp_path / "n.toml", plain | {"classes": "imagenet-1k"})))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), network(loaded.normalise(image)))
    with pytest.raises(UsageError, match=f"torchvision's {name} may rescale its input.* transform_input = true"):
        load_classifier(str(write_card(tmp_path / "n.toml", plain)))
    args = {"init_weights": False, "transform_input": False}
    scratch = load_classifier(str(write_card(tmp_path / "n.toml", plain | {"args": args})))
    assert not scratch.network.transform_input and scratch.info.sha256 != loaded.info.sha256


def test_network_of_one_channel(tmp_path):
    network = timm.create_model(ARCH, num_classes=3, in_chans=1).eval()
    save_file(network.state_dict(), tmp_path / "grey.safetensors")
    plain = {"library": "timm", "name": ARCH, "args": {"num_classes": 3}, "weights": "grey.safetensors", "in_chans": 1}
    loaded = load_classifier(str(write_card(tmp_path / "grey.toml", plain | {"mean": [0.4], "std": [0.3]})))
    rgb = torch.rand(2, 3, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(rgb), network((rgb.mean(1, keepdim=True) - 0.4) / 0.3))
        torch.testing.assert_close(loaded(rgb.mean(1, keepdim=True)), loaded(rgb))


# --- names -------------------------------------------------------------------------------------------------------


def test_unknown_names_are_refused(own_folders):
    with pytest.raises(UnknownNameError, match=r"no classifier named 'nosuch'; .*known: .*CARD.toml"):
        load_classifier("nosuch")
    with pytest.raises(UsageError, match="the library must be timm or torchvision, got 'keras'"):
        load_classifier("keras:resnet")
    with pytest.raises(UsageError, match="timm cannot build 'resnet_of_nobody'"):
        load_classifier("timm:resnet_of_nobody")
    with pytest.raises(WeightsError, match="there is no weights file"):
        load_classifier("gone.safetensors")


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    class LocalEntryNotFoundError(FileNotFoundError, ValueError):
        """As the hub raises offline: two types at once."""

    class ConnectError(Exception):
        __module__ = "httpx"

    for error in (LocalEntryNotFoundError("offline"), ConnectError("offline"), ConnectionError("offline")):

        def create(name, pretrained, error=error, **args):
            raise error

        monkeypatch.setattr(timm, "create_model", create)
        with pytest.raises(SrbenchError, match="weights of timm:resnet18 could not be fetched") as caught:
            load_classifier("timm:resnet18")
        assert caught.value.exit_code == 1


@pytest.mark.parametrize(("fixed", "side"), [(True, 80), (False, None)])
def test_size_of_a_library_network_matters_only_where_it_is_fixed(monkeypatch, fixed, side):
    network = timm.create_model(ARCH, num_classes=1000)
    network.pretrained_cfg = {
        "architecture": ARCH,
        "tag": "r160_in1k",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "input_size": (3, 80, 80),
        "fixed_input_size": fixed,
    }
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **args: network)
    loaded = load_classifier(f"timm:{ARCH}")
    assert loaded.info.name == f"{ARCH}.r160_in1k" and loaded.id == f"timm:{ARCH}"
    assert (loaded.info.input_size, loaded.info.mean) == (side, (0.1, 0.2, 0.3))
    assert loaded.info.classes == imagenet_wnids()
    assert loaded.info.weights_sha256 == weights.state_sha256(network.state_dict())


def test_trained_classifier_is_known_by_its_name(own_folders):
    network = timm.create_model(ARCH, num_classes=3)
    extra = {"library": "timm", "name": ARCH, "args": {"num_classes": 3}, "mean": [0.5] * 3, "std": [0.25] * 3}
    folder = own_folders / "weights" / "classifiers"
    written = Card("classifiers", "mine", tasks=("demo",), extra=extra | {"classes": list(CLASSES)})
    weights.save(folder / "mine.safetensors", network.state_dict(), written)
    loaded = load_classifier("mine")
    assert (loaded.id, loaded.info.classes, loaded.info.n_classes) == ("mine", CLASSES, 3)
    assert "mine" in loading.classifier_names() and "mine" in loading.demo_classifiers()
    weights.save(folder / "other.safetensors", network.state_dict(), Card("classifiers", "other"))
    assert "other" not in loading.demo_classifiers()
    with pytest.raises(WeightsError, match=r"other.safetensors holds no classifier card"):
        load_classifier("other")
    with pytest.raises(UnknownNameError, match="did you mean mine"):
        load_classifier("mime")


# --- label maps --------------------------------------------------------------------------------------------------


def test_labels_are_looked_up_by_name():
    named = info(classes=("ant", "bee", "cat"))
    assert label_map(named, ("cat", "ant")).tolist() == [2, 0]
    with pytest.raises(
        DataError, match=r"1 of the data's 2 classes are unknown to classifier net, such as 'dog'; .*'ant'"
    ):
        label_map(named, ("cat", "dog"))


def test_imagenets_wnids_map_to_its_outputs():
    wnids = imagenet_wnids()
    assert len(wnids) == 1000 and wnids[:2] == ("n01440764", "n01443537") and list(wnids) == sorted(wnids)
    full = info(classes=wnids, n_classes=1000)
    assert label_map(full, ("n01443537", "n15075141")).tolist() == [1, 999]
    with pytest.raises(DataError, match="ImageNet wnids such as n01440764: rename the folders"):
        label_map(full, ("goldfish",))


def test_unnamed_outputs_must_be_as_many_as_the_classes():
    assert label_map(info(), ("x", "y", "z")).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="has 2 classes and classifier net has 3 unnamed outputs; give its class names"):
        label_map(info(), ("x", "y"))


# --- normalisation -----------------------------------------------------------------------------------------------


def test_every_size_goes_in_as_it_is_unless_the_size_is_fixed():
    image = torch.rand(2, 3, 10, 14)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.5]).view(1, 3, 1, 1)
    torch.testing.assert_close(Classifier(info(), Echo())(image), (image - mean) / std)
    network = Echo()
    taken: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda module, arguments: taken.append(arguments[0]))
    sized = Classifier(info(input_size=8), network)
    assert sized(image).shape[-2:] == (10, 14)  # a map is of the image
    torch.testing.assert_close(taken.pop(), (resize(image, (8, 8), "bicubic").clamp(0, 1) - mean) / std)
    assert torch.equal(sized(image[..., :8, :8]), (image[..., :8, :8] - mean) / std)


def test_mean_and_std_move_with_the_classifier_but_are_no_weights():
    wrapped = Classifier(info(), Echo()).to(torch.float64)
    assert wrapped.mean.dtype == torch.float64 and wrapped.state_dict() == {}


def test_hash_sees_what_moves_the_logits_and_nothing_else():
    plain = info()
    assert info(id="other", classes=("a", "b", "c")).sha256 == plain.sha256
    moved = [
        info(mean=(0.5, 0.4, 0.2)),
        info(std=(0.2, 0.25, 0.4)),
        info(weights_sha256="1" * 64),
        info(input_size=8),
        info(args={"pad_type": "same"}),
        info(name="y"),
    ]
    assert len({plain.sha256, *(each.sha256 for each in moved)}) == 7
    assert re.fullmatch("[0-9a-f]{64}", plain.sha256)


def test_torchvision_says_which_weights_there_are_and_how_they_normalise():
    assert own_weights("resnet18").name == "IMAGENET1K_V1"
    swag = own_weights("vit_h_14.IMAGENET1K_SWAG_LINEAR_V1")
    assert (swag.architecture, swag.name, swag.crop) == ("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1", 224)
    large = own_weights("efficientnet_v2_l")
    assert large.mean == large.std == (0.5, 0.5, 0.5) and large.crop == 480
    assert own_weights("fcn_resnet50").name == "COCO_WITH_VOC_LABELS_V1"
    there = (
        r"IMAGENET1K_SWAG_E2E_V1 and IMAGENET1K_SWAG_LINEAR_V1; name them: torchvision:vit_h_14\.IMAGENET1K_SWAG_E2E"
    )
    with pytest.raises(UsageError, match=rf"no weights IMAGENET1K_V1 of vit_h_14, but {there}"):
        load_classifier("torchvision:vit_h_14")
    with pytest.raises(UsageError, match=r"torchvision cannot build 'resnet19'"):
        load_classifier("torchvision:resnet19")


def test_a_network_of_windows_gets_the_size_of_its_weights():
    class Windows(torch.nn.Module):
        def forward(self, x):
            return x.reshape(1, 3, 4, 56, 4, 56).mean((2, 4))  # as maxvit's partition: of 224 pixels alone

    assert fixed_side(Windows(), 224) == 224
    assert fixed_side(torch.nn.Conv2d(3, 1, 3), 224) is None and fixed_side(torch.nn.Conv2d(3, 1, 3), None) is None
