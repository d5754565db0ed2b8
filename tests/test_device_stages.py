"""`.ci/gpu` without a GPU: its command lines are valid, its limits hold, a failed stage is named, the others go on."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from srbench.cli import app

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("device", ROOT / "tests" / "benchmarks" / "device.py")
device = importlib.util.module_from_spec(spec)
sys.modules["device"] = device
spec.loader.exec_module(device)


def parses(words: list[str]) -> bool:
    """Parse a command line of srbench as the program does, without running it."""
    command = get_command(app).commands[words[0]]
    command.callback = lambda **_: None
    with pytest.raises(SystemExit) as stop:
        command.main(words[1:], prog_name="srbench")
    return stop.value.code == 0


@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_stages_are_valid_and_take_less_than_eight_minutes_together(name, tmp_path):
    stages = device.stages(name, tmp_path)
    assert sum(stage.limit_s for stage in stages) < 60 * device.MINUTES
    commands = [list(stage.command) for stage in stages if stage.command[0] == "srbench"]
    assert {words[1] for words in commands} == {"eval", "train", "export", "bench"}
    assert all(parses(words[1:]) for words in commands)
    assert not parses(["bench", "--sizes", "81"])
    tests = next(stage.command for stage in stages if stage.name == "tests")
    assert Path(tests[-1]).exists()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command, environment = [ROOT / ".ci" / "gpu", "--dry-run"], os.environ | {"DEVICE": name, "PATH": path}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(" (")[0] for line in listed] == [stage.name for stage in stages]


@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_the_commands_of_measure_are_valid(name, tmp_path):
    """A stand-in for srbench notes what it is called with."""
    (tmp_path / "bin").mkdir()
    for program in ("srbench", "python"):
        script = tmp_path / "bin" / program
        script.write_text(f'#!/bin/sh\necho {program} "$@" >> "$NOTES"\ntouch summary.md\n', encoding="utf-8")
        script.chmod(0o755)
    notes = tmp_path / "notes"
    environment = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "NOTES": str(notes)}
    measure = next(stage.command for stage in device.stages(name, tmp_path) if stage.name == "measure")
    subprocess.run(measure, cwd=tmp_path, env=environment, check=True, capture_output=True)
    lines = [shlex.split(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    assert [words[1] for words in lines] == (
        ["bench"] * (3 if name == "cuda" else 1)
        + ["train", "eval", "eval", str(ROOT / "results" / "speed" / "summary.py")]
    )
    assert all(parses(words[1:]) for words in lines[:-1])


def test_there_are_tests_for_a_gpu():
    marked = [path for path in (ROOT / "tests").glob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8")]
    assert len(marked) > 4  # this one included


def test_a_failed_stage_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    listed = [
        device.Stage("good", 20, ("sh", "-c", "echo fine; touch file")),
        device.Stage("bad", 20, ("sh", "-c", "echo why; exit 3")),
        device.Stage("slow", 1, ("sh", "-c", "sleep 60 & sleep 60")),
        device.Stage("last", 20, ("true",)),
    ]
    monkeypatch.setattr(device, "stages", lambda *_: listed)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert device.main([]) == 1
    out = tmp_path / "out"
    assert re.search(r"^failed: bad, slow; ", capsys.readouterr().err, flags=re.M)
    assert (out / "good" / "file").is_file() and (out / "bad.log").read_text(encoding="utf-8") == "why\n"
    said = [stage["said"] for stage in json.loads((out / "figures.json").read_text(encoding="utf-8"))["stages"]]
    assert said == ["ok", "exit code 3", "over 1 s", "ok"]
    assert "| slow | over 1 s | 1 | 1 |" in (out / "summary.md").read_text(encoding="utf-8")
    assert device.main(["--only", "good"]) == 0
