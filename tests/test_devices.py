"""Choosing a device, and what srbench sets for its process: nothing from Python, memory from the command line."""

from __future__ import annotations

import os
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
from srbench.compute.process import prepare_process
use_device("cpu")
if sys.argv[1] == "prepared":
    prepare_process()
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
from srbench.compute.process import give_back_freed_memory, keep_freed_memory
def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
keep_freed_memory()
before = held()
tensors = [torch.ones(2**18) for _ in range(256)]
last = torch.ones(1000)
del tensors
print(held() - before)
give_back_freed_memory()
print(held() - before)
"""
GROWN = """
import torch
from srbench.compute.process import FreedMemory, keep_freed_memory
def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
keep_freed_memory()
before, memory, kept = held(), FreedMemory(), []
def batch(blocks):
    tensors = [torch.ones(2**18) for _ in range(blocks)]
    kept.append(torch.ones(1000))
    del tensors
    memory.after_batch()
    return held() - before
print(batch(128), batch(128), batch(256), batch(256), batch(256))
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
def test_memory_is_handed_back_where_it_has_grown_over_what_a_batch_needs():
    found = subprocess.run([sys.executable, "-c", GROWN], check=True, capture_output=True, text=True, timeout=120)
    small, again, grown, needed, still = map(int, found.stdout.split())  # kB; batches of 128 MB, then of 256 MB
    assert 100_000 < small < 150_000 and small <= again < small + 2**15
    assert grown < 50_000  # given back, as it may have been holes
    assert 200_000 < needed <= still < needed + 2**15  # it is needed: not given back again


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
def test_the_command_line_shares_malloc_with_arrow_unless_the_user_has_chosen(given, taken):
    code = (
        "import sys; from srbench.cli import main; sys.argv[1:] = ['list', 'protocols']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    environment = {"PATH": "/usr/bin:/bin"} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == taken


SETTINGS = """
import ctypes, os, sys
calls = []
class Library:  # every call of glibc by name goes through here
    def __init__(self, name, *rest, **more): self._real = real(name, *rest, **more)
    def __getattr__(self, name):
        if name == "mallopt": calls.append(name)
        return getattr(self._real, name)
if sys.argv[1] != "import":
    import lightning.fabric, sklearn, timm, torchvision  # these set variables of their own
real, before = ctypes.CDLL, dict(os.environ)
ctypes.CDLL = Library
import srbench
if sys.argv[1] == "everything":
    import importlib, pkgutil
    names = [module.name for module in pkgutil.walk_packages(srbench.__path__, "srbench.")]
    assert len(names) > 80
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    srbench.evaluate(["nearest"], limit=4, out=sys.argv[2], progress=False)
import pyarrow
ctypes.CDLL = real
assert not calls, calls
assert dict(os.environ) == before, sorted(set(os.environ.items()) ^ set(before.items()))
print(pyarrow.default_memory_pool().backend_name)
"""


@pytest.mark.parametrize("what", ["import", "everything"])
def test_from_python_nothing_of_the_process_is_set(tmp_path, what):
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    environment |= {name: value for name, value in os.environ.items() if name in ("HOME", "SRBENCH_CACHE")}
    alone = [sys.executable, "-c", "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"]
    ours = [sys.executable, "-c", SETTINGS, what, str(tmp_path)]
    plain, found = (
        subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=250)
        for command in (alone, ours)
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout == plain.stdout
