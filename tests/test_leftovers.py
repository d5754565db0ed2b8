"""What killed runs leave is removed by the next run of the same kind, and what is another's stays."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from dummies import save_gain, trainable
from PIL import Image
from record_factory import commit, make_record, make_samples
from typer.testing import CliRunner

from srbench import report, weights
from srbench.cli import app
from srbench.data.content import content_hashes
from srbench.errors import SrbenchError, TrainingError
from srbench.files.atomic import STALE_S, sweep_beside, sweep_temporary, write_content
from srbench.training import result
from srbench.training.rows import CachedRows

LEFT = "0123456789ab.tmp"


@pytest.fixture
def stored(tmp_path):
    labels = [0, 1] * 5
    for method in ("original", "bilinear"):
        commit(tmp_path / "out", make_record(method, n=10), make_samples(labels, labels, hr_preds=labels))
    return tmp_path / "out"


def test_only_the_temporary_files_of_a_file_go(tmp_path):
    ours, others = (
        tmp_path / f".a.png.{LEFT}",
        [tmp_path / f".b.png.{LEFT}", tmp_path / ".a.png.tmp", tmp_path / "a.png"],
    )
    for path in (ours, *others):
        path.touch()
    sweep_beside([tmp_path / "a.png", tmp_path / "none" / "c.png"])
    assert not ours.exists() and all(path.exists() for path in others)


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * 125 + ".png"])
def test_a_name_as_long_as_names_may_be_is_written_and_swept(tmp_path, monkeypatch, name):
    path, killed = tmp_path / name, []

    def kill(self, target):
        killed.append(shutil.copy(self, tmp_path / "kept"))
        raise KeyboardInterrupt

    write_content(path, b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        patch.setattr(Path, "unlink", lambda self, missing_ok: None)
        with pytest.raises(KeyboardInterrupt):
            write_content(path, b"torn")
    assert killed and len(list(tmp_path.glob(".*.tmp"))) == 1
    sweep_beside([path])
    assert not list(tmp_path.glob(".*.tmp")) and path.read_bytes() == b"whole"


def test_what_a_clock_that_was_set_back_leaves_in_the_future_is_swept(tmp_path):
    now = time.time()
    for number, ahead in enumerate((-7200, -60, 60, 7200)):
        path = tmp_path / f".{number}.{LEFT}"
        path.touch()
        os.utime(path, (now, now + ahead))
    assert sweep_temporary(tmp_path, older_than_s=STALE_S) == 2
    assert sorted(path.name[:2] for path in tmp_path.iterdir()) == [".1", ".2"]


def test_leaderboard_sweeps_the_folder_that_it_writes(stored, tmp_path):
    left = tmp_path / "table" / f".leaderboard.csv.{LEFT}"
    left.parent.mkdir()
    left.touch()
    assert CliRunner().invoke(app, ["leaderboard", str(stored), "--out", str(left.parent)]).exit_code == 0
    assert not left.exists() and (left.parent / "leaderboard.csv").is_file()


def test_report_sweeps_its_figures(stored, monkeypatch):
    monkeypatch.setattr(report.figures, "draw_all", lambda *given: iter(()))
    left = [stored / f".report.html.{LEFT}", stored / "figures" / f".gap.svg.{LEFT}"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    report.write_report([stored], progress=False)
    assert not any(path.exists() for path in left)


def test_upscale_sweeps_beside_its_results(tmp_path, own_folders):
    Image.new("RGB", (6, 6)).save(tmp_path / "in.png")
    ours, another = tmp_path / f".big.png.{LEFT}", tmp_path / f".other.png.{LEFT}"
    ours.touch()
    another.touch()
    call = ["upscale", str(tmp_path / "in.png"), "--method", "nearest", "--out", str(tmp_path / "big.png")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert not ours.exists() and another.exists() and (tmp_path / "big.png").is_file()


def test_copied_weights_leave_nothing_where_the_disk_is_full(tmp_path, monkeypatch):
    trainable(tmp_path)
    source = save_gain(tmp_path / "run" / "mine.safetensors").path
    target = tmp_path / "user" / "gain" / "mine.safetensors"
    target.parent.mkdir(parents=True)
    left = target.parent / f".mine.safetensors.{LEFT}"
    left.touch()

    def full(file, stream):
        stream.write(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(
        TrainingError, match=r"could not be copied to .*: No space left on device; use them by their path"
    ):
        result._install(source, target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.undo()
    result._install(source, target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["mine.json", "mine.safetensors"]


def test_hashes_that_were_killed_while_they_were_written_are_removed_in_time(tmp_path, own_folders):
    folder = own_folders / "cache" / "content"
    folder.mkdir(parents=True)
    old, new = (folder / f".{name}.rows.{LEFT}" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    (tmp_path / "a.png").touch()
    content_hashes(tmp_path, [tmp_path / "a.png"])
    assert not old.exists() and new.exists()


def test_a_teacher_s_file_has_its_room_before_it_is_written(own_folders, monkeypatch):
    """Where the disk has none, writing to a mapped file would end the process by a signal, without a word."""

    def full(descriptor, start, size):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(SrbenchError, match=r"the cache in .* cannot be written: No space left on device; free some"):
        CachedRows("net", "images", shape=(10, 3), dtype=np.dtype(np.float32))
    monkeypatch.undo()


def test_downloads_that_were_killed_are_removed_in_time(tmp_path, own_folders, monkeypatch):
    folder = own_folders / "cache" / "weights" / "mine"
    folder.mkdir(parents=True)
    old, new = folder / "net.safetensors.a.partial", folder / "net.safetensors.b.partial"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    file = save_gain(tmp_path / "net.safetensors").path
    monkeypatch.setattr(time, "time", lambda: new.stat().st_mtime + 60)
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda uri, target, **options: shutil.copyfile(file, target))
    named = weights.NamedWeights(uri="https://x.org/net.safetensors", sha256=weights.file_sha256(file), licence="MIT")
    weights.find("mine", "net", {"net": named})
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("option", [["--data", "folder:" + "x" * 5000], ["--out", "y" * 5000]])
def test_names_of_5000_characters_are_one_sentence(own_folders, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["eval", "bilinear", *option])
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit)
    assert "File name too long" in done.output or "there is no folder" in done.output
    assert len(done.output) < 6000


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 10 bytes")],
)
def test_memory_that_is_not_enough_is_one_sentence(monkeypatch, tmp_path, own_folders, error):
    def fail(*given, **options):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srbench.evaluation.api.resolve", fail)
    done = CliRunner().invoke(app, ["eval", "bilinear"])
    assert done.exit_code == 1 and "give a smaller --batch-size" in done.output


def test_help_shows_whole_sentences(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(app, ["--help"]).output
    assert "..." not in text.partition("Commands:")[2]
    assert "Show what is in the cache and how large it is" in " ".join(text.split())
