"""Forgetting what has ended long ago (section 8 of the design, R3.5, R3.12)."""

from __future__ import annotations

import pytest

from app.store.interface import Store
from app.store.records import TaskRecord
from app.store.sql import CHUNK
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import (
    ERROR,
    START,
    Clock,
    assert_consistent,
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

DAY = 86_400.0


def succeeded(store: Store, **changes: object) -> TaskRecord:
    create(store, priority=9, **changes)
    return succeed(store, must_claim(store))


def one_of_each_status(store: Store) -> dict[Status, str]:
    """A task in every status that there is a way to now."""
    made = {Status.SUCCEEDED: succeeded(store).id}
    for status, end in ((Status.FAILED, "fail"), (Status.CANCELLED, "cancel"), (Status.RETRY_WAIT, "retry")):
        create(store, priority=9)
        held = must_claim(store)
        store.end_attempt(held, end, error=ERROR, retry_at=START + 1000 * DAY)  # type: ignore[arg-type]
        made[status] = held.task.id
    create(store, priority=9)
    made[Status.RUNNING] = must_claim(store, lease_s=1000 * DAY).task.id
    made[Status.QUEUED] = create(store).id
    return made


def test_a_result_expires_once_and_its_task_stays_as_it_ended(store: Store, clock: Clock) -> None:
    old = succeeded(store)
    clock.advance(DAY)
    young = succeeded(store)
    assert store.expire_results(START - 1) == []
    clock.advance(DAY)
    (expired,) = store.expire_results(START)
    assert (expired.id, expired.output, expired.result_removed_at) == (old.id, old.output, clock.now)
    assert store.expire_results(START) == []
    after = must_get(store, old.id)
    assert (after.status, after.output, after.last_event_id) == (Status.SUCCEEDED, old.output, old.last_event_id)
    assert must_get(store, young.id).result_removed_at is None
    assert_consistent(store)


def test_only_results_expire(store: Store, clock: Clock) -> None:
    made = one_of_each_status(store)
    clock.advance(100 * DAY)
    assert [task.id for task in store.expire_results(clock.now)] == [made[Status.SUCCEEDED]]


def test_what_has_ended_is_purged_and_nothing_else(store: Store, clock: Clock) -> None:
    made = one_of_each_status(store)
    clock.advance(100 * DAY)
    live = [Status.RETRY_WAIT, Status.RUNNING, Status.QUEUED]
    ended = [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED]
    assert store.purge_tasks(START - 1) == []
    assert {task.id for task in store.purge_tasks(START)} == {made[status] for status in ended}
    assert store.purge_tasks(clock.now) == []
    for status in ended:
        assert store.get(made[status]) is None
        assert store.events(made[status]) == []
        assert store.cancel(made[status]) == "unknown"
    for status in live:
        assert must_get(store, made[status]).status is status
    assert store.queue().by_status == {status: int(status in live) for status in Status}
    assert_consistent(store, purged=True)
    held = must_claim(store)
    assert held.task.id == made[Status.QUEUED]
    succeed(store, held)
    assert_consistent(store, purged=True)


def test_event_ids_are_not_given_twice(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)
    last = succeeded(store).last_event_id
    assert len(store.purge_tasks(clock.now)) == 1
    store.close()
    again = store_factory(clock)
    assert create(again).last_event_id == last + 1


def test_a_key_that_is_still_good_keeps_its_task(store: Store, clock: Clock) -> None:  # R3.5
    good = store.create(new_task(), key("good", ttl_s=50 * DAY)).task
    succeed(store, must_claim(store))
    past = store.create(new_task(), key("past", ttl_s=DAY)).task
    succeed(store, must_claim(store))
    clock.advance(40 * DAY)
    assert [task.id for task in store.purge_tasks(clock.now)] == [past.id]
    assert store.create(new_task(), key("good", ttl_s=50 * DAY)).task.id == good.id
    fresh = store.create(new_task(), key("past", body="another"))
    assert not fresh.replayed
    clock.advance(10 * DAY)
    assert [task.id for task in store.purge_tasks(clock.now)] == [good.id]
    assert_consistent(store, purged=True)


def test_a_task_that_tries_a_purged_one_again_still_names_it(store: Store, clock: Clock) -> None:
    create(store)
    failed = store.end_attempt(must_claim(store), "fail", error=ERROR)
    again = create(store, retry_of=failed.id)
    clock.advance(DAY)
    store.purge_tasks(clock.now)
    assert must_get(store, again.id).retry_of == failed.id
    assert claim(store) is not None


def test_a_batch_is_bounded_and_the_oldest_go_first(store: Store, clock: Clock) -> None:
    ids = []
    for n in range(CHUNK + 5):
        ids.append(create(store, source=new_task().source).id)
        clock.advance(1)
        store.cancel(ids[n])
    assert {task.id for task in store.purge_tasks(clock.now)} == set(ids[:CHUNK])
    assert {task.id for task in store.purge_tasks(clock.now)} == set(ids[CHUNK:])
    assert store.purge_tasks(clock.now) == []
    assert store.queue().by_status == dict.fromkeys(Status, 0)


@pytest.mark.parametrize("ways", [2])
def test_two_services_forget_every_task_once(store_factory: StoreFactory, clock: Clock, ways: int) -> None:
    stores = [store_factory(clock) for _ in range(ways)]
    made = {succeeded(stores[0]).id for _ in range(6)}
    assert sum(len(store.expire_results(clock.now)) for store in stores) == len(made)
    assert sum(len(store.purge_tasks(clock.now)) for store in stores) == len(made)
    assert run(stores[1].aqueue()).by_status[Status.SUCCEEDED] == 0
    assert stores[0].blobs_in_use([sha("face.png")]) == set()
