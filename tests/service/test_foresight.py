"""The forecasts of a real node: a store, slots with real processes, and what is told of tasks (R1.6)."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from app.cleanup.disk import DiskWatch
from app.forecast.outlook import Outlook
from app.service import foresight as module
from app.service.foresight import Foresight
from app.service.views import LiveView
from app.store.errors import StoreUnavailable
from app.store.records import TaskRecord
from app.store.sql import open_store
from app.tasks.status import Status

SLOW = {"frame_s": 0.08, "size": 16}
"""Half a second of speech at 25 frames/s: a render of about a second."""


class Missed:
    def __init__(self) -> None:
        self.by: dict[str, list[float]] = {"submit": [], "start": []}

    def eta_missed(self, told: str, ratio: float) -> None:
        self.by[told].append(ratio)


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch):
    monkeypatch.setattr(module, "FRESH_S", 0.0)


def of(node, missed: Missed | None = None, **changes) -> Foresight:
    parts = {"owner": "node-a", "observer": missed or Missed()} | changes
    made = Foresight(node.store, node.pool, node.board, node.dispatcher, **parts)
    made.rebuild()
    return made


def look(foresight: Foresight, task: TaskRecord) -> Outlook:
    foresight.catch_up()
    return foresight.outlook(task, reason="slot" if task.status is Status.QUEUED else None)


def took(task: TaskRecord) -> float:
    assert task.finished_at is not None
    assert task.started_at is not None
    return task.finished_at - task.started_at


def test_what_ended_tells_of_what_waits_and_a_restart_forgets_nothing(bench, submit):
    node, missed = bench(), Missed()
    foresight = of(node, missed)
    node.store.set_paused(True)
    first = node.task(submit(**SLOW))
    node.until_idle()
    assert look(foresight, first).wait_s == 0.0
    assert look(foresight, first).eta_s is None, "nothing of the kind has ended yet"
    node.store.set_paused(False)
    lasted = took(node.until_ended(first.id))
    node.store.set_paused(True)
    waiting = [node.task(submit(**SLOW)) for _ in range(3)]
    node.until_idle()
    restarted = of(node)
    for known in (foresight, restarted):
        told = [look(known, task) for task in waiting]
        assert [outlook.wait_s for outlook in told] == pytest.approx([0.0, lasted, 2 * lasted], abs=0.5)
        assert [outlook.eta_s for outlook in told] == pytest.approx([lasted, 2 * lasted, 3 * lasted], abs=0.5)
        assert known.wait_s() == pytest.approx(3 * lasted, abs=0.5)
    node.store.set_paused(False)
    for task in waiting:
        node.until_ended(task.id)
    foresight.catch_up()
    assert len(missed.by["start"]) == len(missed.by["submit"]) == 3
    foresight.catch_up()
    assert len(missed.by["start"]) == 3, "each is learned once"


def test_a_task_that_runs_is_foreseen_by_its_kind_and_by_its_frames_and_the_next_one_after_it(bench, submit, tmp_path):
    node = bench()
    new, known = of(node), of(node)
    view = LiveView(node.dispatcher, node.pool, node.judges, node.store, DiskWatch(tmp_path, 0), new)
    running = submit(frame_s=1.0, size=16)
    node.until_moving(running)
    next_one = node.task(submit(**SLOW))
    left = look(new, node.task(running)).eta_s
    shown = view.progress(running)
    wait = look(new, next_one).wait_s
    assert left is not None, "its own pace tells"
    assert shown is not None
    assert shown.eta_s is not None
    assert wait is not None
    # Of 13 frames of a second each; the machine may be busy, and time goes on between the questions.
    assert 0.0 < wait <= left * 1.5 + 5.0
    assert 0.0 < shown.eta_s <= left * 1.5 + 5.0
    node.store.cancel(running)
    node.until_ended(running)
    node.until_ended(next_one.id)
    last = submit(**SLOW)
    node.until(lambda: node.dispatcher.attempt_of(last), "it to start")
    assert look(known, node.task(last)).eta_s is not None, "its kind tells"
    node.until_ended(last)


def test_what_runs_on_another_node_is_foreseen_too(bench, submit):
    node = bench()
    node.until_ended(submit(**SLOW))
    task_id = submit(**SLOW)
    node.until(lambda: node.dispatcher.attempt_of(task_id), "it to start")
    other = open_store(node.folder / "greenroom.db")
    try:
        elsewhere = Foresight(
            other, node.pool, node.board, _Nothing(), owner="node-b", observer=Missed()  # type: ignore[arg-type]
        )  # fmt: skip
        elsewhere.rebuild()
        told = look(elsewhere, node.task(task_id))
        assert told.eta_s is not None
        assert 0.0 < told.eta_s < 10.0
    finally:
        other.close()
    node.until_ended(task_id)


def test_a_follower_ends_with_its_leader(bench, submit):
    node = bench()
    foresight = of(node)
    node.until_ended(submit(**SLOW))
    leader = submit(**SLOW)
    node.until_moving(leader)
    follower = replace(node.task(leader), id="task_f", status=Status.QUEUED, attempt=0, twin_of=leader)
    foresight.catch_up()
    told = foresight.outlook(follower, reason="twin")
    assert told.eta_s is not None
    assert told.wait_s == told.eta_s
    node.until_ended(leader)


def test_who_waits_for_others_is_told_when_the_last_of_them_ends(bench, submit):  # R1.5
    node = bench()
    foresight = of(node)
    node.until_ended(submit(**SLOW))
    node.store.set_paused(True)
    first, second = node.task(submit(**SLOW)), node.task(submit(**SLOW))
    node.until_idle()
    ends = [look(foresight, task).eta_s for task in (first, second)]
    follower = replace(first, id="task_f", waits_for=(first.id, second.id), audio=replace(first.audio, media={"x": 1}))
    told = foresight.outlook(follower, reason="predecessor")
    assert told.wait_s == pytest.approx(max(end for end in ends if end is not None), abs=0.5)
    assert told.eta_s is not None
    assert told.wait_s is not None
    assert told.eta_s > told.wait_s
    later = foresight.outlook(replace(follower, not_before=time.time() + 900), reason="predecessor")
    assert later.wait_s == pytest.approx(900, abs=5)  # It waits for both.
    assert later.again_s >= 895
    past = foresight.outlook(replace(follower, not_before=time.time() - 9), reason="predecessor")
    assert past.wait_s == pytest.approx(told.wait_s, abs=1)
    nobody_knows = replace(follower, waits_for=(first.id, "task_unknown"))
    assert foresight.outlook(nobody_knows, reason="predecessor").eta_s is None
    without_speech = replace(follower, audio=replace(first.audio, media={}))
    assert foresight.outlook(without_speech, reason="predecessor").eta_s is None


def test_while_the_database_is_away_what_was_known_holds(bench, submit, monkeypatch):
    node = bench()
    node.until_ended(submit(**SLOW))
    foresight = of(node)

    def away(**_asked):
        raise StoreUnavailable("locked")

    monkeypatch.setattr(node.store, "workload", away)
    node.store.set_paused(True)
    task = node.task(submit(**SLOW))
    assert foresight.outlook(task, reason="scheduled", until=time.time() + 9).wait_s == pytest.approx(9, abs=1)
    foresight.catch_up()


class _Nothing:
    """The dispatcher of a node that runs nothing."""

    def attempt_of(self, task_id):
        return None

    def running(self):
        return []
