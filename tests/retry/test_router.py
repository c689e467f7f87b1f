"""Where a task goes: order, load, success, breakers, degraded tiers, and the reasons that are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.retry.router import TierState, place

A = TierState("a", free=1, slots=1, latency_s=30.0)
B = TierState("b", free=1, slots=1, latency_s=3.0)
LAST = TierState("last", free=1, degraded=True)


def states(*given: TierState) -> dict[str, TierState]:
    return {state.name: state for state in given}


def served_by(*given: TierState, route: tuple[str, ...] = ("a", "b", "last")) -> str | None:
    return place(route, states(*given)).tier


def test_the_first_in_order_serves_though_another_is_quicker():
    placed = place(("a", "b"), states(A, B))
    assert (placed.tier, placed.reason) == ("a", "a is first in line")


def test_a_loaded_tier_is_passed_over():  # R2.5
    loaded = replace(A, free=0, frees_in_s=25.0)
    placed = place(("a", "b"), states(loaded, B))
    assert placed.tier == "b"
    assert "waiting less than a" in placed.reason


def test_a_tier_that_is_free_soon_is_waited_for():
    assert served_by(replace(A, free=0, frees_in_s=5.0), B) is None


def test_a_long_line_counts_as_load():
    assert served_by(replace(A, free=0, frees_in_s=1.0, waiting=40), B) == "b"


def test_work_is_shared_by_what_tiers_can_do():
    busy = replace(B, free=0, frees_in_s=100.0)
    assert served_by(replace(A, free=0, frees_in_s=5.0), busy) is None
    assert served_by(A, busy) == "a"


def test_a_failing_tier_loses_work_to_others():  # R2.9
    assert served_by(replace(A, success=0.5), B) == "b"
    assert served_by(replace(A, success=0.9), B) == "a"


def test_patience_is_the_operators_word():
    assert served_by(replace(A, success=0.5, patience_s=60.0), B) == "a"


def test_an_unmeasured_tier_takes_nothing_from_a_good_first_one():
    assert served_by(A, replace(B, latency_s=None)) == "a"


@pytest.mark.parametrize("change", [{"breaker_open": True}, {"down": "no slot is ready"}])
def test_a_tier_behind_an_open_breaker_or_without_a_slot_is_not_called(change):  # R3.4
    placed = place(("a", "b"), states(replace(A, **change), B))
    assert placed.tier == "b"
    assert "since" in placed.reason
    assert placed.considered[0]["tier"] == "a"


def test_a_degraded_tier_serves_only_when_all_others_are_dead():  # R2.8
    dead = [replace(A, breaker_open=True), replace(B, down="switched off")]
    assert served_by(replace(A, free=0, frees_in_s=1e6), replace(B, free=0, frees_in_s=1e6), LAST) is None
    assert served_by(*dead, LAST) == "last"
    assert served_by(*dead, LAST, route=("a", "b")) is None


def test_nobody_can_serve_and_the_reason_names_every_tier():
    placed = place(("a", "b"), states(replace(A, breaker_open=True), replace(B, down="switched off")))
    assert placed.tier is None
    assert placed.reason == "the breaker of a is open; b is down (switched off)"


def test_tiers_of_another_node_are_not_ours():
    placed = place(("x",), states(A))
    assert (placed.tier, placed.reason) == (None, "no tier of this service may serve it")
