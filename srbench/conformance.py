"""The conformance suite: what every method must do, for `srbench check NAME` and for the tests."""

from __future__ import annotations

import copy
import inspect
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srbench import weights
from srbench.method import Batch, Method, MethodInfo, TaskInfo
from srbench.protocol import load_protocol, preset_names
from srbench.training.losses import UnitScaler
from srbench.training.recipe import Recipe

_ODD = (13, 18)  # LR (height, width): not square, one side odd
_UP, _DOWN = (41, 57), (7, 5)  # sizes asked of methods that take any
_BATCH_TOLERANCE = 1e-4  # float32 convolutions may sum in another order for another batch size
_PIXEL_LIMIT = 8.0  # an image in 0..255, or one that diverges, is beyond it; an untrained network is not
_CLASSES = 5
_STEP_SIZES = (1e-3, 1e-4, 1e-5)
_PLAIN = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Name of the check.
        ok: Whether the method passed.
        message: What was seen; if it did not pass, also what to do.
    """

    check: str
    ok: bool
    message: str


@dataclass(frozen=True)
class _Subject:
    name: str
    cls: type[Method]

    @property
    def trainable(self) -> bool:
        return bool(self.cls.recipes)

    def build(self) -> Method:
        """Return the smallest network, reproducibly, in eval mode."""
        torch.manual_seed(0)
        return self.cls(**self.cls.tiny).eval()

    def images(self, height: int, width: int, *, n: int = 2, seed: int = 0) -> Tensor:
        """Return `(n, C, height, width)`, float32, with both ends of [0, 1] in it."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(n, self.cls.info.channels, height, width, generator=generator)
        images[..., 0, 0], images[..., -1, -1] = 0.0, 1.0
        return images


class _FailedError(Exception):
    """A check that did not pass; the message says what was seen and what to do."""


def check(method_class: type[Method], name: str) -> list[Finding]:
    """Run every check that applies to a method; takes about a second.

    Args:
        method_class: The method.
        name: The name it is registered under.
    """
    subject = _Subject(name, method_class)
    findings = []
    for title, run in _checks(subject):
        with torch.random.fork_rng(devices=[]):
            try:
                findings.append(Finding(title, True, run(subject)))
            except _FailedError as error:
                findings.append(Finding(title, False, str(error)))
            except Exception as error:  # noqa: BLE001 a foreign method may fail in any way, and that is the finding
                findings.append(
                    Finding(
                        title,
                        False,
                        f"it raised {type(error).__name__}: {error}; mend it, or see the traceback in pytest",
                    )
                )
    return findings


def _checks(subject: _Subject) -> Iterator[tuple[str, Callable[[_Subject], str]]]:
    yield "name", _name
    yield "docstring", _docstring
    yield "info", _info
    yield "constructor", _constructor
    yield "named weights", _named_weights
    yield "task", _task
    yield "shape, dtype, range", _contract
    yield "odd and other sizes", _sizes
    yield "deterministic", _deterministic
    yield "one image as in a batch", _batch
    yield "input untouched", _input_untouched
    yield "no side effects", _side_effects
    yield "weights round trip", _round_trip
    if subject.trainable:
        yield "recipes", _recipes
        for title, recipe in _distinct(subject.cls.recipes):
            yield f"training by {title}", _training(recipe)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise _FailedError(message)


def _name(subject: _Subject) -> str:
    _require(
        re.fullmatch(r"[a-z][a-z0-9_]*", subject.name) is not None,
        f"the name {subject.name!r} is not snake_case; rename the file",
    )
    module = subject.cls.__module__.split(".")
    if module[:2] in (["srbench", "baselines"], ["srbench", "methods"]):
        _require(
            module[2] == subject.name,
            f"{subject.cls.__name__} lies in {'.'.join(module)} and is registered as {subject.name!r};"
            " the file's stem must be the name",
        )
    return f"{subject.name} is {subject.cls.__module__}.{subject.cls.__name__}"


def _docstring(subject: _Subject) -> str:
    own = subject.cls.__dict__.get("__doc__")
    _require(bool(own and own.strip()), "the class has no docstring; say in one line what the method does")
    forward = subject.cls.__dict__.get("forward")
    _require(
        forward is None or bool(forward.__doc__),
        "forward has no docstring; its first line gives shape, channel order, dtype and range",
    )
    return str(own).strip().splitlines()[0]


