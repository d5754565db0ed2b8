"""The conformance suite: what every method must do, for `srbench check NAME` and for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from srbench.conformance import arithmetic, declarations, forward, training
from srbench.conformance.subject import FailedError, Subject
from srbench.method import Method


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


def check(method_class: type[Method], name: str) -> list[Finding]:
    """Run every check that applies to a method; takes seconds.

    Args:
        method_class: The method.
        name: The name it is registered under.
    """
    subject = Subject(name, method_class)
    findings = []
    for title, run in _checks(subject):
        with torch.random.fork_rng(devices=[]):
            try:
                findings.append(Finding(title, True, run(subject)))
            except FailedError as error:
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


def _checks(subject: Subject) -> Iterator[tuple[str, Callable[[Subject], str]]]:
    yield "name", declarations.name
    yield "docstring", declarations.docstring
    yield "info", declarations.info
    yield "constructor", declarations.constructor
    yield "named weights", declarations.named_weights
    yield "task", declarations.task
    yield "shape, dtype, range", forward.contract
    yield "odd and other sizes", forward.sizes
    yield "deterministic", forward.deterministic
    yield "one image as in a batch", forward.batch
    yield "input untouched", forward.input_untouched
    yield "no side effects", forward.side_effects
    yield "weights round trip", forward.round_trip
    yield "bf16", arithmetic.bf16
    yield "cuda", arithmetic.cuda
    if subject.trainable:
        yield "recipes", declarations.recipes
        for title, recipe in training.distinct(subject.cls.recipes):
            yield f"training by {title}", training.lowers_the_losses(recipe)
            yield f"bf16 training by {title}", arithmetic.bf16_training(recipe)
            yield f"cuda training by {title}", arithmetic.cuda_training(recipe)
        for title, recipe in training.without_losses(subject.cls.recipes):
            yield f"estimating by {title}", training.estimates_statistics(recipe)
