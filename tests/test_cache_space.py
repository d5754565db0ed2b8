"""`srbench cache`, its bound, and the look at free space before a cache grows."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import SrbenchError, UsageError
from srbench.files import caches
from srbench.files.caches import cache_entries, make_room, mark_used, parse_size, prune, written_size

HOUR = 3600.0


@pytest.fixture
def filled(own_folders) -> Path:
    """Three sets of HR crops of 1,000 bytes, used 30, 20 and 10 hours ago, predictions of now, weights of long ago."""
    root = own_folders / "cache"
    for kind, name, hours in (
        *(("hr", "a", 30), ("hr", "b", 20), ("hr", "c", 10)),
        *(("predictions", "p", 0), ("weights", "esrgan", 900), ("logits", "old", 800)),
    ):
        folder = root / kind / name
        folder.mkdir(parents=True)
        (folder / "chunk").write_bytes(b"x" * 1000)
        then = time.time() - hours * HOUR
        os.utime(folder / "chunk", (then, then))
        os.utime(folder, (then, then))
    return root


def there(root: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in root.glob("*/*")}


def test_entries_come_by_their_use(filled):
    assert [entry.path.name for entry in cache_entries()] == ["esrgan", "old", "a", "b", "c", "p"]
    assert {entry.size for entry in cache_entries()} == {1000}


def test_what_was_used_longest_ago_goes_until_it_fits(filled):
    removed, in_use = prune(keep=4000)
    assert [entry.path.name for entry in removed] == ["old", "a"] and in_use == []
    assert there(filled) == {"weights/esrgan", "hr/b", "hr/c", "predictions/p"}


def test_what_a_run_may_need_and_what_was_fetched_stays(filled):
    removed, in_use = prune(keep=0)
    assert [entry.path.name for entry in in_use] == ["p"] and len(removed) == 4
    assert there(filled) == {"weights/esrgan", "predictions/p"}


def test_only_what_was_not_used_for_long_goes(filled):
    prune(keep=0, unused_for_s=15 * HOUR)
    assert there(filled) == {"weights/esrgan", "hr/c", "predictions/p"}


def test_what_is_used_again_stays(filled):
    mark_used(filled / "hr" / "a")
    prune(keep=0)
    assert "hr/a" in there(filled)


def test_links_are_removed_and_not_followed(filled, tmp_path):
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / "photo.png").write_bytes(b"x" * 5000)
    link = filled / "hr" / "link"
    link.symlink_to(outside)
    os.utime(link, (1, 1), follow_symlinks=False)
    assert next(entry for entry in cache_entries() if entry.path == link).size < 1000
    prune(keep=0)
    assert not link.is_symlink() and (outside / "photo.png").is_file()


def test_a_bound_makes_room_for_what_comes(filled, monkeypatch):
    monkeypatch.setenv("SRBENCH_CACHE_LIMIT", "4.5kB")
    make_room(500)
    assert there(filled) == {"weights/esrgan", "hr/b", "hr/c", "predictions/p"}
    monkeypatch.setenv("SRBENCH_CACHE_LIMIT", "much")
    with pytest.raises(UsageError, match="SRBENCH_CACHE_LIMIT takes a size such as 20GB or 500MB, got 'much'"):
        make_room(1)


def test_a_disk_that_is_too_small_is_said_before_it_is_full(own_folders, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 3 * 10**9))
    make_room(3 * 10**9)
    with pytest.raises(
        SrbenchError, match=r"would grow by about 12\.5 GB, and 3 GB are free there; see `srbench cache`"
    ):
        make_room(12_500_000_000)


def test_hr_crops_look_at_the_free_space_after_their_first_file(own_folders, monkeypatch, tmp_path):
    from dummies import make_images

    from srbench.data import hr_cache
    from srbench.data.catalogue import open_source
    from srbench.protocol import Geometry

    monkeypatch.setattr(hr_cache, "_CHUNK", 8)
    asked: list[int] = []
    monkeypatch.setattr(hr_cache, "make_room", asked.append)
    source = open_source(f"folder:{make_images(tmp_path / 'photos', 12, side=16)}")
    hr_cache.build_hr_store(source, Geometry())
    assert asked == [(36 - 8) * 3 * 16 * 16]
    hr_cache.build_hr_store(source, Geometry())
    assert len(asked) == 1  # all is there


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 2 * 10**10), ("1.5 kb", 1500), ("0", 0), ("7", 7), ("2T", 2 * 10**12)]
)
def test_sizes(text, size):
    assert parse_size(text, "--keep") == size


def test_sizes_are_written_as_they_are_read():
    assert [written_size(size) for size in (0, 999, 1500, 2.5e10)] == ["0 B", "999 B", "1.5 kB", "25 GB"]


def test_the_command_shows_and_removes(filled, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(app, ["cache"])
    assert shown.exit_code == 0
    assert re.search(r"hr\W+3 kB\W+3\W+0\.4\W+HR crops", shown.output)
    assert "left by an older srbench" in shown.output and f"{filled}: 6 kB;" in shown.output
    assert len(there(filled)) == 6
    pruned = CliRunner().invoke(app, ["cache", "--keep", "0"])
    assert pruned.exit_code == 0 and "removed 4 entries, 4 kB" in pruned.output
    assert "1 entry, 1 kB were used within the last hour and stay" in pruned.output
    wrong = CliRunner().invoke(app, ["cache", "--keep", "all"])
    assert wrong.exit_code == 2 and "--keep takes a size such as 20GB" in wrong.output


def test_an_empty_cache_is_no_error(own_folders):
    assert "0 B" in CliRunner().invoke(app, ["cache"]).output
    assert set(caches.KINDS) == {"hr", "predictions", "teacher", "content", "weights"}