def _info(subject: _Subject) -> str:
    info = subject.cls.info
    _require(isinstance(info, MethodInfo), "set `info = MethodInfo(...)` on the class")
    _require(info.role in ("baseline", "network", "control"), f"info.role is {info.role!r}; see MethodInfo")
    _require(info.output in ("hr", "lr"), f"info.output is {info.output!r}, expected 'hr' or 'lr'")
    _require(
        info.factor == "any" or (isinstance(info.factor, int) and info.factor >= 1),
        f"info.factor is {info.factor!r}, expected a whole number of at least 1 or 'any'",
    )
    _require(isinstance(info.channels, int) and info.channels >= 1, f"info.channels is {info.channels!r}")
    for key in ("family", "version", "citation"):
        value = getattr(info, key)
        _require(isinstance(value, str) and value != "", f"info.{key} is empty; fill it in")
    _require(
        info.role != "baseline" or not subject.trainable,
        "a baseline has nothing to train; set info.role to 'network', or remove the recipes",
    )
    return f"{info.role}, {info.family}, version {info.version}, factor {info.factor}"


def _constructor(subject: _Subject) -> str:
    parameters = _arguments(subject.cls)
    for parameter in parameters.values():
        _require(
            parameter.default is not inspect.Parameter.empty,
            f"the constructor's {parameter.name!r} has no default; give it one, so that the name alone builds a method",
        )
        _require(
            isinstance(parameter.default, _PLAIN),
            f"the constructor's {parameter.name!r} defaults to a {type(parameter.default).__name__}; use a number, a"
            " string or a boolean, which a card can hold",
        )
    unknown = sorted(set(subject.cls.tiny) - set(parameters))
    _require(not unknown, f"tiny names {unknown}, which the constructor does not take; correct `tiny`")
    subject.build()
    return f"takes {', '.join(parameters) or 'nothing'}"


def _arguments(method_class: type[Method]) -> Mapping[str, inspect.Parameter]:
    if method_class.__init__ is nn.Module.__init__:  # its *args are a formality
        return {}
    return inspect.signature(method_class).parameters


def _named_weights(subject: _Subject) -> str:
    for name, declared in subject.cls.weights.items():
        _require(declared.uri.startswith("https://"), f"weights {name!r}: the uri must be https, got {declared.uri!r}")
        _require(
            re.fullmatch(r"[0-9a-f]{8,64}", declared.sha256) is not None,
            f"weights {name!r}: sha256 must be at least eight lower-case hexadecimal digits, got {declared.sha256!r}",
        )
        _require(declared.licence != "", f"weights {name!r}: name the licence")
    return f"{len(subject.cls.weights)} declared"


def _task(subject: _Subject) -> str:
    method = subject.build()
    for preset in preset_names():
        protocol = load_protocol(preset)
        method.prepare(protocol)
        for side in (None, 224):
            task = TaskInfo("task", protocol, "classifier", "0" * 64, side, subject.cls.info.channels)
            reason = method.skip(task)
            _require(
                reason is None or (isinstance(reason, str) and reason != ""),
                f"skip returned {reason!r}; return None, or a reason in one clause",
            )
    return f"prepared for {len(preset_names())} protocols"


def _contract(subject: _Subject) -> str:
    method = subject.build()
    lr = subject.images(*_ODD)
    sr = _restore(method, lr, _UP)
    _require(sr.dtype == lr.dtype, f"expected SR of {lr.dtype}, got {sr.dtype}; return the dtype of lr")
    _require(bool(torch.isfinite(sr).all()), "SR holds values that are not finite; look for a division by zero")
    largest = float(sr.abs().max())
    _require(
        largest < _PIXEL_LIMIT,
        f"SR of an image in [0, 1] reaches {largest:.4g}; return [0, 1], not 0..255 (a little overshoot is clamped)",
    )
    if method.info.role == "baseline":
        grey = torch.full_like(lr, 0.5)
        off = float((_restore(method, grey, _UP) - grey.mean()).abs().max())
        _require(
            off < 0.5 / 255 + 1e-6, f"a grey image comes back {off:.4g} off; the weights of a kernel must sum to one"
        )
    return f"{tuple(lr.shape)} -> {tuple(sr.shape)}, {str(sr.dtype).removeprefix('torch.')}, |SR| <= {largest:.3g}"


def _sizes(subject: _Subject) -> str:
    method = subject.build()
    seen = []
    for height, width in (_ODD, (16, 16), (9, 21)):
        for size in (_UP, _DOWN, (height, width)):
            sr = _restore(method, subject.images(height, width, n=1), size)
            seen.append(tuple(sr.shape[-2:]))
    return f"{len(seen)} pairs of sizes"


def _deterministic(subject: _Subject) -> str:
    method = subject.build()
    lr = subject.images(*_ODD)
    first, second = _restore(method, lr, _UP), _restore(method, lr, _UP)
    _require(torch.equal(first, second), "two calls on one input differ; remove what is random in eval mode")
    return "two calls agree to the bit"


