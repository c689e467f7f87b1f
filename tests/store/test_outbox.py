"""Notices: written with the event that they tell, sent in order, taken by one at a time (R1.2, R1.8, R1.10)."""

from __future__ import annotations

import pytest
from sqlalchemy import event as database_events

from app.store.deliveries import Notice, Try, Verdict
from app.store.errors import StaleClaim
from app.store.interface import Store
from app.store.records import Callback
from app.store.schema import outbox
from app.store.sql import SqlStore
from app.tasks.notices import DEFAULT_NOTICES, NOTICES, PROGRESS
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import ERROR, START, Clock, assert_consistent, create, must_claim, must_get, run, succeed

URL = "https://example.com/hook?token=1"
ALL = Callback(URL, NOTICES, "secret")
ENDS = Callback(URL, DEFAULT_NOTICES)


@pytest.fixture
def store(store_factory: StoreFactory, clock: Clock) -> SqlStore:
    return store_factory(clock)


def take(
    store: Store, owner: str = "node-1", limit: int = 10, per_endpoint: int = 10, **in_flight: int
) -> list[Notice]:
    room = {"lease_s": 60.0, "limit": limit, "per_endpoint": per_endpoint, "in_flight": in_flight}
    return run(store.outbox.atake(owner, **room))


def settle(store: Store, notice: Notice, verdict: Verdict = "delivered", retry_at: float | None = None) -> bool:
    tried = Try(START, 0.1, 204 if verdict == "delivered" else 500)
    return run(store.outbox.asettle(notice, "node-1", tried, verdict, retry_at))


def sent_in_order(store: Store) -> list[str]:
    """Deliver what is due until nothing is."""
    told = []
    while notices := take(store):
        told += [notice.type for notice in notices]
        for notice in notices:
            assert settle(store, notice)
    return told


def test_every_event_that_was_asked_for_is_told_once_and_in_order(store: SqlStore, clock: Clock) -> None:  # R1.2
    task = create(store, callback=ALL)
    held = must_claim(store)
    store.end_attempt(held, "retry", error=ERROR)
    store.end_attempt(must_claim(store), "requeue", error=ERROR)
    succeed(store, must_claim(store))
    story = ["queued", "running", "retry_wait", "running", "queued", "running", "succeeded"]
    assert sent_in_order(store) == [f"task.{word}" for word in story]
    assert [delivery.id for delivery in run(store.outbox.adeliveries(task.id))] == [
        f"{task.id}_{event.id}" for event in store.events(task.id)
    ]
    assert_consistent(store)


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_by_default_only_the_end_is_told(store: SqlStore, end: str) -> None:
    create(store, callback=ENDS)
    store.end_attempt(must_claim(store), end, error=ERROR)  # type: ignore[arg-type]
    assert sent_in_order(store) == ["task.failed" if end == "fail" else "task.cancelled"]


def test_each_way_to_an_end_is_told(store: SqlStore, clock: Clock) -> None:
    cancelled = create(store, callback=ENDS)
    store.cancel(cancelled.id)
    create(store, callback=ENDS, start_deadline_at=START + 1)
    lost = create(store, callback=ENDS, priority=9)
    must_claim(store)
    store.cancel(lost.id)
    clock.advance(31)
    store.expire_waiting()
    store.rescue_expired()
    assert sorted(sent_in_order(store)) == ["task.cancelled", "task.cancelled", "task.failed"]


def test_a_notice_tells_the_state_after_its_event_however_late_it_is_sent(store: SqlStore, clock: Clock) -> None:
    task = create(store, callback=ALL)
    store.end_attempt(must_claim(store), "retry", error=ERROR, retry_at=START + 5, backoff_ms=5000)
    clock.advance(10)
    final = succeed(store, must_claim(store))
    seen = []
    while notices := take(store):
        [notice] = notices
        seen.append(notice)
        settle(store, notice)
    assert [(n.task.status, n.task.attempt, len(n.task.attempts)) for n in seen] == [
        (Status.QUEUED, 0, 0), (Status.RUNNING, 1, 1), (Status.RETRY_WAIT, 1, 1), (Status.RUNNING, 2, 2),
        (Status.SUCCEEDED, 2, 2),
    ]  # fmt: skip
    assert [n.at for n in seen] == [START, START, START, START + 10, START + 10]
    assert seen[2].task.attempts[0].outcome == "failed"
    assert seen[2].task.attempts[0].error == ERROR
    assert seen[-1].task == must_get(store, task.id)
    assert seen[-1].task.output == final.output


