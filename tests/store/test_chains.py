"""Tasks that wait for others: when they go, when they fail, and what is kept for them until then."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from app.store.errors import NoSuchPredecessor, PredecessorFailed, QueueFull
from app.store.interface import Store
from app.store.records import Admission, Callback, Claim, Order, Release, TaskFilter, TaskRecord, Verdict
from app.store.sql import CHUNK
from app.tasks.notices import NOTICES
from app.tasks.replay import replay
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import (
    ARTIFACT,
    CACHE_KEY,
    ERROR,
    Clock,
    assert_consistent,
    blob,
    claim,
    create,
    finish,
    key,
    kinds,
    must_claim,
    must_get,
    new_task,
    run,
    succeed,
)

READY = Release(blob("result.mp4"), blob("voice.wav"), ("warp",))


def follow(store: Store, *predecessors: str, **more: Any) -> TaskRecord:
    return create(store, **({"after": predecessors, "waits_for": predecessors} | more))


def release_all(store: Store, ready: Release = READY) -> list[str]:
    """What a service does: let go whatever can go; their ids."""
    return [
        released.id
        for task in run(store.areleasable(1000))
        if (released := run(store.arelease(task.id, ready))) is not None
    ]


def broken(store: Store) -> set[str]:
    return {task.id for task in run(store.abreak_chains())}


def fail(store: Store, held: Claim) -> None:
    store.end_attempt(held, "fail", error=ERROR)


def test_a_task_waits_until_its_predecessor_has_succeeded(store: Store, clock: Clock) -> None:  # R1.5
    first = create(store)
    second = follow(store, first.id)
    assert (second.status, second.waits_for, second.after) == (Status.QUEUED, (first.id,), (first.id,))
    assert must_get(store, second.id) == second
    held = must_claim(store)
    assert claim(store) is None
    assert release_all(store) == []
    clock.advance(10)
    succeed(store, held)
    assert must_get(store, second.id).waits_for == ()
    assert claim(store) is None, "not before its input is there"
    assert release_all(store) == [second.id]
    released = must_get(store, second.id)
    assert (released.waits_for, released.source, released.route) == (None, READY.source, ("warp",))
    assert released.enqueued_at == clock.now, "it has not aged while it could not run"
    succeed(store, must_claim(store))
    assert kinds(store, second.id) == ["queued", "released", "running", "succeeded"]
    assert replay(store.events(second.id)) is Status.SUCCEEDED
    assert_consistent(store)


def test_one_look_tells_whether_a_chain_can_go_on_or_has_broken(store: Store) -> None:
    first = create(store)
    follow(store, first.id)
    assert not run(store.achains_left())
    succeed(store, must_claim(store))
    assert run(store.achains_left())
    release_all(store)
    assert not run(store.achains_left())
    held = must_claim(store)
    last = follow(store, held.task.id)
    fail(store, held)
    assert run(store.achains_left())
    assert broken(store) == {last.id}
    assert not run(store.achains_left())


def test_it_waits_for_all_of_many_in_whatever_order_they_end(store: Store) -> None:
    predecessors = [create(store).id for _ in range(12)]
    last = follow(store, *predecessors)
    held = [must_claim(store) for _ in predecessors]
    random.Random(5).shuffle(held)
    for n, one in enumerate(held, 1):
        succeed(store, one)
        left = must_get(store, last.id).waits_for
        assert left == tuple(task_id for task_id in predecessors if task_id not in {h.task.id for h in held[:n]})
    assert release_all(store) == [last.id]


@pytest.mark.long_on_postgresql
def test_many_wait_for_one_and_go_by_priority(store: Store) -> None:
    first = create(store, priority=9)
    tasks = [follow(store, first.id, priority=n % 10) for n in range(CHUNK + 10)]
    assert store.queue().chained == CHUNK + 10
    assert store.queue().runnable == 1
    succeed(store, must_claim(store))
    order = release_all(store)
    assert sorted(order) == sorted(task.id for task in tasks)
    assert [must_get(store, task_id).priority for task_id in order] == sorted(
        (n % 10 for n in range(210)), reverse=True
    )
    assert (store.queue().chained, store.queue().runnable) == (0, CHUNK + 10)
    assert_consistent(store)


@pytest.mark.parametrize("how", ["failed", "was cancelled", "expired"])
def test_a_predecessor_without_a_result_fails_those_that_wait(store: Store, clock: Clock, how: str) -> None:
    first = create(store, deadline_at=clock.now + 5)
    second = follow(store, first.id)
    match how:
        case "failed":
            fail(store, must_claim(store))
        case "was cancelled":
            store.cancel(first.id)
        case _:
            clock.advance(6)
            assert [task.id for task in store.expire_waiting()] == [first.id]
    assert claim(store) is None
    assert broken(store) == {second.id}
    task = must_get(store, second.id)
    assert task.status is Status.FAILED
    assert task.error is not None
    assert task.error["code"] == "PREDECESSOR_FAILED"
    assert f"Task {first.id}, which this one waited for, {how}" in task.error["message"]
    assert task.error["detail"]["predecessor"] == first.id
    assert task.error["hint"]
    assert kinds(store, second.id) == ["queued", "failed"]
    assert broken(store) == set()
    assert_consistent(store)


@pytest.mark.long_on_postgresql
def test_a_chain_of_thousands_fails_to_its_end_and_every_task_names_the_first(store: Store) -> None:
    first = create(store)
    chain = [first.id]
    for _ in range(1500):  # deeper than Python's own stack
        chain.append(follow(store, chain[-1]).id)
    fail(store, must_claim(store))
    assert broken(store) == set(chain[1:])
    last = must_get(store, chain[-1]).error
    assert last is not None
    assert last["detail"] == {
        "predecessor": chain[-2],
        "code": "PREDECESSOR_FAILED",
        "root": first.id,
        "root_code": "WORKER_CRASHED",
    }
    assert first.id in last["message"]
    assert chain[-2] in last["message"]
    assert store.queue().by_status[Status.FAILED] == 1501


def test_one_failed_predecessor_of_several_is_enough_and_later_ends_change_nothing(store: Store) -> None:
    one, two = create(store), create(store)
    last = follow(store, one.id, two.id)
    first_held, second_held = must_claim(store), must_claim(store)
    fail(store, first_held)
    succeed(store, second_held)
    assert release_all(store) == []
    assert broken(store) == {last.id}
    assert_consistent(store)


def test_a_video_in_review_is_unfinished_until_somebody_decides(store: Store) -> None:
    first = create(store)
    second = follow(store, first.id)
    held = must_claim(store)
    store.put_up_for_review(held, ARTIFACT, error=ERROR, served_by="warp", quality={"confidence": 0.3})
    third = follow(store, first.id)
    assert third.waits_for == (first.id,)
    assert release_all(store) == []
    run(store.aapprove(first.id, Verdict("ann")))
    assert set(release_all(store)) == {second.id, third.id}


@pytest.mark.parametrize("word", ["reject", "rerender"])
def test_a_rejected_video_breaks_the_chain_and_one_that_is_made_again_does_not(store: Store, word: str) -> None:
    first = create(store)
    second = follow(store, first.id)
    store.put_up_for_review(must_claim(store), ARTIFACT, error=ERROR, served_by="warp", quality={"confidence": 0.3})
    if word == "reject":
        run(store.areject(first.id, Verdict("ann")))
        assert broken(store) == {second.id}
    else:
        run(store.arerender(first.id, Verdict("ann"), Order(None, "any", {}, ())))
        assert broken(store) == set()
        succeed(store, must_claim(store))
        assert release_all(store) == [second.id]
    assert_consistent(store)


def test_a_predecessor_that_is_tried_again_by_itself_breaks_nothing(store: Store, clock: Clock) -> None:
    first = create(store)
    second = follow(store, first.id)
    store.end_attempt(must_claim(store), "retry", error=ERROR, retry_at=clock.now + 5)
    assert broken(store) == set()
    clock.advance(5)
    clock.advance(31) if must_claim(store) else None
    assert [task.id for task in store.rescue_expired()] == [first.id]
    assert broken(store) == set()
    succeed(store, must_claim(store))
    assert release_all(store) == [second.id]


def test_a_waiting_task_is_cancelled_at_once_and_takes_those_that_wait_for_it_along(store: Store) -> None:
    first = create(store)
    second = follow(store, first.id)
    third = follow(store, second.id)
    assert store.cancel(second.id) == "cancelled"
    assert broken(store) == {third.id}
    assert must_get(store, second.id).status is Status.CANCELLED
    succeed(store, must_claim(store))
    assert release_all(store) == []
    assert must_get(store, first.id).status is Status.SUCCEEDED
    assert_consistent(store)


def test_its_deadlines_count_while_it_waits(store: Store, clock: Clock) -> None:
    first = create(store)
    start = follow(store, first.id, start_deadline_at=clock.now + 10)
    end = follow(store, first.id, deadline_at=clock.now + 20)
    assert store.next_due() == clock.now + 10
    clock.advance(10)
    assert [task.id for task in store.expire_waiting()] == [start.id]
    error = must_get(store, start.id).error
    assert error is not None
    assert error["code"] == "DEADLINE_EXCEEDED"
    assert first.id in error["message"]
    clock.advance(10)
    assert [task.id for task in store.expire_waiting()] == [end.id]
    assert broken(store) == set()


def test_deadlines_hold_after_the_release_too(store: Store, clock: Clock) -> None:
    first = create(store)
    second = follow(store, first.id, start_deadline_at=clock.now + 10)
    succeed(store, must_claim(store))
    assert release_all(store) == [second.id]
    clock.advance(10)
    assert [task.id for task in store.expire_waiting()] == [second.id]


def test_the_services_own_deadline_counts_from_the_release(store: Store, clock: Clock) -> None:
    first = create(store)
    follow(store, first.id)
    own = follow(store, first.id, deadline_at=clock.now + 5000)
    clock.advance(1000)
    succeed(store, must_claim(store))
    release_all(store, replace(READY, default_deadline_s=600))
    held = [must_claim(store).task, must_claim(store).task]
    deadlines = {task.id: (task.deadline_at, task.default_deadline) for task in held}
    assert deadlines.pop(own.id) == (clock.now + 4000, False)
    assert list(deadlines.values()) == [(clock.now + 600, True)]


@pytest.mark.parametrize("first_ends_after", [5, 50])
def test_a_scheduled_task_waits_for_both_the_time_and_its_predecessor(
    store: Store, clock: Clock, first_ends_after: float
) -> None:
    first = create(store)
    second = follow(store, first.id, not_before=clock.now + 20)
    held = must_claim(store, lease_s=1e6)
    clock.advance(first_ends_after)
    assert claim(store) is None
    succeed(store, held)
    assert release_all(store) == [second.id]
    if first_ends_after < 20:
        assert claim(store) is None
        assert store.queue().scheduled == 1
        clock.advance(15)
    assert must_claim(store).task.id == second.id


def test_an_idempotent_repeat_finds_the_waiting_task_also_when_its_predecessor_has_failed(store: Store) -> None:
    first = create(store)
    order = new_task(after=(first.id,), waits_for=(first.id,))
    made = store.create(order, key()).task
    store.cancel(first.id)
    assert store.create(order, key()).task.id == made.id
    broken(store)
    again = store.create(order, key())
    assert (again.replayed, again.task.status) == (True, Status.FAILED)


def test_fifty_at_once_with_one_key_make_one_task(store: Store) -> None:  # R3.5
    first = create(store)
    order = new_task(after=(first.id,), waits_for=(first.id,))
    with ThreadPoolExecutor(50) as threads:
        made = list(threads.map(lambda _: store.create(order, key()).task.id, range(50)))
    assert len(set(made)) == 1
    assert store.queue().chained == 1


def test_a_predecessor_that_succeeded_meanwhile_releases_at_once(store: Store) -> None:
    """Between a service's look at the predecessor and its write lies time."""
    first = create(store)
    succeed(store, must_claim(store))
    second = follow(store, first.id)
    assert second.waits_for == ()
    assert store.events(second.id)[0].data["waits_for"] == []
    assert release_all(store) == [second.id]


