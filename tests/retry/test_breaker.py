"""The circuit breaker: opens on failures, admits one probe, ignores old news, survives a restart."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from app.retry.breaker import Breaker, BreakerRecord, BreakerSettings, BreakerState, Ticket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def breaker(clock, record=None, **settings):
    return Breaker(BreakerSettings(**settings), clock, record=record, uniform=lambda low, high: low)


def fail(one: Breaker, times: int = 1) -> None:
    for _ in range(times):
        ticket = one.allow()
        assert ticket is not None
        one.done(ticket, ok=False)


def test_three_failures_in_a_row_open_it_and_no_call_goes_through_while_it_is_open(clock):  # R3.4
    one = breaker(clock)
    fail(one, 2)
    assert one.state is BreakerState.CLOSED
    fail(one)
    assert one.state is BreakerState.OPEN
    clock.now += 4.99
    assert one.allow() is None


def test_a_success_between_begins_the_count_anew(clock):
    one = breaker(clock)
    fail(one, 2)
    one.done(one.allow(), ok=True)
    fail(one, 2)
    assert one.state is BreakerState.CLOSED


def test_a_rate_of_failures_over_a_full_window_opens_it(clock):  # R3.4
    one = breaker(clock, failures=100, window=10, rate=0.5)
    for ok in (True, False, True, False, True, False, True, False, True):
        one.done(one.allow(), ok=ok)
    assert one.state is BreakerState.CLOSED
    fail(one)
    assert one.state is BreakerState.OPEN


def test_half_open_admits_exactly_one_probe_of_fifty(clock):  # R3.4
    one = breaker(clock)
    fail(one, 3)
    clock.now += 5
    assert one.state is BreakerState.HALF_OPEN
    tickets = [ticket for ticket in (one.allow() for _ in range(50)) if ticket is not None]
    assert len(tickets) == 1
    assert tickets[0].probe


def test_a_good_probe_closes_it_and_a_bad_one_opens_it_for_twice_as_long(clock):
    one = breaker(clock)
    fail(one, 3)
    clock.now += 5
    one.done(one.allow(), ok=False)
    assert one.until == clock.now + 10
    clock.now += 10
    one.done(one.allow(), ok=True)
    assert one.state is BreakerState.CLOSED
    fail(one, 3)
    assert one.until == clock.now + 5


def test_the_open_time_grows_to_its_limit_only(clock):
    one = breaker(clock, open_max_s=30)
    fail(one, 3)
    for _ in range(40):
        clock.now = one.until or clock.now
        fail(one)
    assert one.until == clock.now + 30


def test_the_open_time_has_jitter_so_that_nodes_do_not_probe_together(clock):
    one = Breaker(BreakerSettings(), clock, uniform=lambda low, high: high)
    fail(one, 3)
    assert one.until == pytest.approx(clock.now + 5.5)


def test_results_of_an_older_generation_are_ignored(clock):
    one = breaker(clock)
    late = one.allow()
    fail(one, 3)
    clock.now += 5
    probe = one.allow()
    assert one.done(late, ok=True) is False
    assert one.state is BreakerState.HALF_OPEN
    assert one.done(probe, ok=True) is True
    assert one.done(late, ok=False) is False
    assert one.state is BreakerState.CLOSED


def test_a_hung_probe_cannot_jam_it(clock):
    one = breaker(clock, probe_lease_s=60)
    fail(one, 3)
    clock.now += 5
    hung = one.allow()
    clock.now += 59
    assert one.allow() is None
    clock.now += 1
    second = one.allow()
    assert second is not None
    assert one.done(hung, ok=True) is False
    assert one.done(second, ok=True) is True


def test_a_probe_that_says_nothing_leaves_its_place_to_the_next(clock):
    one = breaker(clock)
    fail(one, 3)
    clock.now += 5
    one.done(one.allow(), ok=None)
    assert one.state is BreakerState.HALF_OPEN
    assert one.allow() is not None


@pytest.mark.parametrize("probing", [False, True])
def test_an_open_breaker_survives_a_restart_and_a_probe_does_not(clock, probing):
    one = breaker(clock)
    fail(one, 3)
    if probing:
        clock.now += 5
        assert one.allow() is not None
    again = breaker(clock, BreakerRecord(**asdict(one.record)))
    assert again.state is (BreakerState.HALF_OPEN if probing else BreakerState.OPEN)
    assert (again.allow() is not None) is probing


def test_one_opened_by_hand_stays_open_until_it_is_closed_by_hand(clock):
    one = breaker(clock)
    one.force(BreakerState.OPEN)
    clock.now += 1e9
    assert one.allow() is None
    assert one.until is None
    assert breaker(clock, one.record).allow() is None
    one.force(BreakerState.CLOSED)
    assert one.allow() == Ticket(one.record.generation)
