"""What is told about the queue, events, uploads and contents."""

from __future__ import annotations

import pytest

from app.store.errors import ClientQueueFull, QueueFull
from app.store.interface import Store
from app.store.records import Admission, EventRecord, TaskRecord, UploadRecord
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import (
    ERROR,
    START,
    Clock,
    assert_consistent,
    blob,
    claim,
    create,
    key,
    must_claim,
    must_get,
    new_task,
    run,
    sha,
    succeed,
)


def position(store: Store, task: TaskRecord) -> int | None:
    return run(store.aqueue_position(must_get(store, task.id)))


def test_an_empty_queue(store: Store) -> None:
    stats = store.queue()
    assert stats == run(store.aqueue())
    assert set(stats.by_status) == set(Status)
    assert set(stats.by_status.values()) == {0}
    assert (stats.runnable, stats.scheduled, stats.oldest_runnable_at, stats.paused) == (0, 0, None, False)
    assert store.next_due() is None


def test_the_queue_counts_what_can_run_and_what_cannot_yet(store: Store, clock: Clock) -> None:
    done = create(store)
    clock.advance(0.5)
    retried = create(store)
    succeed(store, must_claim(store))
    clock.advance(0.5)
    store.end_attempt(must_claim(store), "retry", error=ERROR, retry_at=START + 50)
    create(store, not_before=START + 20)
    clock.advance(1)
    create(store)
    clock.advance(1)
    create(store)
    must_claim(store, lease_s=1000)
    stats = store.queue()
    assert stats.by_status == dict.fromkeys(Status, 0) | {
        Status.QUEUED: 2, Status.RUNNING: 1, Status.RETRY_WAIT: 1, Status.SUCCEEDED: 1,
    }  # fmt: skip
    assert (stats.runnable, stats.scheduled, stats.oldest_runnable_at) == (1, 2, START + 3)
    assert must_get(store, done.id).status is Status.SUCCEEDED
    assert store.next_due() == START + 20
    clock.now = START + 60
    stats = store.queue()
    assert (stats.runnable, stats.scheduled, stats.oldest_runnable_at) == (3, 0, START + 3)
    assert must_claim(store).task.id == retried.id


def test_the_age_of_a_due_task_counts_from_its_due_time(store: Store, clock: Clock) -> None:
    create(store, not_before=START + 20)
    clock.advance(30)
    assert store.queue().oldest_runnable_at == START + 20  # before any claim has promoted it
    create(store, priority=9)
    must_claim(store)
    assert store.queue().oldest_runnable_at == START + 20


def test_positions_follow_the_claim_order(store: Store, clock: Clock) -> None:
    low = create(store, priority=1)
    clock.advance(1)
    high = create(store, priority=9)
    twins = sorted((create(store), create(store)), key=lambda task: task.id)
    scheduled = create(store, not_before=START + 5)
    assert [position(store, task) for task in (high, *twins, low, scheduled)] == [0, 1, 2, 3, None]
    clock.advance(10)
    assert [position(store, task) for task in (high, *twins, scheduled, low)] == [0, 1, 2, 3, 4]
    assert [run(store.aqueue_position(task, at_most=2)) for task in (high, *twins, low)] == [0, 1, 2, 2]
    assert must_claim(store).task.id == high.id
    assert [position(store, task) for task in (high, *twins, scheduled, low)] == [None, 0, 1, 2, 3]


def test_next_due_is_the_nearest_of_schedule_lease_and_deadline(store: Store, clock: Clock) -> None:
    create(store, deadline_at=START + 40)
    assert store.next_due() == START + 40
    create(store, priority=9)
    must_claim(store, lease_s=30)
    assert store.next_due() == START + 30
    create(store, not_before=START + 20)
    assert store.next_due() == START + 20
    clock.advance(25)
    assert store.next_due() == START + 20  # in the past: a claim has work to do
    assert store.next_due(since=clock.now) == START + 30  # and could not do it: no slot is free
    must_claim(store, lease_s=30)


# -- events ---------------------------------------------------------------------------------------------------------
def test_events_are_read_from_where_a_reader_stopped(store: Store) -> None:
    a, b = create(store), create(store)
    must_claim(store)
    every = run(store.aevents(None))
    assert [event.id for event in every] == [1, 2, 3]
    assert [event.task_id for event in every][:2] == [a.id, b.id]
    assert store.events(None, after=1) == every[1:]
    assert store.events(None, after=1, limit=1) == every[1:2]
    assert store.events(None, after=3) == []
    assert [event for event in every if event.task_id == b.id] == store.events(b.id)
    assert store.events("task_nothing") == []


