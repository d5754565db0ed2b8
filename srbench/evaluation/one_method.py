"""Chooses the weights of a command that runs one method: those that were named, or the only possible ones."""

from __future__ import annotations

from srbench.errors import UsageError
from srbench.evaluation.loaded_methods import needs_weights
from srbench.method import Method
from srbench.networks.classifiers import Classifier
from srbench.weights import WeightsRef, find, local, names


def choose_weights(name: str, cls: type[Method], spec: str | None, classifier: Classifier | None) -> WeightsRef | None:
    """Return the weights of a method: those that were named, or the only ones on this computer that can be meant.

    Args:
        name: Registry name of the method.
        cls: Its class.
        spec: Name or file of the weights, or None.
        classifier: The classifier of the call, which adapted weights may have been trained with.

    Raises:
        UsageError: If the method takes none, or none or several can be meant.
    """
    if not needs_weights(name, cls):
        if spec is not None:
            raise UsageError(f"method {name!r} takes no weights, so --weights {spec} cannot apply")
        return None
    if spec is not None:
        return find(name, spec.removeprefix(f"{name}="), cls.weights)  # METHOD=NAME, as for `srbench eval`, does too
    candidates = _candidates(name, cls, classifier)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        labels = ", ".join(ref.label for ref in candidates)
        raise UsageError(f"method {name!r} has several sets of weights here: {labels}; choose one with --weights NAME")
    known = names(name, cls.weights)
    choice = f"one of {', '.join(known)}" if known else "a file"
    raise UsageError(f"method {name!r} needs weights and has none here that fit; give --weights NAME|FILE, {choice}")


def _candidates(name: str, cls: type[Method], classifier: Classifier | None) -> list[WeightsRef]:
    """Return the weights on this computer that may be meant where none are named.

    Frozen weights come before adapted ones, and the user's before those that are offered for one task alone, such as
    the demo. Of those that ship, what several classifiers taught comes before the others. Weights that other ones were
    started from are left out.
    """
    here = local(name, cls.weights)
    frozen = [ref for ref in here if ref.card is None or ref.card.track != "adapted"]
    adapted = [
        ref
        for ref in here
        if ref.card is not None
        and ref.card.track == "adapted"
        and (classifier is None or (ref.card.teacher or {}).get("sha256") in (None, classifier.info.weights_sha256))
    ]
    fitting = frozen or adapted
    shipped = [ref for ref in fitting if ref.uri.startswith("package:")]
    several = [ref for ref in shipped if ref.card is not None and len(ref.card.teachers) > 1]
    fitting = [ref for ref in fitting if ref not in shipped or ref in (several or shipped)]
    fitting = [ref for ref in fitting if ref.card is None or not ref.card.tasks] or fitting
    starts = {str(ref.card.recipe.get("init")).removeprefix(f"{name}:") for ref in fitting if ref.card is not None}
    return [ref for ref in fitting if ref.label not in starts] or fitting


def weights_notes(ref: WeightsRef | None) -> tuple[str, ...]:
    """Return what a user should know about the weights, one sentence each."""
    if ref is None or ref.card is None or not ref.card.tasks:
        return ()
    return (f"weights {ref.label} were trained for {', '.join(ref.card.tasks)} alone; others are given with --weights",)
