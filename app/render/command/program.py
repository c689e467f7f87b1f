"""A running program, as the renderer holds it: started under its guardian, read line by line, ended as a whole."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.retry.taxonomy import CodedError, FailureCode

LAST_LINES = 40
"""Lines of output that are kept for the record."""
_GUARDIAN = Path(__file__).with_name("guardian.py")
_LINE_END = re.compile(r"[\r\n]+")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LINE_CHARS = 2_000
_LOOKED_AT = 50
"""Lines of one read at most in which progress is looked for: a flood of output must not cost more than its reading."""
_READ_BYTES = 65_536
_END_S = 5.0
"""The guardian needs its grace and milliseconds; one that is still there after this waits for the kernel."""


class Program:
    """One run. `on_line` is called, from a thread of its own, with the lines of output; of a flood with some."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> None:
        """Start it. Raises CodedError WORKER_START_FAILED where no process can be made."""
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._on_line = on_line
        self._said = b""
        self._wanted, other = socket.socketpair()
        try:
            with other:
                self._guardian = subprocess.Popen(  # noqa: S603 - an argv of the operator's, no shell
                    [sys.executable, "-I", "-S", str(_GUARDIAN), str(other.fileno()), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=dict(env),
                    pass_fds=(other.fileno(),),
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            self._wanted.close()
            raise CodedError(FailureCode.WORKER_START_FAILED, f"No process could be made: {error}") from error
        self._reader = threading.Thread(target=self._read, name="program-output", daemon=True)
        self._reader.start()

    def wait(self, timeout: float) -> int | None:
        """The exit code (negative: a signal) once the program and all that it started are gone; None until then.

        Raises CodedError WORKER_START_FAILED if the program could not be started.
        """
        self._wanted.settimeout(timeout)
        try:
            while data := self._wanted.recv(4096):
                self._said += data
        except TimeoutError:
            return None
        except ConnectionError:
            pass
        self._guardian.wait(_END_S)
        self._reader.join(_END_S)
        said = self._said.decode(errors="replace")
        if said.startswith("!"):
            raise CodedError(FailureCode.WORKER_START_FAILED, f"The program cannot be started: {said[1:]}")
        # A guardian that dies without a word was killed itself.
        return int(said) if said else self._guardian.returncode

    def end(self) -> None:
        """End it with all that it started, if it still runs. Returns when it is gone."""
        self._wanted.close()
        try:
            self._guardian.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            self._guardian.wait()
        self._reader.join(_END_S)

    def last_lines(self) -> list[str]:
        """The last lines of output, stdout and stderr together."""
        return list(self._lines)

    def _read(self) -> None:
        assert self._guardian.stdout is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        with self._guardian.stdout as stream:
            while data := os.read(stream.fileno(), _READ_BYTES):
                *lines, rest = _LINE_END.split(rest + decoder.decode(data))
                rest = rest[-_LINE_CHARS:]
                self._take(lines)
        self._take([rest])

    def _take(self, lines: list[str]) -> None:
        for line in lines[-_LOOKED_AT:]:
            text = _ESCAPES.sub("", line[-_LINE_CHARS:]).strip()
            if text:
                self._lines.append(text)
                self._on_line(text)


class Watch:
    """When the program last moved, and how far it said it is. Told by the reading thread, read by the rendering one."""

    def __init__(self, progress: re.Pattern[str] | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`progress` has the groups `done` and maybe `total`, or `percent`; None: every line of output is a move."""
        self._pattern = progress
        self._clock = clock
        self.moved_at = clock()
        self.moves = 0
        self.done = 0
        self.total = 0

    def hear(self, line: str) -> None:
        """Take a line of output."""
        if self._pattern is not None:
            found = self._pattern.search(line)
            if found is None:
                return
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # groups that matched nothing, or infinity
                self._count(found.groupdict())
        self.moved_at = self._clock()
        self.moves += 1

    def _count(self, groups: Mapping[str, str | None]) -> None:
        if "percent" in groups:
            self.done, self.total = round(float(groups["percent"] or "")), 100
        else:
            self.done, self.total = int(groups["done"] or ""), int(groups.get("total") or 0)
