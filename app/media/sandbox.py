"""Probing untrusted media from the service: every file is opened in a process of its own, with limits.

A helper process (`app.media.sandbox_child`) keeps the codecs loaded and forks one process per file, so that a probe
costs milliseconds. Whatever happens there is that file's INPUT_INVALID; what befalls the helper itself is no fault of
the file. This module imports no codec.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

from app.media.info import MediaInfo, MediaLimits
from app.media.sandbox_wire import READY, ProbeRequest, cancel_line, parse_answer
from app.retry.taxonomy import CodedError, FailureCode

SECONDS = 20.0
MEMORY_BYTES = 1024**3
CONCURRENCY = 4
CHILD_MODULE = "app.media.sandbox_child"

_START_SECONDS = 60.0
"""Importing the codecs takes a fifth of a second; a cold disk under load a hundred times that."""
_GRACE_SECONDS = 5.0
"""The helper enforces each probe's time itself; after this much more, the helper itself hangs."""
_PASSED_ENV = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR")
"""No secret of the service's environment goes near untrusted media."""


class _HelperGone(Exception):
    """The helper process ended while a request was with it."""


class Sandbox:
    """Probes files in limited helper processes. One per service; use it from one event loop.

    The helper dies with the thread that runs this loop (Linux ties it to that thread), also when it is SIGKILLed.
    """

    def __init__(
        self,
        *,
        concurrency: int = CONCURRENCY,
        seconds: float = SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        child_module: str = CHILD_MODULE,
    ) -> None:
        """At most `concurrency` files at once, each with `seconds` of wall time and `memory_bytes` of address space."""
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._child_module = child_module
        self._turn = asyncio.Semaphore(concurrency)
        self._starting = asyncio.Lock()
        self._ids = itertools.count(1)
        self._helper: _Helper | None = None
        self._closed = False

    async def start(self) -> None:
        """Start the helper now, so that the first probe need not wait. Raises CodedError WORKER_START_FAILED."""
        await self._living_helper()

    @property
    def pid(self) -> int | None:
        """Process id of the helper while it lives."""
        return self._helper.pid if self._helper is not None and self._helper.alive else None

    async def probe(self, path: Path, limits: MediaLimits) -> MediaInfo:
        """Probe one file; waits for its turn. Raises CodedError as `app.media.probe.probe` does, and in addition
        INPUT_INVALID with reason `decoder_crashed` (and `signal`), `decoder_timeout` or `decoder_out_of_memory`.
        Should the helper itself die, it is started again and the file tried once more; a helper that dies twice or
        hangs is MEDIA_HELPER_FAILED, reason `died` or `hung`, and no fault of the file.
        """
        async with self._turn:
            try:
                return await self._ask(path, limits)
            except _HelperGone:
                pass
            try:
                return await self._ask(path, limits)
            except _HelperGone as error:
                text = "The media helper process died twice while it was asked about a file."
                raise CodedError(FailureCode.MEDIA_HELPER_FAILED, text, reason="died") from error

    async def close(self) -> None:
        """End the helper and all its processes. Probes under way fail. Safe to repeat."""
        self._closed = True
        async with self._starting:
            if self._helper is not None:
                await self._helper.end()
                self._helper = None

    async def _ask(self, path: Path, limits: MediaLimits) -> MediaInfo:
        helper = await self._living_helper()
        request = ProbeRequest(next(self._ids), path.absolute(), limits, self._seconds, self._memory_bytes)
        try:
            async with asyncio.timeout(self._seconds + _GRACE_SECONDS):
                return await helper.ask(request)
        except TimeoutError as error:
            # The file's own time is the helper's to enforce: it would have been answered by now.
            helper.kill()
            raise _hung(self._seconds + _GRACE_SECONDS) from error

    async def _living_helper(self) -> _Helper:
        async with self._starting:
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            if self._helper is None or not self._helper.alive:
                if self._helper is not None:
                    await self._helper.end()
                self._helper = await _Helper.start(self._child_module)
            return self._helper


class _Helper:
    """One helper process and the requests that are with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[MediaInfo]] = {}
        self._reading = asyncio.create_task(self._read_answers())

    @classmethod
    async def start(cls, module: str) -> _Helper:
        process = await asyncio.create_subprocess_exec(
            *_command(module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C is the service's to handle
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                first = await process.stdout.readline()
        except BaseException:
            _kill_group(process.pid)
            await process.wait()
            raise
        if first != READY:
            _kill_group(process.pid)
            await process.wait()
            raise CodedError(
                FailureCode.WORKER_START_FAILED,
                f"The media helper process could not start (exit code {process.returncode}).",
                exit_code=process.returncode,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._reading.done()

    async def ask(self, request: ProbeRequest) -> MediaInfo:
        assert self._process.stdin is not None
        answer: asyncio.Future[MediaInfo] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = answer
        try:
            if not self.alive:
                raise _HelperGone
            self._process.stdin.write(request.line())
            await self._process.stdin.drain()
            return await answer
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _HelperGone from error
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(cancel_line(request.id))
            raise
        finally:
            self._waiting.pop(request.id, None)

    def kill(self) -> None:
        # Only while it is not reaped: afterwards the number may be another's. Its forked processes die with it.
        if self._process.returncode is None:
            _kill_group(self._process.pid)

    async def end(self) -> None:
        self.kill()
        await self._process.wait()
        await self._reading

    async def _read_answers(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                request_id, outcome = parse_answer(line)
                answer = self._waiting.get(request_id)
                if answer is None or answer.done():
                    continue
                if isinstance(outcome, CodedError):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)
        except (ValueError, KeyError, TypeError, OSError):
            self.kill()  # it no longer speaks our language
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_HelperGone())


def probe_sync(
    path: Path, limits: MediaLimits, *, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES
) -> MediaInfo:
    """Probe one file with the same isolation, without an event loop; costs one start of the helper (0.3 s)."""
    request = ProbeRequest(1, path.absolute(), limits, seconds, memory_bytes)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        _command(CHILD_MODULE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    try:
        answers, _ = process.communicate(request.line(), timeout=_START_SECONDS + seconds + _GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _hung(_START_SECONDS + seconds + _GRACE_SECONDS) from error
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            process.wait()
    lines = answers.splitlines(keepends=True)
    if len(lines) < 2:
        message = f"The media helper process could not start (exit code {process.returncode})."
        raise CodedError(FailureCode.WORKER_START_FAILED, message, exit_code=process.returncode)
    _, outcome = parse_answer(lines[1])
    if isinstance(outcome, CodedError):
        raise outcome
    return outcome


def _command(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ENV if name in os.environ}


def _kill_group(pid: int) -> None:
    """Kill the helper and its forked processes: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _hung(seconds: float) -> CodedError:
    text = f"The media helper process did not answer within {seconds:g} s. It was killed; a new one takes its place."
    return CodedError(FailureCode.MEDIA_HELPER_FAILED, text, reason="hung")