def test_a_predecessor_that_failed_meanwhile_or_is_not_there_is_refused(store: Store) -> None:
    first = create(store)
    store.cancel(first.id)
    with pytest.raises(PredecessorFailed) as refused:
        follow(store, first.id)
    assert refused.value.task.id == first.id
    with pytest.raises(NoSuchPredecessor, match="task_unknown"):
        follow(store, "task_unknown")
    assert [task.id for task in run(store.alist(TaskFilter())).tasks] == [first.id]
    assert_consistent(store)


def test_a_waiting_task_takes_its_place_in_a_full_queue(store: Store) -> None:
    first = create(store)
    order = new_task(after=(first.id,), waits_for=(first.id,))
    store.create(order, admission=Admission(max_waiting=2))
    with pytest.raises(QueueFull):
        store.create(order, admission=Admission(max_waiting=2))


def test_only_a_task_that_can_be_released_is(store: Store) -> None:
    first = create(store)
    second = follow(store, first.id)
    refused = {"code": "INPUT_INVALID", "message": "No.", "hint": "Another.", "detail": {}}
    for task_id in (first.id, second.id, "task_unknown"):
        assert run(store.arelease(task_id, READY)) is None
        assert run(store.arefuse_release(task_id, refused)) is None
    succeed(store, must_claim(store))
    assert run(store.arefuse_release(second.id, refused)) is not None
    assert run(store.arelease(second.id, READY)) is None
    error = must_get(store, second.id).error
    assert error is not None
    assert error["code"] == "INPUT_INVALID"
    assert_consistent(store)


