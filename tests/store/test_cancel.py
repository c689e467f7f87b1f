"""Cancelling in every state, and deadlines of tasks that wait."""

from __future__ import annotations

import threading

import pytest

from app.store.errors import StaleClaim
from app.store.interface import Store
from app.store.records import Claim
from app.tasks.replay import replay
from app.tasks.status import Status
from tests.store.kit import ERROR, START, Clock, claim, create, kinds, must_claim, must_get, run, succeed


def test_an_unknown_task_cannot_be_cancelled(store: Store) -> None:
    assert run(store.acancel("task_nothing")) == "unknown"


def test_a_queued_task_is_cancelled_at_once_and_never_claimed(store: Store) -> None:
    task = create(store)
    assert run(store.acancel(task.id, "not needed")) == "cancelled"
    assert run(store.acancel(task.id)) == "already_terminal"
    got = must_get(store, task.id)
    assert (got.status, got.finished_at, got.cancel_requested_at) == (Status.CANCELLED, START, START)
    assert got.error is not None
    assert (got.error["code"], got.error["message"]) == ("CANCELLED", "not needed")
    assert got.error["hint"]
    assert claim(store) is None
    assert kinds(store, task.id) == ["queued", "cancelled"]
    assert store.events(task.id)[-1].data["reason"] == "not needed"


@pytest.mark.parametrize("wait", [0.0, 60.0])
def test_a_task_that_waits_for_its_retry_is_cancelled_at_once(store: Store, clock: Clock, wait: float) -> None:
    task = create(store)
    store.end_attempt(must_claim(store), "retry", error=ERROR, retry_at=START + wait)
    assert store.cancel(task.id) == "cancelled"
    clock.advance(100)
    assert claim(store) is None
    assert store.next_due() is None


def test_a_scheduled_task_is_cancelled_at_once(store: Store, clock: Clock) -> None:
    task = create(store, not_before=START + 10)
    assert store.cancel(task.id) == "cancelled"
    clock.advance(11)
    assert claim(store) is None
    assert store.queue().scheduled == 0


def test_a_running_task_gets_the_flag_once_and_its_holder_sees_it(store: Store, clock: Clock) -> None:
    task = create(store)
    held = must_claim(store)
    clock.advance(1)
    assert store.cancel(task.id, "stop") == "requested"
    clock.advance(1)
    assert store.cancel(task.id, "again") == "requested"
    seen = store.renew(held, lease_s=30)
    assert (seen.status, seen.cancel_requested_at) == (Status.RUNNING, START + 1)
    done = store.end_attempt(held, "cancel", error=None)
    assert done.status is Status.CANCELLED
    assert kinds(store, task.id) == ["queued", "running", "cancel_requested", "cancelled"]
    assert must_get(store, task.id).attempts[0].outcome == "cancelled"


@pytest.mark.parametrize("end", ["retry", "requeue"])
def test_a_flagged_attempt_does_not_come_back(store: Store, end: str) -> None:
    task = create(store)
    held = must_claim(store)
    store.cancel(task.id)
    assert store.end_attempt(held, end, error=ERROR, backoff_ms=5).status is Status.CANCELLED  # type: ignore[arg-type]
    got = must_get(store, task.id)
    assert got.retries == 0
    assert (got.attempts[0].outcome, got.attempts[0].error, got.attempts[0].backoff_ms) == ("cancelled", ERROR, None)


def test_a_flagged_attempt_that_fails_has_failed(store: Store) -> None:
    held = must_claim_new(store)
    store.cancel(held.task.id)
    assert store.end_attempt(held, "fail", error=ERROR).status is Status.FAILED


def test_a_flagged_attempt_that_was_done_has_succeeded(store: Store) -> None:
    held = must_claim_new(store)
    store.cancel(held.task.id)
    assert succeed(store, held).status is Status.SUCCEEDED


def test_a_flagged_task_whose_lease_runs_out_is_cancelled(store: Store, clock: Clock) -> None:
    expired, taken = must_claim_new(store), must_claim_new(store, "node-2")
    store.cancel(expired.task.id)
    store.cancel(taken.task.id)
    assert [task.status for task in store.take_back("node-2")] == [Status.CANCELLED]
    clock.advance(31)
    assert [task.status for task in store.rescue_expired()] == [Status.CANCELLED]


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_a_finished_task_stays_as_it_is(store: Store, end: str) -> None:
    held = must_claim_new(store)
    if end == "succeed":
        succeed(store, held)
    else:
        store.end_attempt(held, "fail", error=ERROR)
    before = must_get(store, held.task.id)
    assert store.cancel(held.task.id) == "already_terminal"
    assert must_get(store, held.task.id) == before


