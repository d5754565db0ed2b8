"""Features of a classifier, which losses compare between SR and HR, and the choice of its layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srbench.errors import UsageError

_PROBE_SIDE = 64


@dataclass(frozen=True)
class Seen:
    """What a classifier gave in one pass.

    Attributes:
        features: Of the extractor's layer, `(N, C, h, w)` or `(N, tokens, C)`.
        stages: Of its stages, finest first, each `(N, C, h, w)`; empty if they were not asked for.
        logits: The classifier's answer, or None if it was not asked for.
    """

    features: Tensor
    stages: tuple[Tensor, ...]
    logits: Any = None


class FeatureExtractor:
    """Features of a classifier at one of its layers, and at the end of each stage, for losses between SR and HR.

    Any timm or torchvision classifier works, because layers are read by hooks on its modules. The classifier is used
    as it is: frozen parameters stay frozen, and the gradient flows to the image.

    Attributes:
        classifier: The classifier, which takes images in [0, 1].
        layer: Name of the module whose output is returned.
        stages: Names of the modules at which its stages end, finest first; empty unless asked for.
    """

    def __init__(self, classifier: nn.Module, layer: str = "auto", *, stages: bool = False) -> None:
        """Choose the layers.

        Args:
            classifier: Maps images `(N, 3, H, W)`, RGB, [0, 1], to logits `(N, K)`.
            layer: Name of one of its modules ("network.layer3"), or "auto": the last one whose feature map is at
                least a sixteenth of the image's side, or a transformer's last tokens; or "last": the last feature
                map of all, or the last tokens.
            stages: Whether stages are wanted too. A stage is all that works at one size of map, from a quarter of
                the image's side down; it ends with the last of the outermost modules that give this size. A
                transformer has none but `layer`.

        Raises:
            UsageError: If there is no such layer, or none that gives feature maps or tokens.
        """
        self.classifier = classifier
        names = dict(classifier.named_modules())
        if layer not in {"auto", "last"} and layer not in names:
            options = [name for name, module in names.items() if name.count(".") == 1]
            raise UsageError(f"the classifier has no layer {layer!r}; some of its layers: {', '.join(options[:12])}")
        probed = _probe(classifier) if stages or layer in {"auto", "last"} else None
        self.layer = _choose_layer(probed, last=layer == "last") if probed and layer in {"auto", "last"} else layer
        self.stages = _choose_stages(probed, self.layer) if probed and stages else ()
        self._modules = {name: names[name] for name in (self.layer, *self.stages)}

    def __call__(self, image: Tensor) -> Tensor:
        """Return features, `(N, C, h, w)` or `(N, tokens, C)`, of images `(N, 3, H, W)`, RGB, float, [0, 1]."""
        return self.see(image, logits=False).features

    def see(self, image: Tensor, *, logits: bool) -> Seen:
        """Return what one pass over images `(N, 3, H, W)`, RGB, float, [0, 1], gives; without logits it ends early."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def note(module: nn.Module, given: Any, output: Any) -> None:
                outputs.setdefault(name, output)
                if not logits and len(outputs) == len(self._modules):
                    raise _ReachedError

            return note

        handles = [module.register_forward_hook(keep(name)) for name, module in self._modules.items()]
        answer: Any = None
        try:
            with suppress(_ReachedError):
                answer = self.classifier(image)
        finally:
            for handle in handles:
                handle.remove()
        for name in self._modules:
            if not isinstance(outputs.get(name), Tensor):
                raise UsageError(f"layer {name!r} of the classifier gives no tensor; choose another one")
        return Seen(outputs[self.layer], tuple(outputs[name] for name in self.stages), answer)


class _ReachedError(Exception):
    """The wanted layer has been passed; the rest of the classifier need not be computed."""


@dataclass(frozen=True)
class _Probed:
    """What each module of a classifier gave for one grey image.

    Attributes:
        side: Side of the image, pixels.
        maps: Name, channels and shorter side of each feature map, in the order of the pass.
        tokens: Names of the modules that gave tokens.
        outputs: Number of logits, of an image or a pixel, or None for a detector.
    """

    side: int
    maps: tuple[tuple[str, int, int], ...]
    tokens: tuple[str, ...]
    outputs: int | None


@torch.no_grad()
def _probe(classifier: nn.Module) -> _Probed:
    side = getattr(getattr(classifier, "info", None), "input_size", None) or _PROBE_SIDE
    maps: list[tuple[str, int, int]] = []
    tokens: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            if output.ndim == 4 and min(output.shape[-2:]) >= 2:
                maps.append((name, output.shape[1], min(output.shape[-2:])))
            elif output.ndim == 3 and output.shape[1] > 1:
                tokens.append(name)

        return note

    handles = [module.register_forward_hook(watch(name)) for name, module in classifier.named_modules() if name]
    device = next((parameter.device for parameter in classifier.parameters()), torch.device("cpu"))
    # A probe in train mode would move batch-norm statistics.
    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()
    try:
        logits = classifier(torch.full((1, 3, side, side), 0.5, device=device))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    if isinstance(logits, Tensor):
        return _Probed(side, tuple(maps), tuple(tokens), logits.shape[1])
    # A detector, whose heads are not run before boxes or losses are asked for.
    return _Probed(side, tuple(each for each in maps if ".backbone." in f".{each[0]}."), (), None)


def _choose_layer(probed: _Probed, *, last: bool) -> str:
    smallest = 2 if last else max(2, -(-probed.side // 16))
    maps = [(name, width) for name, width, side in probed.maps if side >= smallest]
    # A transformer also has a feature map: the patch embedding, which is no deep feature.
    # With "last", the maps of the logits themselves do not count either (SqueezeNet's head is a convolution).
    deep = [name for name, width in maps if not last or width != probed.outputs]
    chosen = probed.tokens or deep or [name for name, _ in maps]
    if not chosen:
        raise UsageError("the classifier has no layer with feature maps or tokens; name one of its layers")
    return chosen[-1]


def _choose_stages(probed: _Probed, layer: str) -> tuple[str, ...]:
    """Return the last of the outermost modules for each size of map, or `layer` alone where there are no maps."""
    by_side: dict[int, list[tuple[str, int]]] = {}
    for name, width, side in probed.maps if not probed.tokens else ():
        if side <= -(-probed.side // 4):
            by_side.setdefault(side, []).append((name, width))
    ends = []
    for side in sorted(by_side, reverse=True):
        # The smallest maps may be those of the logits themselves, which are no features.
        deep = [each for each in by_side[side] if side != min(by_side) or each[1] != probed.outputs] or by_side[side]
        outermost = min(name.count(".") for name, _ in deep)
        ends.append([name for name, _ in deep if name.count(".") == outermost][-1])
    return tuple(ends) or (layer,)
