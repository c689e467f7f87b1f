"""The main loop of a slot's process: load one renderer onto one device, then render one attempt after the other.

Started afresh, never forked. It talks over its own pipes and writes heartbeat and progress into its own shared-memory
block. It imports torch only after `CUDA_VISIBLE_DEVICES` is set, and never the store or the API.
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
from collections.abc import Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import structlog

from app.quality.checks import check_output
from app.quality.gate import Gate, Judgement
from app.render import registry
from app.render.batching import free_device_memory
from app.render.canary import canary_job
from app.render.contract import Cancelled, Capabilities, Phase, Renderer, RenderJob, RenderResult
from app.retry.classifier import classify_exception
from app.retry.taxonomy import FAILURE_TABLE, CodedError, Failure, FailureCode
from app.telemetry.logs import configure_logging
from app.worker import wire
from app.worker.launch import ChildSpec, Served
from app.worker.shared import ProgressBlock

HEARTBEAT_S = 1.0
_REHEARSAL = "rehearsal"
_PR_SET_PDEATHSIG = 1


class _Inbox:
    """Commands from the service, read by a thread, so that a cancel arrives while a render runs."""

    def __init__(self, commands: Connection) -> None:
        self._commands = commands
        self.jobs: queue.SimpleQueue[wire.Run | wire.Stop] = queue.SimpleQueue()
        self._cancelled: tuple[str, int] | None = None

    def is_cancelled(self, task_id: str, attempt: int) -> bool:
        return self._cancelled == (task_id, attempt)

    def listen(self) -> None:
        while True:
            try:
                command = wire.decode_command(self._commands.recv_bytes())
            except (EOFError, OSError):
                leave_with_children()
            if isinstance(command, wire.Cancel):
                self._cancelled = (command.task_id, command.attempt)
            else:
                self.jobs.put(command)


class _Reporter:
    """The progress port of one attempt: moves the progress clock and raises `Cancelled`."""

    def __init__(self, block: ProgressBlock, inbox: _Inbox, run: wire.Run) -> None:
        self._block = block
        self._inbox = inbox
        self._run = run
        self.calls: list[tuple[str, float]] = []

    def report(self, phase: Phase, done: int, total: int) -> None:
        self._block.move(phase, done, total)
        self.check()

    def check(self) -> None:
        if self._inbox.is_cancelled(self._run.task_id, self._run.attempt):
            raise Cancelled

    def called(self, call: str, seconds: float) -> None:
        self.calls.append((call, round(seconds, 4)))


class _Unheard:
    """The progress port of the canary: nobody listens, nobody cancels."""

    def report(self, phase: Phase, done: int, total: int) -> None:
        """Take the report."""

    def check(self) -> None:
        """Never cancelled."""

    def called(self, call: str, seconds: float) -> None:
        """Count no call."""


def leave_with_children() -> None:
    """The service is gone: end this process and everything that it started, at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the service's thread that made it dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        leave_with_children()


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


class _Renderers:
    """The renderers of this process by tier: the first is loaded at the start, others when a job first needs them."""

    def __init__(self, spec: ChildSpec, event_pipe: int) -> None:
        self._spec = spec
        self._event_pipe = event_pipe
        self._served = {served.tier: served for served in spec.serves}
        self._loaded: dict[str, Renderer] = {}

    def able(self, tier: str) -> Capabilities:
        """What the tier's renderer can do."""
        return registry.capabilities(self._served[tier].renderer)

    def get(self, tier: str) -> Renderer:
        if tier not in self._loaded:
            served = self._served[tier]
            # Only a rehearsal may misuse the pipe, and no service offers that renderer unless it was told to.
            own = {"event_pipe": str(self._event_pipe)} if served.renderer == _REHEARSAL else {}
            renderer = registry.create(served.renderer, served.settings | own)
            renderer.load(self._spec.device)
            self._loaded[tier] = renderer
        return self._loaded[tier]


def _load(spec: ChildSpec, events: Connection) -> tuple[_Renderers, Gate, dict[str, str]]:
    if spec.device.startswith("cuda"):
        _require_cuda(spec)
    renderers = _Renderers(spec, events.fileno())
    gate = Gate(spec.device if spec.device.startswith("cuda") else "cpu")
    first = spec.serves[0]
    renderer = renderers.get(first.tier)
    if registry.capabilities(first.renderer).canary:
        _sing(renderer, first, gate)
    versions = {"python": sys.version.split()[0]}
    if (torch := sys.modules.get("torch")) is not None:
        versions["torch"] = str(torch.__version__)
    return renderers, gate, versions


def _sing(renderer: Renderer, served: Served, gate: Gate) -> None:
    """Render, check and judge the canary: a process is ready when it has shown that it can do its work."""
    with TemporaryDirectory(prefix="greenroom-canary-") as folder:
        options = registry.options_model(served.renderer, served.settings)()
        job = canary_job(Path(folder), options.model_dump(mode="json"))
        try:
            result = renderer.render(job, _Unheard())
            check_output(result, job)
            gate.judge(job, result, lip_sync=registry.capabilities(served.renderer).lip_sync)
        except Exception as error:
            failure = classify_exception(error)
            raise CodedError(
                FailureCode.WORKER_START_FAILED,
                f"The canary render of {served.renderer} failed: {failure.message}",
                failure.hint,
                cause=failure.code.value,
                **failure.detail,
            ) from error


