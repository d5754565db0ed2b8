"""What runs on a device runs on a GPU: on a CUDA device that is not there, mixing devices raises.

Methods and their training are held to this by `tests/test_conformance.py`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from srbench import metrics
from srbench.compute.fake import ValuesNeededError, fake_cuda
from srbench.compute.numerics import Numerics
from srbench.imaging.degrade import degrade, for_classifier, for_metric, round_8bit
from srbench.imaging.draws import Draws
from srbench.imaging.resample import gaussian_blur, resize, to_uint8
from srbench.networks.classifiers import Classifier, ClassifierInfo
from srbench.protocol import Degradation, load_protocol, preset_names
from srbench.registry import Registry
from srbench.restore import is_finite, restore
from srbench.task_types import OutputMap, task_type, task_type_names

METHODS = Registry().working()
N = 4


def images(height=32, width=40, *, channels=3):
    """Return images on the CUDA device that is not there."""
    return torch.rand(N, channels, height, width, device="cuda")


@pytest.fixture
def autocast_without_gpu(monkeypatch):
    """Let autocast believe in the GPU; it switches itself off otherwise."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


class TestTheDevice:
    def test_devices_that_mix_raise(self):
        with pytest.raises(RuntimeError, match="device"), fake_cuda():
            images() + torch.zeros(N, 1, 1, 1)

    def test_a_tensor_from_outside_is_on_the_cpu(self):
        outside = torch.zeros(40)
        with pytest.raises(RuntimeError, match="device"), fake_cuda():
            images() + outside

    @pytest.mark.parametrize("look", [torch.Tensor.item, float, bool, lambda value: value.cpu().numpy()])
    def test_a_value_is_not_to_be_had(self, look):
        with pytest.raises(ValuesNeededError, match="needs values"), fake_cuda():
            look(images().mean())

    def test_modules_go_there(self):
        layer = nn.Conv2d(3, 4, 3)
        with fake_cuda():
            layer.to("cuda")
            assert layer(images()).device.type == "cuda"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("protocol", ["clean", "sr-classic", "darionet-2021"])  # they return to size in other ways
def test_every_method_restores_there(name, protocol):
    if name == "bicubic_pillow":
        pytest.skip("Pillow resizes on the CPU, whose values are not there")
    method, fields = METHODS[name](**METHODS[name].tiny).eval(), load_protocol(protocol)
    method.prepare(fields)
    with fake_cuda():
        method.to("cuda")
        lr = images(13, 18, channels=method.info.channels)
        with torch.inference_mode():
            sr = restore(method, lr, (41, 57), restoration=fields.sr, numerics=Numerics("cuda"))
            assert sr.device.type == "cuda" and sr.dtype == torch.float32
            assert sr.shape[-2:] == ((13, 18) if method.info.output == "lr" else (41, 57))
            for image in (for_classifier(sr, fields), for_metric(sr, fields), to_uint8(sr), is_finite(sr)):
                assert image.device.type == "cuda"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_restores_there_in_bf16(name, autocast_without_gpu):
    if name == "bicubic_pillow":
        pytest.skip("Pillow resizes on the CPU, whose values are not there")
    method = METHODS[name](**METHODS[name].tiny).eval()
    learned = any(isinstance(module, nn.Conv2d) for module in method.modules())
    seen = []
    for module in method.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with fake_cuda():
        method.to("cuda")
        lr = images(13, 18, channels=method.info.channels)
        with torch.inference_mode():
            numerics = Numerics("cuda", "bf16")
            sr = restore(method, lr, (41, 57), restoration=load_protocol("clean").sr, numerics=numerics)
    assert sr.device.type == "cuda" and sr.dtype == torch.float32
    assert set(seen) == ({torch.bfloat16} if learned else set())


class TestDegradation:
    @pytest.mark.parametrize("kernel", ["nearest", "area", "bilinear", "bicubic", "lanczos"])
    @pytest.mark.parametrize("border", ["clamp", "symmetric"])
    def test_resizing(self, kernel, border):
        with fake_cuda():
            for size in ((16, 20), (64, 80), (9, 11)):
                out = resize(images(), size, kernel, border=border)
                assert out.device.type == "cuda" and out.shape[-2:] == size

    @pytest.mark.parametrize("ids", [None, [f"image{number}" for number in range(N)]])
    @pytest.mark.parametrize("grey", [False, True])
    def test_blur_and_noise(self, ids, grey):
        degradation = Degradation(scale=0.5, blur_sigma=1.5, noise_sigma=0.05)
        with fake_cuda():
            lr = degrade(images(), degradation, sample_ids=ids, grey=grey)
            assert lr.device.type == "cuda" and lr.shape == (N, 3, 16, 20)
            assert gaussian_blur(images().bfloat16(), 1.0).dtype == torch.bfloat16

    def test_parameters_are_drawn_as_without_the_device(self):
        drawn = Draws("image", 1).uniform(0, 1)
        with fake_cuda():
            assert Draws("image", 1).uniform(0, 1) == drawn

    def test_jpeg_is_coded_on_the_cpu(self):
        with pytest.raises(ValuesNeededError), fake_cuda():
            degrade(images(), Degradation(scale=0.5, jpeg_quality=75))

    @pytest.mark.parametrize("name", preset_names())
    def test_every_preset(self, name):
        degradation, ids = load_protocol(name).lr, [str(number) for number in range(N)]
        if degradation.encoding is not None or degradation.orders is not None:
            with pytest.raises(ValuesNeededError), fake_cuda():  # it passes through a codec, which runs on the CPU
                degrade(images(256, 320), degradation, sample_ids=ids)
        if degradation.orders is not None:
            return  # its second half begins with what the codec made
        with fake_cuda():
            bare = dataclasses.replace(degradation, codec=None, quality=None, jpeg_quality=None)
            lr = degrade(images(256, 320), bare, sample_ids=ids)
            assert lr.device.type == "cuda"


