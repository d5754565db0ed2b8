"""Several processes, as torchrun starts them: which one this is, its share, and how it waits for the others."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from srbench.compute.devices import use_device
from srbench.errors import SrbenchError, UsageError, sentence

MEETING_TIME = datetime.timedelta(minutes=5)  # within which all processes must have started
WAITING_TIME = datetime.timedelta(days=7)  # the first process may time methods for hours while the others wait

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those of one evaluation.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        group: What they talk through, on the CPU; None where there is one process.
    """

    rank: int = 0
    world: int = 1
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once, and talks to the user."""
        return self.rank == 0

    def share(self, count: int) -> NDArray[np.int64]:
        """Return the places, of `count`, that this process works on; the shares of all processes are disjoint."""
        return np.array_split(np.arange(count), self.world)[self.rank]

    def wait(self) -> None:
        """Wait until every process has come here.

        Raises:
            SrbenchError: If another one has ended before.
        """
        if self.world > 1:
            with self._together():
                dist.barrier(group=self.group)

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in order of rank.

        Raises:
            SrbenchError: If another one has ended before.
        """
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with self._together():
            dist.all_gather_object(values, value, group=self.group)
        return values

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what gloo raises where a connection has ended
            raise _left_by_others(self.rank, self.world) from error


@contextmanager
def joined(device: str) -> Iterator[tuple[torch.device, Ranks]]:
    """Choose this process's device and meet the other processes; part with them at the end.

    The device comes before anything else: whatever is put on "cuda" without a number, by a method or by torch, goes to
    the current device, which is the same one for every process until it is set.

    Args:
        device: "auto", "cpu" or "cuda".

    Yields:
        The device, and this process among the others.

    Raises:
        UsageError: If the device does not exist, or the environment was left over from another run.
        SrbenchError: If the other processes do not come.
    """
    rank, world = _rank_and_world()
    where = use_device(device)
    if where.type == "cuda":
        where = _own_device(rank)
        torch.cuda.set_device(where.index)
    if world == 1:
        yield where, Ranks()
        return
    ours = not dist.is_initialized()
    if ours:
        _meet(rank, world, where)
    group = None
    try:
        group = _patient_group(rank, world)
        yield where, Ranks(rank, world, group)
    finally:
        if ours or group is not None:
            dist.destroy_process_group(None if ours else group)


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():  # by whoever calls srbench from Python
        return dist.get_rank(), dist.get_world_size()
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    given = " and ".join(f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if os.environ.get(name))
    remedy = "start srbench by torchrun, or unset them"
    if not 0 <= rank < world or (world > 1 and not os.environ.get("RANK")):
        raise UsageError(f"the environment has {given}, which names no process of a run; {remedy}")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if world > 1 and missing:
        raise UsageError(
            f"the environment has {given} but no {' and no '.join(missing)}, where processes meet; {remedy}"
        )
    return rank, world


def _own_device(rank: int) -> torch.device:
    count = torch.cuda.device_count()
    local_rank = _number("LOCAL_RANK", rank % count)
    if local_rank >= count:
        raise UsageError(
            f"the environment has LOCAL_RANK={local_rank}, but torch sees only {count} CUDA devices here;"
            " start as many processes as there are devices, or use --device cpu"
        )
    return torch.device("cuda", local_rank)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.strip().isdecimal():
        raise UsageError(
            f"the environment has {variable}={text}, expected a whole number as torchrun sets it;"
            " start srbench by torchrun, or unset it"
        )
    return int(text)


def _meet(rank: int, world: int, device: torch.device) -> None:
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store = _store(where, rank, world)
        # A second evaluation must not read what the first one left in the store.
        number = store.add(f"srbench/evaluations/{rank}", 1)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"srbench/{number}", store),
            rank=rank,
            world_size=world,
            timeout=MEETING_TIME,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise SrbenchError(
            f"process {rank} of {world} did not meet the others at {where} ({sentence(error)});"
            " start all of them by torchrun, or unset RANK and WORLD_SIZE"
        ) from error


def _patient_group(rank: int, world: int) -> Any:
    """Return a group on the CPU whose processes wait for each other for days, once all of them have joined it.

    NCCL would send objects through the device, and gives up on whoever waits for more than ten minutes. A process that
    ends before it has joined closes no connection, so for joining there is the time for meeting only.

    Raises:
        SrbenchError: If another process has ended before.
    """
    try:
        group: Any = dist.new_group(backend="gloo", timeout=MEETING_TIME)
    except RuntimeError as error:
        raise _left_by_others(rank, world) from error
    group._get_backend(torch.device("cpu"))._set_default_timeout(WAITING_TIME)
    return group


def _left_by_others(rank: int, world: int) -> SrbenchError:
    return SrbenchError(
        f"process {rank} of {world} goes no further, because another one was stopped or has failed:"
        " what that one says is the cause; the same command goes on where it was"
    )


@functools.cache
def _store(where: str, rank: int, world: int) -> Any:
    """Return the store at which processes meet; it stays open, because the first process serves it to the others."""
    store, _, _ = next(iter(dist.rendezvous("env://", rank, world, timeout=MEETING_TIME)))
    return store
