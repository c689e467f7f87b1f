"""One slot process as the service holds it: process, pipes, shared block and output, thrown away together.

No queue is shared between processes. Death is seen from the sentinel in milliseconds. This module alone starts,
stops and reaps slot processes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from secrets import token_hex

import structlog

from app.render.contract import Phase
from app.worker import strays, wire
from app.worker.frames import HEADER_BYTES, FrameReader
from app.worker.launch import CHILD, ChildSpec, command
from app.worker.shared import ProgressBlock, Reading

log = structlog.get_logger(__name__)

_LAST_WORDS = 40
"""Lines of output that are kept for the record of a process that dies."""
_TERM_GRACE_S = 0.3
"""A renderer that does not yield to SIGTERM within this is killed: it holds nothing that must be saved."""
_KILL_WAIT_S = 5.0
"""SIGKILL acts in milliseconds; a process still there after this sits in the kernel (a wedged device)."""

_REAP_S = 1.0
"""Between the sentinel and the exit code lie microseconds; more on a busy machine."""

_STACK_POLL_S = 0.03
"""The stacks are complete when two looks this far apart read the same."""

OutputSink = Callable[[str, str], None]
"""Called with (slot, line) for each line that a slot's process writes."""


class SlotProcess:
    """One generation of a slot. Not reusable: after `dispose` a new one is made."""

    def __init__(self, spec: ChildSpec, sink: OutputSink, owner: str, *, module: str = CHILD) -> None:
        """`owner`: the node. `module`: what the process runs.

        Raises OSError, or RuntimeError for want of a thread, if no process can be made; nothing is left of it then.
        """
        self.slot = spec.slot
        """The slot that it serves; changes when a spare takes over."""
        self._stack_file = Path(spec.stack_file)
        self._stack_file.parent.mkdir(parents=True, exist_ok=True)
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._sink = sink
        self._send_lock = threading.Lock()
        self._mark = f"{owner}/{spec.slot}/{token_hex(8)}"
        with contextlib.ExitStack() as undo:
            self._block = undo.enter_context(contextlib.closing(ProgressBlock()))
            command_reader, self._commands = _pipe(undo)
            self.events, event_writer = _pipe(undo)
            self._frames = FrameReader(self.events)
            self._output, output_writer = _pipe(undo)
            inherited = (self._block.handle, command_reader.fileno(), event_writer.fileno())
            self._sentinel: int | None
            self._process, self._sentinel = self._begin(module, inherited, output_writer.fileno(), undo)
            for end in (command_reader, event_writer, output_writer):
                end.close()
            with contextlib.suppress(BrokenPipeError):  # it is dead already: its sentinel tells the rest
                self._commands.send_bytes(wire.encode(spec))
            self._relay = threading.Thread(target=self._relay_output, name=f"output-{spec.slot}", daemon=True)
            self._relay.start()
            undo.pop_all()

    def _begin(
        self, module: str, inherited: Sequence[int], output: int, undo: contextlib.ExitStack
    ) -> tuple[subprocess.Popen[bytes], int]:
        """Start the process; it and its sentinel. Raises OSError; `undo` ends both."""
        # Unlike a pipe, no grandchild can hold a pidfd open past the death; once it is readable the exit code is there.
        ends = [] if hasattr(os, "pidfd_open") else list(os.pipe())
        undo.callback(_close, ends)
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command(module, *inherited),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(*inherited, *ends[1:]),
            env={**os.environ, strays.MARK: self._mark},
            start_new_session=True,
        )
        undo.callback(_end, process)
        if ends:
            os.close(ends.pop())
        else:
            ends.append(os.pidfd_open(process.pid))
        return process, ends[0]

    @property
    def pid(self) -> int:
        """The process id, also after `dispose`."""
        return self._process.pid

    @property
    def sentinel(self) -> int:
        """A file descriptor that becomes readable when the process dies."""
        if self._sentinel is None:
            raise ValueError("the process was thrown away")
        return self._sentinel

    @property
    def exitcode(self) -> int | None:
        """None while it lives; negative for a signal."""
        return self._process.poll()

    def reap(self) -> int | None:
        """The exit code of a process that its sentinel says is dead."""
        self._join(_REAP_S)
        return self._process.returncode

    def is_alive(self) -> bool:
        """Whether the process exists."""
        return self._process.poll() is None

    def _join(self, timeout: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def send(self, command: wire.Command, *, at_once: bool = False) -> bool:
        """Send a command; False if the process is gone (its sentinel tells the rest).

        `at_once`: also False, and nothing sent, where this could wait until the process reads: for a long command, or
        a pipe with others in it.
        """
        frame = wire.encode(command)
        try:
            with self._send_lock:
                if at_once and not self._takes_at_once(frame):
                    return False
                self._commands.send_bytes(frame)
        except (OSError, ValueError):
            return False
        return True

    def _takes_at_once(self, frame: bytes) -> bool:
        if len(frame) + HEADER_BYTES > select.PIPE_BUF:
            return False
        poll = select.poll()
        poll.register(self._commands, select.POLLOUT)
        # Writable is a pipe into which `PIPE_BUF` bytes go at once.
        return poll.poll(0) == [(self._commands.fileno(), select.POLLOUT)]

    def take(self) -> wire.Event | None:
        """The next event that is there as a whole, None when there is none. Never waits.

        Raises EOFError once the process has let go of its end, and `msgspec.DecodeError` for what is no message.
        """
        frame = self._frames.read()
        return None if frame is None else wire.decode_event(frame)

    def receive(self, timeout: float) -> wire.Event | None:
        """The next event, None when there is none within `timeout` seconds or the process has died.

        Raises `msgspec.DecodeError` for a frame that is no message of ours.
        """
        wait([self.events, self.sentinel], timeout)
        try:
            return self.take()
        except EOFError:
            return None

    def read(self) -> Reading:
        """Heartbeat and progress as last written."""
        return self._block.read()

    def steps(self) -> list[tuple[Phase, float]]:
        """The phases that its attempt has entered, in order, and when (epoch seconds). They outlive the process."""
        return self._block.steps()

    def last_words(self) -> str:
        """The last lines that the process wrote. After its death the relay is given a moment to finish."""
        if not self.is_alive():
            self._relay.join(timeout=1.0)
        return "\n".join(self._last_words)

    def stacks(self, timeout: float = 0.3) -> str:
        """The Python stacks of all its threads, taken by a signal handler in C: works while the GIL is held."""
        with contextlib.suppress(OSError):
            self._stack_file.write_text("")
        try:
            os.kill(self.pid, signal.SIGUSR1)
        except OSError:
            return ""
        end = time.monotonic() + timeout
        before = ""
        while time.monotonic() < end:
            wait([self.sentinel], _STACK_POLL_S)
            text = self._stack_file.read_text(errors="replace")
            if text and text == before:
                break
            before = text
        return before

    def stop(self, grace_s: float) -> bool:
        """Ask, SIGTERM, SIGKILL the group; True when the process is verified gone.

        `grace_s` is how long it may take to leave after having been asked (0: it is not asked).
        """
        if grace_s > 0 and self.send(wire.Stop()):
            self._join(grace_s)
        if self.is_alive():
            self._signal(signal.SIGTERM)
            self._join(_TERM_GRACE_S)
        return self.kill()

    def kill(self) -> bool:
        """SIGKILL the process with all that it started, at once; True when the process itself is verified gone."""
        below = strays.descendants(self.pid) if self.is_alive() else []
        self._signal(signal.SIGKILL)
        strays.end(below)
        self._join(_KILL_WAIT_S)
        self._end_marked()
        gone = not self.is_alive()
        if not gone:
            log.error("slot_process_unkillable", slot=self.slot, pid=self.pid)
        return gone

    def end_strays(self) -> None:
        """End what it started and what is no longer below it: nobody else ever would."""
        self._end_marked(below=self.pid)

    def _end_marked(self, below: int | None = None) -> None:
        try:
            ended = strays.end_marked(self._mark, below=below)
        except OSError as error:  # no descriptor is left to look with: the process itself is ended all the same
            log.warning("strays_not_looked_for", slot=self.slot, reason=str(error))
            return
        if ended:
            log.warning("strays_ended", slot=self.slot, pids=ended)

    def _signal(self, number: signal.Signals) -> None:
        # The child leads its own session; its children are in its group even when it is gone itself.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def dispose(self) -> None:
        """Release pipes, block and files. The process must be gone, or is given up."""
        with self._send_lock:
            self._commands.close()
        self._relay.join(timeout=1.0)
        self.events.close()
        self._block.close()
        if self._sentinel is not None:
            os.close(self._sentinel)
            self._sentinel = None
        with contextlib.suppress(OSError):
            self._stack_file.unlink(missing_ok=True)

    def _relay_output(self) -> None:
        with os.fdopen(os.dup(self._output.fileno()), "r", errors="replace") as stream:
            self._output.close()
            for line in stream:
                text = line.rstrip()
                if text:
                    self._last_words.append(text)
                    self._pass_on(text)

    def _pass_on(self, line: str) -> None:
        try:
            self._sink(self.slot, line)
        except Exception:
            # Were nobody to read on, the process would fail, or wait for ever, at the next line that it writes.
            log.exception("worker_line_not_relayed", slot=self.slot)


def _pipe(undo: contextlib.ExitStack) -> tuple[Connection, Connection]:
    """A pipe's reading and writing end, which `undo` closes. Raises OSError."""
    reader, writer = Pipe(duplex=False)
    undo.callback(reader.close)
    undo.callback(writer.close)
    return reader, writer


def _close(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that has only just begun."""
    process.kill()
    process.wait()