class TestMetrics:
    @pytest.mark.parametrize("channels", ["rgb", "y"])
    @pytest.mark.parametrize("crop_border", [0, 4])
    def test_images(self, channels, crop_border):
        with fake_cuda():
            hr, sr = images(), round_8bit(images())
            statistics = metrics.HrStatistics(hr, channels=channels, crop_border=crop_border)
            mse = statistics.mse(sr)
            for values in (mse, metrics.psnr_from_mse(mse), statistics.ssim(sr)):
                assert values.device.type == "cuda" and values.shape == (N,)

    def test_labels(self):
        with fake_cuda():
            logits, hr_logits = torch.rand(2, N, 20, device="cuda").unbind()
            label = torch.arange(N, device="cuda")
            for values in (
                metrics.cross_entropy(logits, label),
                metrics.topk_hit(logits, label),
                metrics.confidence(logits),
                metrics.logit_mse(logits, hr_logits),
                metrics.kl_to_hr(logits, hr_logits),
            ):
                assert values.device.type == "cuda" and values.shape == (N,)


def answers_and_targets(name, outputs):
    """Return a network's answers on N images, and what data of a task type say, on the device."""
    if name == "segmentation":
        return torch.rand(N, outputs, 16, 24, device="cuda"), torch.full((N, 16, 24), -1, device="cuda")
    scores = torch.rand(N, outputs, device="cuda")
    if name == "iqa":
        return scores, torch.rand(N, outputs, device="cuda").softmax(1)
    assert name == "classification", "say here what the answers and the data of a new task type are like"
    return scores, torch.arange(N, device="cuda")


@pytest.mark.parametrize("name", task_type_names())
@pytest.mark.parametrize("outputs", [10, 60])
@pytest.mark.parametrize("labelled", [True, False])
def test_every_task_type_computes_its_columns_there(name, outputs, labelled):
    if name == "iqa" and outputs != 10:
        pytest.skip("there are ten ratings")
    if name == "detection":
        pytest.skip("boxes are matched on the CPU by their values, and simulated tensors have none")
    kind = task_type(name)
    maps = [OutputMap(outputs), OutputMap(outputs, present=np.arange(0, outputs, 2))]
    with fake_cuda():
        (scores, target), (hr_scores, _) = (answers_and_targets(name, outputs) for _ in range(2))
        target = target if labelled else None
        size = (scores.shape[-2], scores.shape[-1])
        for answers in maps if name == "classification" else maps[:1]:
            found, on_hr = (kind.prediction(each, seen=size, size=size) for each in (scores, hr_scores))
            result = kind.columns(found, on_hr, target, answers)
            stored = [result.scores] if result.scores is not None else []
            for values in (*result.columns.values(), *result.sums.values(), *stored):
                assert values.device.type == "cuda"
            if target is not None:
                for values in kind.figures(scores, target, answers).values():
                    assert values.device.type == "cuda" and values.shape == (N,)


def test_boxes_are_brought_to_hr_there():
    found = {"boxes": torch.rand(5, 4), "scores": torch.rand(5), "labels": torch.arange(5)}
    with fake_cuda():
        output = [{name: values.to("cuda") for name, values in found.items()}]
        (brought,) = task_type("detection").prediction(output, seen=(8, 8), size=(16, 32))
        assert brought["boxes"].device.type == "cuda" and brought["boxes"].shape == (5, 4)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_classifier_normalises_there(in_chans):
    info = ClassifierInfo("x", "timm", "x", {}, "", (0.25,) * in_chans, (0.5,) * in_chans, None, in_chans, None, 2)
    network = Classifier(info, nn.Sequential(nn.Conv2d(in_chans, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with fake_cuda():
        network.to("cuda")
        assert network(images()).device.type == "cuda"