def test_two_services_release_a_task_once(store_factory: StoreFactory, clock: Clock) -> None:
    one, two = store_factory(clock), store_factory(clock)
    first = create(one)
    tasks = [follow(two, first.id) for _ in range(20)]
    succeed(one, must_claim(one))
    with ThreadPoolExecutor(2) as threads:
        released = list(threads.map(release_all, (one, two)))
    assert sorted(task_id for part in released for task_id in part) == sorted(task.id for task in tasks)
    assert {tuple(kinds(one, task.id)) for task in tasks} == {("queued", "released")}


# -- the cache and twins ----------------------------------------------------------------------------------------------


def test_a_released_task_is_served_with_a_cached_result(store: Store) -> None:  # R2.7
    create(store, cache_keys=(CACHE_KEY,))
    finish(store, must_claim(store))
    first = create(store)
    second = follow(store, first.id, cache_keys=(CACHE_KEY,))
    assert must_get(store, second.id).status is Status.QUEUED, "what it will be made of is not known before"
    succeed(store, must_claim(store))
    release_all(store, replace(READY, cache_keys=(CACHE_KEY,)))
    task = must_get(store, second.id)
    assert (task.status, task.cached) == (Status.SUCCEEDED, True)
    assert kinds(store, second.id) == ["queued", "released", "succeeded"]
    assert_consistent(store)


