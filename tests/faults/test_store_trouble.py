"""The database is locked or read-only for a while, as attempts are claimed and settled: nothing is lost."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.store.errors import StoreUnavailable
from app.store.sql import SqlStore, open_store
from app.store.transaction import Transaction
from app.tasks.status import Status
from app.worker import settle
from tests.database import empty_database
from tests.store.kit import assert_consistent
from tests.worker.conftest import Bench, audio, bench, submit

__all__ = ["audio", "bench", "submit"]

WAIT_S = 30.0
TROUBLE_S = 0.8
"""Far above the store's own patience below, so that claims and settlements must go on by themselves."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(empty_database(tmp_path / "greenroom.db"), patience_s=0.2)
    yield opened
    opened.close()


def _leave(_tx: Transaction) -> None:
    raise SystemExit


class Trouble:
    """A database that cannot be written from `begin` to `end`."""

    def __init__(self, store: SqlStore, path: Path, kind: str) -> None:
        self._store, self._kind = store, kind
        self._lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._on = False
        event.listen(store._writing, "connect", self._spoil)

    def _spoil(self, dbapi: sqlite3.Connection, _record: object) -> None:
        if self._on and self._kind == "read-only":  # as a connection to a read-only file is, root's too
            dbapi.execute("PRAGMA query_only = ON")

    def begin(self) -> None:
        if self._kind == "locked":
            self._lock.execute("BEGIN EXCLUSIVE")
            return
        self._on = True
        # The writer drops its connection after a batch that failed as a whole; the next one is a spoilt one.
        with pytest.raises(StoreUnavailable):
            self._store._writer.run(_leave)

    def end(self) -> None:
        if self._kind == "locked":
            self._lock.execute("COMMIT")
        self._on = False


@pytest.fixture(params=["locked", "read-only"])
def trouble(request: pytest.FixtureRequest, tmp_path: Path, store: SqlStore) -> Iterator[Trouble]:
    made = Trouble(store, tmp_path / "greenroom.db", request.param)
    yield made
    made._lock.close()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Do something once, when an attempt passes a failpoint of its settling."""

    def arm(point: str, action: Callable[[], None]) -> None:
        armed = [action]

        def hit(name: str) -> None:
            if name == point and armed:
                armed.pop()()

        monkeypatch.setattr(settle, "hit", hit)

    return arm


def outcomes(task: Any) -> list[str]:
    return [attempt.outcome for attempt in task.attempts]


def assert_right(node: Bench, store: SqlStore, task: Any) -> None:
    """Succeeded, one file of the right attempt and checksum, nothing left, the store's books in order."""
    assert task.status is Status.SUCCEEDED
    [file] = (node.folder / "results").glob("*/*")
    assert file.stem == str(task.attempts[-1].n)  # made by the attempt that the record says succeeded
    assert hashlib.sha256(file.read_bytes()).hexdigest() == task.output.sha256
    assert list((node.folder / "attempts").glob("*")) == []
    assert_consistent(store)


def test_a_claim_waits_for_the_database(bench, submit, store, trouble):
    node = bench()
    node.until_idle()
    task_id = submit(not_before=time.time() + 0.5)
    trouble.begin()
    time.sleep(TROUBLE_S)
    assert node.task(task_id).status is Status.QUEUED  # reads go on
    trouble.end()
    task = node.until_ended(task_id)
    assert outcomes(task) == ["succeeded"]
    assert_right(node, store, task)


@pytest.mark.parametrize("point", ["rendered", "published"])
def test_a_result_waits_for_the_database(bench, submit, store, trouble, at, point):
    node = bench()
    in_trouble = threading.Event()
    at(point, lambda: (trouble.begin(), in_trouble.set()))
    task_id = submit()
    assert in_trouble.wait(WAIT_S)
    time.sleep(TROUBLE_S)
    assert node.task(task_id).status is Status.RUNNING
    trouble.end()
    task = node.until_ended(task_id)
    assert outcomes(task) == ["succeeded"]
    assert_right(node, store, task)


def test_a_failure_waits_for_the_database(bench, submit, store, trouble, at):
    node = bench()
    in_trouble = threading.Event()
    at("failed", lambda: (trouble.begin(), in_trouble.set()))
    task_id = submit(fault="raise", code="GPU_OOM", times=1)
    assert in_trouble.wait(WAIT_S)
    time.sleep(TROUBLE_S)
    trouble.end()
    task = node.until_ended(task_id)
    assert outcomes(task) == ["failed", "succeeded"]
    assert task.retries == 1
    assert_right(node, store, task)


def test_the_file_of_an_attempt_that_cannot_be_settled_goes_when_the_task_is_rescued(bench, submit, store, trouble, at):
    node = bench(patience_s=0.5, lease_s=3.0)
    in_trouble = threading.Event()
    at("published", lambda: (trouble.begin(), in_trouble.set()))
    task_id = submit()
    assert in_trouble.wait(WAIT_S)
    node.until(lambda: ("rehearsal", "unsettled") in node.seen.ended, "the attempt to give up")
    # Its commit might have reached the disk: the file stays until the task is rescued, and goes then.
    assert [path.name for path in (node.folder / "results").glob("*/*")] == ["1.mp4"]
    trouble.end()
    task = node.until_ended(task_id)
    assert outcomes(task) == ["interrupted", "succeeded"]
    assert task.retries == 0
    assert_right(node, store, task)


def test_the_whole_file_is_in_place_before_success_is_written(bench, submit, store, monkeypatch):
    node = bench()
    whole: list[bool] = []
    succeed = store.succeed

    def look(claim, artifact, **values):
        path = node.folder / artifact.path
        whole.append(path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256)
        return succeed(claim, artifact, **values)

    monkeypatch.setattr(store, "succeed", look)
    assert_right(node, store, node.until_ended(submit()))
    assert whole == [True]


def test_an_attempt_that_loses_its_lease_after_it_published_leaves_no_file(bench, submit, store, at):
    node = bench()
    at("published", lambda: store.take_back("node-a"))
    task = node.until_ended(submit())
    assert outcomes(task) == ["interrupted", "succeeded"]
    assert node.seen.ended[0] == ("rehearsal", "stale")
    assert_right(node, store, task)


def test_an_attempt_that_loses_its_lease_while_another_runs_changes_nothing(bench, submit, store, at):
    """The late one comes when the task runs again: neither its end nor its file counts."""
    node = bench(slots=2)

    def lose() -> None:
        store.take_back("node-a")
        node.until(lambda: node.task(task_id).attempt == 2, "the second attempt")

    at("published", lose)
    task_id = submit(frame_s=0.02)
    task = node.until_ended(task_id)
    assert outcomes(task) == ["interrupted", "succeeded"]
    assert_right(node, store, task)