def _require_cuda(spec: ChildSpec) -> None:
    import torch

    if not torch.cuda.is_available():
        raise CodedError(
            FailureCode.GPU_UNAVAILABLE,
            f"Slot {spec.slot} was configured for CUDA device {spec.cuda_visible_devices}, but torch "
            f"{torch.__version__} sees no usable CUDA device.",
        )


def _failed(run: wire.Run, failure: Failure) -> wire.Failed:
    return wire.Failed(run.task_id, run.attempt, failure.code, failure.message, failure.hint, failure.detail)


def _render(renderers: _Renderers, gate: Gate, run: wire.Run, reporter: _Reporter) -> wire.Finished | wire.Failed:
    job = RenderJob(
        source=Path(run.source),
        audio=Path(run.audio),
        output_dir=Path(run.output_dir),
        options=run.options,
        source_sha256=run.source_sha256,
        attempt=run.attempt,
        batch_scale=run.batch_scale,
        traceparent=run.traceparent,
    )
    try:
        result = renderers.get(run.tier).render(job, reporter)
        reporter.report(Phase.ENCODE, result.frames, result.frames)
        began = time.monotonic()
        checks = check_output(result, job)
        checked = time.monotonic()
        judgement = gate.judge(
            job,
            result,
            lip_sync=renderers.able(run.tier).lip_sync,
            alive=lambda: reporter.report(Phase.ENCODE, result.frames, result.frames),
        )
    except Cancelled:
        return _failed(run, Failure(FailureCode.CANCELLED))
    except Exception as error:  # noqa: BLE001 - the boundary: every error leaves as a classified failure
        failure = classify_exception(error)
    else:
        spent = {"check": checked - began, "judge": time.monotonic() - checked}
        return _finished(run, result, checks, judgement, spent)
    if failure.code is FailureCode.GPU_OOM:
        # The process stays. Not before the error is forgotten: its traceback holds the tensors of the render.
        free_device_memory()
    return _failed(run, failure)


def _finished(
    run: wire.Run, result: RenderResult, checks: dict[str, Any], judgement: Judgement, spent: dict[str, float]
) -> wire.Finished:
    return wire.Finished(
        task_id=run.task_id,
        attempt=run.attempt,
        path=str(result.path),
        frames=result.frames,
        fps=result.fps,
        duration_s=result.duration_s,
        width=result.width,
        height=result.height,
        seconds=result.seconds,
        stages={**result.stages, **spent},
        facts={**result.facts, "peak_memory_bytes": peak_memory()},
        checks=checks | judgement.values,
        scores=judgement.scores,
        confidence=judgement.confidence,
    )


def _named(run: wire.Run) -> AbstractContextManager[None]:
    """Has all that is logged meanwhile say what it is about."""
    return structlog.contextvars.bound_contextvars(task_id=run.task_id, attempt=run.attempt, trace_id=run.trace_id)


def _is_poisoned(code: FailureCode, able: Capabilities) -> bool:
    """Whether this process must not take another attempt. One that yielded to a cancel is as good as new, and so is
    one that only waited for another program or server: that is what the failure speaks of."""
    return FAILURE_TABLE[code].kills_process and code is not FailureCode.CANCELLED and not able.light


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


def enter(arguments: Sequence[str]) -> None:
    """The beginning of a slot's process, as `app.worker.launch.command` says it."""
    born = time.monotonic()
    block, command_pipe, event_pipe, parent = map(int, arguments)
    _die_with_parent(parent)
    for handle in (block, command_pipe, event_pipe):
        os.set_inheritable(handle, False)  # what a renderer starts has no business with them
    commands = Connection(command_pipe, writable=False)
    spec = msgspec.json.decode(commands.recv_bytes(), type=ChildSpec)
    main(spec, ProgressBlock(block), commands, Connection(event_pipe, readable=False), parent, born)


def main(
    spec: ChildSpec, block: ProgressBlock, commands: Connection, events: Connection, parent: int, born: float
) -> None:
    """Run until the service says stop or goes away. `parent` is the service's pid, `born` on the monotonic clock."""
    _prepare(spec)
    threading.Thread(target=_beat, args=(block, parent), name="heartbeat", daemon=True).start()
    inbox = _Inbox(commands)
    threading.Thread(target=inbox.listen, name="inbox", daemon=True).start()

    def send(event: wire.Event) -> None:
        events.send_bytes(wire.encode(event))

    try:
        renderers, gate, versions = _load(spec, events)
    except Exception as error:  # noqa: BLE001 - the boundary: a start that fails says why before it exits
        failure = classify_exception(error)
        code = failure.code if failure.code is FailureCode.GPU_UNAVAILABLE else FailureCode.WORKER_START_FAILED
        send(wire.StartFailed(code, failure.message, failure.hint, failure.detail))
        sys.exit(1)
    send(wire.Ready(spec.device, time.monotonic() - born, versions))
    while not isinstance(job := inbox.jobs.get(), wire.Stop):
        block.begin(job.attempt)
        send(wire.Started(job.task_id, job.attempt))
        reporter = _Reporter(block, inbox, job)
        with _named(job):
            outcome = _render(renderers, gate, job, reporter)
        send(msgspec.structs.replace(outcome, calls=reporter.calls))
        if isinstance(outcome, wire.Failed) and _is_poisoned(FailureCode(outcome.code), renderers.able(job.tier)):
            sys.exit(1)
    block.close()


if __name__ == "__main__":
    enter(sys.argv[1:])
