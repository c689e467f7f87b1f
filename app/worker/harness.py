"""What every child process of the pool has: pipes, heartbeat, progress, stacks on demand, and an end with its parent.

Started afresh, never forked. It talks over its own pipes and writes heartbeat and progress into its own shared-memory
block. Nothing here imports torch, the store or the API.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from app.render.batching import free_device_memory
from app.render.contract import Cancelled, Phase
from app.retry.classifier import classify_exception
from app.retry.taxonomy import Failure, FailureCode
from app.telemetry.logs import configure_logging
from app.worker import wire
from app.worker.launch import ChildSpec
from app.worker.shared import ProgressBlock

if TYPE_CHECKING:
    from app.quality.gate import Judgement

HEARTBEAT_S = 1.0
_PR_SET_PDEATHSIG = 1

_Outcome = TypeVar("_Outcome")


class Inbox:
    """Commands from the service, read by a thread, so that a cancel arrives while a job runs."""

    def __init__(self, commands: Connection) -> None:
        self._commands = commands
        self.jobs: queue.SimpleQueue[wire.Run | wire.Judge | wire.Stop] = queue.SimpleQueue()
        self._cancelled: tuple[str, int] | None = None

    def is_cancelled(self, task_id: str, attempt: int) -> bool:
        """Whether this attempt was asked to stop."""
        return self._cancelled == (task_id, attempt)

    def listen(self) -> None:
        """Take commands until the service goes away, and this process with it."""
        while True:
            try:
                command = wire.decode_command(self._commands.recv_bytes())
            except (EOFError, OSError):
                leave_with_children()
            except msgspec.DecodeError as error:
                # Deaf, it would hear neither of a job nor of a cancel any more.
                print(f"A command of the service cannot be read: {error}", file=sys.stderr, flush=True)
                leave_with_children()
            if isinstance(command, wire.Cancel):
                self._cancelled = (command.task_id, command.attempt)
            else:
                self.jobs.put(command)


class Reporter:
    """The progress port of one attempt: moves the progress clock and raises `Cancelled`."""

    def __init__(self, block: ProgressBlock, inbox: Inbox, task_id: str, attempt: int) -> None:
        self._block = block
        self._inbox = inbox
        self._task_id = task_id
        self._attempt = attempt
        self._last_frame_at: float | None = None
        self.calls: list[tuple[str, float]] = []

    def report(self, phase: Phase, done: int, total: int) -> None:
        """See `app.render.contract.Progress`, as for the others."""
        self._block.move(phase, done, total)
        if phase is Phase.RENDER:
            self._last_frame_at = time.time()
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` if the attempt was asked to stop."""
        if self._inbox.is_cancelled(self._task_id, self._attempt):
            raise Cancelled

    def called(self, call: str, seconds: float) -> None:
        """Another server was called."""
        self.calls.append((call, round(seconds, 4)))

    def facts(self) -> dict[str, float]:
        """When the last frame was reported, epoch seconds; empty where none was."""
        return {} if self._last_frame_at is None else {"last_frame_at": round(self._last_frame_at, 4)}


@dataclass(frozen=True, slots=True)
class Link:
    """A child's ties to the service."""

    spec: ChildSpec
    block: ProgressBlock
    inbox: Inbox
    events: Connection
    born: float
    """Start of the process, monotonic seconds."""

    def send(self, event: wire.Event) -> None:
        """Tell the service."""
        self.events.send_bytes(wire.encode(event))

    def ready(self) -> None:
        """All is loaded; the versions of what was are told."""
        versions = {"python": sys.version.split()[0]}
        if (torch := sys.modules.get("torch")) is not None:
            versions["torch"] = str(torch.__version__)
        self.send(wire.Ready(self.spec.device, time.monotonic() - self.born, versions))

    def start_failed(self, error: Exception) -> None:
        """A start that fails says why before the process exits."""
        failure = classify_exception(error)
        code = failure.code if failure.code is FailureCode.GPU_UNAVAILABLE else FailureCode.WORKER_START_FAILED
        self.send(wire.StartFailed(code, failure.message, failure.hint, failure.detail))


def enter(arguments: Sequence[str]) -> Link:
    """The beginning of a child process, as `app.worker.launch.command` says it."""
    born = time.monotonic()
    handle, command_pipe, event_pipe, parent = map(int, arguments)
    _die_with_parent(parent)
    for inherited in (handle, command_pipe, event_pipe):
        os.set_inheritable(inherited, False)  # what a renderer starts has no business with them
    commands = Connection(command_pipe, writable=False)
    spec = msgspec.json.decode(commands.recv_bytes(), type=ChildSpec)
    _prepare(spec)
    block, inbox = ProgressBlock(handle), Inbox(commands)
    threading.Thread(target=_beat, args=(block, parent), name="heartbeat", daemon=True).start()
    threading.Thread(target=inbox.listen, name="inbox", daemon=True).start()
    return Link(spec, block, inbox, Connection(event_pipe, readable=False), born)


def attempted(order: wire.Run | wire.Judge, work: Callable[[], _Outcome]) -> _Outcome | wire.Failed:
    """What `work` on this order comes to; where it raises, what it raised, classified and as it travels.

    The process goes on after it, with the device's memory free again where that ran out.
    """
    try:
        return work()
    except Cancelled:
        failure = Failure(FailureCode.CANCELLED)
    except Exception as error:  # noqa: BLE001 - the boundary: every error leaves as a classified failure
        failure = classify_exception(error)
    if failure.code is FailureCode.GPU_OOM:
        # Not before the error is forgotten: its traceback holds the tensors of the work.
        free_device_memory()
    return failed(order.task_id, order.attempt, failure)


def failed(task_id: str, attempt: int, failure: Failure) -> wire.Failed:
    """A failure as it travels."""
    return wire.Failed(task_id, attempt, failure.code, failure.message, failure.hint, failure.detail)


def judged(task_id: str, attempt: int, judgement: Judgement, seconds: float) -> wire.Judged:
    """A judgement as it travels."""
    return wire.Judged(task_id, attempt, judgement.values, judgement.scores, judgement.confidence, seconds)


def leave_with_children() -> None:
    """The service is gone: end this process and everything that it started, at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def peak_memory() -> int:
    """The most resident memory that this process ever held, bytes; 0 where its system does not tell.

    Linux' `VmHWM`: `getrusage` goes on counting from before the exec, and so tells the service's memory.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _beat(block: ProgressBlock, parent: int) -> None:
    pid = os.getpid()
    while True:
        if os.getppid() != parent:
            leave_with_children()
        block.beat(pid, peak_memory())
        time.sleep(HEARTBEAT_S)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the service's thread that made it dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        leave_with_children()


def _prepare(spec: ChildSpec) -> None:
    """Lines of output at once, stacks on demand, no reaction to Ctrl-C."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    configure_logging("json", spec.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.enable()
    stacks = Path(spec.stack_file).open("w")  # noqa: SIM115 - stays open for the life of the process
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    if spec.cuda_visible_devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = spec.cuda_visible_devices
    os.environ["OMP_NUM_THREADS"] = str(spec.threads)
