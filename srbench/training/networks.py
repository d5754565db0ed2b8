"""Networks that several methods train with: frozen features of a classifier, and a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import UsageError

_PROBE_SIDE = 64


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """Switch the gradients of a network's parameters off; gradients still flow through it to its input."""
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield network
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def name_as_inside(module: nn.Module, child: str) -> None:
    """Leave the name of a child out of the state dict's keys, so that a file has the keys of the child's own library.

    Args:
        module: Whose state dict it is, both written and read.
        child: Name of the attribute that holds the network.
    """
    inner = child + "."

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for key in [key for key in state if key.startswith(prefix + inner)]:
            state[prefix + key.removeprefix(prefix + inner)] = state.pop(key)

    def add(module: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
        for key in [f"{prefix}{name}" for name in getattr(module, child).state_dict()]:
            if key in state:
                state[prefix + inner + key.removeprefix(prefix)] = state.pop(key)

    module.register_state_dict_post_hook(drop)
    module.register_load_state_dict_pre_hook(add)


@torch.no_grad()
def start_as_bilinear(layers: nn.Sequential) -> None:
    """Change the first values of an RRDB network, in spandrel's layout, so that it starts as bilinear enlargement.

    RRDB has no path from the image to the output; from random values it spends its first thousands of steps on
    learning to copy. Here three channels carry the image through: the first and the last two convolutions hand them
    on, and after each doubling by nearest neighbour a convolution smooths them by (1, 2, 1) / 4 in both directions,
    which makes it bilinear (away from the zeros around the image). Every other channel adds nothing yet, and learns
    from the first step on. Below three channels nothing is changed.

    Args:
        layers: The network's `model`: convolution, trunk, doublings, two convolutions.
    """
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first, *doublings, inner, last = convolutions
    if first.out_channels < 3 or first.in_channels != 3:
        return
    identity = torch.eye(3)[:, :, None, None]
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    for convolution in (first, inner, last):
        _carry(convolution, F.pad(identity, (1,) * 4))
    for convolution in doublings:
        _carry(convolution, identity * torch.outer(taps, taps))
    # What the trunk's last convolution gives is added to the carried image.
    last_of_trunk = [layer for layer in layers[1].modules() if isinstance(layer, nn.Conv2d)][-1]
    last_of_trunk.weight[:3] = 0.0
    assert last_of_trunk.bias is not None
    last_of_trunk.bias[:3] = 0.0


@torch.no_grad()
def start_sub_pixel_as_bilinear(
    first: nn.Conv2d,
    fused: nn.Conv2d | nn.BatchNorm2d,
    shuffled: Sequence[tuple[nn.Conv2d, int]],
    last: nn.Conv2d | None,
) -> None:
    """Change the first values of a network with sub-pixel convolutions, so that it starts as bilinear enlargement.

    Such a network is shallow features, plus what a trunk makes of them, then convolutions whose channels are shuffled
    to pixels. As in `start_as_bilinear` the first channels, as many as the image has, carry it through; each
    convolution before a shuffle gives its channels the bilinear weights of the sub-pixel that it becomes (away from the
    zeros around the image). Every other channel adds nothing yet, and learns from the first step on. Where there are
    fewer features than channels of the image nothing is changed.

    Args:
        first: From the image to the shallow features; what follows must hand positive values on.
        fused: The trunk's last layer, whose output is added to the shallow features.
        shuffled: The convolutions before each shuffle, with the factor of that shuffle.
        last: From the features at SR size to the image, or None where the last shuffle gives it.
    """
    channels = first.in_channels
    if first.out_channels < channels:
        return
    identity = torch.eye(channels)[:, :, None, None]
    for convolution in (first, last):
        if convolution is not None:
            middle = convolution.kernel_size[0] // 2
            _carry(convolution, F.pad(identity, (middle,) * 4))
    for convolution, factor in shuffled:
        _carry(convolution, torch.einsum("oc,pyx->opcyx", torch.eye(channels), _bilinear_taps(factor)).flatten(0, 1))
    assert fused.bias is not None
    fused.weight[:channels] = 0.0
    fused.bias[:channels] = 0.0


def _carry(convolution: nn.Conv2d, kernels: Tensor) -> None:
    """Give the first rows these kernels `(rows, channels, k, k)` of the first channels, and nothing of the others."""
    rows, channels = kernels.shape[:2]
    convolution.weight[:rows] = 0.0
    convolution.weight[:rows, :channels] = kernels.to(convolution.weight)
    assert convolution.bias is not None
    convolution.bias[:rows] = 0.0


def _bilinear_taps(factor: int) -> Tensor:
    """Return the weights of a pixel's 3 x 3 neighbourhood for each of its sub-pixels, `(factor ** 2, 3, 3)`."""
    offset = (torch.arange(factor) + 0.5) / factor - 0.5
    taps = torch.stack([(-offset).clamp_min(0), 1 - offset.abs(), offset.clamp_min(0)], dim=1)
    return torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)


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


class Discriminator(nn.Module):
    """Tells HR from SR; convolutional as SRGAN's, for images of any size from 2**stages pixels on.

    `srbench.training.trainable.Trainable` builds one where a recipe has the term "adversarial", and plays against it.
    """

    def __init__(self, *, channels: int = 3, features: int = 64, stages: int = 4, per_patch: bool = False) -> None:
        """Build it.

        Args:
            channels: Channels of the images.
            features: Filters of the first layer; they double with each stage, up to eight times as many.
            stages: Halvings of the image.
            per_patch: Return one score for every position of the last feature map instead of one for every image.
        """
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1), nn.LeakyReLU(0.2)]
        width = features
        for stage in range(stages):
            wider = features * min(2 ** (stage + 1), 8)
            layers += [*_normed(width, width, stride=2), *_normed(width, wider, stride=1)]
            width = wider
        self.body = nn.Sequential(*layers)
        self.head: nn.Module = (
            nn.Conv2d(width, 1, 3, padding=1)
            if per_patch
            else nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
        )
        self.per_patch = per_patch

    def forward(self, image: Tensor) -> Tensor:
        """Return raw scores, `(N, 1)` or `(N, 1, h, w)`, of images `(N, C, H, W)`, RGB, float, [0, 1]."""
        maps = self.body(image * 2 - 1)
        # The mean over positions is what lets a linear head take images of any size.
        return self.head(maps if self.per_patch else F.adaptive_avg_pool2d(maps, 1).flatten(1))


class _ReachedError(Exception):
    """The wanted layer has been passed; the rest of the classifier need not be computed."""


def _normed(width: int, wider: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width, wider, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]


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