def _batch(subject: _Subject) -> str:
    method = subject.build()
    _perturb(method)
    lr = subject.images(*_ODD, n=3)
    together = _restore(method, lr, _UP)
    alone = torch.cat([_restore(method, image[None], _UP) for image in lr])
    off = float((together - alone).abs().max())
    _require(
        off <= _BATCH_TOLERANCE,
        f"an image alone and the same image in a batch differ by {off:.3g}; let no statistic run over the batch in eval"
        " mode",
    )
    return f"largest difference {off:.2g}"


def _input_untouched(subject: _Subject) -> str:
    method = subject.build()
    lr = subject.images(*_ODD)
    before = lr.clone()
    _restore(method, lr, _UP)
    _require(torch.equal(lr, before), "forward wrote to lr; work on a copy, all methods get the same tensor")
    return "lr is as it was"


def _side_effects(subject: _Subject) -> str:
    method = subject.build()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    random_before = torch.random.get_rng_state()
    _restore(method, subject.images(*_ODD), _UP)
    changed = [key for key, value in method.state_dict().items() if not torch.equal(value, before[key])]
    _require(not changed, f"forward in eval mode changed {changed[:3]}; update state in train mode only")
    _require(not method.training, "forward switched the method to train mode; leave the mode to the harness")
    _require(
        torch.equal(random_before, torch.random.get_rng_state()),
        "forward drew from the global random generator; use a generator of your own",
    )
    return "state, mode and random generator are as they were"


def _round_trip(subject: _Subject) -> str:
    method = subject.build()
    if not method.state_dict() and not subject.trainable:
        return "nothing to save"
    _perturb(method)
    _same_after_saving(subject, method, None)
    return f"{len(method.state_dict())} tensors saved and loaded, same SR"


def _recipes(subject: _Subject) -> str:
    _require(
        subject.cls.training_step is not Method.training_step,
        "there are recipes but no training_step; define it, or remove the recipes",
    )
    known = set(_arguments(subject.cls))
    for name, recipe in subject.cls.recipes.items():
        _require(isinstance(recipe, Recipe), f"recipe {name!r} is a {type(recipe).__name__}, expected a Recipe")
        _require(bool(recipe.losses), f"recipe {name!r} has no losses; name at least one")
        unknown = sorted(set(recipe.parameters) - known)
        _require(not unknown, f"recipe {name!r} sets {unknown}, which the constructor does not take")
    return ", ".join(subject.cls.recipes)


