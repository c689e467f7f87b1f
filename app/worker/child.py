"""The main loop of a slot's process: load one renderer onto one device, then render one attempt after the other.

It imports torch only after `CUDA_VISIBLE_DEVICES` is set, and never the store or the API. Where its renderers only wait
for others it does not import torch at all: a judge's process watches their videos (`app.worker.judge_child`).
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from app.loading import uncollected
from app.quality.checks import check_output
from app.render import registry
from app.render.canary import canary_job
from app.render.contract import Capabilities, Phase, Renderer, RenderJob, RenderResult
from app.retry.classifier import classify_exception
from app.retry.taxonomy import FAILURE_TABLE, CodedError, FailureCode
from app.worker import wire
from app.worker.harness import Link, Reporter, attempted, enter, judged, peak_memory
from app.worker.launch import ChildSpec, Served

if TYPE_CHECKING:
    from app.quality.gate import Gate

_REHEARSAL = "rehearsal"


class _Unheard:
    """The progress port of the canary: nobody listens, nobody cancels."""

    def report(self, phase: Phase, done: int, total: int) -> None:
        """Take the report."""

    def check(self) -> None:
        """Never cancelled."""

    def called(self, call: str, seconds: float) -> None:
        """Count no call."""


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


def _load(link: Link) -> tuple[_Renderers, Gate | None]:
    """The renderers, and the gate where this process judges what it renders."""
    spec = link.spec
    if spec.device.startswith("cuda"):
        _require_cuda(spec)
    renderers = _Renderers(spec, link.events.fileno())
    first = spec.serves[0]
    with uncollected():
        renderer, able = renderers.get(first.tier), registry.capabilities(first.renderer)
        gate = None if able.judged_apart else _gate(spec.device)
    if able.canary:
        _sing(renderer, first, gate)
    return renderers, gate


def _gate(device: str) -> Gate:
    # Not before it is needed: a process that waits for others is kept small.
    from app.quality.gate import Gate

    return Gate(device if device.startswith("cuda") else "cpu")


def _sing(renderer: Renderer, served: Served, gate: Gate | None) -> None:
    """Render, check and judge the canary: a process is ready when it has shown that it can do its work."""
    with TemporaryDirectory(prefix="greenroom-canary-") as folder:
        options = registry.options_model(served.renderer, served.settings)()
        job = canary_job(Path(folder), options.model_dump(mode="json"))
        try:
            result = renderer.render(job, _Unheard())
            check_output(result, job)
            if gate is not None:
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


def _render(
    renderers: _Renderers, gate: Gate | None, run: wire.Run, reporter: Reporter
) -> wire.Rendered | wire.Finished:
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
    result = renderers.get(run.tier).render(job, reporter)
    reporter.report(Phase.ENCODE, result.frames, result.frames)
    began = time.monotonic()
    checks = check_output(result, job)
    video = _rendered(run, result, checks, time.monotonic() - began)
    if gate is None:
        return video
    began = time.monotonic()
    judgement = gate.judge(
        job,
        result,
        lip_sync=renderers.able(run.tier).lip_sync,
        alive=lambda: reporter.report(Phase.ENCODE, result.frames, result.frames),
    )
    return wire.finish(video, judged(run.task_id, run.attempt, judgement, time.monotonic() - began))


def _rendered(run: wire.Run, result: RenderResult, checks: dict[str, Any], checked_s: float) -> wire.Rendered:
    return wire.Rendered(
        task_id=run.task_id,
        attempt=run.attempt,
        path=str(result.path),
        frames=result.frames,
        fps=result.fps,
        duration_s=result.duration_s,
        width=result.width,
        height=result.height,
        seconds=result.seconds,
        stages={**result.stages, "check": checked_s},
        facts={**result.facts, "peak_memory_bytes": peak_memory()},
        checks=checks,
    )


def _named(run: wire.Run) -> AbstractContextManager[None]:
    """Has all that is logged meanwhile say what it is about."""
    return structlog.contextvars.bound_contextvars(task_id=run.task_id, attempt=run.attempt, trace_id=run.trace_id)


def _is_poisoned(code: FailureCode, able: Capabilities) -> bool:
    """Whether this process must not take another attempt. One that yielded to a cancel is as good as new, and so is
    one that only waited for another program or server: that is what the failure speaks of."""
    return FAILURE_TABLE[code].kills_process and code is not FailureCode.CANCELLED and not able.light


def main(link: Link) -> None:
    """Run until the service says stop or goes away."""
    try:
        renderers, gate = _load(link)
    except Exception as error:  # noqa: BLE001 - the boundary
        link.start_failed(error)
        sys.exit(1)
    link.ready()
    while not isinstance(job := link.inbox.jobs.get(), wire.Stop):
        assert isinstance(job, wire.Run)
        link.block.begin(job.attempt)
        link.send(wire.Started(job.task_id, job.attempt))
        reporter = Reporter(link.block, link.inbox, job.task_id, job.attempt)
        with _named(job):
            outcome = attempted(job, partial(_render, renderers, gate, job, reporter))
        if not isinstance(outcome, wire.Failed):
            outcome = msgspec.structs.replace(outcome, facts=outcome.facts | reporter.facts())
        link.send(msgspec.structs.replace(outcome, calls=reporter.calls))
        if isinstance(outcome, wire.Failed) and _is_poisoned(FailureCode(outcome.code), renderers.able(job.tier)):
            sys.exit(1)
    link.block.close()


if __name__ == "__main__":
    main(enter(sys.argv[1:]))