def test_cancel_racing_success_ends_in_one_consistent_state(store: Store) -> None:
    for _ in range(50):
        held = must_claim_new(store)
        start = threading.Barrier(2)
        answers: list[str] = []

        def ask(held: Claim = held, start: threading.Barrier = start, answers: list[str] = answers) -> None:
            start.wait()
            answers.append(store.cancel(held.task.id))

        thread = threading.Thread(target=ask)
        thread.start()
        start.wait()
        succeed(store, held)
        thread.join()
        got = must_get(store, held.task.id)
        assert got.status is Status.SUCCEEDED
        assert answers == ["already_terminal" if got.cancel_requested_at is None else "requested"]
        assert replay(store.events(held.task.id)) is Status.SUCCEEDED


def test_cancel_racing_a_claim_never_runs_a_cancelled_task(store: Store) -> None:
    for _ in range(50):
        task = create(store)
        start = threading.Barrier(2)
        claims: list[Claim | None] = []

        def take(start: threading.Barrier = start, claims: list[Claim | None] = claims) -> None:
            start.wait()
            claims.append(claim(store))

        thread = threading.Thread(target=take)
        thread.start()
        start.wait()
        answer = store.cancel(task.id)
        thread.join()
        assert answer == ("cancelled" if claims == [None] else "requested")
        if claims[0] is not None:
            store.end_attempt(claims[0], "cancel", error=None)


# -- deadlines ------------------------------------------------------------------------------------------------------
def test_a_task_that_did_not_start_in_time_fails(store: Store, clock: Clock) -> None:  # R0.6
    task = create(store, start_deadline_at=START + 10, deadline_at=START + 100)
    assert store.next_due() == START + 10
    clock.advance(9.9)
    assert store.expire_waiting() == []
    clock.advance(0.1)
    assert claim(store) is None  # a claim does not begin what is late already
    (failed,) = store.expire_waiting()
    assert (failed.id, failed.status, failed.finished_at) == (task.id, Status.FAILED, START + 10)
    assert failed.error is not None
    assert failed.error["code"] == "DEADLINE_EXCEEDED"
    assert failed.error["message"]
    assert failed.error["hint"]
    assert store.expire_waiting() == []
    assert store.next_due() is None
    assert kinds(store, task.id) == ["queued", "failed"]


def test_a_started_task_has_its_start_deadline_behind_it(store: Store, clock: Clock) -> None:
    create(store, start_deadline_at=START + 10, deadline_at=START + 100)
    held = must_claim(store)
    clock.advance(50)
    assert store.expire_waiting() == []
    store.end_attempt(held, "retry", error=ERROR, retry_at=clock.now + 500)
    assert store.expire_waiting() == []
    assert store.next_due() == START + 100
    clock.advance(50)
    (failed,) = store.expire_waiting()
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert failed.error["detail"] == {"waited_as": "RETRY_WAIT", "last_failure": "WORKER_CRASHED"}


def test_a_running_task_is_not_the_queue_s_to_expire(store: Store, clock: Clock) -> None:
    create(store, deadline_at=START + 10)
    held = must_claim(store)
    clock.advance(11)
    assert store.expire_waiting() == []
    assert succeed(store, held).status is Status.SUCCEEDED


def test_expiring_takes_another_time_too(store: Store) -> None:
    task = create(store, deadline_at=START + 10)
    assert [failed.id for failed in store.expire_waiting(START + 10)] == [task.id]


def test_an_expired_task_s_zombie_is_refused(store: Store, clock: Clock) -> None:
    create(store, deadline_at=START + 10)
    held = must_claim(store)
    store.take_back("node-1")
    clock.advance(11)
    assert len(store.expire_waiting()) == 1
    with pytest.raises(StaleClaim):
        succeed(store, held)


def must_claim_new(store: Store, owner: str = "node-1") -> Claim:
    create(store)
    return must_claim(store, owner)
