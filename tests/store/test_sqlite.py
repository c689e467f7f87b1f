"""What only SQLite does: locks, full disks, query plans, durability pragmas."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, event

import app.store.writer
from app.store import routes
from app.store.dialect import Dialect, is_unavailable
from app.store.errors import StoreUnavailable
from app.store.reads import list_tasks
from app.store.records import Admission, Offer, TaskFilter
from app.store.sql import SqlStore, open_store
from app.tasks.status import Status
from tests.store.conftest import SqliteFactory, StoreFactory
from tests.store.kit import Clock, assert_consistent, claim, create, must_claim, must_get, new_task, run, succeed

T = TypeVar("T")

WAIT_S = 20


@pytest.fixture
def store_factory(sqlite_template: Path) -> Iterator[StoreFactory]:
    factory = SqliteFactory(sqlite_template)
    yield factory
    factory.close()


@pytest.fixture
def lock(store_factory: StoreFactory) -> sqlite3.Connection:
    """A foreign connection that can hold the write lock."""
    return sqlite3.connect(store_factory.url, isolation_level=None, check_same_thread=False)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as the writer has met an unavailable database."""
    met = threading.Event()

    def spy(dialect: Dialect, error: BaseException) -> bool:
        unavailable = is_unavailable(dialect, error)
        if unavailable:
            met.set()
        return unavailable

    monkeypatch.setattr(app.store.writer, "is_unavailable", spy)
    return met


class Trouble:
    """A statement that each new connection of the writer gets while `on`: the kinds of trouble root can not make."""

    def __init__(self, store: SqlStore, statement: str) -> None:
        self.on = True
        event.listen(store._writing, "connect", self._apply)
        self._statement = statement

    def _apply(self, dbapi: sqlite3.Connection, _record: object) -> None:
        if self.on:
            dbapi.execute(self._statement)


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


def test_a_locked_database_is_waited_for(
    store_factory: StoreFactory, clock: Clock, lock: sqlite3.Connection, refused: threading.Event
) -> None:
    store = store_factory(clock, patience_s=WAIT_S)
    lock.execute("BEGIN IMMEDIATE")
    thread, results = in_thread(lambda: create(store))
    assert refused.wait(WAIT_S)
    assert store.queue().runnable == 0  # reads go on
    lock.execute("COMMIT")
    thread.join(WAIT_S)
    assert len(results) == 1
    assert_consistent(store)


def test_a_database_that_stays_locked_is_told_in_its_own_words(
    store_factory: StoreFactory, clock: Clock, lock: sqlite3.Connection
) -> None:
    store = store_factory(clock, patience_s=0.1)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="database is locked"):
        create(store)
    with pytest.raises(StoreUnavailable, match="database is locked"):
        run(store.acreate(new_task()))
    with pytest.raises(StoreUnavailable):
        store.ping()
    lock.execute("ROLLBACK")
    create(store)
    store.ping()
    assert store.queue().runnable == 1


@pytest.mark.parametrize(
    ("statement", "words"),
    [("PRAGMA query_only = ON", "readonly"), ("PRAGMA max_page_count = 1", "full")],
    ids=["read-only", "disk full"],
)
def test_a_read_only_or_full_disk_is_told_and_survived(
    store_factory: StoreFactory, clock: Clock, statement: str, words: str, refused: threading.Event
) -> None:
    store = store_factory(clock, patience_s=0.1)
    trouble = Trouble(store, statement)
    big = {"x": "x" * 200_000}
    with pytest.raises(StoreUnavailable, match=words):
        create(store, metadata=big)
    assert store.queue().runnable == 0
    trouble.on = False
    create(store, metadata=big)

    patient = store_factory(clock, patience_s=WAIT_S)
    refused.clear()
    trouble = Trouble(patient, statement)
    thread, results = in_thread(lambda: create(patient, metadata=big))
    assert refused.wait(WAIT_S)
    trouble.on = False
    thread.join(WAIT_S)
    assert len(results) == 1
    assert_consistent(store)


def test_a_file_that_is_no_database_is_told(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database, " * 1000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        open_store(path, clock, patience_s=0.1)


def test_a_missing_folder_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="folder"):
        open_store(tmp_path / "nowhere" / "greenroom.db")


@pytest.mark.parametrize("url", ["mysql://localhost/x", ":memory:", "sqlite:///:memory:", ""])
def test_a_database_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"stores in SQLite or|needs a file"):
        open_store(url)


def test_a_url_and_a_path_are_the_same(store_factory: StoreFactory, clock: Clock) -> None:
    task = create(store_factory(clock))
    other = open_store(f"sqlite:///{store_factory.url}", clock)
    assert other.get(task.id) == task
    other.close()


