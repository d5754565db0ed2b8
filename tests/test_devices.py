"""Choosing a device, and what a process is told for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from srbench.compute import devices
from srbench.errors import UsageError

# Pages that the kernel clears for tensors of 64 MB, made and dropped ten times after the first.
FAULTS = """
import resource, sys, torch
from srbench.compute.devices import use_device
if sys.argv[1] == "prepared":
    use_device("cpu")
def make():
    for _ in range(10):
        torch.ones(2**24)
make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
HELD = """
import torch
from srbench.compute.devices import give_back_freed_memory, use_device
def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
use_device("cpu")
before = held()
tensors = [torch.ones(2**18) for _ in range(256)]
last = torch.ones(1000)
del tensors
print(held() - before)
give_back_freed_memory()
print(held() - before)
"""
PAGES = 10 * 2**26 // 4096


def faults(how: str, **environment: str) -> int:
    kept = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=kept, check=True, capture_output=True, text=True, timeout=120
    )
    return int(done.stdout)


def is_glibc() -> bool:
    import ctypes

    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(not is_glibc(), reason="another malloc than glibc's")
def test_freed_memory_is_used_again_and_not_mapped_anew():
    assert faults("as it is") > PAGES / 2  # or there would be nothing to gain
    assert faults("prepared") < PAGES / 100


@pytest.mark.skipif(not is_glibc(), reason="another malloc than glibc's")
def test_what_is_kept_can_be_given_back():
    found = subprocess.run([sys.executable, "-c", HELD], check=True, capture_output=True, text=True, timeout=120)
    kept, given_back = map(int, found.stdout.split())
    assert kept > 200_000 > 100_000 > given_back  # kB beyond what was held before; the tensors were 256 MB


@pytest.mark.skipif(not is_glibc(), reason="another malloc than glibc's")
def test_the_users_own_setting_of_malloc_stands():
    assert faults("prepared", MALLOC_MMAP_THRESHOLD_="65536") > PAGES / 2


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="--device takes auto, cpu or cuda, got 'tpu'"):
        devices.use_device("tpu")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.use_device("auto") == devices.use_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="torch sees no CUDA device"):
        devices.use_device("cuda")


@pytest.mark.parametrize(("given", "taken"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_shares_malloc_unless_the_user_has_chosen(given, taken):
    code = "import srbench, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    environment = {"PATH": "/usr/bin:/bin"} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == taken
