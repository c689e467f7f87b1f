"""How a process comes by its job: at once where that takes no waiting, and without holding up anybody where it does."""

from __future__ import annotations

import os
import signal

from app.tasks.status import Status
from app.worker import attempt

_MORE_THAN_A_PIPE_HOLDS = "x" * 200_000


def test_a_job_longer_than_a_pipe_takes_at_once_is_handed_over_whole(bench, submit):
    node = bench()
    task = node.until_ended(submit(message=_MORE_THAN_A_PIPE_HOLDS))
    assert task.status is Status.SUCCEEDED
    assert task.attempt == 1


def test_a_process_that_does_not_read_its_long_job_holds_up_no_other_slot(bench, submit):
    node = bench(slots=2)
    node.until_idle()
    stopped = node.pid(0)
    os.kill(stopped, signal.SIGSTOP)
    try:
        held_up = submit(message=_MORE_THAN_A_PIPE_HOLDS)
        node.until(lambda: node.dispatcher.attempt_of(held_up), "the attempt in the stopped process")
        others = [submit(message=str(number)) for number in range(3)]
        assert [node.until(lambda one=one: node.task(one).finished_at, one) is not None for one in others] == [True] * 3
        assert node.dispatcher.attempt_of(held_up).slot.name == "cpu-0"
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert node.until_ended(held_up).status is Status.SUCCEEDED


def test_an_attempt_that_cannot_be_prepared_gives_its_slot_back_and_the_next_task_runs(bench, submit, monkeypatch):
    node = bench(lease_s=0.5)
    node.until_idle()
    order_of, refused = attempt.order_of, []

    def fails_once(tiers, task, tier):
        if not refused:
            refused.append(task.id)
            raise LookupError("a fault of our own")
        return order_of(tiers, task, tier)

    monkeypatch.setattr(attempt, "order_of", fails_once)
    task = node.until_ended(submit())
    assert refused == [task.id]
    assert task.status is Status.SUCCEEDED
    assert task.attempt == 2
    assert [path.name for path in (node.folder / "attempts").glob("*")] == []
