"""Progress: a bar that fits the terminal, a line a minute where there is none."""

from __future__ import annotations

import re

import pytest

from srbench.compute import progress
from srbench.compute.progress import track

FIGURES = ("loss 0.4321", "85.3 images/s", "14% waiting for data")


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose only entry is the time."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that makes the error stream a terminal of so many columns."""

    def make(columns: int) -> None:
        for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("NO_COLOR", raising=False)

    return make


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_bar_fits_and_says_how_much_is_left(clock, terminal, capsys, columns):
    terminal(columns)
    with track("epoch 12/30", 4000, unit="steps", done=1000) as done:
        clock[0] += 600
        done(1000, figures=FIGURES)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    last = [line for line in re.split(r"[\r\n]+", text) if "2000/4000" in line][-1].rstrip()
    assert len(last) <= columns and "2000/4000 steps" in last and "epoch 12" in last
    assert ("20:00 left" in last) == (columns >= 60)  # 1000 steps took ten minutes, 2000 are left
    assert ("loss 0.4321" in last) == (columns >= 80)
    assert ("14% waiting for data, 10:00 so far" in last) == (columns == 200)


def test_without_a_terminal_a_line_is_printed_each_minute(clock, capsys):
    with track("epoch 1/2", 100, unit="steps") as done:
        for _ in range(50):
            clock[0] += 6
            done(1, figures=FIGURES)
        done.describe("validating")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "srbench: epoch 1/2: 10/100 steps, 9:00 left, loss 0.4321, 85.3 images/s, 14% waiting for data, 1:00 so far"
    )


def test_what_is_done_within_a_minute_prints_nothing(clock, capsys):
    with track("decoding", 3) as done:
        for _ in range(3):
            clock[0] += 19
            done(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", [None, 80])
def test_nothing_is_shown_where_nobody_asked(clock, terminal, capsys, columns):
    if columns:
        terminal(columns)
    with track("decoding", 3, show=False) as done:
        clock[0] += 1000
        done(1)
    assert capsys.readouterr().err == ""


def test_an_unknown_total_is_only_counted(clock, capsys):
    with track("reading", None, unit="figures") as done:
        clock[0] += 3700
        done(7)
    assert capsys.readouterr().err == "srbench: reading: 7 figures, 1:01:40 so far\n"
