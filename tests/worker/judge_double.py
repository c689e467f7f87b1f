"""A judge's process that judges nothing and misbehaves as the name of the video says: see `test_judges`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from app.render.contract import Cancelled, Phase
from app.retry.taxonomy import CodedError, Failure, FailureCode
from app.worker import wire
from app.worker.harness import Link, Reporter, enter, failed


def _judge(link: Link, order: wire.Judge) -> wire.Event:
    path = Path(order.video.path)
    once = path.with_suffix(".once")
    first = not once.exists()
    once.touch()
    with path.with_suffix(".seen").open("a") as seen:
        print(os.getpid(), file=seen)
    with (path.parent / "order").open("a") as order_of_all:
        print(path.stem, file=order_of_all)
    reporter = Reporter(link.block, link.inbox, order.task_id, order.attempt)
    cue = path.stem.split("-")[0]
    if cue == "die" or (cue == "stumble" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if cue == "freeze" and first:
        os.kill(os.getpid(), signal.SIGSTOP)
    if cue in ("stall", "deaf"):
        while True:
            time.sleep(1)
    if cue == "crawl":
        while True:
            time.sleep(0.01)
            reporter.report(Phase.ENCODE, 1, 1)
    if cue == "rubbish" and first:
        link.events.send_bytes(b"rubbish")
    if cue == "mistake" and first:
        raise ZeroDivisionError("the gate has a bug")
    if cue == "broken":
        raise CodedError(FailureCode.OUTPUT_INVALID, "a frame is missing")
    while cue == "wait" and not path.with_suffix(".go").exists():
        time.sleep(0.01)
        reporter.check()
    return wire.Judged(order.task_id, order.attempt, {"pid": os.getpid()}, {"lips_follow": 0.9}, 0.9, 0.1)


def main(link: Link) -> None:
    if "judges" in os.environ.get("TESTS_DIE_AT_START", ""):
        sys.exit("it cannot start")
    link.ready()
    while not isinstance(job := link.inbox.jobs.get(), wire.Stop):
        assert isinstance(job, wire.Judge)
        link.block.begin(job.attempt)
        try:
            event = _judge(link, job)
        except Cancelled:
            event = failed(job.task_id, job.attempt, Failure(FailureCode.CANCELLED))
        except CodedError as error:
            event = failed(job.task_id, job.attempt, error.failure)
        except ZeroDivisionError as error:
            event = failed(job.task_id, job.attempt, Failure(FailureCode.INTERNAL, repr(error)))
        link.send(event)


if __name__ == "__main__":
    main(enter(sys.argv[1:]))
