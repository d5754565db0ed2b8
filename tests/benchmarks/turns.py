"""A plugin of pytest, for the timing gate: benchmarks run in slices, each when whoever started the process says so.

So several processes that run the same benchmarks take turns within milliseconds, and a machine that changes its speed
changes it for all of them. The plugin stands in for pytest-benchmark and gives the same fixture, `benchmark`.

The two pipes are named by the variable SRBENCH_TURNS: "<descriptor to read from>,<descriptor to write to>". The process
writes a line and waits for one, each time:

    ["tests/...", ...]        the names of its benchmarks
    ready NAME                before each
    calibrated SECONDS        what a call takes; the answer is "SLICES LOOPS"
    slice                     before the first slice
    slice SECONDS             what a call took in the slice before; as many as there are slices
    finished                  after the last benchmark
"""

from __future__ import annotations

import gc
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

WARMUP_CALLS = 2


def pytest_configure(config):
    read, write = (int(number) for number in os.environ["SRBENCH_TURNS"].split(","))
    module, _, name = os.environ["SRBENCH_TURNS_TIMER"].rpartition(".")
    timer = getattr(importlib.import_module(module), name)
    config.pluginmanager.register(Turns(os.fdopen(read, "r"), os.fdopen(write, "w"), timer), "srbench-turns")


class Turns:
    """Waits for its turn."""

    def __init__(self, read, write, timer: Callable[[], float]):
        self._read, self._write, self._timer = read, write, timer

    def wait(self, line: str) -> str:
        self._write.write(line + "\n")
        self._write.flush()
        answer = self._read.readline()
        if not answer:  # nobody is there any more
            os._exit(3)
        return answer

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session):
        self.wait(json.dumps([item.nodeid for item in session.items]))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self.wait(f"ready {item.nodeid}")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self):
        self.wait("finished")
        return (yield)

    @pytest.fixture
    def benchmark(self):
        return Sliced(self, self._timer)


class Sliced:
    """Stands in for pytest-benchmark's fixture."""

    def __init__(self, turns: Turns, timer: Callable[[], float]):
        self._turns, self._timer = turns, timer
        self.extra_info: dict[str, Any] = {}

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        for _ in range(WARMUP_CALLS - 1):
            function(*args, **kwargs)
        gc.collect()
        gc.disable()
        try:
            result = function(*args, **kwargs)
            shortest = min(self._seconds(function, args, kwargs, 1) for _ in range(2))
            slices, loops = map(int, self._turns.wait(f"calibrated {shortest!r}").split())
            line = "slice"
            for _ in range(slices):
                self._turns.wait(line)
                line = f"slice {self._seconds(function, args, kwargs, loops)!r}"
            self._turns.wait(line)
        finally:
            gc.enable()
        return result

    def pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], object] | None = None,
        **_: int,  # how often is not for the benchmark to say here
    ) -> Any:
        if setup is not None:
            raise ValueError("a benchmark of the timing gate has no setup; take it out of the gate")
        return self(target, *args, **(kwargs or {}))

    def _seconds(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], loops: int
    ) -> float:
        timer, start = self._timer, self._timer()
        for _ in range(loops):
            function(*args, **kwargs)
        return (timer() - start) / loops
