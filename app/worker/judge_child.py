"""The main loop of a judge's process: load the gate's models once, then watch one finished video after the other.

The light slots of a host share it, so that none of them needs models of its own. It never imports the store or the API.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import structlog

from app.loading import uncollected
from app.quality.gate import Gate
from app.render.contract import Phase, RenderJob, RenderResult
from app.worker import wire
from app.worker.harness import Link, Reporter, attempted, enter, judged


def _judge(gate: Gate, order: wire.Judge, reporter: Reporter) -> wire.Judged:
    video = order.video
    job = RenderJob(Path(order.source), Path(order.audio), Path(order.output_dir))
    result = RenderResult(
        path=Path(video.path),
        frames=video.frames,
        fps=video.fps,
        duration_s=video.duration_s,
        width=video.width,
        height=video.height,
        seconds=video.seconds,
        facts=video.facts,
    )
    began = time.monotonic()
    judgement = gate.judge(
        job, result, lip_sync=True, alive=lambda: reporter.report(Phase.ENCODE, video.frames, video.frames)
    )
    return judged(order.task_id, order.attempt, judgement, time.monotonic() - began)


def main(link: Link) -> None:
    """Run until the service says stop or goes away."""
    gate = Gate(link.spec.device)
    try:
        with uncollected():
            gate.load()
    except Exception as error:  # noqa: BLE001 - the boundary
        link.start_failed(error)
        sys.exit(1)
    link.ready()
    while not isinstance(job := link.inbox.jobs.get(), wire.Stop):
        assert isinstance(job, wire.Judge)
        link.block.begin(job.attempt)
        with structlog.contextvars.bound_contextvars(task_id=job.task_id, attempt=job.attempt):
            reporter = Reporter(link.block, link.inbox, job.task_id, job.attempt)
            outcome = attempted(job, partial(_judge, gate, job, reporter))
        link.send(outcome)
    link.block.close()


if __name__ == "__main__":
    main(enter(sys.argv[1:]))