def _distinct(recipes: Mapping[str, Recipe]) -> list[tuple[str, Recipe]]:
    """Return one recipe for every combination of losses and track, named after all that share it."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, recipe in recipes.items():
        if isinstance(recipe, Recipe) and recipe.losses:
            groups.setdefault((tuple(sorted(recipe.losses)), recipe.track), []).append(name)
    return [(", ".join(names), recipes[names[0]]) for names in groups.values()]


def _training(recipe: Recipe) -> Callable[[_Subject], str]:
    def run(subject: _Subject) -> str:
        falls = []
        for step_size in _STEP_SIZES:
            before, after = _two_steps(subject, recipe, step_size)
            if after < before:
                return f"two steps of {step_size:g}: {before:.6g} -> {after:.6g}; saved and loaded, same SR"
            falls.append(f"{before:.6g} -> {after:.6g} at step size {step_size:g}")
        raise _FailedError(
            f"two Adam steps on one repeated batch do not lower the losses: {'; '.join(falls)};"
            " check that SR depends on the parameters and that no loss is negated or detached"
        )

    return run


def _two_steps(subject: _Subject, recipe: Recipe, step_size: float) -> tuple[float, float]:
    """Return the sum of the non-adversarial terms before and after two steps on one batch."""
    method = subject.build().train()
    method.recipe = recipe
    method.prepare(load_protocol("clean"))
    teacher = _toy_classifier(subject.cls.info.channels).eval().requires_grad_(False)
    taught = {key: value.clone() for key, value in teacher.state_dict().items()}
    classifier: nn.Module | None = None
    if recipe.track == "adapted":
        in_turn = bool(recipe.classifier_losses)  # then the shell freezes it while the method is stepped
        classifier = copy.deepcopy(teacher).requires_grad_(not in_turn).train(not in_turn)
    hr = subject.images(32, 32, n=4, seed=1)
    lr = torch.nn.functional.interpolate(hr, size=(10, 10), mode="bilinear", antialias=True)
    with torch.no_grad():
        batch = Batch(lr, hr, torch.arange(4) % _CLASSES, teacher(hr), (32, 32))
    trained = [
        parameter
        for module in (method, classifier)
        if module is not None
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    _require(bool(trained), "neither the method nor a classifier has parameters; train something")
    optimizer = torch.optim.Adam(trained, lr=step_size)
    helpers = method.helpers()
    scaler = UnitScaler()

    def objective() -> Tensor:
        found = method.training_step(batch, teacher, classifier)
        missing = sorted(set(recipe.losses) - set(found))
        _require(not missing, f"training_step did not return {missing}, which the recipe weighs")
        for name, value in found.items():
            _require(value.ndim == 0, f"the loss term {name!r} has shape {tuple(value.shape)}, expected a scalar")
            _require(bool(torch.isfinite(value)), f"the loss term {name!r} is {value.item()}; keep it finite")
        plain = {name: found[name] for name in recipe.losses if name != "adversarial"}
        if recipe.scales_terms:
            scaler.measure({name: float(value.detach()) for name, value in plain.items()})
            plain = {name: scaler(name, value) for name, value in plain.items()}
        return torch.stack([recipe.losses[name] * value for name, value in plain.items()]).sum()

    values = []
    for _ in range(2):
        _step_helpers(method, helpers, batch, step_size)
        loss = objective()
        values.append(float(loss.detach()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        values.append(float(objective()))
    moved = [key for key, value in teacher.state_dict().items() if not torch.equal(value, taught[key])]
    _require(not moved, f"training changed the frozen teacher ({moved[0] if moved else ''}); leave it alone")
    _same_after_saving(subject, method.eval(), classifier)
    return values[0], values[-1]


def _step_helpers(method: Method, helpers: Mapping[str, nn.Module], batch: Batch, step_size: float) -> None:
    for name, helper in helpers.items():
        with torch.no_grad():
            sr = method(batch.lr, batch.sr_size)
            sr = torch.nn.functional.interpolate(sr, size=batch.sr_size, mode="bicubic", antialias=True)
        loss = method.helper_step(name, batch, sr.detach())
        _require(bool(torch.isfinite(loss).all()) and loss.ndim == 0, f"helper_step({name!r}) gave {loss}")
        gradients = torch.autograd.grad(loss, list(helper.parameters()), allow_unused=True)
        _require(
            any(gradient is not None and bool(gradient.any()) for gradient in gradients),
            f"the loss of helper {name!r} does not depend on its parameters; return it undetached",
        )
        with torch.no_grad():
            for parameter, gradient in zip(helper.parameters(), gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(step_size * gradient)


def _same_after_saving(subject: _Subject, method: Method, classifier: nn.Module | None) -> None:
    lr = subject.images(*_ODD)
    before = _restore(method, lr, _UP)
    factor = method.info.factor
    card = weights.Card(
        owner=subject.name,
        name="conformance",
        parameters=dict(subject.cls.tiny),
        track="adapted" if classifier is not None else "frozen",
        factor=None if factor == "any" else factor,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conformance.safetensors"
        ref = weights.save(
            path,
            method.state_dict(),
            card,
            classifier_state=classifier.state_dict() if classifier is not None else None,
        )
        again = subject.cls.from_weights(weights.load(ref)).eval()
    again.prepare(load_protocol("clean"))
    off = float((_restore(again, lr, _UP) - before).abs().max())
    _require(
        off <= 1e-6,
        f"SR differs by {off:.3g} after saving and loading; keep everything that moves SR in the state dict or in the"
        " constructor's arguments",
    )


def _restore(method: Method, lr: Tensor, size: tuple[int, int]) -> Tensor:
    with torch.inference_mode():
        sr = method(lr, size)
    info = method.info
    height, width = lr.shape[-2:]
    if info.output == "lr":
        expected = (height, width)
    elif info.factor == "any":
        expected = size
    else:
        expected = (height * info.factor, width * info.factor)
    shape = (*lr.shape[:2], *expected)
    _require(
        isinstance(sr, Tensor) and tuple(sr.shape) == shape,
        f"expected SR of shape {shape} for lr {tuple(lr.shape)} and size {size}, got"
        f" {tuple(sr.shape) if isinstance(sr, Tensor) else type(sr).__name__}; info.factor is {info.factor!r}",
    )
    return sr


def _perturb(method: Method) -> None:
    # A layer that starts at zero would hide that the others were not saved.
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in method.parameters():
            spread = 0.1 / math.sqrt(max(1, parameter[0].numel() if parameter.ndim > 1 else 1))
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))


def _toy_classifier(channels: int) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, _CLASSES),
    )
