"""The media helper: a process that imports the codecs once and forks one limited process for every file.

`python -m app.media.sandbox_child` reads requests from stdin and answers on stdout (`app.media.sandbox_wire`) until
stdin ends. It never opens a file itself, so that no file can harm it, and it stays single-threaded, so that forking
is safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.media.info import MediaInfo, MediaLimits
from app.media.probe import probe
from app.media.sandbox_wire import READY, ProbeRequest, answer_line, parse_answer, parse_request
from app.retry.taxonomy import CodedError, FailureCode

Probe = Callable[[Path, MediaLimits], MediaInfo]

MAX_OPEN_FILES = 32
MAX_ANSWER = 1024 * 1024
"""An answer has some hundred bytes; a process that was taken over could send anything."""
_READ = 65_536
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(slots=True)
class _Running:
    """One forked process and what it has said so far."""

    request: ProbeRequest
    pid: int
    deadline: float
    said: bytearray = field(default_factory=bytearray)
    timed_out: bool = False
    unwanted: bool = False


class Zygote:
    """Forks a process per request, enforces its deadline and says what became of it."""

    def __init__(self, probe_file: Probe, requests: int, answers: int) -> None:
        self._probe = probe_file
        self._requests = requests
        self._answers = answers
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._running: dict[int, _Running] = {}
        self._unread = bytearray()
        self._open = True

    def serve(self) -> None:
        """Work until stdin has ended and everything asked for is answered."""
        while self._open or self._running:
            for key, _ in self._selector.select(self._patience()):
                if key.fd == self._requests:
                    self._read_requests()
                else:
                    self._read_child(key.fd)
            self._kill_overdue()

    def _patience(self) -> float | None:
        waiting = [run.deadline for run in self._running.values() if not run.timed_out]
        return max(min(waiting) - time.monotonic(), 0.0) if waiting else None

    def _read_requests(self) -> None:
        received = os.read(self._requests, _READ)
        if not received:
            self._open = False
            self._selector.unregister(self._requests)
            return
        self._unread += received
        *lines, rest = self._unread.split(b"\n")
        self._unread = bytearray(rest)
        for line in lines:
            request = parse_request(bytes(line))
            if isinstance(request, int):
                self._cancel(request)
            else:
                self._fork(request)

    def _cancel(self, request_id: int) -> None:
        for run in self._running.values():
            if run.request.id == request_id:
                run.unwanted = True
                os.kill(run.pid, signal.SIGKILL)

    def _fork(self, request: ProbeRequest) -> None:
        reading, writing = os.pipe()
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            run_limited(self._probe, request, writing, zygote)  # does not return
        os.close(writing)
        self._running[reading] = _Running(request, pid, time.monotonic() + request.seconds)
        self._selector.register(reading, selectors.EVENT_READ)

    def _read_child(self, fd: int) -> None:
        run = self._running[fd]
        received = os.read(fd, _READ)
        run.said += received
        if received and len(run.said) <= MAX_ANSWER:
            return
        self._selector.unregister(fd)
        os.close(fd)
        del self._running[fd]
        # It closed its pipe by exiting, so that this changes nothing; unless it misbehaves, and then it ends here.
        os.kill(run.pid, signal.SIGKILL)
        _, status = os.waitpid(run.pid, 0)
        if not run.unwanted:
            _write_all(
                self._answers, answer_line(run.request.id, outcome(run.request, run.said, status, run.timed_out))
            )

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for run in self._running.values():
            if not run.timed_out and now >= run.deadline:
                run.timed_out = True
                os.kill(run.pid, signal.SIGKILL)


def outcome(request: ProbeRequest, said: bytes | bytearray, status: int, timed_out: bool) -> MediaInfo | CodedError:
    """What became of a forked process, from what it said and its wait status."""
    name = request.path.name
    if timed_out:
        return _decoder_error("decoder_timeout", f"{name} could not be read within {request.seconds:g} s.")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return _decoder_error("decoder_timeout", f"{name} could not be read within {request.seconds:g} s.")
        if number == signal.SIGKILL:
            return _decoder_error("decoder_out_of_memory", f"The system ran out of memory while it read {name}.")
        word = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        return _decoder_error("decoder_crashed", f"{name} crashes its decoder ({word}).", signal=word)
    try:
        return parse_answer(bytes(said))[1]
    except (ValueError, KeyError, TypeError):
        code = os.waitstatus_to_exitcode(status)
        return _decoder_error("decoder_crashed", f"{name} makes its decoder exit with {code}.", exit_code=code)


def run_limited(probe_file: Probe, request: ProbeRequest, answer: int, zygote: int) -> None:
    """In the forked process: give up everything, probe one file, answer, exit. Never returns."""
    try:
        _tie_to_parent(zygote)
        _volunteer_for_oom()
        _limit(request)
        _drop_files(answer)
        try:
            found: MediaInfo | CodedError = probe_file(request.path, request.limits)
        except CodedError as error:
            found = error
        except MemoryError:
            found = _decoder_error(
                "decoder_out_of_memory",
                f"Reading {request.path.name} needs more than {request.memory_bytes >> 20} MiB of memory.",
            )
        except Exception as error:  # noqa: BLE001 - whatever a damaged file provokes is that file's error
            message = f"{request.path.name} cannot be decoded: {error}."
            found = _decoder_error("undecodable", message, error_type=type(error).__name__)
        _write_all(answer, answer_line(request.id, found))
        os._exit(0)
    finally:
        os._exit(70)


def _decoder_error(reason: str, message: str, **detail: Any) -> CodedError:
    return CodedError(FailureCode.INPUT_INVALID, message, reason=reason, **detail)


def _tie_to_parent(parent: int) -> None:
    """Die with the parent, even when it is SIGKILLed, and gain no privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(71)


def _volunteer_for_oom() -> None:
    """Should memory run out, the system shall take this process and not the service."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(request: ProbeRequest) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + request.memory_bytes
    seconds = math.ceil(request.seconds)
    for what, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES),
    ):
        ceiling = resource.getrlimit(what)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(what, (soft, hard))


def _drop_files(keep: int) -> None:
    """Close everything but `keep`; the standard streams become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, keep)
    os.closerange(keep + 1, 1024)


def _write_all(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]


def main(probe_file: Probe = probe) -> None:
    """Serve stdin and stdout. `probe_file` is what runs in the forked processes."""
    _tie_to_parent(os.getppid())
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints may get between the answers
    gc.collect()
    gc.freeze()  # keeps the collector of the forked processes off these pages
    _write_all(answers, READY)
    try:
        Zygote(probe_file, 0, answers).serve()
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
