"""Runs of the command line that are killed: forked from a process that has imported everything, watched, compared."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Imports once what a run needs, then forks a process for every command line that it reads: each is a process of its own
# that can be killed, without the seconds that importing torch takes.
NURSERY = """
    import datetime, json, os, signal, sys, traceback
    import matplotlib.pyplot, onnx, onnxruntime, onnxscript, scipy.stats, sklearn.metrics, timm, torch
    import torch.distributed
    import srbench.evaluation.api, srbench.export, srbench.report, srbench.report.site, srbench.training.api
    import srbench.upscaling
    from functools import partial
    from srbench import leaderboard
    from srbench.evaluation import costs, distributed, options
    from srbench.cli import main
    from srbench.registry import Registry

    Registry().working()
    # Whoever starts the tests in the background lets them ignore Ctrl-C, and every process below them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The seconds of a run go into what is to be interrupted, not into the timing pass and into drawing samples anew.
    costs.BUDGET_S = 0.001
    leaderboard.build = partial(leaderboard.build, draws=20)
    options.CHUNK = 60  # several shards a cell
    # Whoever waits for a process that was killed before they met waits as long as for one that was started late.
    distributed.MEETING_TIME = datetime.timedelta(seconds=15)

    def start(words, environment, log):
        child = os.fork()
        if child:
            return child
        os.environ |= environment
        with open(log, "w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.argv = ["srbench", *words]
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def ended(child, flags):
        pid, status = os.waitpid(child, flags)
        return os.waitstatus_to_exitcode(status) if pid else None

    DOES = {"start": start, "poll": lambda pid: ended(pid, os.WNOHANG), "wait": lambda pid: ended(pid, 0)}
    for line in sys.stdin:
        what, *given = json.loads(line)
        print(json.dumps(DOES[what](*given)), flush=True)
"""


class Nursery:
    """Starts runs of the command line."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(NURSERY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> Run:
        """Start a command line with these variables."""
        self._count += 1
        log = self._folder / f"log-{self._count}.txt"
        pid = self.ask("start", list(words), dict(environment), str(log))
        assert isinstance(pid, int) and pid > 1  # 0 would signal the whole process group, the tests themselves included
        return Run(self, pid, log)

    def start_ranks(self, words: Sequence[str], environment: Mapping[str, str], ranks: int) -> list[Run]:
        """Start a command line as torchrun starts it."""
        if ranks == 1:
            return [self.start(words, environment)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        own = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks))
        return [self.start(words, {**environment, **meeting, **each}) for each in own]

    def ask(self, *question: object) -> object:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()  # it holds nothing, and taking torch down in order takes long on a busy machine
        self._process.communicate()


class Run:
    """A run that is at work."""

    def __init__(self, nursery: Nursery, pid: int, log: Path) -> None:
        self._nursery, self._pid, self._log = nursery, pid, log
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, negative if a signal ended it, or None while it is at work."""
        if self._code is None:
            self._code = self._nursery.ask("poll", self._pid)  # type: ignore[assignment]
        return self._code

    def wait(self, seconds: float = 300) -> int:
        """Return its exit code; kill it where it does not end."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.stop()
                raise AssertionError(f"it has not ended in {seconds} s; it said: {self.said}")
            time.sleep(0.005)
        return code

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send it a signal, which comes too late where it has ended, and return its exit code."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
        if self._code is None:
            self._code = self._nursery.ask("wait", self._pid)  # type: ignore[assignment]
        assert self._code is not None
        return self._code

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")


def files_below(*roots: Path) -> list[Path]:
    """List the files below folders that a run is still writing to and deleting from.

    `Path.rglob` raises where a folder vanishes while it looks; `os.walk` goes on.
    """
    return [Path(here, name) for root in roots for here, _, names in os.walk(root) for name in names]
