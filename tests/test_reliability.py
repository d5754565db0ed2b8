"""Results stay what they were: flipped bits, two runs at once, odd paths, outputs that cannot show everything."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
from dummies import evaluator, plugin
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import RecordError, TrainingError, UsageError
from srbench.evaluation.options import CHUNK
from srbench.files.paths import user_path
from srbench.files.turns import BusyError, only_writer
from srbench.leaderboard import build
from srbench.records.cells import SAMPLES_FILE, find_records, is_fresh
from srbench.report import write_report
from srbench.training import checkpoint

pytestmark = pytest.mark.usefixtures("workplace")

SIDE, PER_CLASS = 24, 12
N = 3 * PER_CLASS


@pytest.fixture
def run(images, card, tmp_path):
    return evaluator(images, card, "half.toml", tmp_path / "out", measure=True)


def flipped(content: bytes, place: int) -> bytes:
    """Return the content with one bit turned over."""
    byte, bit = divmod(place, 8)
    return content[:byte] + bytes([content[byte] ^ (1 << bit)]) + content[byte + 1 :]


class TestFlippedBits:
    def test_no_flip_of_stored_samples_is_read_as_other_numbers(self, run):
        run("bilinear")
        cell = next(cell for cell in find_records(["out"])[0] if cell.record.cell.method == "bilinear")
        path = cell.folder / SAMPLES_FILE
        good = path.read_bytes()
        draw = random.Random(0)
        for _ in range(200):
            path.write_bytes(flipped(good, draw.randrange(8 * len(good))))
            with pytest.raises(RecordError, match=r"samples\.parquet is missing or damaged .*run the evaluation again"):
                cell.samples()
        path.write_bytes(good)
        assert len(cell.samples()) == N

    def test_damaged_samples_are_made_again(self, run):
        before = run("bilinear").leaderboard
        cell = next(cell for cell in find_records(["out"])[0] if cell.record.cell.method == "bilinear")
        path = cell.folder / SAMPLES_FILE
        path.write_bytes(flipped(path.read_bytes(), 4000))
        assert not is_fresh(cell.folder, cell.record.input_hash)
        again = run("bilinear")
        assert again.counters.restored == {"bilinear": N}
        assert again.leaderboard["accuracy"].dropna().tolist() == before["accuracy"].dropna().tolist()

    def test_no_flip_of_a_checkpoint_goes_on_training(self, tmp_path):
        path = tmp_path / checkpoint.NAME
        content = {"epoch": 3, "weights": {"layer": torch.arange(1000.0)}}
        checkpoint.write(path, content)
        torch.testing.assert_close(checkpoint.read(path)["weights"], content["weights"])
        good = path.read_bytes()
        draw = random.Random(0)
        for place in [*(draw.randrange(8 * len(good)) for _ in range(100)), 8 * len(good) - 1]:
            path.write_bytes(flipped(good, place))
            with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
                checkpoint.read(path)


class TestFailures:
    @pytest.fixture
    def mine(self, tmp_path):
        """A method that fails as soon as there is a file called broken."""
        filters = '"no such" if __import__("os").path.exists("broken") else "area"'
        return plugin(tmp_path / "plugins", "mine", f"resize(lr, size, {filters})")

    def test_an_error_takes_no_result_away(self, run, mine):
        before = run("mine", plugins=[mine]).leaderboard.set_index("method")["accuracy"]
        cell = next(cell for cell in find_records(["out"])[0] if cell.record.cell.method == "mine")
        kept = {path.name: path.read_bytes() for path in cell.folder.iterdir() if path.is_file()}
        Path("broken").touch()
        result = run("mine", plugins=[mine], force=True)
        assert [record.cell.method for record in result.failed] == ["mine"]
        assert {path.name: path.read_bytes() for path in cell.folder.iterdir() if path.is_file()} == kept
        row = result.leaderboard.set_index("method").loc["mine"]
        assert row["status"] == "ok" and row["accuracy"] == before["mine"]
        assert "mine of task" in result.board.warnings[-1]
        assert "its row is of an earlier run" in result.board.warnings[-1]

    def test_an_error_takes_the_place_of_a_result_of_other_samples(self, run, mine, images, tmp_path):
        photos = shutil.copytree(images, tmp_path / "copy" / "photos")
        run("mine", plugins=[mine], data=f"folder:{photos}")
        first, *_, last = sorted(photos.rglob("*.png"))
        shutil.copy(last, first)
        Path("broken").touch()
        result = run("mine", plugins=[mine], data=f"folder:{photos}")
        assert [row.status for row in result.board.rows if row.method == "mine"] == ["error"]

    def test_a_batch_larger_than_the_data_is_timed_as_one_of_all(self, run):
        result = run("bilinear", batch_size=10**9)
        timing = next(cell.record.timing for cell in result.cells if cell.record.cell.method == "bilinear")
        assert result.failed == [] and timing.throughput_batch == CHUNK


class TestTwoRunsAtOnce:
    def test_two_evaluations_into_one_folder_both_finish(self, run):
        alone = run("bilinear", "bicubic", "nearest", out="alone").leaderboard
        results, errors = [], []

        def one(*methods):
            try:
                results.append(run(*methods, out="shared"))
            except Exception as error:  # noqa: BLE001 whatever it is, it fails the test
                errors.append(error)

        threads = [threading.Thread(target=one, args=methods) for methods in (("bilinear", "bicubic"), ("nearest",))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        cells, problems = find_records(["shared"])
        assert problems == [] and {cell.record.status for cell in cells} <= {"ok", "skipped"}
        board = build(cells).frame.set_index("method")
        accuracy = alone.set_index("method")["accuracy"]
        pd.testing.assert_series_equal(board["accuracy"].sort_index(), accuracy.sort_index())

    def test_the_second_waits_and_says_so(self, tmp_path, caplog):
        entered = threading.Event()

        def second():
            with only_writer(tmp_path, wait=True):
                entered.set()

        with only_writer(tmp_path, wait=False):
            thread = threading.Thread(target=second)
            thread.start()
            assert not entered.wait(0.3)
        thread.join(10)
        assert entered.is_set()
        assert "another run of srbench writes to" in caplog.text

    def test_a_training_is_refused_where_another_is_at_work(self, tmp_path):
        refused = pytest.raises(BusyError, match=r"another run of srbench writes to .*choose another --out")
        with only_writer(tmp_path, wait=False), refused, only_writer(tmp_path, wait=False):
            pytest.fail("two at once")
        with only_writer(tmp_path, wait=False):  # the lock was given back
            pass

    @pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
    def file_system_without_locks(self, monkeypatch, request):
        def refuse(descriptor, operation):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", refuse)

    @pytest.mark.filterwarnings("ignore:flock not supported")
    def test_writers_take_turns_where_the_file_system_cannot_lock(self, tmp_path, file_system_without_locks):
        refused = pytest.raises(BusyError, match="another run of srbench writes to")
        with only_writer(tmp_path, wait=False), refused, only_writer(tmp_path, wait=False):
            pytest.fail("two at once")
        with only_writer(tmp_path, wait=False):
            pass

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
    def test_a_killed_process_holds_no_folder_even_there(self, tmp_path, number):
        held = """
            import fcntl, os, pathlib, signal, sys
            from srbench.files.turns import only_writer
            def refuse(descriptor, operation):
                raise OSError(int(sys.argv[2]), "no locks here")
            fcntl.flock = refuse
            with only_writer(pathlib.Path(sys.argv[1]), wait=False):
                print("held", flush=True)
                if sys.argv[3] == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
        """
        words = [sys.executable, "-c", textwrap.dedent(held), str(tmp_path), str(number)]
        killed = subprocess.run([*words, "killed"], capture_output=True, check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL and killed.stdout == b"held\n"
        after = subprocess.run([*words, "after"], capture_output=True, check=False, timeout=60)
        assert (after.returncode, after.stdout) == (0, b"held\n"), after.stderr

    def test_a_folder_that_cannot_be_written_is_a_sentence(self, tmp_path):
        (tmp_path / "file").write_text("")
        refused = pytest.raises(RecordError, match=r"cannot write .*Not a directory")
        with refused, only_writer(tmp_path / "file" / "x", wait=True):
            pytest.fail("no folder was made")


class TestPaths:
    @pytest.mark.parametrize("name", ["run:1", "s3:x", "a b", "task=x", "~x"])
    def test_any_name_of_a_folder_holds_results(self, run, tmp_path, name):
        result = run("bilinear", out=tmp_path / name)
        assert result.failed == []
        again = run("bilinear", out=tmp_path / name)
        assert again.counters.restored == {}

    def test_a_tilde_is_the_home_folder_everywhere(self, run, tmp_path, monkeypatch):
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        run("bilinear", out="~/results")
        assert (home / "results" / "leaderboard.json").is_file()
        assert write_report(["~/results"], progress=False)[0] == home / "results" / "report.html"
        assert not (tmp_path / "~").exists()

    def test_a_tilde_is_the_home_folder_for_what_ships(self, tmp_path, monkeypatch):
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(tmp_path)
        demo = ["--data", "demo", "--limit", "8"]
        send = ["--side", "20", "--quality", "40", "--classifier", "demo-resnet", "--out", "~/rate"]
        for words in (
            ["export", "bilinear", "--lr-size", "20", "--input-size", "64", "--protocol", "demo", "--out", "~/m.onnx"],
            ["upscale", "--method", "bilinear", "--out", "~/sr", *demo],
            ["rate", *send, *demo],
            ["identify-resize", "~/pipeline"],
        ):
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
        written = {"m.onnx", "sr", "rate/rate.json", "rate/rate.svg", "pipeline/sent/0.png"}
        assert all((home / each).exists() for each in written)
        assert not (tmp_path / "~").exists()

    def test_an_unknown_home_is_a_sentence(self):
        with pytest.raises(UsageError, match="begins with a home folder that is not known here; write the whole path"):
            user_path("~nobody-has-this-name/x")


class TestOutputs:
    @pytest.fixture
    def results(self, run):
        run("bilinear", "bicubic")
        return "out"

    @pytest.mark.parametrize("encoding", ["ascii", "cp932", "latin-1"])
    def test_what_an_encoding_lacks_is_replaced(self, results, encoding):
        done = command("leaderboard", results, PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and "bicubic" in done.stdout.decode(encoding)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
    def test_an_output_without_room_is_a_sentence(self):
        with Path("/dev/full").open("w") as full:
            words = [sys.executable, "-m", "srbench.cli", "list", "protocols"]
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
        assert done.returncode == 1
        assert done.stderr == (
            "srbench: the output cannot be written: No space left on device; free some space where it goes\n"
        )

    def test_a_report_is_drawn_whatever_a_notebook_has_set(self, results):
        done = command("report", results, MPLBACKEND="module://not_installed.backend")
        assert done.returncode == 0 and b"wrote" in done.stdout


def command(*words, **environment):
    """Run srbench in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "srbench.cli", *words],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=120,
    )
