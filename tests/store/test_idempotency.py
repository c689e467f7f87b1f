"""One key, one task (R3.5)."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.store.errors import IdempotencyConflict, QueueFull
from app.store.interface import Store
from app.store.records import Admission, Created
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import Clock, create, key, must_claim, must_get, new_task, run, succeed

DAY = 86_400.0


def total(store: Store) -> int:
    return sum(store.queue().by_status.values())


def test_the_same_request_gets_the_same_task(store: Store, clock: Clock) -> None:
    first = store.create(new_task(), key())
    clock.advance(10)
    again = run(store.acreate(new_task(metadata={"other": 1}), key()))
    assert again == Created(first.task, replayed=True)
    assert run(store.afind_replay(key())) == first.task
    assert total(store) == 1
    assert len(store.events(None)) == 1


def test_an_unknown_key_has_no_task(store: Store) -> None:
    assert run(store.afind_replay(key())) is None


def test_a_replay_shows_the_task_as_it_is_now(store: Store) -> None:
    store.create(new_task(), key())
    done = succeed(store, must_claim(store))
    assert store.create(new_task(), key()).task == done
    found = run(store.afind_replay(key()))
    assert found == must_get(store, done.id)


def test_another_request_with_the_key_is_refused_and_changes_nothing(store: Store) -> None:
    first = store.create(new_task(), key()).task
    with pytest.raises(IdempotencyConflict) as conflict:
        run(store.acreate(new_task(), key(body="other")))
    assert conflict.value.task_id == first.id
    with pytest.raises(IdempotencyConflict):
        run(store.afind_replay(key(body="other")))
    assert total(store) == 1


def test_two_clients_may_use_one_key(store: Store) -> None:
    a = store.create(new_task(), key(client="a"))
    b = store.create(new_task(), key(client="b", body="other"))
    assert not b.replayed
    assert a.task.id != b.task.id


def test_a_full_queue_still_answers_a_replay(store: Store) -> None:
    first = store.create(new_task(), key(), admission=Admission(max_waiting=1))
    assert store.create(new_task(), key(), admission=Admission(max_waiting=1)).task == first.task
    with pytest.raises(QueueFull):
        store.create(new_task(), key("k2"), admission=Admission(max_waiting=1))
    assert run(store.afind_replay(key("k2"))) is None


def test_100_at_once_with_one_key_make_one_task(store: Store) -> None:  # R3.5
    async def race() -> list[Created]:
        return await asyncio.gather(*(store.acreate(new_task(), key()) for _ in range(100)))

    answers = run(race())
    assert len({created.task.id for created in answers}) == 1
    assert sum(not created.replayed for created in answers) == 1
    assert total(store) == 1


def test_two_stores_on_one_database_make_one_task(store_factory: StoreFactory, clock: Clock) -> None:  # R3.5
    stores = [store_factory(clock), store_factory(clock)]
    answers: list[Created] = []
    threads = [
        threading.Thread(target=lambda s=store: answers.append(s.create(new_task(), key())))  # type: ignore[misc]
        for store in stores * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({created.task.id for created in answers}) == 1
    assert sum(not created.replayed for created in answers) == 1


def test_a_key_outlives_a_restart(store_factory: StoreFactory, clock: Clock) -> None:  # R3.5
    before = store_factory(clock)
    task = before.create(new_task(), key()).task
    before.close()
    assert store_factory(clock).create(new_task(), key()).task == task


def test_a_key_past_its_time_makes_a_new_task_once_the_old_one_has_ended(store: Store, clock: Clock) -> None:
    first = store.create(new_task(), key()).task
    clock.advance(DAY - 1)
    succeed(store, must_claim(store))
    assert store.create(new_task(), key()).replayed
    clock.advance(1)
    assert run(store.afind_replay(key(body="other"))) is None
    second = store.create(new_task(), key(body="other"))
    assert not second.replayed
    assert second.task.id != first.id
    assert store.create(new_task(), key(body="other")).replayed


def test_a_key_is_good_as_long_as_its_task_lives(store: Store, clock: Clock) -> None:
    first = store.create(new_task(), key()).task
    clock.advance(10 * DAY)
    assert store.prune_keys() == 0
    assert store.create(new_task(), key()).task == first
    assert run(store.afind_replay(key())) == first
    with pytest.raises(IdempotencyConflict):
        store.create(new_task(), key(body="other"))


@pytest.mark.long_on_postgresql
def test_pruning_forgets_old_keys_of_ended_tasks_only(store: Store, clock: Clock) -> None:  # R3.5
    for n in range(250):
        task = store.create(new_task(), key(f"old-{n}")).task
        store.cancel(task.id)
    store.create(new_task(), key("alive"))
    clock.advance(DAY / 2)
    store.cancel(store.create(new_task(), key("young")).task.id)
    assert store.prune_keys() == 0
    clock.advance(DAY / 2)
    assert store.prune_keys() == 250
    assert store.prune_keys() == 0
    assert run(store.afind_replay(key("old-0"))) is None
    assert run(store.afind_replay(key("alive"))) is not None
    assert run(store.afind_replay(key("young"))) is not None


def test_a_failed_create_leaves_its_key_free(store: Store) -> None:
    with pytest.raises(ValueError, match="priority"):
        store.create(new_task(priority=99), key())
    assert not store.create(new_task(), key()).replayed


def test_creates_without_a_key_are_never_replays(store: Store) -> None:
    assert create(store).id != create(store).id
    assert store.queue().by_status[Status.QUEUED] == 2
