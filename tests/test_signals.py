"""Ctrl-C, SIGTERM and a terminal that is closed end a command in order, however often they come."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

COMMAND = """
    import signal, sys, time
    from srbench.cli.signals import stop_on_signals

    for word in sys.argv[2:]:  # what another program has started it with
        signal.signal(getattr(signal, word), signal.SIG_IGN)
    if len(sys.argv) == 2:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, if the tests run below it, had it ignored
    stop_on_signals()
    try:
        print("at work", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopping", flush=True)
        time.sleep(float(sys.argv[1]))
        print("in order", flush=True)
        sys.exit(130)
"""


def command(seconds: float, *ignored: str) -> subprocess.Popen[str]:
    """Start what takes so many seconds to stop, and return it when it is at work."""
    words = [sys.executable, "-c", textwrap.dedent(COMMAND), str(seconds), *ignored]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, complained = process.communicate(timeout=60)
    return process.returncode, said, complained


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_each_signal_stops_in_order_though_it_comes_twice(name):
    process = command(0.3)
    process.send_signal(getattr(signal, name))
    assert process.stdout is not None and process.stdout.readline() == "stopping\n"
    process.send_signal(getattr(signal, name))
    assert end(process) == (130, "in order\n", "")


def test_a_later_signal_ends_what_takes_long_to_stop():
    process = command(60)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "stopping\n"
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    code, said, complained = end(process)
    assert (code, said) == (130, "")
    assert complained == (
        "srbench: stopped at once; the same command goes on where it was, srbench train with --resume\n"
    )


def test_what_is_started_to_outlive_its_terminal_does():
    process = command(0, "SIGHUP", "SIGINT")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process) == (130, "stopping\nin order\n", "")


def test_a_signal_that_python_swallows_stops_the_work_at_its_next_step():
    swallowed = """
        import signal
        from srbench.cli.signals import stop_on_signals
        from srbench.compute.progress import track

        class Collected:
            def __del__(self):
                signal.raise_signal(signal.SIGTERM)

        stop_on_signals()
        with track("work", None, show=False) as advance:
            advance(1)
            Collected()  # Python ignores what is raised there, and goes on
            print("goes on", flush=True)
            advance(1)
            print("goes on for ever", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(swallowed)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "goes on\n" and done.returncode != 0
    assert "ignored" not in done.stderr and done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_the_end_of_a_stopped_process_cannot_fail():
    stopped = """
        import atexit, os
        from srbench import cli

        class Library:
            def __del__(self):
                os.abort()  # as some do when they are taken down while they are at work

        library = Library()
        atexit.register(print, "tidied up")

        def app():
            print("stopping")
            raise SystemExit(130)

        cli.app = app
        cli.main()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(stopped)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "stopping\ntidied up\n", "")