def test_equal_tasks_that_are_released_together_are_rendered_once(store: Store) -> None:  # R2.7
    first = create(store)
    tasks = [follow(store, first.id) for _ in range(10)]
    succeed(store, must_claim(store))
    release_all(store, replace(READY, cache_keys=(CACHE_KEY,)))
    twins = [must_get(store, task.id) for task in tasks]
    [leader] = [task.id for task in twins if task.twin_of is None]
    assert [task.twin_of for task in twins].count(leader) == 9
    finish(store, must_claim(store))
    store.settle_twins()
    assert store.queue().by_status[Status.SUCCEEDED] == 11
    assert_consistent(store)


def test_a_released_twin_of_a_running_task_has_started_in_time(store: Store, clock: Clock) -> None:
    first = create(store, priority=9)
    create(store, cache_keys=(CACHE_KEY,))
    succeed(store, must_claim(store))
    leader = must_claim(store)
    second = follow(store, first.id, start_deadline_at=clock.now + 5)
    release_all(store, replace(READY, cache_keys=(CACHE_KEY,)))
    assert must_get(store, second.id).twin_of == leader.task.id
    clock.advance(10)
    assert store.expire_waiting() == []


def test_nobody_follows_a_task_that_waits_so_that_no_circle_can_be_closed(store: Store) -> None:
    """Were `second` to lead `first`, which is equal to it, each would wait for the other for ever."""
    lead = create(store, cache_keys=(CACHE_KEY,))
    first = create(store, cache_keys=(CACHE_KEY,))
    second = follow(store, first.id, cache_keys=(CACHE_KEY,), priority=9)
    assert first.twin_of == lead.id
    assert second.cache_keys == ()
    run(store.areroute(("warp",), [second.id], cache_keys=(CACHE_KEY,)))
    assert must_get(store, second.id).cache_keys == (), "changed tiers must not make it one that can be followed"
    store.cancel(lead.id)
    store.settle_twins()
    assert must_get(store, first.id).twin_of is None
    assert must_claim(store).task.id == first.id
    assert create(store, cache_keys=(CACHE_KEY,)).twin_of == first.id


