"""Detectors: torchvision's own, and its heads on a feature pyramid of any timm network.

Every detector here takes normalised images and leaves normalising to whoever calls it; the built ones see an image at
its own size. What one returns is a list of boxes for each image, and its losses and its pyramid besides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, list_models
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from srbench.errors import UnknownNameError, UsageError

SCORE_THRESHOLD = 0.05  # of what is returned: AP takes what a network is little sure of into account as well
_MIN_WIDTH = (
    64  # least channels of a pyramid: torchvision's heads normalise 32 groups, which a map of one pixel must fill
)
_FINEST = 8  # pixels between the positions of the finest level

# How many outputs come before the first class, and whether label 0 is the background.
_WITH_BACKGROUND = (detection.FasterRCNN, detection.ssd.SSD)


class DetectorOutput(Sequence[Mapping[str, Tensor]]):
    """What a detector makes of N images: boxes of each, losses, and its pyramid.

    As a sequence it holds for each image "boxes" `(d, 4)`, edges in pixels, "scores" `(d,)` and "labels" `(d,)`. These
    are computed with the output where no gradient is recorded, else when they are asked for.

    Attributes:
        features: Maps of the pyramid, finest first, each `(N, C, h, w)`.
    """

    def __init__(self, detector: Detector, images: Tensor) -> None:
        """Compute the pyramid of normalised images `(N, 3, H, W)`."""
        self._detector, self._images = detector, images
        placed, _ = detector.inner.transform(list(images))
        features = detector.inner.backbone(placed.tensors)
        self._named = features if isinstance(features, Mapping) else OrderedDict([("0", features)])
        self._found: list[dict[str, Tensor]] | None = None
        if not torch.is_grad_enabled():
            self._detections()

    @property
    def features(self) -> list[Tensor]:
        """Maps of the pyramid, finest first, each `(N, C, h, w)`."""
        return list(self._named.values())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        """Return the boxes of one image."""
        return self._detections()[index]

    def float(self) -> DetectorOutput:
        """Return itself: boxes and scores are of the precision in which they were computed."""
        return self

    def to(self, device: torch.device) -> DetectorOutput:
        """Return itself: it is where the detector is."""
        return self

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the detector's own losses by name, each a scalar with gradient.

        Args:
            targets: "boxes" `(g, 4)`, edges in pixels, and "labels" `(g,)` of each image.
        """
        first = self._detector.first_label
        moved = [{"boxes": each["boxes"].float(), "labels": each["labels"].long() + first} for each in targets]
        with self._given(training=True) as inner:
            return inner(list(self._images), moved)

    def _detections(self) -> list[dict[str, Tensor]]:
        if self._found is None:
            with torch.no_grad(), self._given(training=False) as inner:
                found = inner(list(self._images))
            first = self._detector.first_label
            self._found = [{**each, "labels": each["labels"] - first} for each in found]
        return self._found

    @contextmanager
    def _given(self, *, training: bool) -> Iterator[nn.Module]:
        """Let torchvision's own code go on from the pyramid that is known, in one of its two modes."""
        inner = self._detector.inner
        parts = [part for part in (inner, getattr(inner, "rpn", None), getattr(inner, "roi_heads", None)) if part]
        modes = [part.training for part in parts]
        backbone = inner.backbone
        inner.backbone = _Known(self._named)
        for part in parts:
            part.training = training
        try:
            yield inner
        finally:
            inner.backbone = backbone
            for part, mode in zip(parts, modes, strict=True):
                part.training = mode


class Detector(nn.Module):
    """One of torchvision's detection networks, under the names of its own parts.

    Attributes:
        n_classes: Number of classes.
        first_label: torchvision's label of the first class: 1 where 0 is the background.
    """

    def __init__(self, network: nn.Module, *, n_classes: int) -> None:
        """Take the network's parts; it no longer normalises."""
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        self._inner = (network,)  # not a part of its own, so that a file of weights has torchvision's names
        self.n_classes, self.first_label = n_classes, int(isinstance(network, _WITH_BACKGROUND))
        transform: Any = network.transform
        transform.image_mean, transform.image_std = [0.0] * 3, [1.0] * 3

    @property
    def inner(self) -> Any:
        """The network of torchvision, which shares the parts."""
        return self._inner[0]

    def train(self, mode: bool = True) -> Detector:
        """Set the mode, of torchvision's network too."""
        self.inner.training = mode
        return super().train(mode)

    def forward(self, images: Tensor) -> DetectorOutput:
        """Detect in normalised images `(N, 3, H, W)`, RGB, float."""
        return DetectorOutput(self, images)


class TimmPyramid(nn.Module):
    """A feature pyramid on a timm network: maps at strides 8, 16, 32, and coarser ones behind them."""

    def __init__(
        self, encoder: str, *, width: int, coarser: bool, finest: int, encoder_args: Mapping[str, Any] | None
    ) -> None:
        """Build it with random values.

        Args:
            encoder: timm's name of the network.
            width: Channels of each map.
            coarser: Whether strides 64 and 128 follow by convolution, instead of one map by pooling.
            finest: Stride of the first map.
            encoder_args: What timm's constructor takes besides.
        """
        super().__init__()
        import timm

        given = {"features_only": True, "pretrained": False, **(encoder_args or {})}
        strides = _feature_info(timm.create_model(encoder, **given)).reduction()
        levels = [index for index, stride in enumerate(strides) if finest <= stride <= 32]
        if not levels:
            raise UsageError(f"timm's {encoder} has no maps at strides of {finest} to 32; choose another encoder")
        self.body = timm.create_model(encoder, **given, out_indices=levels)
        info = _feature_info(self.body)
        last = LastLevelP6P7(width, width) if coarser else LastLevelMaxPool()
        self.fpn = FeaturePyramidNetwork(info.channels(), width, extra_blocks=last)
        self.out_channels = width
        self.strides = [*info.reduction(), *((64, 128) if coarser else (64,))]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the maps of images `(N, 3, H, W)` by name, each `(N, width, h, w)`, finest first."""
        return self.fpn(OrderedDict((str(index), value) for index, value in enumerate(self.body(images))))


def is_detector(name: str) -> bool:
    """Whether a name is that of a detector: one that is built here, or torchvision's."""
    return name in _BUILT or name in list_models(module=detection)


