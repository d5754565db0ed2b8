"""Named, hashed sets of parameters: where they are, how they are read safely, and the card that explains them."""

from srbench.files.paths import weights_dir
from srbench.weights.card import Card, lineage
from srbench.weights.files import (
    SUFFIX,
    WeightsFile,
    WeightsRef,
    file_sha256,
    load,
    read_card,
    read_state,
    save,
    state_sha256,
)
from srbench.weights.fitting import build, current_arguments, fill, fill_changed, fill_state
from srbench.weights.lookup import UNTRAINED, NamedWeights, find, local, names, untrained

__all__ = [
    "SUFFIX",
    "UNTRAINED",
    "Card",
    "NamedWeights",
    "WeightsFile",
    "WeightsRef",
    "build",
    "current_arguments",
    "file_sha256",
    "fill",
    "fill_changed",
    "fill_state",
    "find",
    "lineage",
    "load",
    "local",
    "names",
    "read_card",
    "read_state",
    "save",
    "state_sha256",
    "untrained",
    "weights_dir",
]
