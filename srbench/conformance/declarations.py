"""What a method says about itself: name, docstring, info, constructor, weights, task, recipes."""

from __future__ import annotations

import inspect
import re

from srbench.conformance.subject import Subject, arguments, require
from srbench.method import Method, MethodInfo, TaskInfo
from srbench.protocol import load_protocol, preset_names
from srbench.training.recipe import Recipe

_PLAIN = (int, float, str, bool, type(None))


def name(subject: Subject) -> str:
    """Check that the name is snake_case and the stem of the file."""
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", subject.name) is not None,
        f"the name {subject.name!r} is not snake_case; rename the file",
    )
    module = subject.cls.__module__.split(".")
    if module[:2] in (["srbench", "baselines"], ["srbench", "methods"]):
        require(
            module[2] == subject.name,
            f"{subject.cls.__name__} lies in {'.'.join(module)} and is registered as {subject.name!r};"
            " the file's stem must be the name",
        )
    return f"{subject.name} is {subject.cls.__module__}.{subject.cls.__name__}"


def docstring(subject: Subject) -> str:
    """Advise docstrings of class and `forward`; a method runs without them, so their lack is no failure."""
    own = subject.cls.__dict__.get("__doc__")
    if not own or not own.strip():
        return "advice: the class has no docstring; say in one line what the method does"
    forward = subject.cls.__dict__.get("forward")
    if forward is not None and not forward.__doc__:
        return "advice: forward has no docstring; its first line gives shape, channel order, dtype and range"
    return str(own).strip().splitlines()[0]


def info(subject: Subject) -> str:
    """Check the fields of `info`."""
    info = subject.cls.info
    require(isinstance(info, MethodInfo), "set `info = MethodInfo(...)` on the class")
    require(info.role in ("baseline", "network", "control"), f"info.role is {info.role!r}; see MethodInfo")
    require(info.output in ("hr", "lr", "own"), f"info.output is {info.output!r}, expected 'hr', 'lr' or 'own'")
    require(
        info.factor == "any" or (isinstance(info.factor, int) and info.factor >= 1),
        f"info.factor is {info.factor!r}, expected a whole number of at least 1 or 'any'",
    )
    require(isinstance(info.channels, int) and info.channels >= 1, f"info.channels is {info.channels!r}")
    for key in ("family", "version", "citation"):
        value = getattr(info, key)
        require(isinstance(value, str) and value != "", f"info.{key} is empty; fill it in")
    require(
        info.role != "baseline" or not subject.trainable,
        "a baseline has nothing to train; set info.role to 'network', or remove the recipes",
    )
    return f"{info.role}, {info.family}, version {info.version}, factor {info.factor}"


def constructor(subject: Subject) -> str:
    """Check that the constructor takes plain values that all have defaults."""
    parameters = arguments(subject.cls)
    for parameter in parameters.values():
        require(
            parameter.default is not inspect.Parameter.empty,
            f"the constructor's {parameter.name!r} has no default; give it one, so that the name alone builds a method",
        )
        require(
            isinstance(parameter.default, _PLAIN),
            f"the constructor's {parameter.name!r} defaults to a {type(parameter.default).__name__}; use a number, a"
            " string or a boolean, which a card can hold",
        )
    unknown = sorted(set(subject.cls.tiny) - set(parameters))
    require(not unknown, f"tiny names {unknown}, which the constructor does not take; correct `tiny`")
    subject.build()
    return f"takes {', '.join(parameters) or 'nothing'}"


def named_weights(subject: Subject) -> str:
    """Check that weights are declared with a safe URI, a hash and a licence."""
    for name, declared in subject.cls.weights.items():
        require(declared.uri.startswith("https://"), f"weights {name!r}: the uri must be https, got {declared.uri!r}")
        require(
            re.fullmatch(r"[0-9a-f]{8,64}", declared.sha256) is not None,
            f"weights {name!r}: sha256 must be at least eight lower-case hexadecimal digits, got {declared.sha256!r}",
        )
        require(declared.licence != "", f"weights {name!r}: name the licence")
    return f"{len(subject.cls.weights)} declared"


def task(subject: Subject) -> str:
    """Check that the method can be prepared for every protocol, and how it says that it does not apply."""
    method = subject.build()
    for preset in preset_names():
        protocol = load_protocol(preset)
        method.prepare(protocol)
        for side in (None, 224):
            task = TaskInfo("task", protocol, "classifier", "0" * 64, side, subject.cls.info.channels)
            reason = method.skip(task)
            require(
                reason is None or (isinstance(reason, str) and reason != ""),
                f"skip returned {reason!r}; return None, or a reason in one clause",
            )
    return f"prepared for {len(preset_names())} protocols"


def recipes(subject: Subject) -> str:
    """Check that the recipes weigh losses and set arguments that the constructor takes."""
    require(
        subject.cls.training_step is not Method.training_step,
        "there are recipes but no training_step; define it, or remove the recipes",
    )
    known = set(arguments(subject.cls))
    for name, recipe in subject.cls.recipes.items():
        require(isinstance(recipe, Recipe), f"recipe {name!r} is a {type(recipe).__name__}, expected a Recipe")
        require(
            bool(recipe.losses) or recipe.norm_steps > 0,
            f"recipe {name!r} has no losses; name at least one, or the batches that batch norms are estimated on"
            " (norm_steps)",
        )
        unknown = sorted(set(recipe.parameters) - known)
        require(not unknown, f"recipe {name!r} sets {unknown}, which the constructor does not take")
    return ", ".join(subject.cls.recipes)