def detector_names() -> list[str]:
    """Return the names of the detectors that are built here."""
    return list(_BUILT)


def create_detector(name: str, args: Mapping[str, Any], *, pretrained: bool = False) -> Detector:
    """Build a detector.

    Args:
        name: One of `detector_names`, or torchvision's own name.
        args: Of the built ones: "encoder" (timm's name), "num_classes", "width" (channels of the pyramid), "finest"
            (stride of its first map), "encoder_args" (what timm takes besides), and what torchvision's class takes. Of
            torchvision's: what its function takes.
        pretrained: Whether torchvision's own weights are fetched; those that are built here have none.

    Raises:
        UnknownNameError: If there is no such detector.
        UsageError: If an argument is missing or out of range, or weights are wanted that do not exist.
    """
    if name in _BUILT:
        if pretrained:
            raise UsageError(f"the detector {name} on an encoder of timm comes without weights; train it from scratch")
        given = dict(args)
        encoder, classes = given.pop("encoder", None), given.pop("num_classes", None)
        if encoder is None or classes is None:
            raise UsageError(f"the detector {name} needs args = {{ encoder = 'mobilenetv2_100', num_classes = 3 }}")
        if given.get("width", _MIN_WIDTH) % 32 or given.get("width", _MIN_WIDTH) < _MIN_WIDTH:
            raise UsageError(
                f"the width of a detector's pyramid is a multiple of 32 from {_MIN_WIDTH} on; got {given['width']}"
            )
        network = _BUILT[name](encoder, classes, **({"score_thresh": SCORE_THRESHOLD} | given))
        network.transform = _OwnSize(0, 0, [0.0] * 3, [1.0] * 3, size_divisible=32)
        return Detector(network, n_classes=classes)
    if not is_detector(name):
        raise UnknownNameError("detector", name, (*_BUILT, *list_models(module=detection)))
    given = {"weights_backbone": None} | dict(args)
    network = detection.__dict__[name](weights="DEFAULT" if pretrained else None, **given)
    outputs = int(args.get("num_classes", 91))
    return Detector(network, n_classes=outputs - isinstance(network, _WITH_BACKGROUND))


def _feature_info(network: nn.Module) -> Any:
    """Return what timm says of the maps of a network that returns maps."""
    return network.feature_info


class _OwnSize(GeneralizedRCNNTransform):
    """Leaves images at their own size; torchvision would bring them to 800 pixels."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class _Known(nn.Module):
    """Stands in for a backbone whose maps are known."""

    def __init__(self, maps: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._maps = maps

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        return self._maps


def _pyramid(encoder: str, args: dict[str, Any], *, coarser: bool) -> TimmPyramid:
    """Build the pyramid, and take its arguments out of those of the detector."""
    return TimmPyramid(
        encoder,
        width=args.pop("width", 128),
        coarser=coarser,
        finest=args.pop("finest", _FINEST),
        encoder_args=args.pop("encoder_args", None),
    )


def _fcos(encoder: str, classes: int, *, convs: int = 4, **args: Any) -> nn.Module:
    backbone = _pyramid(encoder, args, coarser=True)
    head = FCOSHead(backbone.out_channels, 1, classes, num_convs=convs)
    anchors = AnchorGenerator(tuple((stride,) for stride in backbone.strides), ((1.0,),) * len(backbone.strides))
    return detection.FCOS(backbone, classes, head=head, anchor_generator=anchors, **args)


def _retinanet(encoder: str, classes: int, **args: Any) -> nn.Module:
    backbone = _pyramid(encoder, args, coarser=True)
    sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in backbone.strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    head = RetinaNetHead(
        backbone.out_channels, anchors.num_anchors_per_location()[0], classes, norm_layer=partial(nn.GroupNorm, 32)
    )
    return detection.RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **args)


def _fasterrcnn(encoder: str, classes: int, **args: Any) -> nn.Module:
    backbone = _pyramid(encoder, args, coarser=False)
    sizes = tuple((4 * stride,) for stride in backbone.strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    args["box_score_thresh"] = args.pop("score_thresh")
    return detection.FasterRCNN(backbone, classes + 1, rpn_anchor_generator=anchors, **args)


def _ssdlite(encoder: str, classes: int, **args: Any) -> nn.Module:
    backbone = _pyramid(encoder, args, coarser=True)
    levels = len(backbone.strides)
    # Sizes of boxes are shares of the image here; each level has those of a detector at a side of 512 pixels.
    scales = [4 * stride / 512 for stride in backbone.strides] + [1.0]
    anchors = DefaultBoxGenerator([[2, 3]] * levels, scales=scales)
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    head = SSDLiteHead([backbone.out_channels] * levels, anchors.num_anchors_per_location(), classes + 1, norm)
    return detection.ssd.SSD(backbone, anchors, (320, 320), classes + 1, head=head, **args)


_BUILT: Mapping[str, Callable[..., nn.Module]] = {
    "fcos": _fcos,
    "retinanet": _retinanet,
    "fasterrcnn": _fasterrcnn,
    "ssdlite": _ssdlite,
}
