"""Processes that got away: those that a renderer started and that left the process group of their slot.

Killing the group ends everything that stayed in it. A daemon (`setsid`, forked twice) did not, and after its parent's
death nothing in the kernel ties it to its slot. So each slot's process is born with a mark in its environment, which
whatever it starts inherits and which `/proc` shows. Linux only; elsewhere nothing is found.

What it can not do: find a process that emptied its own environment and whose parents are gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import psutil

MARK = "GREENROOM_SLOT"
"""The variable; its value is `<node>/<slot>/<random>`, other for each process of a slot."""

_PROC = Path("/proc")
_SCANS = 5
"""A stray may fork while it is looked for; more generations than this at once are an attack, not an accident."""
_GONE_S = 5.0
"""SIGKILL acts in milliseconds; a process still there after this sits in the kernel."""


def end_marked(prefix: str, *, below: int | None = None) -> list[int]:
    """SIGKILL every process whose mark begins with `prefix` and wait until they are gone; their pids.

    With `below`, those that still descend from that process stay: they are its business.
    """
    ended: list[int] = []
    for _ in range(_SCANS):
        caught = dict(_catch(prefix, below))
        try:
            for handle in caught.values():
                _send_kill(handle)
            left = set(caught.values())
            while left and (gone := wait(left, _GONE_S)):
                left -= {handle for handle in gone if isinstance(handle, int)}
        finally:
            for handle in caught.values():
                os.close(handle)
        if not caught:
            break
        ended += caught
    return ended


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below `pid` now, in whatever session; none if it is gone. Each knows its start time."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return found


def end(processes: list[psutil.Process]) -> None:
    """SIGKILL those that are still the processes that were found (psutil compares start times)."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


def _catch(prefix: str, below: int | None) -> Iterator[tuple[int, int]]:
    """Pid and pidfd of each process to end."""
    for entry in _PROC.glob("[0-9]*"):
        pid = int(entry.name)
        if pid == os.getpid() or not _is_marked(pid, prefix):
            continue
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        # Read again now that the handle is there: either both are of one process, or the handle's is gone already.
        if _is_marked(pid, prefix) and (below is None or not _descends(pid, below)):
            yield pid, handle
        else:
            os.close(handle)


def _is_marked(pid: int, prefix: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"\0{MARK}={prefix}".encode() in b"\0" + environment


def _descends(pid: int, ancestor: int) -> bool:
    """Whether `pid` is `ancestor` or below it."""
    while pid > 1 and pid != ancestor:
        try:
            text = (_PROC / str(pid) / "stat").read_text()
        except OSError:
            return False
        # "pid (name) state ppid ..."; the name may hold anything, brackets too.
        pid = int(text.rpartition(")")[2].split()[1])
    return pid == ancestor


def _send_kill(handle: int) -> None:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
