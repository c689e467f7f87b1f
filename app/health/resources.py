"""What host, worker processes and GPUs use now: one reading takes about a millisecond and holds no locks.

Inside a container its limits count, not the machine's: see `app.health.cgroup`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import psutil

from app.health.cgroup import Cgroup, CpuUse
from app.health.gpu import Gpu, GpuReader


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, or the container's part of it. Sizes in bytes."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # for OpenAPI

    cpu_share: float | None
    """CPU time used since the reading before, as a share (0 to 1) of what may be used; None in the first reading."""
    cores: float
    """What may be used: the machine's cores, or a container's quota."""
    load_1m: float
    """The machine's load average."""
    memory_total: int
    """What there is."""
    memory_available: int
    """What can be had without swapping."""
    swap_total: int
    """What there is."""
    swap_used: int
    """What is in use."""
    disk_free: int | None
    """Below the data directory; None where the disk does not tell."""
    limited: bool
    """Whether `memory_total` is a container's limit."""

    @property
    def memory_share(self) -> float:
        """Memory in use, 0 to 1."""
        return 1 - self.memory_available / self.memory_total if self.memory_total else 0.0


@dataclass(frozen=True, slots=True)
class Worker:
    """One slot's process. Sizes in bytes, without processes that it started."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # for OpenAPI

    slot: str
    """The slot that it serves."""
    pid: int
    """Its number."""
    memory: int
    """Resident, in bytes."""
    cpu_s: float
    """CPU time since it started."""
    threads: int
    """How many."""
    descriptors: int
    """Open ones."""


@dataclass(frozen=True, slots=True)
class Resources:
    """One reading. `at` in epoch seconds."""

    at: float
    host: Host
    workers: tuple[Worker, ...]
    gpus: tuple[Gpu, ...]
    gpu_note: str
    """Why devices are missing from `gpus`, or why there are none; empty text where all is well."""


class ResourceReader:
    """Reads resources; remembers what a rate needs. For one thread."""

    def __init__(
        self,
        *,
        disk_free: Callable[[], int | None],
        gpus: GpuReader,
        cgroup: Cgroup | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._disk_free = disk_free
        self._gpus = gpus
        self._cgroup = cgroup or Cgroup()
        self._clock = clock
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_before: tuple[float, CpuUse] | None = None
        self._first = True

    def read(self, slots: Sequence[tuple[str, int]]) -> Resources:
        """Everything now. `slots`: the names of slots and the ids of their processes."""
        pids = {pid for _name, pid in slots}
        self._processes = {pid: process for pid, process in self._processes.items() if pid in pids}
        found = (self._worker(name, pid) for name, pid in slots)
        gpus, note = self._gpus.read()
        return Resources(self._clock(), self._host(), tuple(w for w in found if w is not None), tuple(gpus), note)

    def _host(self) -> Host:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        total, available = memory.total, memory.available
        limit = self._cgroup.memory()
        limited = limit is not None and limit.limit < total
        if limit is not None:
            total, available = min(total, limit.limit), min(available, max(limit.limit - limit.used, 0))
        share, cores = self._cpu()
        return Host(
            cpu_share=share,
            cores=cores,
            load_1m=os.getloadavg()[0],
            memory_total=total,
            memory_available=available,
            swap_total=swap.total,
            swap_used=swap.used,
            disk_free=self._disk_free(),
            limited=limited,
        )

    def _cpu(self) -> tuple[float | None, float]:
        machine, first = psutil.cpu_percent(None) / 100, self._first
        self._first = False
        count = float(psutil.cpu_count() or 1)
        now, use, before = time.monotonic(), self._cgroup.cpu(), self._cpu_before
        if use is None or use.cores >= count:
            return (None if first else machine), count
        self._cpu_before = now, use
        if before is None or now <= before[0]:
            return None, use.cores
        mine = (use.seconds - before[1].seconds) / (now - before[0]) / use.cores
        # A busy neighbour takes what the quota grants, and a used-up quota stops us on an idle machine.
        return min(max(mine, machine), 1.0), use.cores

    def _worker(self, slot: str, pid: int) -> Worker | None:
        try:
            process = self._processes.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                spent = process.cpu_times()
                return Worker(
                    slot=slot,
                    pid=pid,
                    memory=process.memory_info().rss,
                    cpu_s=spent.user + spent.system,
                    threads=process.num_threads(),
                    descriptors=process.num_fds(),
                )
        except psutil.Error:
            # It died since the pool named it; the pool sees that itself.
            return None
