"""What the benchmarks share."""

from __future__ import annotations

import os

import pytest
import torch

from srbench.compute.process import prepare_process

prepare_process()  # a command of srbench does the same, and what it costs is to be measured


def pytest_configure(config):
    config.addinivalue_line("markers", "gate: quick and steady enough for the timing gate of CI")
    # Two commits, or two runs, can only be compared with the same number of threads; one is the steadiest.
    torch.set_num_threads(int(os.environ.get("SRBENCH_BENCH_THREADS", "1")))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info):
    machine_info["threads"] = torch.get_num_threads()
