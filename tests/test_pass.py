"""What the pass does beside its numbers: nothing twice, and nothing in the loop that waits for the device."""

from __future__ import annotations

import weakref
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from dummies import evaluator, make_classifier, make_images, save_gain, trainable

from srbench.compute.numerics import Numerics
from srbench.evaluation import batches, hr_predictions, rows, scoring, task, thumbnails
from srbench.evaluation.options import CHUNK, PassSettings
from srbench.records.shards import merge_shards, write_shard
from srbench.records.thumbnails import THUMBNAILS_FILE
from srbench.task_types import BatchResult, classification

N, SIDE = 48, 24
WAITS = ("__bool__", "__float__", "__int__", "__index__", "item", "cpu", "numpy", "tolist", "nonzero")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, a classifier that knows them, and a protocol."""
    folder = tmp_path_factory.mktemp("place")
    make_images(folder / "photos", N // 3, side=SIDE)
    make_classifier(folder, side=SIDE)
    (folder / "half.toml").write_text("[lr]\nscale = 0.5\n")
    return folder


@pytest.fixture
def run(place, own_folders, tmp_path):
    return evaluator(place / "photos", place / "dummy.toml", place / "half.toml", tmp_path / "out")


@pytest.mark.parametrize("classes_with_scores", [50, 2], ids=["scores", "histograms"])
def test_more_batches_wait_for_the_device_no_more_often(run, tmp_path, monkeypatch, classes_with_scores):
    monkeypatch.setattr(classification, "MAX_SCORE_CLASSES", classes_with_scores)
    monkeypatch.setitem(thumbnails.PENDING_BYTES, "cpu", thumbnails.PENDING_BYTES["cuda"])  # as where waiting costs
    seen: Counter[str] = Counter()
    inside: list[bool] = []

    def counted(name, real):
        def call(*args, **kwargs):
            seen[name] += bool(inside)
            return real(*args, **kwargs)

        return call

    def run_pass(*args, **kwargs):
        inside.append(True)
        try:
            return scoring.run_pass(*args, **kwargs)
        finally:
            inside.clear()

    for name in WAITS:
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    monkeypatch.setattr(task, "run_pass", run_pass)
    found = {}
    for size in (24, 4):
        monkeypatch.setenv("SRBENCH_CACHE", str(tmp_path / f"cache{size}"))  # the originals are classified, too
        run("bicubic", "area", out=tmp_path / str(size), batch_size=size)
        found[size] = dict(seen)
        seen.clear()
    assert found[24] and found[4] == found[24]


def test_pixels_are_kept_as_the_pass_had_them_and_nothing_is_restored_twice(run, tmp_path, monkeypatch):
    save_gain(tmp_path / "mine.safetensors", 0.9)
    options = {"plugins": [trainable(tmp_path)], "weights": {"gain": [str(tmp_path / "mine.safetensors")]}}
    restored: list[str | None] = []

    images_of_one = task.images_of

    def images_of(loaded, *args):
        restored.append(loaded.name if loaded is not None else None)
        return images_of_one(loaded, *args)

    monkeypatch.setattr(task, "images_of", images_of)

    def kept():
        result = run("gain", **options)
        assert not result.failed
        return {cell.record.cell.method: cell for cell in result.cells if cell.record.status == "ok"}

    first = kept()
    assert not restored
    pixels = first["gain"].thumbnails()
    assert sorted(pixels) == sorted(first["original"].thumbnails()) and pixels
    (first["gain"].folder / THUMBNAILS_FILE).unlink()
    restored.clear()
    again = kept()["gain"].thumbnails()  # now from the images, one at a time
    assert set(restored) == {"gain"} and sorted(again) == sorted(pixels)
    for position, images in again.items():
        assert np.abs(images["sr"].astype(int) - pixels[position]["sr"]).max() <= 1


def test_a_batch_is_let_go_before_the_next_one_is_made(run, monkeypatch):
    made, before, alive = batches.make_batch, [], []

    def make_batch(*args, **kwargs):
        alive.append(sum(each() is not None for each in before))
        batch = made(*args, **kwargs)
        before.append(weakref.ref(batch))
        return batch

    monkeypatch.setattr(batches, "make_batch", make_batch)
    run("bicubic", "area", batch_size=5)
    assert len(alive) >= N // 5 and not any(alive)


def test_lists_of_a_batch_are_kept_in_one_tensor_a_column(tmp_path):
    lists = [torch.arange(length, dtype=torch.int32) for length in (2, 0, 3)]
    given = [weakref.ref(each) for each in lists]
    positions = np.array([2, 0, 1])
    batch = batches.Batch(positions, torch.from_numpy(positions), ["c", "a", "b"], None, None, (8, 8), None)
    result = BatchResult({"box_labels": lists, "confusion": torch.eye(3, dtype=torch.int32)})
    kept = rows.CellRows()
    kept.add(batch, {}, result, watches=(), finite=())
    del lists, result
    assert not any(each() is not None for each in given), "small tensors would lie between those of the next batches"
    kept.write(tmp_path, "0" * 16)
    frame = merge_shards(tmp_path, "0" * 16, range(3))
    assert [each.tolist() for each in frame["box_labels"]] == [[], [0, 1, 2], [0, 1]]
    assert [each.tolist() for each in frame["confusion"]] == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_what_is_found_on_hr_is_kept_in_one_tensor_a_name():
    parts = [{"boxes": torch.rand(count, 4), "labels": torch.arange(count)} for count in (2, 0, 3)]
    joined = hr_predictions._joined(parts)
    assert len({part["boxes"].untyped_storage().data_ptr() for part in joined}) == 1
    for given, kept in zip(parts, joined, strict=True):
        assert given.keys() == kept.keys() and all(torch.equal(given[name], kept[name]) for name in given)


@pytest.mark.parametrize("budget", [1, 4 * 3 * SIDE * SIDE * 20])
def test_the_same_pixels_are_kept_however_many_images_may_wait(run, tmp_path, monkeypatch, budget):
    def kept(out):
        result = run("bicubic", "area", out=tmp_path / out, batch_size=5)
        return {cell.record.cell.method: cell.thumbnails() for cell in result.cells if cell.record.status == "ok"}

    usual = kept("usual")
    monkeypatch.setitem(thumbnails.PENDING_BYTES, "cpu", budget)
    monkeypatch.setattr(task, "images_of", None)  # nothing is restored once more
    other = kept("other")
    assert usual["bicubic"] and [{*images} for images in other.values()] == [{*images} for images in usual.values()]
    for method, images in usual.items():
        for position, named in images.items():
            assert all((other[method][position][name] == pixels).all() for name, pixels in named.items())


def test_pixels_are_kept_also_where_the_pass_did_not_see_all_rows(run, tmp_path, monkeypatch):
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 16)
    save_gain(tmp_path / "mine.safetensors", 0.9)
    options = {"plugins": [trainable(tmp_path)], "weights": {"gain": [str(tmp_path / "mine.safetensors")]}}
    real, written = write_shard, []

    def stop(folder, *args, **kwargs):
        if folder.name.startswith("gain"):
            if written:
                raise KeyboardInterrupt
            written.append(folder)
        return real(folder, *args, **kwargs)

    monkeypatch.setattr(rows, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        run("gain", **options)
    monkeypatch.setattr(rows, "write_shard", real)
    result = run("gain", **options)
    assert result.counters.restored["gain@mine"] == N - 16
    cells = {cell.record.cell.method: cell for cell in result.cells if cell.record.status == "ok"}
    assert sorted(cells["gain"].thumbnails()) == sorted(cells["original"].thumbnails())
    assert cells["gain"].samples()["position"].tolist() == list(range(N))


@pytest.mark.parametrize(
    ("device", "side", "images", "answers"),
    [
        ("cpu", 256, 8, "scores"),
        ("cpu", 128, 32, "scores"),
        ("cpu", 32, CHUNK, "scores"),
        ("cpu", 2048, 1, "scores"),
        ("cuda", 256, 128, "scores"),
        ("cpu", 96, 14, "map"),
        ("cpu", 480, 1, "boxes"),
        ("cuda", 256, 128, "map"),
    ],
)
def test_a_batch_holds_as_many_pixels_whatever_the_size_of_the_images(device, side, images, answers):
    settings = PassSettings(torch.device(device), Numerics(device), None, seed=0, answers=answers)
    assert settings.images_a_batch(side, side) == images
    assert PassSettings(torch.device(device), Numerics(device), 5, seed=0).images_a_batch(side, side) == 5


@pytest.mark.gpu
def test_pass_on_a_gpu_finds_what_the_cpu_finds(run, tmp_path):
    frames = [
        run("bicubic", "area", device=device, out=tmp_path / device).samples.set_index(["method", "sample_id"])
        for device in ("cpu", "cuda")
    ]
    pd.testing.assert_series_equal(frames[0]["pred"], frames[1]["pred"])
    for column in ("psnr", "ssim", "cross_entropy"):
        pd.testing.assert_series_equal(frames[0][column], frames[1][column], rtol=1e-3, atol=1e-3)