def test_a_task_without_a_callback_costs_no_statement(store: SqlStore) -> None:
    statements: list[str] = []
    database_events.listen(store._writing, "before_cursor_execute", lambda *call: statements.append(call[2]))
    create(store)
    succeed(store, must_claim(store))
    assert not [statement for statement in statements if "outbox" in statement]


def test_the_secret_is_in_no_event_and_in_no_text_of_a_record(store: SqlStore) -> None:
    task = create(store, callback=ALL)
    held = must_claim(store)
    assert "'secret'" not in repr(task) + repr(held) + repr(store.events(None))


def test_a_write_that_is_refused_tells_nothing(store: SqlStore, clock: Clock) -> None:  # R1.8
    create(store, callback=ENDS)
    stale = must_claim(store)
    clock.advance(31)
    store.rescue_expired()
    with pytest.raises(StaleClaim):
        succeed(store, stale)
    assert take(store) == []


def test_a_later_notice_waits_until_the_earlier_one_is_over(store: SqlStore, clock: Clock) -> None:
    create(store, callback=ALL)
    held = must_claim(store)
    [queued] = take(store)
    succeed(store, held)
    assert take(store) == []
    settle(store, queued, "retry", clock.now + 300)
    assert take(store) == []
    assert run(store.outbox.anext_at(())) == clock.now + 300
    clock.advance(300)
    [again] = take(store)
    assert (again.id, again.tries) == (queued.id, 1)
    settle(store, again, "dead")
    assert [notice.type for notice in take(store)] == ["task.running"]


def test_a_notice_is_taken_by_one_and_again_when_its_lease_is_over(store: SqlStore, clock: Clock) -> None:
    create(store, callback=ALL)
    [first] = take(store)
    assert take(store, "node-2") == []
    clock.advance(61)
    [second] = take(store, "node-2")
    assert second.id == first.id
    assert not settle(store, first), "the lease of node-1 is over, and node-2 sends it"
    assert run(store.outbox.asettle(second, "node-2", Try(START, 0.1, 200), "delivered"))
    [delivery] = run(store.outbox.adeliveries(first.task.id))
    assert [tried.status for tried in delivery.tries] == [200]


def test_a_node_that_starts_again_takes_its_own_at_once(store: SqlStore) -> None:
    create(store, callback=ALL)
    take(store)
    assert run(store.outbox.arelease("node-2")) == 0
    assert run(store.outbox.arelease("node-1")) == 1
    assert len(take(store)) == 1


def test_no_endpoint_gets_more_than_its_share_and_none_waits_for_another(store: SqlStore) -> None:
    for _ in range(20):
        create(store, callback=Callback("https://dead.example/a", NOTICES))
    create(store, callback=Callback("https://LIVE.example/b", NOTICES))
    taken = take(store, limit=6, per_endpoint=4)
    assert [notice.callback.endpoint for notice in taken] == ["https://dead.example"] * 4 + ["https://live.example"]
    assert take(store, limit=6, per_endpoint=4, **{"https://dead.example": 4}) == []
    assert run(store.outbox.anext_at(["https://dead.example", "https://live.example"])) is None


def test_a_gone_endpoint_ends_the_rest_and_a_replay_asks_it_again(store: SqlStore) -> None:
    task = create(store, callback=ALL)
    held = must_claim(store)
    [first] = take(store)
    settle(store, first, "gone")
    succeed(store, held)
    assert take(store) == []
    assert [delivery.state for delivery in run(store.outbox.adeliveries(task.id))] == ["disabled", "disabled"]
    assert run(store.outbox.areplay(task.id)) == [1, 2]
    assert sent_in_order(store) == ["task.queued", "task.running"]
    assert run(store.outbox.areplay(task.id, 2)) == [2]
    assert run(store.outbox.areplay(task.id, 99)) == []
    assert sent_in_order(store) == ["task.running"]
    assert [len(delivery.tries) for delivery in run(store.outbox.adeliveries(task.id))] == [2, 2]


