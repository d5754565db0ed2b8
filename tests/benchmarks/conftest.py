"""What the benchmarks share."""

from __future__ import annotations

import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "gate: quick and steady enough for the timing gate of CI")
    # Two commits, or two runs, can only be compared with the same number of threads; one is the steadiest.
    torch.set_num_threads(1)
