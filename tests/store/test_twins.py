"""Single flight: of equal tasks one runs, and none is lost with it (R2.7)."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from app.store.interface import Store
from app.store.records import Claim, TaskRecord
from app.store.sql import CHUNK
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import (
    CACHE_KEY,
    ERROR,
    Clock,
    assert_consistent,
    blob,
    claim,
    create,
    finish,
    kinds,
    must_claim,
    must_get,
    run,
)  # fmt: skip

OTHER = "b" * 64
INPUT = {"code": "INPUT_NO_FACE", "message": "There is no face in face.png.", "hint": "Look.", "detail": {}}


def twin(store: Store, **more: Any) -> TaskRecord:
    return create(store, **({"cache_keys": (CACHE_KEY,)} | more))


def settle(store: Store) -> list[TaskRecord]:
    assert store.twins_left()
    settled = store.settle_twins()
    assert not store.twins_left()
    return settled


def test_a_twin_waits_is_never_claimed_and_gets_the_leaders_result(store: Store, clock: Clock) -> None:
    leader, follower = twin(store), twin(store, metadata={"mine": 2})
    assert (leader.twin_of, follower.twin_of, follower.status) == (None, leader.id, Status.QUEUED)
    held = must_claim(store)
    assert held.task.id == leader.id
    assert claim(store) is None
    assert not store.twins_left()
    clock.advance(3)
    finish(store, held)
    [served] = settle(store)
    assert (served.id, served.status, served.cached) == (follower.id, Status.SUCCEEDED, True)
    assert served.output == must_get(store, leader.id).output
    assert kinds(store, follower.id) == ["queued", "succeeded"]
    assert_consistent(store)


def test_a_twin_is_counted_as_waiting_and_not_as_runnable(store: Store) -> None:
    leader, follower = twin(store), twin(store)
    queue = store.queue()
    assert (queue.by_status[Status.QUEUED], queue.runnable, queue.joined) == (2, 1, 1)
    assert run(store.aqueue_position(leader)) == 0
    assert run(store.aqueue_position(follower)) is None


def test_fifty_equal_tasks_at_once_have_one_leader(store: Store) -> None:
    with ThreadPoolExecutor(50) as threads:
        made = list(threads.map(lambda _: twin(store), range(50)))
    leaders = [task for task in made if task.twin_of is None]
    assert len(leaders) == 1
    assert {task.twin_of for task in made} == {None, leaders[0].id}
    finish(store, must_claim(store))
    assert len(settle(store)) == 49
    assert store.queue().by_status[Status.SUCCEEDED] == 50


def test_more_twins_than_one_write_takes_are_all_served(store: Store) -> None:
    for _ in range(CHUNK + 5):
        twin(store)
    finish(store, must_claim(store))
    assert len(settle(store)) == CHUNK + 4


@pytest.mark.parametrize("leads", [True, False])
def test_cancelling_one_never_cancels_the_other(store: Store, leads: bool) -> None:
    leader, follower = twin(store), twin(store)
    gone, other = (leader, follower) if leads else (follower, leader)
    assert store.cancel(gone.id) == "cancelled"
    store.settle_twins()
    assert must_get(store, other.id).status is Status.QUEUED
    held = must_claim(store)
    assert held.task.id == other.id
    finish(store, held)
    assert [must_get(store, task.id).status for task in (gone, other)] == [Status.CANCELLED, Status.SUCCEEDED]
    assert_consistent(store)


def test_of_the_followers_of_a_cancelled_render_the_most_urgent_leads_the_others(store: Store) -> None:
    leader = twin(store)
    low, high = twin(store, priority=1), twin(store, priority=9)
    held = must_claim(store)
    store.cancel(leader.id)
    store.end_attempt(held, "cancel", error=None)
    settle(store)
    assert must_get(store, high.id).twin_of is None
    assert must_get(store, low.id).twin_of == high.id
    again = must_claim(store)
    assert again.task.id == high.id
    finish(store, again)
    assert [task.id for task in settle(store)] == [low.id]


def test_nobody_joins_a_render_that_is_being_cancelled(store: Store) -> None:
    leader = twin(store)
    must_claim(store)
    assert store.cancel(leader.id) == "requested"
    assert twin(store).twin_of is None


def test_a_failure_of_the_leader_is_not_the_followers(store: Store) -> None:
    leader, follower, last = twin(store), twin(store, priority=9), twin(store)
    store.end_attempt(must_claim(store), "fail", error=ERROR)
    settle(store)
    assert must_get(store, leader.id).status is Status.FAILED
    assert must_get(store, follower.id).status is Status.QUEUED
    assert must_get(store, last.id).twin_of == follower.id
    assert must_claim(store).task.id == follower.id


def test_a_failure_that_the_input_is_to_blame_for_fails_all_at_once_each_in_its_own_words(store: Store) -> None:
    twin(store)
    follower = twin(store, source=replace(blob("face.png"), name="portrait of mine.png"))
    store.end_attempt(must_claim(store), "fail", error=INPUT)
    [failed] = settle(store)
    assert (failed.id, failed.status) == (follower.id, Status.FAILED)
    assert failed.error is not None
    assert failed.error["code"] == "INPUT_NO_FACE"
    assert failed.error["message"] == "There is no face in portrait of mine.png."
    assert kinds(store, follower.id) == ["queued", "failed"]


def test_while_the_leader_is_tried_again_its_followers_wait(store: Store, clock: Clock) -> None:
    leader, follower = twin(store), twin(store)
    store.end_attempt(must_claim(store), "retry", error=ERROR, retry_at=clock.now + 5)
    assert not store.twins_left()
    assert twin(store).twin_of == leader.id
    clock.advance(5)
    finish(store, must_claim(store))
    settle(store)
    assert must_get(store, follower.id).cached


def test_a_leader_past_its_deadline_leaves_its_place_to_one_with_more_time(store: Store, clock: Clock) -> None:
    leader = twin(store, deadline_at=clock.now + 10)
    follower = twin(store)
    clock.advance(10)
    assert [task.id for task in store.expire_waiting()] == [leader.id]
    settle(store)
    assert must_claim(store).task.id == follower.id


def test_a_follower_has_a_deadline_of_its_own(store: Store, clock: Clock) -> None:
    leader, follower = twin(store), twin(store, deadline_at=clock.now + 10)
    must_claim(store)
    clock.advance(10)
    assert [task.id for task in store.expire_waiting()] == [follower.id]
    assert must_get(store, leader.id).status is Status.RUNNING


@pytest.mark.parametrize("joins_a_running_one", [True, False])
def test_a_follower_has_started_in_time_with_its_leader(store: Store, clock: Clock, joins_a_running_one: bool) -> None:
    twin(store)
    if joins_a_running_one:
        held = must_claim(store)
    follower = twin(store, start_deadline_at=clock.now + 10)
    if not joins_a_running_one:
        held = must_claim(store)
    clock.advance(20)
    assert store.expire_waiting() == []
    finish(store, held)
    settle(store)
    assert must_get(store, follower.id).status is Status.SUCCEEDED


def test_a_follower_whose_leader_never_started_has_not_started_either(store: Store, clock: Clock) -> None:
    twin(store, deadline_at=clock.now + 5)
    follower = twin(store, start_deadline_at=clock.now + 10)
    clock.advance(5)
    store.expire_waiting()
    settle(store)
    clock.advance(5)
    assert [task.id for task in store.expire_waiting()] == [follower.id]


def test_whoever_may_start_now_does_not_wait_for_a_scheduled_task(store: Store, clock: Clock) -> None:
    later = twin(store, not_before=clock.now + 60)
    now = twin(store)
    assert now.twin_of is None
    assert twin(store, not_before=clock.now + 60).twin_of is None, "nor does one for later wait for anybody"
    assert must_claim(store).task.id == now.id
    assert must_get(store, later.id).twin_of is None


def test_an_urgent_follower_lifts_its_leader(store: Store) -> None:
    twin(store, priority=2)
    other = create(store, priority=5)
    urgent = twin(store, priority=9)
    assert urgent.twin_of is not None
    assert must_claim(store).task.id == urgent.twin_of
    assert must_claim(store).task.id == other.id


def test_other_keys_are_no_twin(store: Store) -> None:
    twin(store)
    assert twin(store, cache_keys=(OTHER,)).twin_of is None
    assert twin(store, cache_keys=(CACHE_KEY, OTHER)).twin_of is None
    assert create(store).twin_of is None


def test_a_result_that_would_not_do_is_not_given_to_a_follower(store: Store) -> None:
    """The tiers changed meanwhile: what the leader was served with is not what the follower may have."""
    twin(store)
    follower, last = twin(store, priority=9), twin(store)
    finish(store, must_claim(store), OTHER)
    settle(store)
    assert must_get(store, follower.id).status is Status.QUEUED
    assert must_get(store, last.id).twin_of == follower.id
    finish(store, must_claim(store))
    settle(store)
    assert must_get(store, last.id).cached


def test_tasks_that_are_given_other_tiers_are_given_their_keys(store: Store) -> None:
    leader, follower = twin(store), twin(store)
    run(store.areroute(("warp",), [leader.id, follower.id], cache_keys=(OTHER,)))
    finish(store, must_claim(store), OTHER)
    settle(store)
    assert must_get(store, follower.id).cached


def test_a_follower_of_a_task_that_is_forgotten_runs_itself(store: Store, clock: Clock) -> None:
    leader, follower = twin(store), twin(store)
    store.cancel(leader.id)
    assert len(store.purge_tasks(clock.now)) == 1
    settle(store)
    assert must_claim(store).task.id == follower.id


def test_a_follower_finds_what_another_equal_task_has_left_in_the_cache(store: Store) -> None:
    leader, follower = twin(store), twin(store)
    held = must_claim(store)
    create(store)
    finish(store, must_claim(store))
    store.end_attempt(held, "fail", error=ERROR)
    settle(store)
    assert must_get(store, leader.id).status is Status.FAILED
    assert must_get(store, follower.id).cached


def test_a_lost_lease_of_the_leader_costs_its_followers_nothing(store: Store, clock: Clock) -> None:
    leader, follower = twin(store), twin(store)
    must_claim(store, lease_s=30)
    clock.advance(31)
    assert [task.id for task in store.rescue_expired()] == [leader.id]
    assert not store.twins_left()
    again = must_claim(store)
    assert again.task.id == leader.id
    finish(store, again)
    settle(store)
    assert must_get(store, follower.id).cached


def test_two_services_settle_every_twin_once(store_factory: StoreFactory, clock: Clock) -> None:
    one, two = store_factory(clock), store_factory(clock)
    made = [twin(store) for store in (one, two, one, two)]
    finish(one, must_claim(one))
    with ThreadPoolExecutor(2) as threads:
        settled = list(threads.map(lambda store: store.settle_twins(), (one, two)))
    assert sorted(task.id for part in settled for task in part) == sorted(task.id for task in made[1:])
    assert [kinds(two, task.id) for task in made[1:]] == [["queued", "succeeded"]] * 3
    assert_consistent(two)


@pytest.mark.parametrize("seed", range(20))
def test_no_history_loses_a_twin(store: Store, clock: Clock, seed: int) -> None:
    """Random work on equal and unequal tasks, then an honest worker: every task ends, as it should."""
    chance = random.Random(seed)
    cancelled: set[str] = set()
    ids: list[str] = []
    held: list[Claim] = []
    for _ in range(60):
        match chance.choice(["create"] * 5 + ["claim"] * 3 + ["end"] * 3 + ["cancel", "settle", "settle", "time"]):
            case "create":
                keys = chance.choice([(CACHE_KEY,), (CACHE_KEY,), (OTHER,), (OTHER, CACHE_KEY), ()])
                later = clock.now + 5 if chance.random() < 0.1 else None
                ids.append(create(store, cache_keys=keys, priority=chance.randint(0, 9), not_before=later).id)
            case "claim":
                if (got := claim(store, lease_s=1e6)) is not None:
                    held.append(got)
            case "end" if held:
                one = held.pop(chance.randrange(len(held)))
                how = chance.choice(["succeed", "succeed", "fail", "retry", "requeue"])
                if how == "succeed":
                    finish(store, one, chance.choice(one.task.cache_keys or (CACHE_KEY,)))
                else:
                    store.end_attempt(one, how, error=ERROR)  # type: ignore[arg-type]
            case "cancel" if ids:
                if store.cancel(wanted := chance.choice(ids)) in ("cancelled", "requested"):
                    cancelled.add(wanted)
            case "settle":
                store.settle_twins()
            case "time":
                clock.advance(chance.choice([0.5, 6]))
    clock.advance(10)
    for _ in range(500):
        store.settle_twins()
        while (got := claim(store, lease_s=1e6)) is not None:
            held.append(got)
        if not held:
            break
        one = held.pop()
        finish(store, one, (one.task.cache_keys or (CACHE_KEY,))[0])
    assert_consistent(store)
    for task_id in ids:
        task = must_get(store, task_id)
        assert task.status.is_terminal, f"{task_id} was lost: {task.status}, follows {task.twin_of}"
        if task.status is Status.CANCELLED:
            assert task_id in cancelled
        if task.cached:
            assert task.output is not None
            assert task.cache_keys
