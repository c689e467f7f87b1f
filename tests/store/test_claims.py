"""Claims: order, exclusivity, leases, fences, and how an attempt ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from app.store.errors import StaleClaim
from app.store.interface import Store
from app.store.records import Claim, TaskRecord
from app.tasks.replay import replay
from app.tasks.status import Status
from tests.store.kit import ARTIFACT, ERROR, START, Clock, claim, create, kinds, must_claim, must_get, run, succeed


def claim_all(store: Store) -> list[str]:
    found = []
    while (held := claim(store)) is not None:
        found.append(held.task.id)
    return found


# -- order ----------------------------------------------------------------------------------------------------------
def test_equal_tasks_go_in_the_order_of_arrival(store: Store, clock: Clock) -> None:
    tasks = []
    for _ in range(5):
        tasks.append(create(store).id)
        clock.advance(0.001)
    assert claim_all(store) == tasks


def test_a_high_priority_goes_first_but_a_low_one_ages_past_it(store: Store, clock: Clock) -> None:  # R0.13
    low = create(store, priority=0).id
    clock.advance(100)
    normal, high = create(store, priority=5).id, create(store, priority=9).id
    clock.advance(600)
    late_high = create(store, priority=9).id
    assert claim_all(store) == [high, normal, low, late_high]


def test_a_scheduled_task_runs_when_due_and_blocks_nobody_before(store: Store, clock: Clock) -> None:  # R3.8
    due_at = START + 100
    scheduled = create(store, priority=9, not_before=due_at).id
    clock.advance(1)
    other = create(store, priority=0).id
    assert claim_all(store) == [other]
    clock.now = due_at - 0.001
    assert claim(store) is None
    clock.now = due_at
    assert claim_all(store) == [scheduled]


def test_a_scheduled_task_has_not_aged_before_its_time(store: Store, clock: Clock) -> None:
    scheduled = create(store, not_before=START + 5000).id
    clock.advance(4999)
    earlier = create(store).id
    clock.advance(10)
    assert claim_all(store) == [earlier, scheduled]


def test_a_retry_and_an_interruption_keep_their_place(store: Store, clock: Clock) -> None:
    first, second = create(store).id, create(store, priority=4).id
    clock.advance(1)
    third = create(store, priority=4).id
    store.end_attempt(must_claim(store), "retry", error=ERROR)
    held = must_claim(store)
    assert held.task.id == first
    store.end_attempt(held, "requeue", error=None)
    assert claim_all(store) == [first, second, third]


def test_a_paused_queue_gives_nothing(store: Store) -> None:  # R0.13
    task = create(store).id
    running = must_claim(store)
    create(store)
    store.set_paused(True)
    store.set_paused(True)
    assert claim(store) is None
    assert store.queue().paused
    assert store.renew(running, lease_s=30).id == task
    run(store.aset_paused(False))
    assert not store.queue().paused
    must_claim(store)


# -- exclusivity ----------------------------------------------------------------------------------------------------
def test_16_threads_claim_each_task_once(store: Store) -> None:
    ids = {create(store).id for _ in range(200)}
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(claim_all(store))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert set(found) == ids
    assert store.queue().by_status[Status.RUNNING] == 200


def test_a_claim_gives_lease_attempt_and_event(store: Store, clock: Clock) -> None:
    task = create(store)
    clock.advance(5)
    held = must_claim(store, lease_s=30)
    now = START + 5
    assert (held.attempt, held.owner, held.lease_expires_at) == (1, "node-1", now + 30)
    got = must_get(store, task.id)
    assert (got.status, got.attempt, got.started_at) == (Status.RUNNING, 1, now)
    assert (got.lease_owner, got.lease_expires_at) == ("node-1", now + 30)
    (attempt,) = got.attempts
    assert (attempt.n, attempt.tier, attempt.slot, attempt.device, attempt.started_at) == (
        1, "warp", "cpu-0", "cpu", now,
    )  # fmt: skip
    assert attempt.ended_at is attempt.outcome is None
    event = store.events(task.id)[-1]
    assert (event.type, event.status, event.attempt, event.at) == ("task.running", Status.RUNNING, 1, now)
    assert got.last_event_id == event.id


# -- ends -----------------------------------------------------------------------------------------------------------
def test_success_is_final_and_whole(store: Store, clock: Clock) -> None:
    task = create(store)
    held = must_claim(store)
    clock.advance(3)
    done = store.succeed(
        held,
        ARTIFACT,
        served_by="warp",
        degraded=True,
        quality={"confidence": 0.9},
        stages={"render": 2.5},
        facts={"device": "cpu"},
    )
    assert (done.status, done.output, done.served_by, done.degraded) == (Status.SUCCEEDED, ARTIFACT, "warp", True)
    assert (done.quality, done.finished_at, done.error) == ({"confidence": 0.9}, START + 3, None)
    assert done.lease_owner is done.lease_expires_at is None
    got = must_get(store, task.id)
    (attempt,) = got.attempts
    assert (attempt.outcome, attempt.ended_at) == ("succeeded", START + 3)
    assert (attempt.stages, attempt.facts) == ({"render": 2.5}, {"device": "cpu"})
    clock.advance(10_000)
    assert must_get(store, task.id) == got  # R0.13: terminal reads identical for ever
    assert kinds(store, task.id) == ["queued", "running", "succeeded"]


def test_a_retry_waits_for_its_time_and_is_charged(store: Store, clock: Clock) -> None:  # R0.9
    task = create(store)
    got = store.end_attempt(
        must_claim(store), "retry", error=ERROR, retry_at=START + 4, backoff_ms=4000, postmortem={"signal": "SIGSEGV"}
    )
    assert (got.status, got.retries, got.retry_at, got.retry_reason) == (
        Status.RETRY_WAIT, 1, START + 4, "WORKER_CRASHED",
    )  # fmt: skip
    assert got.lease_owner is None
    assert claim(store) is None
    clock.advance(4)
    held = must_claim(store)
    assert (held.task.id, held.attempt) == (task.id, 2)
    first, second = must_get(store, task.id).attempts
    assert (first.outcome, first.error, first.backoff_ms) == ("failed", ERROR, 4000)
    assert first.postmortem == {"signal": "SIGSEGV"}
    assert second.outcome is None
    assert kinds(store, task.id) == ["queued", "running", "retry_wait", "running"]


def test_a_claim_tells_why_the_attempts_before_it_failed(store: Store) -> None:
    create(store)
    first = must_claim(store)
    store.end_attempt(first, "retry", error=ERROR)
    second = must_claim(store)
    store.end_attempt(second, "requeue", error=None)
    third = must_claim(store)
    store.end_attempt(third, "retry", error={**ERROR, "code": "GPU_OOM"})
    assert [held.earlier for held in (first, second, third, must_claim(store))] == [
        (), ("WORKER_CRASHED",), ("WORKER_CRASHED",), ("WORKER_CRASHED", "GPU_OOM"),
    ]  # fmt: skip


def test_a_failure_is_final(store: Store) -> None:
    task = create(store)
    store.end_attempt(must_claim(store), "fail", error=ERROR)
    got = must_get(store, task.id)
    assert (got.status, got.error, got.finished_at) == (Status.FAILED, ERROR, START)
    assert got.attempts[0].outcome == "failed"


def test_an_interruption_is_free(store: Store) -> None:
    task = create(store)
    for n in range(1, 6):
        held = must_claim(store)
        assert held.attempt == n
        got = store.end_attempt(held, "requeue", error=None)
        assert (got.status, got.retries) == (Status.QUEUED, 0)
    assert [attempt.outcome for attempt in must_get(store, task.id).attempts] == ["interrupted"] * 5


def test_an_interruption_may_name_a_later_time(store: Store, clock: Clock) -> None:
    create(store)
    store.end_attempt(must_claim(store), "requeue", error=None, retry_at=START + 2)
    assert claim(store) is None
    clock.advance(2)
    assert must_claim(store).attempt == 2


# -- leases ---------------------------------------------------------------------------------------------------------
def test_a_renewed_lease_lives_and_an_expired_one_frees_the_task(store: Store, clock: Clock) -> None:
    task = create(store)
    held = must_claim(store, lease_s=30)
    clock.advance(29)
    assert store.renew(held, lease_s=30).lease_expires_at == clock.now + 30
    clock.advance(29.9)
    assert store.rescue_expired() == []
    clock.advance(0.1)
    (got,) = store.rescue_expired()
    assert (got.id, got.status, got.retries) == (task.id, Status.QUEUED, 0)
    assert store.rescue_expired() == []
    assert must_get(store, task.id).attempts[0].outcome == "interrupted"
    assert store.events(task.id)[-1].data["reason"] == "lease_expired"
    assert must_claim(store, "node-2").attempt == 2


def test_a_late_holder_whose_task_nobody_took_may_still_renew(store: Store, clock: Clock) -> None:
    create(store)
    held = must_claim(store, lease_s=30)
    clock.advance(100)
    store.renew(held, lease_s=30)
    assert store.rescue_expired() == []


def test_a_restarted_node_takes_back_its_own_at_once(store: Store) -> None:
    mine = {create(store).id for _ in range(3)}
    for _ in mine:
        must_claim(store, "node-1")
    other = create(store).id
    must_claim(store, "node-2")
    assert {task.id for task in store.take_back("node-1")} == mine
    assert store.take_back("node-1") == []
    assert must_get(store, other).status is Status.RUNNING
    for task_id in mine:
        assert must_get(store, task_id).status is Status.QUEUED


@pytest.mark.long_on_postgresql
def test_more_leases_expire_at_once_than_one_sweep_takes(store: Store, clock: Clock) -> None:
    ids = {create(store).id for _ in range(250)}
    for _ in ids:
        must_claim(store)
    clock.advance(31)
    assert {task.id for task in store.rescue_expired()} == ids
    assert store.queue().runnable == 250


# -- fences ---------------------------------------------------------------------------------------------------------
def lose_by_expiry(store: Store, clock: Clock, held: Claim) -> None:
    clock.advance(31)
    store.rescue_expired()


def lose_to_another(store: Store, clock: Clock, held: Claim) -> None:
    lose_by_expiry(store, clock, held)
    must_claim(store, "node-1")


def lose_by_own_end(store: Store, clock: Clock, held: Claim) -> None:
    store.end_attempt(held, "retry", error=ERROR)


def lose_by_success(store: Store, clock: Clock, held: Claim) -> None:
    succeed(store, held)


def lose_by_take_back(store: Store, clock: Clock, held: Claim) -> None:
    store.take_back(held.owner)


WRITES: dict[str, Callable[[Store, Claim], TaskRecord]] = {
    "renew": lambda store, held: store.renew(held, lease_s=30),
    "succeed": succeed,
    "retry": lambda store, held: store.end_attempt(held, "retry", error=ERROR),
    "fail": lambda store, held: store.end_attempt(held, "fail", error=ERROR),
    "requeue": lambda store, held: store.end_attempt(held, "requeue", error=None),
    "cancel": lambda store, held: store.end_attempt(held, "cancel", error=None),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("lose", [lose_by_expiry, lose_to_another, lose_by_own_end, lose_by_success, lose_by_take_back])
def test_a_zombie_can_do_nothing(
    store: Store,
    clock: Clock,
    write: Callable[[Store, Claim], TaskRecord],
    lose: Callable[[Store, Clock, Claim], None],
) -> None:
    task = create(store)
    zombie = must_claim(store)
    lose(store, clock, zombie)
    before, events = must_get(store, task.id), store.events(None)
    with pytest.raises(StaleClaim):
        write(store, zombie)
    assert must_get(store, task.id) == before
    assert store.events(None) == events
    assert replay(events) is before.status


def test_a_claim_of_another_owner_is_refused(store: Store) -> None:
    create(store)
    held = must_claim(store, "node-1")
    with pytest.raises(StaleClaim):
        store.renew(Claim(held.task, held.attempt, "node-2", held.lease_expires_at), lease_s=30)
