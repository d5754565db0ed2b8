"""Loss terms against hand-made values, and the networks that they use."""

import math

import pytest
import torch
from torch import nn

from srbench.errors import UsageError
from srbench.method import Batch, Method, MethodInfo
from srbench.protocol import Restoration
from srbench.restore import restore
from srbench.task_types import task_type
from srbench.task_types.classification import ce
from srbench.training import losses
from srbench.training.features import FeatureExtractor
from srbench.training.networks import Discriminator, frozen

torch.set_num_threads(1)


class TwoStages(nn.Module):
    """A classifier of two stages on [0, 1] images."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, classes)
        self.passes = 0

    def forward(self, image):
        self.passes += 1
        return self.head(self.deep(self.stem(image).relu()).relu().mean(dim=(2, 3)))


def make_batch(labels=True, teacher=True, size=(16, 16)):
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(3, 3, *size, generator=generator)
    return Batch(
        lr=hr[..., ::2, ::2],
        hr=hr,
        label=torch.tensor([0, 1, 3]) if labels else None,
        teacher_logits=torch.randn(3, 4, generator=generator) if teacher else None,
        sr_size=size,
    )


def test_pixel_terms_equal_hand_made_values():
    hr = torch.zeros(2, 3, 4, 4)
    sr = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert losses.l1(sr, hr).item() == pytest.approx(0.055)
    assert losses.l2(sr, hr).item() == pytest.approx((0.01 + 0.0001) / 2)
    assert losses.psnr(sr, hr).item() == pytest.approx(-(20 + 40) / 2), "a mean of per-image PSNR, not of pooled MSE"
    assert math.isfinite(losses.psnr(hr, hr).item())
    with pytest.raises(UsageError, match=r"\(2, 3, 4, 4\).*\(2, 3, 8, 8\)"):
        losses.l1(sr, torch.zeros(2, 3, 8, 8))


def test_logits_and_ce_equal_hand_made_values():
    assert losses.logits(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).item() == pytest.approx(2.5)
    scores = torch.tensor([[2.0, 0.0, 0.0]])
    log_p = torch.log_softmax(scores, dim=1)[0]
    smoothed = -(0.9 * log_p[0] + 0.1 * log_p.mean())
    assert ce(scores, torch.tensor([0]), smoothing=0.1).item() == pytest.approx(smoothed.item())


def test_earth_movers_distance_counts_how_far_the_mass_moves():
    sure = torch.tensor([[50.0, 0.0, 0.0, 0.0]])

    def to(position):
        return losses.emd(sure, nn.functional.one_hot(torch.tensor([position]), 4).float()).item()

    assert to(0) == pytest.approx(0, abs=1e-5)
    assert to(1) == pytest.approx(math.sqrt(1 / 4), abs=1e-5)
    assert to(3) == pytest.approx(math.sqrt(3 / 4), abs=1e-5)


def test_relativistic_losses_are_log_two_where_scores_tell_nothing_and_pull_apart_otherwise():
    same = torch.zeros(4, 1)
    assert losses.discriminator(same, same).item() == pytest.approx(math.log(2))
    assert losses.adversarial(same, same).item() == pytest.approx(math.log(2))
    real, fake = torch.full((4, 1), 3.0), torch.full((4, 1), -3.0)
    assert losses.discriminator(real, fake) < 0.01 < losses.adversarial(real, fake)
    fake.requires_grad_(True)
    losses.adversarial(real, fake).backward()
    assert (fake.grad < 0).all(), "descent raises the score of SR"


def test_kl_equals_a_hand_made_value_and_knows_no_offset():
    student, teacher = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[math.log(3), 0.0], [5.0, 5.0]])
    of_first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert losses.kl(student, teacher).item() == pytest.approx(of_first / 2)
    assert losses.kl(teacher + 7, teacher).item() == pytest.approx(0, abs=1e-6)
    a_map = [each[:, :, None, None].expand(2, 2, 3, 5) for each in (student, teacher)]
    assert losses.kl(*a_map).item() == pytest.approx(of_first / 2), "a mean over pixels too"


@pytest.mark.parametrize("name", ["logits", "ce", "emd", "kl", "features", "perceptual", "stages", "l1", "l2", "psnr"])
def test_every_term_has_a_finite_gradient_on_sr(name):
    network, batch = TwoStages(), make_batch()
    sr = batch.hr.mul(0.9).add(0.05).requires_grad_(True)
    extractor = FeatureExtractor(network, stages=name == "stages")
    found = losses.terms({name}, sr, batch, network=network, extractor=extractor)
    assert list(found) == [name] and found[name].ndim == 0
    found[name].backward()
    assert torch.isfinite(sr.grad).all() and sr.grad.abs().sum() > 0


def test_terms_of_one_classifier_take_one_pass_over_sr_and_one_over_hr():
    network, batch = TwoStages(), make_batch()
    extractor = FeatureExtractor(network, stages=True)
    network.passes = 0
    wanted = {"logits", "ce", "features", "stages"}
    found = losses.terms(wanted, batch.hr, batch, network=network, extractor=extractor)
    assert set(found) == wanted and network.passes == 2
    expected = losses.logits(network(batch.hr), batch.teacher_logits)
    assert found["logits"].item() == pytest.approx(expected.item())


def test_logits_come_from_the_network_even_if_the_features_are_anothers():
    network, other, batch = TwoStages(), TwoStages(), make_batch()
    found = losses.terms({"ce", "features"}, batch.hr, batch, network=network, extractor=FeatureExtractor(other))
    assert found["ce"].item() == pytest.approx(ce(network(batch.hr), batch.label).item())


@pytest.mark.parametrize(
    ("name", "batch", "words"),
    [
        ("ce", make_batch(labels=False), "labels; use labelled data"),
        ("logits", make_batch(teacher=False), "teacher's logits"),
        ("kl", make_batch(teacher=False), "teacher's logits"),
    ],
)
def test_terms_say_what_they_lack(name, batch, words):
    with pytest.raises(UsageError, match=words):
        losses.terms({name}, batch.hr, batch, network=TwoStages())
    with pytest.raises(UsageError, match="--classifier"):
        losses.terms({"logits"}, batch.hr, batch)
    with pytest.raises(UsageError, match="--classifier"):
        losses.terms({"features"}, batch.hr, batch, network=TwoStages())


def test_a_detector_has_no_scores_of_classes_to_hold_against_each_other():
    for name in ("kl", "emd"):
        assert "use 'logits'" in losses.check_terms([name], task_type("detection"))
    assert not any(losses.check_terms(["kl"], task_type(each)) for each in ("classification", "segmentation", "iqa"))


def test_unit_scale_divides_by_the_first_size_and_leaves_zero_alone():
    scaler = losses.UnitScaler()
    first = {"logits": torch.tensor(20.0), "psnr": torch.tensor(-25.0), "zero": torch.tensor(0.0)}
    assert scaler.missing(first) == ["logits", "psnr", "zero"]
    scaler.measure({name: value.item() for name, value in first.items()})
    assert {name: scaler(name, value).item() for name, value in first.items()} == {"logits": 1, "psnr": -1, "zero": 0}
    scaler.measure({"logits": 999.0})
    assert scaler("logits", torch.tensor(10.0)).item() == 0.5, "a size is measured once"
    assert losses.UnitScaler(scaler.sizes).missing(first) == []


def test_auto_takes_the_last_large_feature_map_and_a_wrong_layer_is_named():
    network = TwoStages()
    extractor = FeatureExtractor(network)
    assert extractor.layer == "deep"
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(extractor(image), network.deep(network.stem(image).relu()))
    seen = extractor.see(image, logits=True)
    assert torch.equal(seen.logits, network(image)) and torch.equal(seen.features, extractor(image))
    assert seen.stages == () and extractor.see(image, logits=False).logits is None
    assert FeatureExtractor(network, "stem")(image).shape == (2, 6, 16, 16)
    with pytest.raises(UsageError, match="no layer 'steam'"):
        FeatureExtractor(network, "steam")


def test_stages_weigh_each_depth_by_the_variance_of_hr():
    hr = [torch.tensor([1.0, 3.0]), torch.tensor([[10.0, 30.0, 10.0, 30.0]])]
    sr = [torch.tensor([1.0, 4.0]), torch.tensor([[10.0, 30.0, 10.0, 10.0]])]
    assert losses.stages(sr, hr).item() == pytest.approx((0.5 / 2 + 100 / (400 / 3)) / 2)
    assert losses.stages(hr, hr).item() == 0 and math.isfinite(losses.stages(sr[:1], [torch.ones(2)]).item())


@pytest.mark.parametrize(
    ("library", "name", "stages"),
    [
        ("timm", "mobilenetv2_100", ("blocks.1", "blocks.2", "blocks.4", "bn2")),
        ("timm", "tf_efficientnet_lite0", ("blocks.1", "blocks.2", "blocks.4", "bn2")),
        ("timm", "resnet18", ("layer1", "layer2", "layer3", "layer4")),
        ("torchvision", "resnet18", ("layer1", "layer2", "layer3", "layer4")),
        ("torchvision", "squeezenet1_1", ("features.4", "features.7", "features")),
        ("timm", "vit_tiny_patch16_224", ("norm",)),
    ],
)
def test_stages_end_with_the_outermost_module_of_each_size(library, name, stages):
    import timm
    import torchvision

    torch.manual_seed(0)
    args = {"img_size": 64} if "vit" in name else {}
    network = timm.create_model(name, **args) if library == "timm" else torchvision.models.get_model(name)
    extractor = FeatureExtractor(network.eval(), stages=True)
    assert extractor.stages == stages
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    early, whole = extractor.see(image, logits=False), extractor.see(image, logits=True)
    assert all(torch.equal(one, other) for one, other in zip(early.stages, whole.stages, strict=True))
    assert losses.stages(whole.stages, [each.detach() + 1 for each in whole.stages]).item() > 0


@pytest.mark.parametrize("classes", [64, 512])
def test_a_stage_with_as_many_channels_as_there_are_classes_is_a_stage(classes):
    import timm

    network = timm.create_model("resnet18", num_classes=classes).eval()
    stages = FeatureExtractor(network, stages=True).stages
    assert stages[:3] == ("layer1", "layer2", "layer3") and stages[3].startswith("layer4")


def test_a_map_of_scores_is_no_stage_and_no_last_feature():
    dense = nn.Sequential(nn.Conv2d(3, 64, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(64, 5, 1))
    extractor = FeatureExtractor(dense, "last", stages=True)
    assert extractor.layer == "1" and extractor.stages == ("1",)


@pytest.mark.parametrize(("name", "dimensions"), [("resnet18", 4), ("vit_tiny_patch16_224", 3)])
def test_features_of_library_classifiers_and_a_probe_that_leaves_no_trace(name, dimensions):
    import timm

    network = timm.create_model(name, pretrained=False, num_classes=5).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}

    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network
            self.info = type("Info", (), {"input_size": 224 if dimensions == 3 else None})

        def forward(self, image):
            return self.network(image)

    extractor = FeatureExtractor(Sized())
    assert network.training and all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():
        assert extractor(torch.rand(1, 3, 224, 224)).ndim == dimensions


@pytest.mark.parametrize("per_patch", [False, True])
def test_the_discriminator_takes_any_size_and_freezing_it_lets_gradients_through(per_patch):
    discriminator = Discriminator(features=4, stages=3, per_patch=per_patch)
    for side in (17, 32):
        image = torch.rand(2, 3, side, side + 3, requires_grad=True)
        with frozen(discriminator):
            scores = discriminator(image)
        assert scores.shape[:2] == (2, 1)
        scores.sum().backward()
        assert image.grad.abs().sum() > 0
        assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())


def test_a_network_of_fixed_factor_is_brought_to_the_size_that_is_asked_for():
    class Doubler(Method):
        info = MethodInfo(role="network", family="test", version="1", factor=2)

        def forward(self, lr, size):
            return lr.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    batch = make_batch(size=(15, 16))
    sr = restore(Doubler(), batch.lr, batch.sr_size, restoration=Restoration(), numerics=None)
    assert sr.shape == (3, 3, 15, 16)
