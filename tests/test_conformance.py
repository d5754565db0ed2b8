"""Every registered method passes the conformance suite, and the suite finds what is wrong with broken ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch

from srbench.conformance import Finding, check
from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo
from srbench.registry import Registry
from srbench.training.recipe import Recipe

REGISTRY = Registry()
METHODS = REGISTRY.working()


def test_no_method_is_broken():
    assert REGISTRY.problems == {}
    trainable = {"esrgan", "darionet", "learned_resizer", "retrained", "muller", "sr4ir", "rdn", "srgan"}
    assert {"bilinear", "none", "adabn", "fixres", "lr_student"} | trainable <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_method_conforms(name):
    findings = check(METHODS[name], name)
    assert len(findings) >= 15
    assert [f"{finding.check}: {finding.message}" for finding in findings if not finding.ok] == []
    assert not any(finding.message.startswith("advice") for finding in findings)
    # Only Pillow must see the pixels, on the CPU.
    unseen = [finding.check for finding in findings if "cuda" in finding.check and "not run" in finding.message]
    assert unseen == (["cuda"] if name == "bicubic_pillow" else [])


def test_trainables_are_trained_by_every_kind_of_recipe_in_bf16_and_on_a_gpu_too():
    titles = [finding.check for finding in check(METHODS["esrgan"], "esrgan")]
    for before in ("", "bf16 ", "cuda "):
        assert {f"{before}training by psnr, demo-psnr", f"{before}training by gan, demo-gan"} <= set(titles)


INFO = MethodInfo(role="network", family="test", version="1", citation="this test")


def _method(forward: Callable | None = None, **attributes: object) -> type[Method]:
    """Return a conforming method, parts of which are replaced."""

    class Good(Method):
        """Bilinear times one parameter."""

        info = INFO

        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(1))
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, lr, size):
            """Restore `(N, C, h, w)`."""
            return resize(lr, size, "bilinear") * self.gain

    for key, value in attributes.items():
        setattr(Good, key, value)
    if forward is not None:
        forward.__doc__ = "Restore."
        Good.forward = forward
    return Good


def _failed(method_class: type[Method], name: str = "good") -> dict[str, str]:
    findings: list[Finding] = check(method_class, name)
    return {finding.check: finding.message for finding in findings if not finding.ok}


def test_a_good_method_passes():
    assert _failed(_method()) == {}


def _writes(self, lr, size):
    lr.clamp_(0.1, 0.9)
    return resize(lr, size, "bilinear")


def _batch_statistic(self, lr, size):
    return resize(lr, size, "bilinear") - lr.mean()


def _random(self, lr, size):
    return resize(lr, size, "bilinear") + 0.01 * torch.rand(())


def _counts(self, lr, size):
    self.calls += 1
    return resize(lr, size, "bilinear")


def _bytes(self, lr, size):
    return resize(lr, size, "bilinear") * 255


def _halved(self, lr, size):
    return resize(lr, size, "bilinear").half()


def _square(self, lr, size):
    return resize(lr, (size[0], size[0]), "bilinear")


def _nan(self, lr, size):
    return resize(lr, size, "bilinear") / lr.amin()


def _unsaved(self, lr, size, drawn=itertools.count(1)):  # noqa: B008 one counter for all instances is the point
    if not hasattr(self, "offset"):
        self.offset = 0.01 * next(drawn)
    return resize(lr, size, "bilinear") + self.offset


@pytest.mark.parametrize(
    ("forward", "title", "words"),
    [
        (_writes, "input untouched", "work on a copy"),
        (_batch_statistic, "one image as in a batch", "let no statistic run over the batch"),
        (_random, "deterministic", "remove what is random"),
        (_random, "no side effects", "generator of your own"),
        (_counts, "no side effects", "update state in train mode only"),
        (_bytes, "shape, dtype, range", "not 0..255"),
        (_halved, "shape, dtype, range", "return the dtype of lr"),
        (_square, "odd and other sizes", "expected sr of shape"),
        (_nan, "shape, dtype, range", "not finite"),
        (_unsaved, "weights round trip", "state dict"),
    ],
)
def test_a_broken_forward_is_found(forward, title, words):
    failed = _failed(_method(forward))
    assert words in failed[title]


def _on_the_cpu(self, lr, size):
    return resize(lr, size, "bilinear") + torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)


def _to_the_cpu(self, lr, size):
    return resize(lr.cpu(), size, "bilinear")


def _not_in_half(self, lr, size):
    """Antialiased resizing of bfloat16 does not exist on a CPU."""
    features = torch.nn.functional.conv2d(lr, torch.eye(3)[:, :, None, None])
    return torch.nn.functional.interpolate(features, size, mode="bicubic", antialias=True)


def _cancels(self, lr, size):
    ones = torch.ones(1, 1)
    return resize(lr, size, "bilinear") + torch.mm(ones * 1001, ones) - 1001


@pytest.mark.parametrize(
    ("forward", "title", "words"),
    [
        (_on_the_cpu, "cuda", "register them as buffers"),
        (_to_the_cpu, "cuda", "leave it where lr lies"),
        (_not_in_half, "bf16", "it raised"),
        (_cancels, "bf16", "compute what needs more than 8 bits in float32"),
    ],
)
def test_what_fails_in_other_arithmetic_or_on_another_device_alone_is_found(forward, title, words):
    failed = _failed(_method(forward))
    assert words in failed[title]
    assert "shape, dtype, range" not in failed


def test_an_interpolation_that_loses_bits_under_bf16_is_found():
    def matrix(self, lr, size):
        rows, columns = (torch.full((n, m), 1 / m) for m, n in zip(lr.shape[-2:], size, strict=True))
        return rows @ lr @ columns.T

    lossy = _method(matrix)
    lossy.info = MethodInfo(role="baseline", family="test", version="1", citation="this test")
    assert "compute it in float32" in _failed(lossy)["bf16"]


def test_a_method_that_needs_values_is_not_called_broken_by_a_device_that_has_none():
    def branch(self, lr, size):
        return resize(lr, size, "bilinear") * (1.0 if float(lr.amax()) < 2 else 0.5)

    (finding,) = [each for each in check(_method(branch), "good") if each.check == "cuda"]
    assert finding.ok and "not run: forward looks at values" in finding.message


def test_training_that_leaves_a_tensor_behind_is_found():
    def training_step(self, batch, teacher, classifier):
        weight = torch.ones(batch.hr.shape[-1])
        return {"l2": ((self(batch.lr, batch.sr_size) - batch.hr) * weight).square().mean()}

    failed = _failed(_method(recipes={"only": Recipe(losses={"l2": 1.0})}, training_step=training_step))
    assert list(failed) == ["cuda training by only"]
    assert "on the device of the input" in failed["cuda training by only"]


def test_a_kernel_that_darkens_is_found():
    dark = _method(lambda self, lr, size: resize(lr, size, "bilinear") * 0.98)
    dark.info = MethodInfo(role="baseline", family="test", version="1", citation="this test")
    assert "sum to one" in _failed(dark)["shape, dtype, range"]


def test_missing_words_are_found():
    bare = {each.check: each for each in check(_method(__doc__=""), "good")}["docstring"]
    assert bare.ok and bare.message.startswith("advice: the class has no docstring")
    assert "rename the file" in _failed(_method(), name="Not Snake")["name"]
    nameless = _method(info=MethodInfo(role="network", family="", version="1", citation="x"))
    assert "info.family is empty" in _failed(nameless)["info"]
    assert "skip returned 3" in _failed(_method(skip=lambda self, task: 3))["task"]


def test_a_method_must_stand_under_its_own_name():
    assert "the file's stem must be the name" in _failed(METHODS["bilinear"], name="bicubic")["name"]


def _step(sign: float, *, detach: bool = False):
    def training_step(self, batch, teacher, classifier):
        sr = self(batch.lr, batch.sr_size)
        return {"l2": sign * (sr.detach() + 0 * self.gain if detach else sr - batch.hr).square().mean()}

    return training_step


def test_training_that_does_not_learn_is_found():
    recipes = {"only": Recipe(losses={"l2": 1.0})}
    assert _failed(_method(recipes=recipes, training_step=_step(1.0))) == {}
    stuck = _failed(_method(recipes=recipes, training_step=_step(1.0, detach=True)))
    assert "do not lower the losses" in stuck["training by only"]
    assert "no training_step" in _failed(_method(recipes=recipes))["recipes"]
    other = {"only": Recipe(losses={"l1": 1.0})}
    missing = _failed(_method(recipes=other, training_step=_step(1.0)))
    assert "did not return ['l1']" in missing["training by only"]


def test_training_that_moves_the_teacher_is_found():
    def training_step(self, batch, teacher, classifier):
        with torch.no_grad():
            next(iter(teacher.parameters())).add_(1.0)
        return {"l2": (self(batch.lr, batch.sr_size) - batch.hr).square().mean()}

    failed = _failed(_method(recipes={"only": Recipe(losses={"l2": 1.0})}, training_step=training_step))
    assert "frozen teacher" in failed["training by only"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda batch, classifier: None, "leaves the statistics of batch norms as they are"),
        (lambda batch, classifier: classifier(batch.lr), None),
        (lambda batch, classifier: (classifier(batch.lr), classifier[0].weight.add_(1.0)), "changed ['weight']"),
    ],
)
def test_a_recipe_without_losses_moves_statistics_and_nothing_else(step, words):
    def training_step(self, batch, teacher, classifier):
        step(batch, classifier)
        return {}

    recipes = {"only": Recipe(norm_steps=2, track="adapted")}
    failed = _failed(_method(recipes=recipes, training_step=training_step))
    assert failed == {} if words is None else words in failed["estimating by only"]


def test_constructors_that_a_card_cannot_hold_are_found():
    class Needy(_method()):
        """Bilinear."""

        def __init__(self, width):
            super().__init__()

    class Listed(_method()):
        """Bilinear."""

        tiny: ClassVar = {"depth": 1}

        def __init__(self, widths=(1, 2)):
            super().__init__()

    assert "'width' has no default" in _failed(Needy)["constructor"]
    assert "defaults to a tuple" in _failed(Listed)["constructor"]
