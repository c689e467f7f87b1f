"""The limits that a container sets on memory and CPU, and how much of them is used.

Read from this process's cgroup and those above it, as far as they can be seen (v2 `memory.max`, `memory.current`,
`cpu.max`, `cpu.stat`; v1 `memory.limit_in_bytes`, `memory.usage_in_bytes`, `cpu.cfs_quota_us`, `cpuacct.usage`). The
tightest limit counts. Source: the kernel's cgroup documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60
"""v1 writes "no limit" as the largest multiple of a page."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes. `used` leaves out file pages that the kernel gives up first, as an OOM kill does."""

    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class CpuUse:
    """`cores` (may be a fraction) are allowed; `seconds` of CPU were used so far."""

    cores: float
    seconds: float


class Cgroup:
    """This process's control groups. Every reading is None where no limit is set or none can be read."""

    def __init__(self, root: Path = ROOT, membership: str | None = None) -> None:
        """`membership` is the content of `/proc/self/cgroup`; read from there if None."""
        text = _read(Path("/proc/self/cgroup")) if membership is None else membership
        self._unified: list[Path] = []
        self._legacy: dict[str, list[Path]] = {}
        for line in text.splitlines():
            _number, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if names == "":
                self._unified = list(_upwards(root, path))
            else:
                for name in names.split(","):
                    self._legacy[name] = list(_upwards(root / name, path))

    def memory(self) -> MemoryUse | None:
        """The group with the least room left."""
        found = [
            *self._memory(self._unified, "memory.max", "memory.current", "inactive_file"),
            *self._memory(
                self._legacy.get("memory", []), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            ),
        ]
        return min(found, key=lambda use: use.limit - use.used, default=None)

    def cpu(self) -> CpuUse | None:
        """The group with the fewest cores."""
        return min((*self._cpu(), *self._legacy_cpu()), key=lambda use: use.cores, default=None)

    def _memory(self, folders: list[Path], limit: str, current: str, reclaimed: str) -> Iterator[MemoryUse]:
        for folder in folders:
            most, used = _number(folder / limit), _number(folder / current)
            if most is not None and used is not None and most < _UNLIMITED_BYTES:
                easy = _field(folder / "memory.stat", reclaimed) or 0
                yield MemoryUse(most, max(used - easy, 0))

    def _cpu(self) -> Iterator[CpuUse]:
        for folder in self._unified:
            quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
            spent = _field(folder / "cpu.stat", "usage_usec")
            if quota.isdigit() and period.isdigit() and int(period) and spent is not None:
                yield CpuUse(int(quota) / int(period), spent / 1e6)

    def _legacy_cpu(self) -> Iterator[CpuUse]:
        for folder, account in zip(self._legacy.get("cpu", []), self._legacy.get("cpuacct", []), strict=False):
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
            spent = _number(account / "cpuacct.usage")
            if quota is not None and period and spent is not None:
                yield CpuUse(quota / period, spent / 1e9)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it that are there; a container sees its own group as the root."""
    inside = PurePosixPath(path.lstrip("/"))
    for part in (inside, *inside.parents):
        if (folder := root / part).is_dir():
            yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none (`max`, -1, no file)."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int | None:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None
