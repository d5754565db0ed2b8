"""The forms in which networks answer: scores of an image, a map of scores, or boxes.

Task types name a form without being given tensors, so torch is imported where there are some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Answers = Literal["scores", "map", "boxes"]

# How a person calls a network of each form.
WORDS: Mapping[Answers, str] = {"scores": "scores of the whole image", "map": "a map of scores", "boxes": "boxes"}


def form_of(output: Any) -> Answers | None:
    """Return the form of what a network returns, or None where it is none of them.

    Scores are `(N, K)`; a map is `(N, K, h, w)`, alone or as "out" of a mapping (torchvision's segmentation networks);
    boxes are a sequence with a mapping with "boxes" for each image (`srbench.networks.detectors`).
    """
    from torch import Tensor

    if isinstance(output, Mapping):
        output = output.get("out")
        return "map" if isinstance(output, Tensor) and output.ndim == 4 else None
    if isinstance(output, Tensor):
        return {2: "scores", 4: "map"}.get(output.ndim)  # type: ignore[return-value]
    listed = isinstance(output, Sequence) and all(isinstance(each, Mapping) and "boxes" in each for each in output)
    return "boxes" if listed and len(output) else None


def as_answer(output: Any, size: tuple[int, int]) -> Any:
    """Return what a network returns in the one shape of its form; a map at the size of the image that it was shown.

    Args:
        output: Of the network.
        size: (height, width) of the image, pixels.
    """
    import torch.nn.functional as F
    from torch import Tensor

    if isinstance(output, Mapping) and "out" in output:
        output = output["out"]
    if isinstance(output, Tensor) and output.ndim == 4 and tuple(output.shape[-2:]) != size:
        return F.interpolate(output, size=size, mode="bilinear", align_corners=False)
    return output


def outputs_of(output: Any) -> int:
    """Return how many classes a network has by what it returns, scores or a map."""
    return int((output["out"] if isinstance(output, Mapping) else output).shape[1])


def flat(output: Any) -> Tensor:
    """Return what a network computes as one tensor `(N, M)`, so that two outputs can be held against each other.

    Of scores and maps it is these, of a detector the maps of its pyramid: boxes have no number that fits each other's.
    """
    import torch

    parts = [output] if isinstance(output, torch.Tensor) else output.features
    return torch.cat([part.flatten(1) for part in parts], dim=1)