def test_progress_grows_keeps_its_distance_and_stops_with_the_attempt(store: SqlStore, clock: Clock) -> None:  # R1.2
    create(store, callback=Callback(URL, (PROGRESS, "task.succeeded")))
    held = must_claim(store)

    def report(done: int) -> bool:
        return store.outbox.progress(held, done, 100, "render", at_least_s=10)

    assert report(10)
    assert not report(50), "too early"
    clock.advance(10)
    assert not report(10), "no further than before"
    [first] = take(store)
    assert (first.type, first.progress) == (PROGRESS, {"phase": "render", "done": 10, "total": 100, "fraction": 0.1})
    settle(store, first, "retry", clock.now + 300)
    store.end_attempt(held, "retry", error=ERROR)
    held = must_claim(store)
    assert not report(5), "the second attempt is not as far as the first was"
    assert report(40)
    clock.advance(10)
    assert report(90)
    succeed(store, held)
    with pytest.raises(StaleClaim):
        report(95)
    assert sent_in_order(store) == ["task.succeeded"], "what the end makes worthless is not sent"
    states = [(d.type, d.state) for d in run(store.outbox.adeliveries(held.task.id))]
    assert states == [(PROGRESS, "dropped")] * 3 + [("task.succeeded", "delivered")]
    assert_consistent(store)


def test_progress_of_a_task_that_does_not_want_it_is_not_written(store: SqlStore) -> None:
    create(store, callback=ENDS)
    assert not store.outbox.progress(must_claim(store), 10, 100, "render", at_least_s=0)
    assert [event.type for event in store.events(None)] == ["task.queued", "task.running"]


def test_notices_live_as_long_as_their_task_and_hold_it_until_they_are_over(store: SqlStore, clock: Clock) -> None:
    task = create(store, callback=ENDS)
    succeed(store, must_claim(store))
    clock.advance(1000)
    assert store.purge_tasks(clock.now) == []
    assert store.outbox.stats().pending == 1
    [notice] = take(store)
    settle(store, notice, "dead")
    assert (store.outbox.stats().pending, store.outbox.stats().dead) == (0, 1)
    assert [d.id for d in run(store.outbox.alist("dead", before=None, limit=10))] == [notice.id]
    assert run(store.outbox.alist("dead", before=notice.event_id, limit=10)) == []
    assert [purged.id for purged in store.purge_tasks(clock.now)] == [task.id]
    assert store.outbox.stats().dead == 0


def test_whoever_sends_is_told_of_notices_alone(store: SqlStore) -> None:
    calls: list[str] = []
    store.outbox.subscribe(lambda: calls.append("told"))
    create(store)
    create(store, callback=ENDS)
    store.ping()
    assert calls == []
    held = must_claim(store)
    other = must_claim(store)
    with_callback = held if held.task.callback else other
    succeed(store, with_callback)
    store.ping()
    assert calls == ["told"]


def test_a_notice_that_cannot_be_read_is_given_up_with_its_reason_and_stops_no_other(
    store: SqlStore, clock: Clock
) -> None:
    broken, sound = (create(store, callback=ENDS).id for _ in range(2))
    for _ in range(2):
        succeed(store, must_claim(store))
    unreadable = outbox.update().where(outbox.c.task_id == broken).values(snapshot={"status": "MELTED"})
    store._write(lambda tx: tx.connection.execute(unreadable))
    [notice] = take(store)
    assert notice.task.id == sound
    [given_up] = run(store.outbox.adeliveries(broken))
    assert given_up.state == "dead"
    assert given_up.tries[-1].error == "INTERNAL"
    assert "cannot be read" in str(given_up.tries[-1].message)
    assert take(store) == []
