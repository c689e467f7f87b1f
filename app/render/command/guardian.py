"""The guardian of one program: started as a process of its own by path, with the standard library only.

It starts the program in a process group of its own and waits for its end, or for the end of the process that wants
the result, which it sees from their common socket: closed by intent, by a crash or by SIGKILL, it is all the same.
Then the program gets SIGTERM and a moment, and whatever still lives below gets SIGKILL. As the subreaper of all below
it (Linux), the guardian is the new parent of daemons too, so that none gets away.

What it says on the socket: the exit code (negative: the signal), or `!` and why the program could not be started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TERM_GRACE_S = 0.5
"""Less than the service waits for a cancelled render to yield, so that the slot's process can stay."""
_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 200
_ROUND_S = 0.01


def main(handle: int, command: list[str]) -> None:
    """Run `command` to its end. `handle`: the descriptor of the socket."""
    wanted = socket.socket(fileno=handle)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        # Kept to the end: a Popen that is thrown away reaps a program that was quick, and its exit code is lost.
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - that is its task
    except (OSError, ValueError) as error:
        _say(wanted, f"!{error}")
        return
    child = program.pid
    code = _await(child, wanted, woken)
    if code is None:
        _signal_group(child, signal.SIGTERM)
        code = _await(child, None, woken, TERM_GRACE_S)
    _end_all(child)
    if code is not None:
        _say(wanted, str(code))


def _await(child: int, wanted: socket.socket | None, woken: int, timeout: float | None = None) -> int | None:
    """The exit code of `child`; None if `timeout` seconds are over, or `wanted` was closed, before."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        while (ended := _reap()) is not None:
            if ended[0] == child:
                return ended[1]
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            return None
        handles = [woken] if wanted is None else [woken, wanted.fileno()]
        ready = select.select(handles, [], [], left)[0]
        if wanted is not None and wanted.fileno() in ready:
            return None
        if ready:
            os.read(woken, 4096)


def _reap() -> tuple[int, int] | None:
    """Pid and exit code of a child that has ended."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _end_all(child: int) -> None:
    """SIGKILL all that is left, until nothing is."""
    _signal_group(child, signal.SIGKILL)
    for _ in range(_ROUNDS):
        while _reap() is not None:
            pass
        below = _below(os.getpid())
        if not below:
            return
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_ROUND_S)


def _below(ancestor: int) -> set[int]:
    """All descendants, from `/proc`; empty where there is none."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # "pid (name) state ppid ..."; the name may hold anything, brackets too.
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in found | {ancestor}} - found:
        found |= more
    return found


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _say(wanted: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):
        wanted.sendall(text.encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
