"""Creating, reading and listing tasks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.cursor import decode_cursor, encode_cursor
from app.store.errors import QueueFull
from app.store.interface import Store
from app.store.records import Admission, TaskFilter, TaskRecord
from app.tasks.status import Status
from app.tasks.trace import TraceContext
from tests.store.kit import START, Clock, blob, create, must_claim, must_get, new_task, run, succeed


def test_a_created_task_reads_back_as_it_was_answered(store: Store) -> None:
    new = new_task(
        renderer="warp",
        fallback="none",
        options={"batch": 4, "deep": {"list": [1, 2.5, None, True]}},
        priority=7,
        start_deadline_at=START + 50,
        deadline_at=START + 100,
        metadata={"order": "A-1"},
        client="key-1",
        trace=TraceContext("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", sampled=False),
    )
    created = run(store.acreate(new))
    assert not created.replayed
    task = created.task
    assert (task.status, task.attempt, task.retries, task.created_at, task.enqueued_at) == (
        Status.QUEUED, 0, 0, START, START,
    )  # fmt: skip
    for name in ("source", "audio", "renderer", "fallback", "options", "priority", "metadata", "client", "trace"):
        assert getattr(task, name) == getattr(new, name)
    assert store.get(task.id) == run(store.aget(task.id)) == task


def test_an_unknown_task_is_none(store: Store) -> None:
    assert store.get("task_nothing") is None
    assert run(store.aget("task_nothing")) is None


@pytest.mark.parametrize("text", ["Grüße 😀 \u202e", "\x00\x1f", "'; DROP TABLE tasks; --", '"\\', "\ud800"])
def test_texts_of_any_kind_survive(store: Store, text: str) -> None:
    task = create(store, metadata={text: text}, options={"x": text}, source=blob(name="plain"))
    assert must_get(store, task.id).metadata == {text: text}


def test_huge_metadata_survives(store: Store) -> None:
    metadata = {"blob": "x" * 3_000_000, "many": list(range(50_000))}
    task = create(store, metadata=metadata)
    assert must_get(store, task.id).metadata == metadata


@pytest.mark.parametrize("value", [math.nan, math.inf, b"bytes", {1, 2}, object()])
def test_what_is_not_json_is_refused_and_leaves_nothing(store: Store, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        create(store, metadata={"x": value})
    assert store.queue().by_status[Status.QUEUED] == 0
    assert store.events(None) == []


def test_an_illegal_priority_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="priority"):
        create(store, priority=10)


def test_the_queue_takes_no_more_than_its_limit(store: Store) -> None:  # R0.13
    for _ in range(3):
        store.create(new_task(), admission=Admission(max_waiting=3))
    with pytest.raises(QueueFull) as full:
        run(store.acreate(new_task(), admission=Admission(max_waiting=3)))
    assert full.value.limit == 3
    must_claim(store)
    store.create(new_task(), admission=Admission(max_waiting=3))


# -- listing --------------------------------------------------------------------------------------------------------
def pages(store: Store, where: TaskFilter, limit: int) -> list[TaskRecord]:
    found: list[TaskRecord] = []
    cursor = None
    while True:
        page = run(store.alist(where, cursor=cursor, limit=limit))
        assert len(page.tasks) <= limit
        found += page.tasks
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 7, 50])
def test_pages_cover_everything_once_newest_first_even_in_one_instant(store: Store, clock: Clock, limit: int) -> None:
    tasks = []
    for n in range(7):
        tasks.append(create(store))
        if n in (4, 5):
            clock.advance(1)
    expected = sorted(tasks, key=lambda task: (task.created_at, task.id), reverse=True)
    assert pages(store, TaskFilter(), limit) == expected


def test_a_cursor_stays_where_it_was_while_tasks_are_added(store: Store, clock: Clock) -> None:
    old = []
    for _ in range(4):
        old.append(create(store).id)
        clock.advance(1)
    first = run(store.alist(TaskFilter(), limit=2))
    create(store)
    rest = run(store.alist(TaskFilter(), cursor=first.next_cursor, limit=10))
    assert [task.id for task in first.tasks + rest.tasks] == old[::-1]
    assert rest.next_cursor is None


def test_filters_narrow_a_listing(store: Store, clock: Clock) -> None:
    a = create(store, client="a", renderer="warp")
    clock.advance(10)
    b = create(store, client="b", renderer="still")
    clock.advance(10)
    c = create(store, client="a", renderer="still")
    succeed(store, must_claim(store))

    def ids(**where: object) -> list[str]:
        return [task.id for task in run(store.alist(TaskFilter(**where))).tasks]  # type: ignore[arg-type]

    assert ids() == [c.id, b.id, a.id]
    assert ids(client="a") == [c.id, a.id]
    assert ids(renderer="still") == [c.id, b.id]
    assert ids(status=(Status.SUCCEEDED,)) == [a.id]
    assert ids(status=(Status.SUCCEEDED, Status.QUEUED), client="b") == [b.id]
    assert ids(status=()) == []
    assert ids(created_after=START, created_before=START + 20) == [b.id]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_1_to_1000_tasks(store: Store, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        run(store.alist(TaskFilter(), limit=limit))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "bnVsbA",
        "W10",
        "WzEsMl0",
        "WyJhIiwgImIiXQ",
        "🙂",
        "W05hTiwgImEiXQ",
        "\ud800",
        "WzEuMCwiXHVkODAwIl0",
    ],
)
def test_a_foreign_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        run(store.alist(TaskFilter(), cursor=cursor))


@given(st.floats(0, 1e12), st.text())
def test_cursors_go_round_and_are_safe_in_a_url(created_at: float, task_id: str) -> None:
    cursor = encode_cursor(created_at, task_id)
    assert decode_cursor(cursor) == (created_at, task_id)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text())
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        decode_cursor(text)
    except ValueError:
        return
