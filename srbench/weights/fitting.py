"""Builds a network from a weights file and fills every parameter that fits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from srbench.errors import WeightsError
from srbench.weights.files import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor, nn

    Network = TypeVar("Network", bound=nn.Module)


# A constructor argument as older cards, recipes and SPECs call it, and its name today.
_RENAMED = {"critic": "discriminator_features"}


def current_arguments(network_class: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments under the names of today; a class that takes the old name keeps it."""
    known = inspect.signature(network_class).parameters

    def name(given: str) -> str:
        new = _RENAMED.get(given, given)
        return new if given not in known and new in known else given

    return {name(given): value for given, value in arguments.items()}


def build(network_class: type[Network], loaded: WeightsFile) -> Network:
    """Build the empty network that a weights file was made for.

    Raises:
        WeightsError: If the file names a constructor argument that the class does not have, or gives it a value that
            the class cannot take.
    """
    known, arguments = inspect.signature(network_class).parameters, current_arguments(network_class, loaded.parameters)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise WeightsError(
            f"{loaded.ref.path.name}: {network_class.__name__} takes no argument {unknown[0]!r}; it takes"
            f" {', '.join(known) or 'none'}"
        )
    try:
        return network_class(**arguments)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(
            f"{loaded.ref.path.name}: {network_class.__name__} cannot be built with {arguments} ({error});"
            " mend the card, or what stands behind the ?"
        ) from error


def fill(network: Network, loaded: WeightsFile) -> Network:
    """Copy the weights into a network, which must have exactly the same parameters.

    Raises:
        WeightsError: Naming the first parameters that are missing, unexpected or of another shape.
    """
    fill_state(network, loaded.state, origin=loaded.ref.path.name, expected=type(network).__name__)
    return network


def fill_changed(network: nn.Module, state: Mapping[str, Tensor], *, origin: str, expected: str) -> None:
    """Copy `state` into `network`, which keeps what `state` leaves out; a file of the adapted track has what changed.

    Raises:
        WeightsError: Naming the first parameters that are unexpected or of another shape.
    """
    fill_state(network, network.state_dict() | dict(state), origin=origin, expected=expected)


def fill_state(network: nn.Module, state: Mapping[str, Tensor], *, origin: str, expected: str) -> None:
    """Copy `state` into `network`; `num_batches_tracked` counters may be missing, nothing else.

    Raises:
        WeightsError: Naming the first parameters that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    kinds = [key for key in own if key in state and own[key].is_floating_point() != state[key].is_floating_point()]
    if missing or unexpected or shapes or kinds:
        parts = []
        if missing:
            parts.append(f"{len(missing)} parameters are missing, such as {missing[0]}")
        if unexpected:
            parts.append(f"{len(unexpected)} are unknown, such as {unexpected[0]}")
        if shapes:
            key = shapes[0]
            parts.append(
                f"{len(shapes)} have another shape, such as {key}:"
                f" {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            )
        if kinds:
            key = kinds[0]
            parts.append(
                f"{len(kinds)} hold another kind of number, such as {key}:"
                f" {state[key].dtype} instead of {own[key].dtype}"
            )
        raise WeightsError(
            f"{origin} does not fit {expected}: {'; '.join(parts)}; use weights made for this architecture"
        )
    network.load_state_dict(dict(state), strict=False)