def test_a_follower_of_a_twin_is_released_when_that_is_served(store: Store) -> None:
    create(store, cache_keys=(CACHE_KEY,))
    first = create(store, cache_keys=(CACHE_KEY,))
    second = follow(store, first.id)
    finish(store, must_claim(store))
    assert release_all(store) == []
    store.settle_twins()
    assert release_all(store) == [second.id]


# -- retention ---------------------------------------------------------------------------------------------------------


def test_what_somebody_waits_for_is_kept_until_that_one_is_released(store: Store, clock: Clock) -> None:
    first, other = create(store), create(store)
    second = follow(store, first.id, other.id)
    succeed(store, must_claim(store))
    clock.advance(1e6)
    assert store.expire_results(clock.now) == []
    assert store.purge_tasks(clock.now) == []
    assert store.results_in_use([ARTIFACT.path]) == {ARTIFACT.path}
    succeed(store, must_claim(store))
    release_all(store)
    assert {task.id for task in store.expire_results(clock.now)} == {first.id, other.id}
    assert {task.id for task in store.purge_tasks(clock.now)} == {first.id, other.id}
    assert must_get(store, second.id).after == (first.id, other.id)
    assert_consistent(store, purged=True)


@pytest.mark.parametrize("end", ["cancel", "deadline", "broken"])
def test_whoever_has_ended_waiting_keeps_nothing(store: Store, clock: Clock, end: str) -> None:
    first, other = create(store, priority=9), create(store)
    second = follow(store, first.id, other.id, deadline_at=clock.now + 10)
    succeed(store, must_claim(store))
    match end:
        case "cancel":
            store.cancel(second.id)
        case "deadline":
            clock.advance(10)
            store.expire_waiting()
        case _:
            store.cancel(other.id)
            broken(store)
    clock.advance(1e6)
    assert {task.id for task in store.expire_results(clock.now)} == {first.id}
    assert first.id in {task.id for task in store.purge_tasks(clock.now)}


# -- told and replayed -------------------------------------------------------------------------------------------------


def test_a_notice_tells_what_was_waited_for_when_it_happened(store: Store) -> None:
    first = create(store)
    follow(store, first.id, callback=Callback("https://example.com/hook", NOTICES))
    succeed(store, must_claim(store))
    release_all(store)
    [notice] = run(store.outbox.atake("me", lease_s=5, limit=5, per_endpoint=5, in_flight={}))
    assert (notice.type, notice.task.waits_for) == ("task.queued", (first.id,))


def test_the_link_of_a_derived_task_is_kept_and_can_be_searched(store: Store) -> None:
    first = create(store)
    made = [create(store, derived_from=first.id).id for _ in range(3)]
    create(store)
    listed = run(store.alist(TaskFilter(derived_from=first.id))).tasks
    assert {task.id for task in listed} == set(made)
    assert store.events(made[0])[0].data == {"derived_from": first.id}


def test_some_tasks_are_read_at_once(store: Store) -> None:
    first, second = create(store), create(store)
    assert run(store.aget_some([second.id, first.id, "none"])) == {first.id: first, second.id: second}
    assert run(store.aget_some([])) == {}


