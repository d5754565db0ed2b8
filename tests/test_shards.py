"""Images in tar files: the same samples as the folder they were made of, on a disk and on any file system of fsspec."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import srbench
from srbench.data.catalogue import open_source
from srbench.data.readers import shards
from srbench.errors import DataError, UsageError

PER_CLASS, SIDE = 4, 12
fsspec = pytest.importorskip("fsspec")


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """Write a tar file of these members, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.fixture
def two(images, tmp_path):
    """Return the pattern of two shards of the images, in class folders."""
    files = list(contents(images).items())
    for number in (0, 1):
        write_tar(tmp_path / f"photos-{number:02d}.tar", dict(files[number::2]))
    return f"{tmp_path}/photos-{{00..01}}.tar"


def put_into_memory(pattern: str) -> str:
    """Copy shards to fsspec's file system in memory; return their pattern there."""
    files = fsspec.filesystem("memory")
    for address in shards.expand(pattern, "test"):
        files.pipe_file(f"/bucket/{Path(address).name}", Path(address).read_bytes())
    return f"memory://bucket/{Path(pattern).name}"


@pytest.mark.parametrize("where", [str, put_into_memory])
@pytest.mark.parametrize("split", ["all", "train"])
def test_shards_are_the_folder_they_were_made_of(images, two, where, split, own_folders):
    found, expected = (open_source(spec, split) for spec in (f"shards:{where(two)}", f"folder:{images}"))
    assert len(expected.samples) > 0 and found.classes == expected.classes
    assert list(found.samples) == list(expected.samples)
    for index in range(len(expected.samples)):
        assert torch.equal(found.read(index), expected.read(index))
    everything = range(len(expected.samples))
    assert found.stamps(everything) == expected.stamps(everything)
    assert (found.name, found.spec) == ("photos", "shards:photos-{00..01}.tar")


def test_an_evaluation_of_shards_gives_the_table_of_the_folder(images, card, two, tmp_path, own_folders):
    tables = []
    for name, spec in (("folder", f"folder:{images}"), ("shards", f"shards:{put_into_memory(two)}")):
        result = srbench.evaluate(
            ["bicubic"],
            data=spec,
            protocol="native",
            scales=[0.5],
            classifiers=[str(card)],
            out=tmp_path / name,
            measure=False,
            progress=False,
        )
        tables.append(result.samples.drop(columns="task"))
    assert len(tables[0]) and tables[0].equals(tables[1])


def test_labels_of_webdataset(images, tmp_path):
    files = {}
    for at, content in enumerate(contents(images).values()):
        files |= {f"{at:04d}.png": content, f"{at:04d}.cls": b"%d\n" % (at % 3), f"{at:04d}.json": b"{}"}
    write_tar(tmp_path / "a.tar", files)
    source = open_source(f"shards:{tmp_path}/a.tar", None)
    assert source.classes == ("0", "1", "2") and [each.label for each in source.samples][:4] == [0, 1, 2, 0]
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n", encoding="utf-8")
    assert open_source(f"shards:{tmp_path}/a.tar", None).classes == ("ant", "bee", "cat")
    del files["0001.cls"]
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=r"0001\.png has no \.cls file"):
        open_source(f"shards:{tmp_path}/a.tar", None)


def test_images_without_folders_have_no_labels(images, tmp_path):
    write_tar(tmp_path / "a.tar", {f"{at}.png": each for at, each in enumerate(contents(images).values())})
    source = open_source(f"shards:{tmp_path}/a.tar", None)
    assert source.classes is None and all(sample.label is None for sample in source.samples)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"../a.png": b"x"}, "leads out"),
        ({"/a.png": b"x"}, "leads out"),
        ({"a\\b.png": b"x"}, "leads out"),
        ({"a.png": b"x", "./a.png": b"y"}, "twice"),
        ({"a.txt": b"x"}, "no images"),
        ({"a.png": b"x", "a.cls": b"many"}, "number of a class"),
        ({"a.png": b"x", "a.cls": b"-1"}, "names class"),
    ],
)
def test_tars_that_are_refused(tmp_path, files, words):
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=words):
        open_source(f"shards:{tmp_path}/a.tar", None)


def test_links_and_devices_in_a_tar_are_no_images(images, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.add(next(images.rglob("*.png")), "d.png")
    assert [each.id for each in open_source(f"shards:{tmp_path}/a.tar", None).samples] == ["d.png"]


def test_what_is_no_tar_or_not_there_is_one_sentence(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    for address in (f"{tmp_path}/a.tar", f"{tmp_path}/none.tar", "memory://nowhere/a.tar", str(tmp_path)):
        with pytest.raises(DataError, match="cannot be read as a tar file"):
            open_source(f"shards:{address}", None)


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=r"extra remote and a driver .*s3fs"):
        open_source("shards:s3://bucket/a.tar", None)
    with pytest.raises(UsageError, match="nosuch"):
        open_source("shards:nosuch://bucket/a.tar", None)


def test_ranges_in_braces():
    assert shards.expand("a{08..10}-{0..1}.tar", "x")[:3] == ["a08-0.tar", "a08-1.tar", "a09-0.tar"]
    with pytest.raises(UsageError, match="expected a range"):
        shards.expand("a{3..1}.tar", "x")
