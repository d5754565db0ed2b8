"""A batch that the memory does not hold is halved, nothing else changes, and the record says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import training_world
from dummies import evaluator, plugin
from record_factory import make_samples

from srbench.bench import bench
from srbench.compute.fake import fake_cuda
from srbench.compute.memory import BatchLimits, halved_until_it_fits
from srbench.errors import MemoryShortError
from srbench.networks.classifiers import Classifier
from srbench.records.cells import find_records, load_cell
from srbench.records.shards import LEAST, merged_sums, write_shard
from srbench.training.api import train

pytestmark = pytest.mark.usefixtures("workplace")

SIDE, PER_CLASS = 24, 12
N = 3 * PER_CLASS
CPU = torch.device("cpu")
# A method that a memory of so many images at once does not hold; it spoils its input first, as methods may.
LIMITED = (
    "resize(lr, size, 'area') if len(lr) <= {most} else"
    " (lr.zero_(), (_ for _ in ()).throw(__import__('torch').OutOfMemoryError('CUDA out of memory')))"
)


class Memory:
    """Stands for a device that holds so many images of a call."""

    def __init__(self, most: int) -> None:
        self.most, self.calls = most, []

    def __call__(self, batch):
        self.calls.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return 2 * batch


class TestLimits:
    def test_a_batch_is_halved_until_it_fits_and_the_next_is_not_tried(self, caplog):
        limits, memory, batch = BatchLimits(), Memory(3), torch.arange(10.0)
        parts = limits.parts("mine", memory, batch, device=CPU)
        torch.testing.assert_close(torch.cat(parts), 2 * batch)
        assert memory.calls == [10, 5, 3, 3, 3, 1]
        memory.calls.clear()
        limits.parts("mine", memory, batch, device=CPU)
        assert memory.calls == [3, 3, 3, 1]
        assert limits.smallest("mine", "other") == 3 and limits.smallest("other") is None
        assert caplog.messages == [
            "the memory does not hold mine with 10 images at once; it goes on with 5",
            "the memory does not hold mine with 5 images at once; it goes on with 3",
        ]

    def test_a_batch_that_fits_is_one_call(self):
        memory = Memory(10)
        (part,) = BatchLimits().parts("mine", memory, torch.arange(10.0), device=CPU)
        assert memory.calls == [10] and len(part) == 10

    def test_limits_belong_to_a_size(self):
        limits, memory = BatchLimits(), Memory(3)
        limits.parts("mine", memory, torch.zeros(4), device=CPU, size=(100, 100))
        memory.calls.clear()
        memory.most = 99
        limits.parts("mine", memory, torch.zeros(9), device=CPU, size=(10, 10))
        assert memory.calls == [9]

    def test_one_image_that_does_not_fit_is_a_sentence(self):
        with pytest.raises(MemoryShortError, match="does not hold mine with a single image of 40 x 30 pixels"):
            BatchLimits().parts("mine", Memory(0), torch.zeros(4), device=CPU, size=(30, 40))

    def test_other_errors_are_not_memory(self):
        def broken(batch):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        with pytest.raises(RuntimeError, match="mat1"):
            BatchLimits().parts("mine", broken, torch.zeros(4), device=CPU)

    def test_a_measurement_is_halved_too(self):
        memory = Memory(3)
        assert len(halved_until_it_fits(lambda count: memory(torch.zeros(count)), 16, CPU)) == 2
        assert memory.calls == [16, 8, 4, 2]

    def test_a_cuda_device_is_given_back_what_failed(self):
        limits, memory = BatchLimits(), Memory(2)
        with fake_cuda():
            parts = limits.parts("mine", memory, torch.rand(5, 3, 8, 8, device="cuda"), device=torch.device("cuda"))
            assert [tuple(part.shape) for part in parts] == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
            assert {part.device.type for part in parts} == {"cuda"}


def test_the_smallest_batch_of_all_shards_counts(tmp_path):
    for first, sums in ((0, {f"{LEAST}at_once": 4, "pass_s": 1.0}), (1, {"pass_s": 2.0}), (2, {f"{LEAST}at_once": 2})):
        frame = make_samples([0] * 3, [0] * 3, hr_preds=[0] * 3).iloc[[first]]
        write_shard(tmp_path, "hash", frame, sums={name: np.array(value) for name, value in sums.items()})
    merged = merged_sums(tmp_path, "hash")
    assert int(merged[f"{LEAST}at_once"]) == 2 and float(merged["pass_s"]) == 3.0


class TestEvaluation:
    @pytest.fixture
    def run(self, images, card, tmp_path):
        return evaluator(images, card, "half.toml", tmp_path / "out", measure=True, batch_size=16)

    def test_a_method_that_needs_much_is_scored_in_halves(self, run, tmp_path, caplog):
        free = plugin(tmp_path / "free", "mine", LIMITED.format(most=10**9))
        tight = plugin(tmp_path / "tight", "mine", LIMITED.format(most=3))
        whole = run("mine", "bilinear", plugins=[free], out="whole")
        halved = run("mine", "bilinear", plugins=[tight], out="halved")
        assert halved.failed == []
        assert (
            "the memory does not hold mine with 16 images of 12 x 12 pixels at once; it goes on with 8" in caplog.text
        )
        before, after = ({cell.record.cell.method: cell for cell in each.cells} for each in (whole, halved))
        for name in ("original", "bilinear", "mine"):
            pd.testing.assert_frame_equal(after[name].samples(), before[name].samples(), rtol=1e-4, atol=1e-5)
        timing = after["mine"].record.timing
        assert timing.pass_batch == 2 and timing.throughput_batch == 2
        assert after["bilinear"].record.timing.pass_batch is None
        assert before["mine"].record.timing.pass_batch is None
        assert load_cell(after["mine"].folder).record.timing == timing

    def test_a_classifier_that_needs_much_classifies_in_halves(self, run, monkeypatch):
        whole = run("bilinear", out="whole")
        forward = Classifier.forward

        def limited(self, image):
            if len(image) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, image)

        monkeypatch.setenv("SRBENCH_CACHE", "cold")
        monkeypatch.setattr(Classifier, "forward", limited)
        halved = run("bilinear", out="halved")
        assert halved.failed == []
        for one, other in zip(whole.cells, halved.cells, strict=True):
            if one.record.status == "ok":
                pd.testing.assert_frame_equal(other.samples(), one.samples(), rtol=1e-4, atol=1e-5)
                assert other.record.timing.pass_batch == 4

    def test_a_method_that_holds_no_image_is_one_record(self, run, tmp_path):
        none = plugin(tmp_path / "none", "mine", LIMITED.format(most=0))
        result = run("mine", "bilinear", plugins=[none])
        (failed,) = result.failed
        assert failed.reason == "the memory does not hold mine with a single image of 12 x 12 pixels"
        assert {cell.record.cell.method for cell in find_records(["out"])[0] if cell.record.status == "ok"} >= {
            "bilinear"
        }


def test_bench_says_which_batch_does_not_fit(tmp_path):
    tight = plugin(tmp_path / "tight", "mine", LIMITED.format(most=3))
    result = bench(["mine"], sizes=[(8, 8)], batch_sizes=[4], plugins=[tight], device="cpu", progress=False)
    reasons = {row.reason for row in result.failed}
    assert reasons == {"the memory does not hold 4 at once; give a smaller --batch-size"}
    assert {row.case.batch for row in result.rows if row.status == "ok"} == {1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with training_world.own_place(tmp_path_factory, count=40) as root:
        yield root


class TestTraining:
    def test_validation_is_halved_and_the_card_says_so(self, place, tmp_path, monkeypatch):
        monkeypatch.setenv("SRBENCH_WEIGHTS", str(place / "weights"))
        options = {
            "data": [f"folder:{place / 'photos'}"],
            "classifier": "tiny",
            "protocol": str(place / "half.toml"),
            "plugins": [place / "tiny_method.py"],
            "device": "cpu",
            "epochs": 1,
            "progress": False,
        }
        whole = train("tiny_method", out=tmp_path / "whole", **options)
        forward = Classifier.forward

        def limited(self, image):
            if len(image) > 1 and not image.requires_grad:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, image)

        monkeypatch.setattr(Classifier, "forward", limited)
        halved = train("tiny_method", out=tmp_path / "halved", **options)
        assert halved.metrics == pytest.approx(whole.metrics, rel=1e-4, abs=1e-5)
        assert "the memory did not hold the batches of the validation, which took 1 image at once" in halved.notes
        assert halved.weights.card.extra["validation_batch"] == 1
        assert "validation_batch" not in whole.weights.card.extra
