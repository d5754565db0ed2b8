"""The HR cache: what it holds, what it decodes, and what a kill, a full disk or a second process leave of it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from srbench.data import content, hr_chunks
from srbench.data import hr_cache as cache
from srbench.data.catalogue import open_source
from srbench.data.geometry import crop_hr
from srbench.data.hr_cache import build_hr_store
from srbench.data.source import Sample, Source
from srbench.errors import SrbenchError, TooManyUnreadableError, UnreadableImageError, UsageError
from srbench.protocol import Geometry

SQUARE = Geometry(resize=12, crop=12)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SRBENCH_CACHE", str(folder))
    monkeypatch.setattr(cache, "_CHUNK", 8)
    return folder


class Made(Source):
    """Images made of their number; counts how often it is read."""

    name, spec, split, classes = "made", "made", "all", ("even", "odd")

    def __init__(self, count: int, *, bad: Sequence[int] = (), sizes: Sequence[tuple[int, int]] = ((16, 20),)):
        self.samples = tuple(Sample(f"{index:05d}.png", index % 2) for index in range(count))
        self.bad, self.sizes = set(bad), sizes
        self.depends_on = [(100, 1)] * count
        self.reads = 0
        self.cause: Exception | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> Tensor:
        with self._lock:
            self.reads += 1
        if index in self.bad:
            raise UnreadableImageError(f"{self.samples[index].id} is broken") from self.cause
        generator = torch.Generator().manual_seed(index)
        size = self.sizes[index % len(self.sizes)]
        return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [self.depends_on[index] for index in indices]


class MadePairs(Made):
    """Pairs by a factor of 2."""

    paired = True

    def read_lr(self, index: int) -> Tensor:
        return self.read(index)[:, ::2, ::2]


def parts(folder: Path) -> list[Path]:
    return [path for path in (folder / "hr").rglob("*") if path.is_file() and path.suffix != ".hr"]


def test_pixels_labels_and_sizes():
    source = Made(21)
    store = build_hr_store(source, SQUARE)
    assert len(store) == store.decoded == source.reads == 21
    assert store.samples == source.samples
    assert store.labels.dtype == np.int64
    assert store.labels.tolist() == [index % 2 for index in range(21)]
    assert store.shapes.tolist() == [[12, 12]] * 21
    assert store.source_shapes.tolist() == [[16, 20]] * 21
    assert store.unreadable == ()
    assert store.decode_seconds > 0
    order = [20, 3, 8, 7, 0]
    expected = torch.stack([crop_hr(source.read(index), SQUARE) for index in order])
    assert torch.equal(store.batch(order), expected)
    assert torch.equal(store.batch(np.array(order)), expected)
    assert store.lr_batch(order) is None
    assert store.lr_shapes is None


def test_a_second_run_decodes_nothing():
    first = build_hr_store(Made(21), SQUARE)
    again = Made(21)
    seen: list[int] = []
    store = build_hr_store(again, SQUARE, advance=seen.append)
    assert again.reads == store.decoded == 0
    assert sum(seen) == 21
    assert store.key == first.key
    assert store.decode_seconds == first.decode_seconds
    assert torch.equal(store.batch(range(21)), first.batch(range(21)))


def test_progress_counts_every_image():
    seen: list[int] = []
    build_hr_store(Made(21), SQUARE, advance=seen.append)
    assert seen == [1] * 21


def test_the_key_follows_what_the_pixels_depend_on():
    keys = [build_hr_store(Made(9), SQUARE).key, build_hr_store(Made(10), SQUARE).key]
    keys += [
        build_hr_store(Made(9), geometry).key for geometry in (Geometry(12, 11), Geometry(12, 12, engine="pillow"))
    ]
    touched = Made(9)
    touched.depends_on[4] = (100, 2)
    other_split = Made(9)
    other_split.split = "val"
    keys += [build_hr_store(touched, SQUARE).key, build_hr_store(other_split, SQUARE).key]
    assert touched.reads == 9
    assert len(set(keys)) == len(keys)


def test_a_changed_file_is_decoded_anew(tmp_path):
    def write(shade: int, when: int) -> None:
        Image.new("RGB", (12, 12), (shade, 0, 0)).save(tmp_path / "photos" / "a.png")
        os.utime(tmp_path / "photos" / "a.png", ns=(when, when))

    (tmp_path / "photos").mkdir()
    write(10, 10**18)
    assert build_hr_store(open_source(f"images:{tmp_path / 'photos'}"), SQUARE).batch([0])[0, 0, 0, 0] == 10
    write(20, 2 * 10**18)
    assert build_hr_store(open_source(f"images:{tmp_path / 'photos'}"), SQUARE).batch([0])[0, 0, 0, 0] == 20


class TestContent:
    """The key knows what files hold, not where they lie or when they were written."""

    @staticmethod
    def write(folder: Path, shade: int) -> Path:
        folder.mkdir(parents=True)
        for index in range(3):
            file = folder / f"{index}.png"
            Image.new("RGB", (12, 12), (shade + index, 0, 0)).save(file)
            os.utime(file, ns=(10**18, 10**18))
        return folder

    def test_equal_names_sizes_and_times_are_other_data(self, tmp_path):
        first, second = (self.write(tmp_path / version / "photos", shade) for version, shade in (("1", 50), ("2", 60)))
        facts = [[(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(folder.iterdir())]
                 for folder in (first, second)]  # fmt: skip
        assert facts[0] == facts[1]
        hashes: list[str] = []
        for folder, shade in ((first, 50), (second, 60)):
            store = build_hr_store(open_source(f"images:{folder}"), SQUARE)
            assert store.decoded == 3 and store.batch([0])[0, 0, 0, 0] == shade
            hashes.append(store.samples_sha256)
            assert build_hr_store(open_source(f"images:{folder}"), Geometry(8, 8)).samples_sha256 == hashes[-1]
            assert store.subset(2).samples_sha256 != hashes[-1]
        assert hashes[0] != hashes[1]

    def test_a_file_replaced_in_place_with_its_size_and_time_is_other_data(self, tmp_path):
        folder = self.write(tmp_path / "photos", 50)
        build_hr_store(open_source(f"images:{folder}"), SQUARE)
        with (folder / "0.png").open("r+b") as file:  # the inode stays too
            file.write((folder / "2.png").read_bytes())
        os.utime(folder / "0.png", ns=(10**18, 10**18))
        store = build_hr_store(open_source(f"images:{folder}"), SQUARE)
        assert store.batch([0])[0, 0, 0, 0] == 52

    def test_a_copy_elsewhere_decodes_nothing(self, tmp_path):
        first = self.write(tmp_path / "1" / "photos", 50)
        decoded = build_hr_store(open_source(f"images:{first}"), SQUARE)
        shutil.copytree(first, tmp_path / "node" / "photos", copy_function=shutil.copyfile)
        copy = build_hr_store(open_source(f"images:{tmp_path / 'node' / 'photos'}"), SQUARE)
        assert copy.decoded == 0 and copy.key == decoded.key and copy.decode_seconds == decoded.decode_seconds

    def test_a_file_is_hashed_once(self, tmp_path, monkeypatch):
        folder = self.write(tmp_path / "photos", 50)
        monkeypatch.setattr(content, "_FRESH_NS", 0)
        hashed = []
        hash_file = content._hash
        monkeypatch.setattr(content, "_hash", lambda path: hashed.append(path.name) or hash_file(path))
        files = sorted(folder.iterdir())
        first = content.content_hashes(folder, files[:2])
        last = content.content_hashes(folder, files[2:])
        assert content.content_hashes(folder, files) == first + last
        assert sorted(hashed) == ["0.png", "1.png", "2.png"]
        assert content.content_hashes(folder, []) == []

    def test_a_file_written_just_now_is_not_remembered(self, tmp_path, cache_folder):
        folder = self.write(tmp_path / "photos", 50)
        content.content_hashes(folder, folder.iterdir())
        assert not list((cache_folder / "content").glob("*"))

    @pytest.mark.parametrize("damage", [b"", b"x" * 47, b"\x00" * 480])
    def test_a_torn_memory_is_made_again(self, tmp_path, monkeypatch, cache_folder, damage):
        monkeypatch.setattr(content, "_FRESH_NS", 0)
        folder = self.write(tmp_path / "photos", 50)
        files = sorted(folder.iterdir())
        before = content.content_hashes(folder, files)
        (memory,) = (cache_folder / "content").iterdir()
        whole = memory.read_bytes()
        memory.write_bytes(damage)
        assert content.content_hashes(folder, files) == before
        assert memory.read_bytes()[-len(whole) :] == whole

    def test_a_cache_that_cannot_be_written_costs_time_alone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(content, "_FRESH_NS", 0)
        folder = self.write(tmp_path / "photos", 50)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SRBENCH_CACHE", str(tmp_path / "file"))
        assert len(set(content.content_hashes(folder, folder.iterdir()))) == 3


def test_variable_sizes_go_by_shape():
    source = Made(20, sizes=[(9, 13), (16, 20), (9, 13)])
    store = build_hr_store(source, Geometry(modulo=4))
    assert {tuple(shape) for shape in store.shapes.tolist()} == {(8, 12), (16, 20)}
    assert store.source_shapes[0].tolist() == [9, 13]
    groups = store.groups(range(20), 4)
    assert sorted(np.concatenate(groups).tolist()) == list(range(20))
    assert [len(group) for group in groups] == [4, 4, 4, 1, 4, 3]
    assert groups[0].tolist() == [0, 2, 3, 5]
    assert groups[4].tolist() == [1, 4, 7, 10]
    for group in groups:
        for position, image in zip(group, store.batch(group), strict=True):
            assert torch.equal(image, crop_hr(source.read(int(position)), Geometry(modulo=4)))
    with pytest.raises(ValueError, match=r"one shape.*groups"):
        store.batch([0, 1])


def test_a_batch_size_may_depend_on_the_shape():
    source = Made(20, sizes=[(9, 13), (16, 20), (9, 13)])
    store = build_hr_store(source, Geometry(modulo=4))
    groups = store.groups(range(20), lambda height, width: {(8, 12): 10, (16, 20): 2}[height, width])
    assert [len(group) for group in groups] == [10, 3, 2, 2, 2, 1]


def test_groups_of_equal_images_are_consecutive():
    store = build_hr_store(Made(21), SQUARE)
    groups = store.groups(np.arange(2, 21), 8)
    assert [group.tolist() for group in groups] == [[*range(2, 10)], [*range(10, 18)], [18, 19, 20]]
    assert store.groups([], 8) == []
    with pytest.raises(ValueError, match="at least 1"):
        store.groups([0], 0)


def test_pairs_keep_their_size_whatever_the_geometry():
    source = MadePairs(10, sizes=[(8, 12), (8, 12), (4, 4)])
    store = build_hr_store(source, SQUARE)
    assert store.geometry == Geometry()
    assert store.lr_shapes.tolist()[:3] == [[4, 6], [4, 6], [2, 2]]
    for group in store.groups(range(10), 3):
        expected = [source.read(int(position)) for position in group]
        assert torch.equal(store.batch(group), torch.stack(expected))
        assert torch.equal(store.lr_batch(group), torch.stack([image[:, ::2, ::2] for image in expected]))


def test_unlabelled(tmp_path):
    source = Made(3)
    source.classes = None
    source.samples = tuple(Sample(sample.id) for sample in source.samples)
    assert build_hr_store(source, SQUARE).labels is None


def test_limit_is_a_fixed_draw():
    limited = build_hr_store(Made(100), SQUARE, limit=10)
    ids = [sample.id for sample in limited.samples]
    assert len(ids) == 10
    assert ids == sorted(ids)
    assert ids != [sample.id for sample in Made(100).samples[:10]]
    more = build_hr_store(Made(100), SQUARE, limit=30)
    assert set(ids) <= {sample.id for sample in more.samples}
    assert torch.equal(limited.batch([4])[0], crop_hr(Made(100).read(int(ids[4][:5])), SQUARE))
    assert len(build_hr_store(Made(100), SQUARE, limit=1000)) == 100
    with pytest.raises(UsageError, match="at least 1"):
        build_hr_store(Made(100), SQUARE, limit=0)


def test_subset():
    store = build_hr_store(Made(21), SQUARE)
    head = store.subset(5)
    assert head.samples == store.samples[:5]
    assert head.labels.tolist() == store.labels[:5].tolist()
    assert torch.equal(head.batch(range(5)), store.batch(range(5)))
    assert head.key != store.key
    assert head.decode_seconds == pytest.approx(store.decode_seconds * 5 / 21)
    assert store.subset(21) is store
    with pytest.raises(IndexError):
        head.batch([5])


def test_a_store_travels_to_another_process():
    store = build_hr_store(Made(21), SQUARE)
    pixels = store.batch([0, 20])
    assert torch.equal(pickle.loads(pickle.dumps(store)).batch([0, 20]), pixels)


def test_few_files_are_open_at_once(monkeypatch):
    monkeypatch.setattr(cache, "_CHUNK", 1)
    monkeypatch.setattr(hr_chunks, "_OPEN_MAPS", 3)
    source = Made(12)
    store = build_hr_store(source, SQUARE)
    assert torch.equal(store.batch(range(12))[5], crop_hr(source.read(5), SQUARE))
    assert len(store._maps._open) == 3


class TestUnreadable:
    def test_named_left_out_and_remembered(self):
        for reads in (200, 0):
            source = Made(200, bad=[7, 150])
            store = build_hr_store(source, SQUARE)
            assert source.reads == reads
            assert store.unreadable == (("00007.png", "00007.png is broken"), ("00150.png", "00150.png is broken"))
            assert len(store) == 198
            assert "00007.png" not in {sample.id for sample in store.samples}
            assert store.labels[7] == 0  # sample 8 has moved up
            assert torch.equal(store.batch([7, 197])[1], crop_hr(source.read(199), SQUARE))

    def test_more_than_one_percent_fails(self):
        with pytest.raises(TooManyUnreadableError) as caught:
            build_hr_store(Made(300, bad=range(100, 109)), SQUARE)
        message = str(caught.value)
        assert message.startswith("9 of 300 images of made")
        assert "00100.png is broken" in message
        assert "00104.png" in message
        assert "00105.png" not in message
        assert "and 4 more" in message
        assert caught.value.exit_code == 1

    def test_one_of_one(self):
        with pytest.raises(TooManyUnreadableError, match="1 of 1 images"):
            build_hr_store(Made(1, bad=[0]), SQUARE)

    def test_too_small_for_the_crop_counts(self):
        source = Made(100, sizes=[(16, 20)] * 99 + [(5, 5)])
        store = build_hr_store(source, Geometry(crop=12))
        assert [name for name, _ in store.unreadable] == ["00099.png"]

    def test_a_file_out_of_reach_is_tried_again(self):
        source = Made(200, bad=[7])
        source.cause = PermissionError(errno.EACCES, "Permission denied")
        assert len(build_hr_store(source, SQUARE)) == 199
        healed = Made(200)
        store = build_hr_store(healed, SQUARE)
        assert len(store) == 200
        assert healed.reads == 8

    def test_a_chunk_replaced_in_between_is_noticed(self):
        source = Made(200, bad=[7])
        source.cause = PermissionError(errno.EACCES, "Permission denied")
        before = build_hr_store(source, SQUARE)
        build_hr_store(Made(200), SQUARE)
        with pytest.raises(SrbenchError, match="replaced by another run"):
            before.batch([0])


class TestInterrupted:
    def test_goes_on_where_it_was(self, cache_folder):
        done = 0

        def stop(count: int) -> None:
            nonlocal done
            done += count
            if done == 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_hr_store(Made(40), SQUARE, advance=stop)
        assert parts(cache_folder) == []
        source = Made(40)
        store = build_hr_store(source, SQUARE)
        assert store.decoded == source.reads == 24
        assert torch.equal(store.batch(range(40))[33], crop_hr(source.read(33), SQUARE))

    @pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
    def test_a_damaged_chunk_is_decoded_anew(self, cache_folder, damage):
        expected = build_hr_store(Made(20), SQUARE).batch(range(20))
        chunk = sorted(cache_folder.rglob("*.hr"))[1]
        chunk.write_bytes(chunk.read_bytes()[:-300] if damage is None else damage)
        store = build_hr_store(Made(20), SQUARE)
        assert store.decoded == 8
        assert torch.equal(store.batch(range(20)), expected)

    def test_no_flip_of_a_chunk_is_read_as_other_pixels(self, cache_folder):
        expected = build_hr_store(Made(20), SQUARE).batch(range(20))
        chunk = sorted(cache_folder.rglob("*.hr"))[1]
        good, draw, made_again = chunk.read_bytes(), random.Random(0), 0
        for bit in (draw.randrange(8 * len(good)) for _ in range(200)):
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << bit % 8
            chunk.write_bytes(damaged)
            try:
                pixels = build_hr_store(Made(20), SQUARE).batch(range(20))
            except SrbenchError as error:
                assert f"the HR cache file {chunk} is damaged and was removed; run the same command again" in str(error)
                made_again += 1
                pixels = build_hr_store(Made(20), SQUARE).batch(range(20))
            assert torch.equal(pixels, expected)
        assert made_again > 100  # most bits are pixels

    @pytest.mark.parametrize(
        "craft",
        [
            lambda index: index["rows"][0].__setitem__(0, 99),
            lambda index: index["rows"][0].__setitem__(1, 10**9),
            lambda index: index["rows"][0].__setitem__(2, 10**30),
            lambda index: index["rows"][0].__setitem__(2, -1),
            lambda index: index["rows"][0].pop(),
            lambda index: index["rows"].pop(),
            lambda index: index["rows"].append(index["rows"][0]),
            lambda index: index.update(rows={"a": 1}),
            lambda index: index.update(rows=[["x"]]),
            lambda index: index.update(unreadable=[3]),
            lambda index: index.update(unreadable=None),
            lambda index: index.update(seconds=[]),
            lambda index: index.pop("transient"),
        ],
    )
    def test_a_crafted_index_is_made_anew(self, cache_folder, craft):
        expected = build_hr_store(Made(20), SQUARE).batch(range(20))
        chunk = sorted(cache_folder.rglob("*.hr"))[1]
        content, footer = chunk.read_bytes(), hr_chunks._FOOTER
        magic, pixels, length, _ = footer.unpack(content[-footer.size :])
        index = json.loads(content[pixels : pixels + length])
        craft(index)
        encoded = json.dumps(index).encode()
        chunk.write_bytes(content[:pixels] + encoded + footer.pack(magic, pixels, len(encoded), zlib.crc32(encoded)))
        store = build_hr_store(Made(20), SQUARE)
        assert store.decoded == 8 and torch.equal(store.batch(range(20)), expected)

    def test_what_a_killed_build_left_is_removed_in_time(self, cache_folder):
        store = build_hr_store(Made(8), SQUARE)
        folder = cache_folder / "hr" / store.key
        old, new = (folder / f".chunk-000000.hr.{digit * 12}.tmp" for digit in "ab")
        for part in (old, new):
            part.write_bytes(b"half")
        os.utime(old, (1, 1))
        (folder / "chunk-000000.hr").unlink()
        build_hr_store(Made(8), SQUARE)
        assert not old.exists()
        assert new.exists()

    def test_killed(self, tmp_path, cache_folder):
        folder = tmp_path / "photos"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for index in range(30):
            Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
        script = textwrap.dedent(
            """
            import os, signal, sys
            from srbench.data import hr_cache as cache
            from srbench.data.catalogue import open_source
            from srbench.protocol import Geometry
            cache._CHUNK = 8
            done = []
            def advance(count):
                done.append(count)
                if len(done) == 19:
                    os.kill(os.getpid(), signal.SIGKILL)
            cache.build_hr_store(open_source("images:" + sys.argv[1]), Geometry(12, 12), advance=advance)
            """
        )
        killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert len(parts(cache_folder)) == 1
        source = open_source(f"images:{folder}")
        store = build_hr_store(source, SQUARE)
        assert store.decoded == 14
        assert torch.equal(store.batch(range(30)), torch.stack([crop_hr(source.read(i), SQUARE) for i in range(30)]))


def test_two_builds_at_once(cache_folder):
    barrier = threading.Barrier(2)
    stores: list[cache.HRStore] = []

    def build() -> None:
        barrier.wait()
        stores.append(build_hr_store(Made(60), SQUARE))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = torch.stack([crop_hr(Made(60).read(index), SQUARE) for index in range(60)])
    assert len(stores) == 2
    assert all(torch.equal(store.batch(range(60)), expected) for store in stores)
    assert parts(cache_folder) == []


class TestFullDisk:
    def test_names_the_folder_and_the_variable(self, monkeypatch, cache_folder):
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(SrbenchError, match=r"No space left on device.*SRBENCH_CACHE") as caught:
                build_hr_store(Made(9), SQUARE)
        assert str(cache_folder) in str(caught.value)
        assert [path for path in cache_folder.rglob("*") if path.is_file()] == []
        assert len(build_hr_store(Made(9), SQUARE)) == 9

    def test_a_cache_under_a_regular_file(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("SRBENCH_CACHE", str(tmp_path / "file" / "below"))
        with pytest.raises(SrbenchError, match="SRBENCH_CACHE"):
            build_hr_store(Made(9), SQUARE)
