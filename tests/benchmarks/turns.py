"""A plugin of pytest: tests run only when whoever started the process says so, one at a time.

With it, several processes that run the same benchmarks take turns benchmark by benchmark. The two pipes are named by
the variable SRBENCH_TURNS: "<descriptor to read from>,<descriptor to write to>". A process first writes the names of
its tests, then "ready NAME" before each, and after the last one "finished"; each time it waits for a line.
"""

from __future__ import annotations

import json
import os

import pytest


def pytest_configure(config):
    read, write = (int(number) for number in os.environ["SRBENCH_TURNS"].split(","))
    config.pluginmanager.register(Turns(os.fdopen(read, "r"), os.fdopen(write, "w")), "srbench-turns")


class Turns:
    """Waits for its turn."""

    def __init__(self, read, write):
        self._read, self._write = read, write

    def _wait(self, line):
        self._write.write(line + "\n")
        self._write.flush()
        if not self._read.readline():  # nobody is there any more
            os._exit(3)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session):
        self._wait(json.dumps([item.nodeid for item in session.items]))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self._wait(f"ready {item.nodeid}")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self):
        self._wait("finished")
        return (yield)
