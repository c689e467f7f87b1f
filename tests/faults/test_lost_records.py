"""The record of a running task vanishes, or another attempt takes its place: the render ends, in time."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.store.errors import StoreUnavailable
from app.tasks.status import Status
from tests.worker.conftest import audio, bench, store, submit

__all__ = ["audio", "bench", "store", "submit"]

CHECKS = {"health_interval_s": 1.2, "task_lost_s": 2.0}
"""The interval is above the heartbeat's second."""


class Record:
    """The row of one task, taken out of the database and put back behind the service's back."""

    def __init__(self, node, task_id: str) -> None:
        self._path = node.folder / "greenroom.db"
        self._id = task_id
        self._row: tuple | None = None

    def take_away(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            self._row = database.execute("SELECT * FROM tasks WHERE id = ?", (self._id,)).fetchone()
            assert database.execute("DELETE FROM tasks WHERE id = ?", (self._id,)).rowcount == 1

    def put_back(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            places = ", ".join("?" * len(self._row))
            database.execute(f"INSERT INTO tasks VALUES ({places})", self._row)


def logged(lines, event):
    return [line for line in lines if line["event"] == event]


def test_a_running_task_whose_record_vanished_is_lost_after_its_time_and_the_log_tells_all(bench, submit):  # R0.3, R0.2
    node = bench(**CHECKS)
    task_id = submit(frame_s=0.5, batch=1)
    node.until_moving(task_id)
    pid = node.pid()
    with capture_logs() as lines:
        Record(node, task_id).take_away()
        gone_at = time.monotonic()
        node.until(lambda: node.dispatcher.running_count() == 0, "the attempt to end")
        took = time.monotonic() - gone_at
    assert took >= CHECKS["task_lost_s"]
    [lost] = logged(lines, "task_lost")
    assert lost["code"] == "TASK_LOST"
    assert task_id in lost["message"]
    assert lost["hint"]
    assert lost["detail"]["missing_s"] == pytest.approx(2.4, abs=1.0)
    assert (lost["tier"], lost["log_level"]) == ("rehearsal", "error")
    assert lost["elapsed_s"] >= took
    assert lost["output_path"].endswith(f"{task_id}-1")
    for key in ("source_path", "audio_path"):
        assert Path(lost[key]).is_file()
    assert node.seen.ended == [("rehearsal", "lost")]
    assert list((node.folder / "attempts").glob("*")) == []
    assert not list((node.folder / "results").glob("*/*"))
    node.until_idle()
    assert node.pid() == pid, "a render that yields keeps its process"
    assert node.until_ended(submit()).status is Status.SUCCEEDED


def test_a_record_that_comes_back_in_time_costs_nothing(bench, submit):  # R0.3
    node = bench(health_interval_s=1.2, task_lost_s=60.0)
    task_id = submit(frame_s=0.4, batch=1)
    node.until_moving(task_id)
    record = Record(node, task_id)
    with capture_logs() as lines:
        record.take_away()
        node.until(lambda: logged(lines, "task_record_missing"), "the loss to be noticed")
        record.put_back()
        task = node.until_ended(task_id)
    assert task.status is Status.SUCCEEDED
    assert task.attempt == 1


def test_a_database_that_does_not_answer_loses_no_task(bench, submit, store, monkeypatch):  # R0.3
    node = bench(health_interval_s=1.2, task_lost_s=0.1)
    tries = []

    def away(*_claim, **_terms):
        tries.append(time.monotonic())
        raise StoreUnavailable("database is locked")

    monkeypatch.setattr(store, "renew", away)
    task = node.until_ended(submit(frame_s=0.4))
    assert len(tries) >= 2
    assert task.status is Status.SUCCEEDED
    assert task.attempt == 1


def test_an_attempt_whose_task_runs_elsewhere_is_ended_at_its_next_check(bench, submit, store):
    """It would render for nothing: its result could not be written."""
    node = bench(health_interval_s=1.2)
    task_id = submit(frame_s=60.0, batch=1, fault="ignore_cancel", times=1)
    node.until(lambda: node.dispatcher.attempt_of(task_id), "the first attempt")
    node.until(lambda: node.dispatcher.attempt_of(task_id).reading_if_there().phase == "render", "it to render")
    with capture_logs() as lines:
        # As if this node had stood still for longer than its lease, and another had taken the task.
        store.take_back("node-a")
        other = store.claim("node-b", lease_s=60, tier="rehearsal", slot="cpu-0", device="cpu")
        assert other.attempt == 2
        node.until(lambda: node.dispatcher.running_count() == 0, "the first attempt to end")
    assert logged(lines, "attempt_superseded")
    assert logged(lines, "late_failure_refused")
    assert node.seen.ended == [("rehearsal", "stale")]
    assert node.task(task_id).status is Status.RUNNING
    assert node.task(task_id).lease_owner == "node-b"
