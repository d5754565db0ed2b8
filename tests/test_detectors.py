"""Detectors by name: what they return, their losses, and how their weights are named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from srbench.errors import UnknownNameError, UsageError
from srbench.networks.detectors import Detector, create_detector, detector_names, is_detector

SMALL = {"encoder": "mobilenetv2_035", "num_classes": 3, "width": 64}
EXTRA = {"fcos": {"convs": 1, "score_thresh": 0.0}, "retinanet": {"score_thresh": 0.0}}
TARGETS = [
    {"boxes": torch.tensor([[8.0, 8, 40, 44], [50, 20, 90, 60]]), "labels": torch.tensor([0, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]


def images(seed: int = 0, height: int = 72, width: int = 104) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=detector_names())
def detector(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    return create_detector(
        request.param, SMALL | {"score_thresh": 0.0} if request.param != "fasterrcnn" else SMALL
    ).eval()


def test_boxes_lie_in_the_image_and_labels_count_the_classes(detector: Detector) -> None:
    with torch.no_grad():
        output = detector(images())
    assert len(output) == 2
    for each in output:
        assert len(each["boxes"]) == len(each["scores"]) == len(each["labels"]) <= 300
        assert (
            (each["boxes"] >= 0).all() and (each["boxes"][:, ::2] <= 104).all() and (each["boxes"][:, 1::2] <= 72).all()
        )
        assert (each["labels"] >= 0).all() and (each["labels"] < 3).all()


def test_a_batch_finds_what_each_image_alone_does(detector: Detector) -> None:
    with torch.no_grad():
        together, alone = detector(images()), detector(images()[1:])
    assert torch.allclose(together[1]["boxes"], alone[0]["boxes"], atol=1e-3)
    assert torch.allclose(together[1]["scores"], alone[0]["scores"], atol=1e-5)


def test_losses_are_those_of_torchvision_and_reach_the_image(detector: Detector) -> None:
    image = images().requires_grad_()
    torch.manual_seed(1)
    losses = detector(image).losses(TARGETS)
    sum(losses.values()).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    inner = detector.inner
    moved = [{**target, "labels": target["labels"] + detector.first_label} for target in TARGETS]
    flags = {module: module.training for module in inner.modules()}
    for part in (inner, getattr(inner, "rpn", None), getattr(inner, "roi_heads", None)):
        if part is not None:
            part.training = True
    torch.manual_seed(1)
    expected = inner(list(images()), moved)
    for module, mode in flags.items():
        module.training = mode
    assert losses.keys() == expected.keys()
    assert all(torch.allclose(losses[name], expected[name], rtol=1e-4) for name in losses)
    assert not any(module.training for module in inner.modules())


def test_steps_of_training_lower_the_loss(detector: Detector) -> None:
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    optimiser = torch.optim.Adam(detector.parameters(), lr=1e-3)
    values = []
    for _ in range(3):
        torch.manual_seed(2)  # Faster R-CNN draws the proposals that it learns from
        loss = torch.stack(list(detector(images()).losses(TARGETS).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    detector.load_state_dict(state)
    assert values[-1] < values[0]


def test_pyramids_have_a_map_for_every_stride(detector: Detector) -> None:
    maps = detector(images(height=128, width=128)).features
    assert [tuple(each.shape[1:]) for each in maps][:4] == [(64, 16, 16), (64, 8, 8), (64, 4, 4), (64, 2, 2)]
    assert all(each.requires_grad for each in maps)


def test_an_encoder_takes_the_weights_of_its_classifier() -> None:
    import timm

    body = create_detector("fcos", SMALL).inner.backbone.body
    classifier = timm.create_model("mobilenetv2_035")
    assert set(body.state_dict()) <= set(classifier.state_dict())


def test_a_finer_pyramid_is_asked_for() -> None:
    finer = create_detector("fcos", SMALL | {"finest": 4, "convs": 1})
    assert finer(images(height=64, width=64)).features[0].shape[-1] == 16


def test_torchvision_s_own_networks_keep_their_names_and_their_labels() -> None:
    args = {"num_classes": 4, "min_size": 64, "max_size": 128}
    theirs = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, **args)
    ours = create_detector("fasterrcnn_mobilenet_v3_large_320_fpn", args | {"box_score_thresh": 0.0}).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict()) and ours.n_classes == 3
    ours.load_state_dict(theirs.state_dict())
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    theirs.roi_heads.score_thresh = 0.0
    with torch.no_grad():
        expected, found = theirs.eval()(list(images())), ours((images() - mean) / std)
    assert torch.allclose(expected[0]["boxes"], found[0]["boxes"], atol=1e-3) and len(found[0]["boxes"])
    assert torch.equal(expected[0]["labels"] - 1, found[0]["labels"])


def test_names_and_arguments() -> None:
    assert is_detector("fcos") and is_detector("retinanet_resnet50_fpn") and not is_detector("resnet18")
    with pytest.raises(UnknownNameError, match="did you mean"):
        create_detector("retinet", SMALL)
    with pytest.raises(UsageError, match=r"needs args = \{ encoder"):
        create_detector("fcos", {"num_classes": 3})
    with pytest.raises(UsageError, match="multiple of 32 from 64 on; got 48"):
        create_detector("fcos", SMALL | {"width": 48})
