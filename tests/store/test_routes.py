"""Claiming by routes: one look per route, best rank first, and nobody starves behind another tier's line."""

from __future__ import annotations

from app.store.records import Offer
from app.tasks.status import Status
from tests.store.kit import START, create, must_claim, must_get, run

A, B, AB = ("a",), ("b",), ("a", "b")


def offered(store, offers, owner="node-1"):
    return store.claim(owner, lease_s=30, slot="s", device="cpu", offers=offers)


def test_only_tasks_of_an_offered_route_are_claimed_each_on_the_tier_of_its_offer(store):
    first, second = create(store, route=A), create(store, route=AB)
    assert offered(store, {B: Offer("b")}) is None
    held = offered(store, {AB: Offer("b", {"reason": "a is down"})})
    assert (held.task.id, held.tier) == (second.id, "b")
    attempt = must_get(store, second.id).attempts[0]
    assert (attempt.tier, attempt.why) == ("b", {"reason": "a is down"})
    assert offered(store, {A: Offer("a")}).task.id == first.id


def test_of_several_routes_the_best_ranked_task_goes_first(store, clock):
    create(store, route=A)
    clock.advance(1)
    urgent = create(store, route=B, priority=9)
    assert offered(store, {A: Offer("x"), B: Offer("x")}).task.id == urgent.id


def test_the_routes_that_wait_are_told_with_their_numbers(store, clock):
    for _ in range(3):
        create(store, route=A)
    create(store, route=AB)
    create(store, route=B, not_before=START + 60)
    assert {r.route: r.tasks for r in store.ready_routes(count_to=2)} == {A: 2, AB: 1}
    clock.advance(61)
    assert B in {r.route for r in store.ready_routes()}
    assert offered(store, {B: Offer("b")}) is not None


def test_a_failover_waits_for_the_rest_of_its_round_at_once_and_free_of_charge(store):
    task = create(store, route=AB)
    held = offered(store, {AB: Offer("a")})
    error = {"code": "UPSTREAM_TIMEOUT", "message": "m", "hint": "h", "detail": {}}
    after = store.end_attempt(held, "failover", error=error, route=B, followed_by="on to b")
    assert (after.status, after.route, after.retries) == (Status.RETRY_WAIT, B, 0)
    attempt = must_get(store, task.id).attempts[0]
    assert (attempt.outcome, attempt.backoff_ms, attempt.followed_by) == ("failed", None, "on to b")
    assert store.events(task.id)[-1].data["failover_to"] == ["b"]
    assert offered(store, {B: Offer("b")}).attempt == 2


def test_a_cancel_that_was_asked_for_ends_a_failover(store):
    create(store, route=AB)
    held = offered(store, {AB: Offer("a")})
    store.cancel(held.task.id)
    after = store.end_attempt(held, "failover", error=None, route=B)
    assert after.status is Status.CANCELLED


def test_waiting_tasks_are_given_another_route_and_running_ones_keep_theirs(store):
    waiting, running = create(store, route=A), create(store, route=B)
    assert offered(store, {B: Offer("b")}).task.id == running.id
    run(store.areroute(AB, [waiting.id, running.id]))
    assert must_get(store, waiting.id).route == AB
    assert must_get(store, running.id).route == B


def test_small_state_is_kept_and_forgotten_by_name(store):
    assert store.kept("breakers") is None
    store.keep("breakers", {"a": 1})
    store.keep("breakers", {"a": 2})
    assert store.kept("breakers") == {"a": 2}
    assert store.queue().paused is False
    store.keep("breakers", None)
    assert store.kept("breakers") is None


def test_who_knows_of_one_route_alone_claims_only_the_first_of_all_that_are_ready(store, clock):
    def first_of(route):
        return store.claim("n", lease_s=30, slot="s", device="cpu", offers={route: Offer("x")}, first_only=True)

    assert first_of(A) is None
    urgent = create(store, route=B, priority=9)
    later = create(store, route=A)
    assert first_of(A) is None
    store.set_paused(True)
    assert first_of(B) is None
    store.set_paused(False)
    assert first_of(B).task.id == urgent.id
    scheduled = create(store, route=AB, priority=9, not_before=clock.now + 5)
    clock.advance(10)
    assert first_of(A) is None
    assert {r.route for r in store.ready_routes()} == {A, AB}
    assert [must_claim(store).task.id for _ in range(2)] == [scheduled.id, later.id]


def test_a_commit_tells_the_routes_of_new_tasks_that_may_start_at_once(store, clock):
    told = []
    store.on_due(told.append)
    create(store, route=AB)
    create(store, route=A, not_before=clock.now + 60)
    store.end_attempt(must_claim(store), "requeue", error=None)
    store.ping()  # the writer has called the listeners of all earlier commits
    assert [due.new for due in told] == [{AB}, set(), set()]
    assert [due.at for due in told] == [clock.now, clock.now + 60, clock.now]
