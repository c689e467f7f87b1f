"""The kernel's count of processes that it killed because memory ran out: tells an OOM kill from any other SIGKILL.

Read from this process's cgroup (v2 `memory.events`, v1 `memory.oom_control`), where a container's limit counts, and
from `/proc/vmstat` for the whole machine. Source: the kernel's cgroup and proc documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_KEY = "oom_kill"


def _candidates(root: Path, membership: str) -> Iterator[Path]:
    for line in membership.splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.lstrip("/")
        if controllers == "":
            yield root / inside / "memory.events"
            yield root / "memory.events"
        elif "memory" in controllers.split(","):
            yield root / "memory" / inside / "memory.oom_control"
            yield root / "memory" / "memory.oom_control"
    yield Path("/proc/vmstat")


def _count_in(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == _KEY and value.strip().isdigit():
            return int(value)
    return None


class OomCounter:
    """Reads the counter; the file that has it is found once."""

    def __init__(self, root: Path = _CGROUP_ROOT, membership: str | None = None) -> None:
        """`membership` is the content of `/proc/self/cgroup`; read from there if None."""
        if membership is None:
            try:
                membership = Path("/proc/self/cgroup").read_text()
            except OSError:
                membership = ""
        found = (path for path in _candidates(root, membership) if _count_in(path) is not None)
        self._path = next(found, None)

    def read(self) -> int | None:
        """OOM kills so far; None where the kernel tells none."""
        return None if self._path is None else _count_in(self._path)


def rose(before: int | None, after: int | None) -> bool:
    """Whether the kernel killed something for memory between two readings."""
    return before is not None and after is not None and after > before
