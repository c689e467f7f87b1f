"""The result cache of the store: what is served again, for how long, and whose file it is (R2.7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.store.errors import QueueFull, UntrustedResult
from app.store.interface import Store
from app.store.records import Admission, CachedResult, KeepFor, TaskRecord
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import ARTIFACT, Clock, assert_consistent, create, key, kinds, must_claim, must_get, new_task, run

KEY, OTHER = "a" * 64, "b" * 64
TTL_S = 3600.0


def render(store: Store, result_key: str = KEY, *, path: str = "", size: int = 1000, most: int = 10**9) -> TaskRecord:
    """Run the one task that waits to its end, and cache what it made."""
    held = must_claim(store)
    artifact = replace(ARTIFACT, path=path or f"results/{held.task.id}/1.mp4", bytes=size)
    return store.succeed(
        held, artifact, served_by="warp", quality={"confidence": 0.9}, keep=KeepFor(result_key, TTL_S, most)
    )


def rendered(store: Store, result_key: str = KEY, *, size: int = 1000, most: int = 10**9) -> TaskRecord:
    create(store, cache_keys=(result_key,))
    return render(store, result_key, size=size, most=most)


def test_an_equal_task_ends_at_once_with_the_same_result_and_is_a_task_of_its_own(store: Store, clock: Clock) -> None:
    first = rendered(store)
    clock.advance(5)
    task = create(store, cache_keys=(KEY,), metadata={"mine": 1})
    assert task.id != first.id
    assert (task.status, task.cached, task.metadata) == (Status.SUCCEEDED, True, {"mine": 1})
    assert (task.output, task.served_by, task.quality) == (first.output, "warp", {"confidence": 0.9})
    assert (task.attempt, task.started_at, task.finished_at) == (0, None, clock.now)
    assert must_get(store, task.id) == task
    assert kinds(store, task.id) == ["queued", "succeeded"]
    assert not must_get(store, first.id).cached
    assert_consistent(store)


def test_a_task_that_takes_no_part_is_neither_served_nor_kept(store: Store) -> None:
    rendered(store)
    task = create(store)
    assert task.status is Status.QUEUED
    store.succeed(must_claim(store), ARTIFACT, served_by="warp")
    assert store.cache().results == 1
    assert not must_get(store, task.id).cached


def test_a_task_for_later_is_not_served_now(store: Store, clock: Clock) -> None:
    rendered(store)
    assert create(store, cache_keys=(KEY,), not_before=clock.now + 60).status is Status.QUEUED


def test_the_first_key_that_has_a_result_counts(store: Store) -> None:
    rendered(store, KEY)
    rendered(store, OTHER)
    best = must_get(store, create(store, cache_keys=(OTHER, KEY)).id)
    second = must_get(store, create(store, cache_keys=("c" * 64, KEY)).id)
    assert best.output is not None
    assert second.output is not None
    assert best.output.path != second.output.path


def test_a_result_is_served_until_its_time_is_up_however_often_it_is_used(store: Store, clock: Clock) -> None:
    rendered(store)
    clock.advance(TTL_S - 1)
    assert create(store, cache_keys=(KEY,)).cached
    clock.advance(1)
    assert not create(store, cache_keys=(KEY,)).cached
    assert store.expire_cached() == 1
    assert store.cache().results == 0


def test_the_longest_unused_results_make_room(store: Store, clock: Clock) -> None:
    keys = [letter * 64 for letter in "abc"]
    for one in keys[:2]:
        rendered(store, one, size=400, most=1000)
        clock.advance(1)
    assert create(store, cache_keys=(keys[0],)).cached
    clock.advance(1)
    rendered(store, keys[2], size=400, most=1000)
    assert (store.cache().results, store.cache().bytes) == (2, 800)
    assert [create(store, cache_keys=(one,)).cached for one in keys] == [True, False, True]


def test_a_result_that_is_larger_than_all_room_is_not_kept_and_takes_none_away(store: Store) -> None:
    rendered(store, KEY, size=400, most=1000)
    rendered(store, OTHER, size=1001, most=1000)
    assert (store.cache().results, store.cache().bytes) == (1, 400)


def test_a_newer_result_takes_the_place_of_an_older_one(store: Store) -> None:
    first = rendered(store)
    store.expire_cached()
    create(store)  # an order that does not ask the cache, run with a key all the same
    second = render(store)
    task = create(store, cache_keys=(KEY,))
    assert task.output == second.output != first.output
    assert store.cache().results == 1


def test_a_dropped_result_is_not_served_and_a_newer_one_survives_the_drop(store: Store) -> None:
    rendered(store)
    old = run(store.acached([KEY]))
    assert old is not None
    create(store)
    render(store)
    run(store.adrop_cached(old))
    new = run(store.acached([KEY]))
    assert new is not None
    assert new != old
    run(store.adrop_cached(new))
    assert not create(store, cache_keys=(KEY,)).cached


def test_a_result_that_is_not_trusted_is_named_and_nothing_is_written(store: Store) -> None:
    first = rendered(store)
    asked: list[CachedResult] = []

    def distrusts(result: CachedResult) -> bool:
        asked.append(result)
        return False

    before = store.events(None)
    with pytest.raises(UntrustedResult) as caught:
        store.create(new_task(cache_keys=(OTHER, KEY)), admission=Admission(trusts=distrusts))
    assert caught.value.result == asked[0]
    assert asked[0].output == first.output
    assert store.events(None) == before
    assert_consistent(store)
    assert store.create(new_task(cache_keys=(KEY,)), admission=Admission(trusts=lambda _: True)).task.cached
    assert not store.create(new_task(cache_keys=(OTHER,)), admission=Admission(trusts=distrusts)).task.cached
    assert len(asked) == 1, "nobody is asked where there is no result"


def test_a_file_is_in_use_until_the_last_task_and_the_cache_let_go_of_it(store: Store, clock: Clock) -> None:
    first = rendered(store)
    assert first.output is not None
    path = first.output.path
    clock.advance(100)
    create(store, cache_keys=(KEY,))
    assert [task.id for task in store.expire_results(first.finished_at or 0)] == [first.id]
    assert store.results_in_use([path, "results/none/1.mp4"]) == {path}
    assert len(store.expire_results(clock.now)) == 1
    assert store.results_in_use([path]) == {path}, "the cache still gives it out"
    clock.advance(TTL_S)
    store.expire_cached()
    assert store.results_in_use([path]) == set()


def test_a_purged_task_leaves_its_file_to_those_that_share_it(store: Store, clock: Clock) -> None:
    first = rendered(store)
    assert first.output is not None
    clock.advance(100)
    second = create(store, cache_keys=(KEY,))
    assert [task.id for task in store.purge_tasks(first.finished_at or 0)] == [first.id]
    assert store.results_in_use([first.output.path]) == {first.output.path}
    assert must_get(store, second.id).output == first.output


def test_a_full_queue_serves_cached_results_only_where_it_may(store: Store) -> None:  # R3.9
    rendered(store)
    create(store)
    wanted = new_task(cache_keys=(KEY,))
    with pytest.raises(QueueFull):
        store.create(wanted, admission=Admission(max_waiting=1))
    assert store.create(wanted, admission=Admission(max_waiting=1, cached_when_full=True)).task.cached
    with pytest.raises(QueueFull):
        store.create(new_task(cache_keys=(OTHER,)), admission=Admission(max_waiting=1, cached_when_full=True))
    assert store.queue().by_status[Status.QUEUED] == 1


def test_a_full_queue_lets_nobody_join_a_twin(store: Store) -> None:  # R3.9
    create(store, cache_keys=(KEY,))
    with pytest.raises(QueueFull):
        store.create(new_task(cache_keys=(KEY,)), admission=Admission(max_waiting=1, cached_when_full=True))


def test_a_repeat_with_the_same_key_is_the_same_cached_task(store: Store) -> None:
    rendered(store)
    made = store.create(new_task(cache_keys=(KEY,)), key())
    again = store.create(new_task(cache_keys=(KEY,)), key())
    assert again.replayed
    assert again.task == made.task


def test_what_the_cache_served_says_nothing_of_the_pace_of_the_slots(store: Store, clock: Clock) -> None:
    for letter in "abc":
        rendered(store, letter * 64)
        clock.advance(10)
    before = run(store.afinish_rate())
    for _ in range(50):
        create(store, cache_keys=(KEY,))
    assert run(store.afinish_rate()) == before


def test_the_cache_survives_a_restart(store_factory: StoreFactory, clock: Clock) -> None:  # R2.7
    before = store_factory(clock)
    rendered(before)
    before.close()
    assert create(store_factory(clock), cache_keys=(KEY,)).cached