def test_commits_reach_the_disk_and_readers_cannot_write(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)

    def pragma(name: str) -> object:
        return store._writer.run(lambda tx: tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1
    with store._reading.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA query_only").scalar_one() == 1


# -- flatness -------------------------------------------------------------------------------------------------------
def fill(store: SqlStore, count: int) -> None:
    """As many tasks of each kind that a claim must not walk over: scheduled ones rank lower than all."""

    async def many() -> None:
        for n in range(count):
            await store.acreate(new_task(priority=n % 10))
            await store.acreate(new_task(priority=9, not_before=store._clock() + 1e6))

    run(many())
    for _ in range(count // 2):
        succeed(store, must_claim(store))


def steps(store: SqlStore, operation: Callable[[], object]) -> int:
    """How many instructions of SQLite's machine an operation of the writer takes, in tens."""
    counted = [0]

    def tick() -> int:
        counted[0] += 1
        return 0

    def watch(handler: Callable[[], int] | None) -> None:
        store._writer.run(lambda tx: tx.connection.connection.dbapi_connection.set_progress_handler(handler, 10))  # type: ignore[union-attr]

    watch(tick)
    counted[0] = 0
    operation()
    result = counted[0]
    watch(None)
    return result


def read(store: SqlStore, reading: Callable[[Connection], T]) -> T:
    """A read on the writer's connection, whose instructions are counted."""
    return store._writer.run(lambda tx: reading(tx.connection))


def many_and_few(store: SqlStore, operation: Callable[[], object]) -> tuple[int, int]:
    """The steps of an operation with some hundred tasks, and with as many more again."""
    fill(store, 100)
    few = steps(store, operation)
    fill(store, 400)
    return steps(store, operation), few


def test_a_paused_queue_costs_nothing_however_many_tasks_there_are(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)

    def look() -> None:
        store.set_paused(True)
        assert claim(store) is None
        assert store.claim("node-1", lease_s=30, slot="s", device="cpu", offers={(): Offer("warp")}) is None
        assert read(store, lambda connection: routes.ready_routes(connection, clock(), 100)) == []
        store.set_paused(False)

    many, few = many_and_few(store, look)
    assert many <= few * 1.2


def test_the_routes_that_wait_cost_the_same_however_many_tasks_there_are(
    store_factory: StoreFactory, clock: Clock
) -> None:
    store = store_factory(clock)
    many, few = many_and_few(
        store, lambda: read(store, lambda connection: routes.ready_routes(connection, clock(), 10))
    )
    assert many <= few * 1.2


def test_other_routes_for_some_tasks_cost_the_same_however_many_there_are(
    store_factory: StoreFactory, clock: Clock
) -> None:
    store = store_factory(clock)
    some = [create(store, not_before=clock() + 2e6).id for _ in range(10)]  # `fill` claims what is ready
    names = iter("ab")

    def reroute() -> None:
        name = next(names)
        run(store.areroute((name,), some))
        assert [must_get(store, task_id).route for task_id in some] == [(name,)] * 10

    many, few = many_and_few(store, reroute)
    assert many <= few * 1.2


def test_a_page_of_the_oldest_tasks_costs_the_same_however_many_there_are(
    store_factory: StoreFactory, clock: Clock
) -> None:
    store = store_factory(clock)
    where = TaskFilter(status=(Status.QUEUED, Status.RETRY_WAIT))

    def page() -> None:
        first = read(store, lambda connection: list_tasks(connection, where, None, 10, oldest_first=True))
        then = read(store, lambda connection: list_tasks(connection, where, first.next_cursor, 10, oldest_first=True))
        assert [len(first.tasks), len(then.tasks)] == [10, 10]

    many, few = many_and_few(store, page)
    assert many <= few * 1.2


@pytest.mark.parametrize("statuses", [None, (Status.QUEUED,)], ids=["any", "of_a_status"])
def test_who_waits_for_a_task_costs_the_same_however_many_there_are(
    store_factory: StoreFactory, clock: Clock, statuses: tuple[Status, ...] | None
) -> None:
    store = store_factory(clock)
    first = create(store, not_before=clock() + 2e6)
    for _ in range(5):
        create(store, after=(first.id,), waits_for=(first.id,), not_before=clock() + 2e6)

    def ask() -> None:
        where = TaskFilter(waits_for=first.id, status=statuses)
        assert len(read(store, lambda connection: list_tasks(connection, where, None, 50)).tasks) == 5

    many, few = many_and_few(store, ask)
    assert many <= few * 1.2


def test_a_claim_costs_the_same_however_many_tasks_there_are(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)
    fill(store, 20)
    few = steps(store, lambda: claim(store))
    fill(store, 400)
    many = steps(store, lambda: claim(store))
    assert few > 10
    assert many <= few * 1.2
    store._writer.run(lambda tx: tx.connection.exec_driver_sql("ANALYZE"))
    assert steps(store, lambda: claim(store)) <= few * 1.2
    few_creates = steps(store, lambda: store.create(new_task(), admission=Admission(max_waiting=10_000)))
    assert few_creates < 200


def test_looking_for_what_can_go_costs_a_look_up_however_many_wait(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)
    first = create(store)
    for _ in range(20):
        create(store, after=(first.id,), waits_for=(first.id,))
    with sqlite3.connect(store_factory.url) as connection:
        for condition in ("waits_for = '' AND broken_by IS NULL", "broken_by IS NOT NULL"):
            [plan] = connection.execute(f"EXPLAIN QUERY PLAN SELECT id FROM tasks WHERE {condition}").fetchall()
            assert "USING INDEX ix_tasks_" in plan[3]
    connection.close()
