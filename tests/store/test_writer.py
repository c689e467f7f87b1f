"""Group commit: one commit for many, failures alone, no answer before the commit, a thread that does not die."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from app.store import claiming, creation
from app.store.errors import StoreUnavailable
from app.store.records import Created
from app.store.schema import settings
from app.store.sql import SqlStore
from app.store.transaction import Transaction
from app.store.writer import BATCH_LIMIT, Writer
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import Clock, assert_consistent, create, kinds, must_claim, new_task, succeed

WAIT_S = 20


class Gate:
    """Holds the writer inside an operation, so that what is submitted meanwhile shares one batch."""

    def __init__(self, writer: Writer) -> None:
        self._open = threading.Event()
        entered = threading.Event()

        def hold(_tx: Transaction) -> None:
            entered.set()
            assert self._open.wait(WAIT_S)

        self._held = writer.submit(hold)
        assert entered.wait(WAIT_S)

    def open(self) -> None:
        self._open.set()
        self._held.result(WAIT_S)


@pytest.fixture
def sql(store_factory: StoreFactory, clock: Clock) -> SqlStore:
    return store_factory(clock)


@pytest.fixture
def writer(sql: SqlStore) -> Writer:
    return sql._writer


@pytest.fixture
def commits(sql: SqlStore) -> Iterator[list[int]]:
    counted: list[int] = []

    def note(_connection: object) -> None:
        counted.append(1)

    event.listen(sql._writing, "commit", note)
    yield counted
    event.remove(sql._writing, "commit", note)


def put(name: str) -> Callable[[Transaction], str]:
    def operation(tx: Transaction) -> str:
        tx.connection.execute(insert(settings), {"name": name, "value": {}})
        return name

    return operation


def names(writer: Writer) -> set[str]:
    return writer.run(lambda tx: set(tx.connection.execute(select(settings.c.name)).scalars()))


def test_what_waits_together_is_committed_together(writer: Writer, commits: list[int]) -> None:
    gate = Gate(writer)
    futures = [writer.submit(put(str(n))) for n in range(BATCH_LIMIT)]
    gate.open()
    assert [future.result(WAIT_S) for future in futures] == [str(n) for n in range(BATCH_LIMIT)]
    assert len(commits) == 2  # the gate's own, and one for all


def test_a_failing_operation_fails_alone(writer: Writer, commits: list[int]) -> None:
    def fail_half_way(tx: Transaction) -> None:
        put("half")(tx)
        tx.count(Status.FAILED, +1)
        tx.emit("task_nothing", "task.queued", Status.QUEUED, 0)
        raise KeyError("mine")

    def fail_in_the_database(tx: Transaction) -> None:
        put("doubled")(tx)
        put("doubled")(tx)

    gate = Gate(writer)
    good = [writer.submit(put(str(n))) for n in range(3)]
    bad = [writer.submit(operation) for operation in (fail_half_way, fail_in_the_database)]
    late = writer.submit(put("late"))
    gate.open()
    for future in [*good, late]:
        future.result(WAIT_S)
    with pytest.raises(KeyError, match="mine"):
        bad[0].result(WAIT_S)
    with pytest.raises(Exception, match="constraint"):
        bad[1].result(WAIT_S)
    assert len(commits) == 2
    assert names(writer) == {"0", "1", "2", "late"}


def test_a_row_that_cannot_be_written_is_the_failure_of_its_operation_alone(writer: Writer) -> None:
    def put_off_what_breaks_a_foreign_key(tx: Transaction) -> None:
        put("unseen")(tx)
        tx.emit("task_nothing", "task.queued", Status.QUEUED, 0)

    gate = Gate(writer)
    early = writer.submit(put("early"))
    bad = writer.submit(put_off_what_breaks_a_foreign_key)
    late = writer.submit(put("late"))
    gate.open()
    assert (early.result(WAIT_S), late.result(WAIT_S)) == ("early", "late")
    with pytest.raises(Exception, match="constraint"):
        bad.result(WAIT_S)
    assert names(writer) == {"early", "late"}


def test_new_tasks_that_wait_together_are_one_statement_per_table(sql: SqlStore, writer: Writer) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement.split(" (")[0])

    event.listen(sql._writing, "before_cursor_execute", note)
    gate = Gate(writer)
    futures = [writer.submit(partial(creation.create, new=new_task())) for _ in range(5)]
    gate.open()
    made = [future.result(WAIT_S).task for future in futures]
    event.remove(sql._writing, "before_cursor_execute", note)
    inserts = [statement for statement in statements if statement.startswith("INSERT")]
    assert inserts == ["INSERT INTO tasks", "INSERT INTO events"]
    assert [sql.get(task.id) for task in made] == made
    assert [task.last_event_id for task in made] == sorted({task.last_event_id for task in made})


def test_a_claim_by_itself_is_one_statement_that_looks_and_takes_and_one_for_each_thing_told(sql: SqlStore) -> None:
    create(sql)
    statements: list[str] = []
    event.listen(sql._writing, "before_cursor_execute", lambda *call: statements.append(call[2]))
    must_claim(sql)
    told = [" ".join(text.split()[:3]) for text in statements if not text.startswith(("BEGIN", "SELECT pg_advisory"))]
    assert told == [
        "SELECT counters.name, counters.value",
        "UPDATE tasks SET",
        "INSERT INTO attempts",
        "INSERT INTO events",
        "UPDATE counters SET",
    ]


def test_an_operation_that_fails_alone_leaves_no_trace_and_its_event_ids_are_given_again(
    sql: SqlStore, writer: Writer
) -> None:
    first = create(sql)

    def changes_and_fails(tx: Transaction) -> None:
        put("half")(tx)
        tx.emit(first.id, "task.queued", Status.QUEUED, 0)
        tx.count(Status.QUEUED, +1)
        raise LookupError("this one is on its own")

    with pytest.raises(LookupError, match="on its own"):
        writer.run(changes_and_fails)
    assert names(writer) == set()
    assert create(sql).last_event_id == first.last_event_id + 1
    assert_consistent(sql)


def test_an_operation_sees_what_those_before_it_have_put_off(sql: SqlStore, writer: Writer) -> None:
    gate = Gate(writer)
    made = writer.submit(partial(creation.create, new=new_task()))
    claimed = writer.submit(lambda tx: claiming.claim(tx, "node", 60.0, "slot", "cpu"))
    gate.open()
    claim = claimed.result(WAIT_S)
    assert claim is not None
    assert claim.task.id == made.result(WAIT_S).task.id
    assert_consistent(sql)


async def _create_in_a_loop(sql: SqlStore, gate: Gate, woken: list[int]) -> list[Created]:
    loop = asyncio.get_running_loop()
    call = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> Any:
        woken.append(1)
        return call(*args, **kwargs)

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
    waiting = [asyncio.create_task(sql.acreate(new_task())) for _ in range(5)]
    given_up = asyncio.create_task(sql.acreate(new_task()))
    for _ in range(2):  # each asks, then all is handed over
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    gate.open()
    return list(await asyncio.gather(*waiting))


def test_what_coroutines_ask_for_in_one_turn_of_their_loop_shares_a_commit(
    sql: SqlStore, writer: Writer, commits: list[int]
) -> None:
    async def all_at_once() -> None:
        await asyncio.gather(*(sql.acreate(new_task()) for _ in range(20)))

    asyncio.run(all_at_once())
    assert len(commits) == 1


def test_a_closed_store_refuses_coroutines(sql: SqlStore) -> None:
    sql.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        asyncio.run(sql.acreate(new_task()))


def test_an_event_loop_is_woken_once_for_all_its_callers_of_a_commit(sql: SqlStore, writer: Writer) -> None:
    woken: list[int] = []
    made = asyncio.run(_create_in_a_loop(sql, Gate(writer), woken))
    assert len(woken) == 1
    assert len({created.task.id for created in made}) == 5
    assert sql.queue().by_status[Status.QUEUED] == 5  # what was given up before its turn was never run


def test_events_and_counts_of_a_failed_operation_are_forgotten(sql: SqlStore) -> None:
    task = create(sql)

    def fail_after_a_create(tx: Transaction) -> None:
        from app.store.creation import cancel

        cancel(tx, task.id, "")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        sql._writer.run(fail_after_a_create)
    assert kinds(sql, task.id) == ["queued"]
    succeed(sql, must_claim(sql))
    assert_consistent(sql)


def test_nobody_is_answered_before_the_commit(sql: SqlStore, writer: Writer) -> None:
    futures: list[Future[str]] = []
    early: list[bool] = []

    def look(_connection: object) -> None:
        early.extend(future.done() for future in futures)

    gate = Gate(writer)
    event.listen(sql._writing, "commit", look)
    futures += [writer.submit(put(str(n))) for n in range(5)]
    gate.open()
    for future in futures:
        future.result(WAIT_S)
    assert early
    assert not any(early)


def test_an_operation_whose_caller_left_is_skipped(writer: Writer) -> None:
    gate = Gate(writer)
    left, stayed = writer.submit(put("left")), writer.submit(put("stayed"))
    assert left.cancel()
    gate.open()
    stayed.result(WAIT_S)
    assert names(writer) == {"stayed"}


def test_the_thread_survives_what_no_operation_should_raise(writer: Writer) -> None:
    def leave(_tx: Transaction) -> None:
        raise SystemExit(3)

    gate = Gate(writer)
    other, bad = writer.submit(put("other")), writer.submit(leave)
    gate.open()
    for future in (other, bad):
        with pytest.raises(StoreUnavailable, match="SystemExit"):
            future.result(WAIT_S)
    assert names(writer) == set()
    assert writer.run(put("after")) == "after"


def test_a_listener_that_raises_harms_nobody(sql: SqlStore) -> None:
    heard: list[object] = []

    def broken(_events: object) -> None:
        raise RuntimeError("listener")

    sql.subscribe(broken)
    sql.subscribe(heard.append)
    create(sql)
    create(sql)
    sql.ping()
    assert len(heard) == 2


def test_a_listener_that_writes_is_refused_instead_of_waiting_for_itself(sql: SqlStore) -> None:
    errors: list[BaseException] = []

    def write(_events: object) -> None:
        try:
            sql.set_paused(True)
        except RuntimeError as error:
            errors.append(error)

    sql.subscribe(write)
    create(sql)
    sql.ping()
    assert len(errors) == 1


def test_closing_finishes_what_was_asked_for_and_refuses_the_rest(
    sql: SqlStore, writer: Writer, store_factory: StoreFactory, clock: Clock
) -> None:
    gate = Gate(writer)
    pending = [writer.submit(put(str(n))) for n in range(10)]
    closing = threading.Thread(target=sql.close)
    closing.start()
    gate.open()
    closing.join(WAIT_S)
    assert [future.result(0) for future in pending] == [str(n) for n in range(10)]
    sql.close()
    for use in (lambda: create(sql), sql.queue, sql.ping, lambda: sql.create(new_task())):
        with pytest.raises(StoreUnavailable, match="closed"):
            use()
    assert names(store_factory(clock)._writer) == {str(n) for n in range(10)}


def test_a_commit_whose_answer_was_lost_is_not_made_twice(sql: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, lost = sql._writing.dialect.do_commit, list[int]()

    def commit_and_lose_the_answer(dbapi: Any) -> None:
        commit(dbapi)
        if not lost:
            lost.append(1)
            raise sql._writing.dialect.loaded_dbapi.OperationalError("the connection broke")

    heard: list[str] = []
    sql.subscribe(lambda events: heard.extend(event.task_id for event in events))
    monkeypatch.setattr(sql._writing.dialect, "do_commit", commit_and_lose_the_answer)
    made = sql.create(new_task()).task
    assert lost
    assert sql.get(made.id) == made
    assert sql.queue().by_status[Status.QUEUED] == 1
    sql.ping()
    assert heard == [made.id]
    create(sql)
    assert sql.queue().by_status[Status.QUEUED] == 2
    assert_consistent(sql)


def test_a_commit_that_failed_is_made_again(sql: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, lost = sql._writing.dialect.do_commit, list[int]()

    def fail_once(dbapi: Any) -> None:
        if not lost:
            lost.append(1)
            raise sql._writing.dialect.loaded_dbapi.OperationalError("the connection broke")
        commit(dbapi)

    monkeypatch.setattr(sql._writing.dialect, "do_commit", fail_once)
    made = create(sql)
    assert lost
    assert sql.get(made.id) == made
    assert_consistent(sql)