@pytest.mark.parametrize("seed", range(12))
def test_no_history_loses_a_chained_task(store: Store, clock: Clock, seed: int) -> None:
    """Random chains, joins and forks under random work; then an honest service: every task ends, and ends rightly."""
    chance = random.Random(seed)
    ids: list[str] = []
    cancelled: set[str] = set()
    failed: set[str] = set()
    held: list[Claim] = []
    for _ in range(150):
        match chance.choice(
            ["create"] * 4 + ["claim"] * 3 + ["end"] * 3 + ["cancel", "settle", "settle", "sweep", "time"]
        ):
            case "create":
                some = chance.sample(ids, min(len(ids), chance.choice([0, 0, 1, 1, 2, 4])))
                live = tuple(one for one in some if not must_get(store, one).status.is_terminal)
                keys = chance.choice([(CACHE_KEY,), ()])
                ids.append(follow(store, *live, cache_keys=keys, priority=chance.randint(0, 9)).id)
            case "claim":
                if (got := claim(store, lease_s=1e6)) is not None:
                    held.append(got)
            case "end" if held:
                one = held.pop(chance.randrange(len(held)))
                match chance.choice(["succeed", "succeed", "succeed", "fail", "retry", "requeue"]):
                    case "succeed":
                        finish(store, one) if one.task.cache_keys else succeed(store, one)
                    case "fail":
                        failed.add(one.task.id)
                        store.end_attempt(one, "fail", error=ERROR)
                    case how:
                        store.end_attempt(one, how, error=ERROR)  # type: ignore[arg-type]
            case "cancel" if ids:
                if store.cancel(wanted := chance.choice(ids)) in ("cancelled", "requested"):
                    cancelled.add(wanted)
            case "settle":
                store.settle_twins()
                broken(store)
                release_all(store, replace(READY, cache_keys=chance.choice([(CACHE_KEY,), ()])))
            case "sweep":
                store.expire_results(clock.now - 5)
                store.purge_tasks(clock.now - 1e5)
            case "time":
                clock.advance(chance.choice([0.5, 6]))
    for _ in range(1000):
        store.settle_twins()
        broken(store)
        release_all(store)
        while (got := claim(store, lease_s=1e6)) is not None:
            held.append(got)
        if not held:
            break
        one = held.pop()
        finish(store, one) if one.task.cache_keys else succeed(store, one)
    assert_consistent(store)
    statuses = {task_id: must_get(store, task_id) for task_id in ids}
    for task_id, task in statuses.items():
        assert task.status.is_terminal, f"{task_id} was lost: {task.status}, waits for {task.waits_for}"
        bad = [one for one in task.after if statuses[one].status is not Status.SUCCEEDED]
        if task.status is Status.SUCCEEDED:
            assert not bad
        elif task.error and task.error["code"] == "PREDECESSOR_FAILED":
            assert task.error["detail"]["predecessor"] in bad
        else:
            assert task_id in cancelled | failed


def waiting_for(store: Store, task_id: str, **more: Any) -> list[str]:
    return [task.id for task in run(store.alist(TaskFilter(waits_for=task_id, **more), limit=100)).tasks]


def test_who_waits_for_a_task_is_listed_for_as_long_as_it_does(store: Store, clock: Clock) -> None:
    first = create(store)
    clock.advance(1)
    second = create(store)
    both = follow(store, first.id, second.id)
    clock.advance(1)
    alone = follow(store, first.id)
    twin = create(store, cache_keys=(CACHE_KEY,))
    follower = create(store, cache_keys=(CACHE_KEY,))
    assert follower.twin_of == twin.id
    assert waiting_for(store, first.id) == [alone.id, both.id]
    assert waiting_for(store, first.id, status=(Status.QUEUED,)) == [alone.id, both.id]
    assert waiting_for(store, first.id, status=(Status.RUNNING,)) == []
    assert waiting_for(store, second.id) == [both.id]
    assert waiting_for(store, twin.id) == [follower.id]
    assert waiting_for(store, both.id) == waiting_for(store, "task_of_nobody") == []
    store.cancel(alone.id)
    store.cancel(follower.id)
    succeed(store, must_claim(store))  # the first: `both` waits for the second alone, though it named both
    assert waiting_for(store, first.id) == waiting_for(store, twin.id) == []
    assert waiting_for(store, second.id) == [both.id]
    succeed(store, must_claim(store))
    release_all(store)
    assert waiting_for(store, second.id) == []