def test_listeners_hear_each_event_once_after_it_can_be_read(store: Store) -> None:  # R1.3
    heard: list[EventRecord] = []
    missing: list[EventRecord] = []

    def listen(events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            heard.append(event)
            if event not in store.events(event.task_id):
                missing.append(event)

    store.subscribe(listen)
    for _ in range(20):
        create(store)
        succeed(store, must_claim(store))
    store.ping()  # the writer has called the listeners of all earlier commits
    assert missing == []
    assert heard == store.events(None)


# -- limits -----------------------------------------------------------------------------------------------------------
def test_a_client_has_a_limit_of_its_own(store: Store) -> None:  # R0.13
    one = store.create(new_task(client="a", priority=9), admission=Admission(max_waiting_per_client=2)).task
    store.create(new_task(client="a", not_before=START + 100), admission=Admission(max_waiting_per_client=2))
    with pytest.raises(ClientQueueFull) as full:
        store.create(new_task(client="a"), admission=Admission(max_waiting_per_client=2))
    assert (full.value.client, full.value.limit, full.value.waiting) == ("a", 2, 2)
    store.create(new_task(client="b"), admission=Admission(max_waiting_per_client=2))
    held = must_claim(store)
    assert held.task.id == one.id
    store.create(new_task(client="a"), key("k"), admission=Admission(max_waiting_per_client=2))
    store.end_attempt(held, "retry", error=ERROR, retry_at=START + 50)  # what waits for its retry waits, too
    with pytest.raises(ClientQueueFull):
        store.create(new_task(client="a"), admission=Admission(max_waiting_per_client=3))
    assert store.create(new_task(client="a"), key("k"), admission=Admission(max_waiting_per_client=2)).replayed
    store.cancel(one.id)
    store.create(new_task(client="a"), admission=Admission(max_waiting_per_client=3))
    assert_consistent(store)


def test_beyond_a_first_limit_a_task_is_deferred(store: Store) -> None:  # R3.9
    assert not store.create(new_task(), key("k"), admission=Admission(max_waiting=2, defer_above=1)).deferred
    assert store.create(new_task(), admission=Admission(max_waiting=2, defer_above=1)).deferred
    assert not store.create(new_task(), key("k"), admission=Admission(max_waiting=2, defer_above=1)).deferred
    with pytest.raises(QueueFull):
        store.create(new_task(), admission=Admission(max_waiting=2, defer_above=1))


def test_the_pace_is_that_of_the_tasks_that_ended_lately(store: Store, clock: Clock) -> None:
    assert run(store.afinish_rate()) is None
    for _ in range(5):
        create(store)
        clock.advance(2)
        succeed(store, must_claim(store))
    clock.advance(2)
    assert run(store.afinish_rate()) == pytest.approx(0.5)
    clock.advance(285)
    assert run(store.afinish_rate()) == pytest.approx(5 / 295)
    clock.advance(1000)
    assert run(store.afinish_rate()) is None


def test_a_pause_outlives_the_service(store_factory: StoreFactory, clock: Clock) -> None:  # R0.13
    first = store_factory(clock)
    create(first)
    first.set_paused(True)
    first.close()
    second = store_factory(clock)
    assert run(second.apaused())
    assert claim(second) is None
    second.set_paused(False)
    second.close()
    third = store_factory(clock)
    assert not run(third.apaused())
    must_claim(third)


# -- uploads --------------------------------------------------------------------------------------------------------
def upload(name: str, *, content: str = "face.png", expires_at: float = START + 100) -> UploadRecord:
    return UploadRecord(f"upl_{name}", sha(content), 10, f"{name} Ü.png", START, expires_at)


def test_an_upload_is_there_until_its_time(store: Store, clock: Clock) -> None:
    one = upload("one")
    run(store.aput_upload(one))
    assert run(store.aget_upload(one.id)) == one
    assert run(store.aget_upload("upl_nothing")) is None
    assert store.expired_uploads() == []
    clock.advance(100)
    assert run(store.aget_upload(one.id)) is None
    assert store.expired_uploads() == [one]
    store.delete_uploads([one.id, "upl_nothing"])
    assert store.expired_uploads() == []
    store.delete_uploads([])


def test_several_uploads_are_read_at_once(store: Store, clock: Clock) -> None:
    one, two, brief = upload("one"), upload("two"), upload("brief", expires_at=START + 1)
    for each in (one, two, brief):
        run(store.aput_upload(each))
    clock.advance(1)
    assert run(store.aget_uploads([two.id, brief.id, "upl_nothing", one.id])) == {one.id: one, two.id: two}
    assert run(store.aget_uploads([])) == {}


def test_a_content_is_in_use_by_uploads_and_by_tasks_that_have_not_ended(store: Store) -> None:
    run(store.aput_upload(upload("one", content="uploaded")))
    create(store, source=blob("picture"), audio=blob("voice"))
    wanted = [sha(name) for name in ("uploaded", "picture", "voice", "nothing")]
    assert store.blobs_in_use(wanted) == set(wanted[:3])
    assert store.blobs_in_use([]) == set()
    held = must_claim(store)
    assert store.blobs_in_use(wanted) == set(wanted[:3])
    succeed(store, held)
    assert store.blobs_in_use(wanted) == {sha("uploaded")}
    store.delete_uploads(["upl_one"])
    assert store.blobs_in_use(wanted) == set()


def test_the_contents_of_a_task_that_failed_lately_can_be_kept(store: Store, clock: Clock) -> None:
    for end in ("fail", "cancel"):
        create(store, source=blob(f"{end} picture"), audio=blob(f"{end} voice"))
        store.end_attempt(must_claim(store), end, error=ERROR)  # type: ignore[arg-type]
    wanted = [sha(f"{end} {name}") for end in ("fail", "cancel") for name in ("picture", "voice")]
    assert store.blobs_in_use(wanted) == set()
    assert store.blobs_in_use(wanted, failed_since=clock.now) == set(wanted[:2])
    assert store.blobs_in_use(wanted, failed_since=clock.now + 1) == set()


def test_many_contents_are_asked_for_at_once(store: Store) -> None:
    create(store)
    wanted = [sha(str(n)) for n in range(5000)] + [sha("face.png")]
    assert store.blobs_in_use(wanted) == {sha("face.png")}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_healthy_store_answers_a_ping(store: Store, asynchronous: bool) -> None:
    if asynchronous:
        run(store.aping())
    else:
        store.ping()


def test_who_waits_for_the_queue_hears_at_once_that_it_was_resumed(store: Store) -> None:  # R0.13
    heard: list[bool] = []
    store.on_resumed(lambda: heard.append(store.queue().paused))
    store.set_paused(True)
    assert heard == []
    store.set_paused(False)
    run(store.aset_paused(True))
    run(store.aset_paused(False))
    assert heard == [False, False]
