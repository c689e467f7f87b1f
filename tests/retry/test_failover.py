"""After a failure: the same tier, the next one, a new round, or the end."""

from __future__ import annotations

from functools import partial

import pytest

from app.retry.backoff import make_backoff
from app.retry.decision import decide
from app.retry.failover import Outcome, Tried, after_failure
from app.retry.taxonomy import FAILURE_TABLE, Failure, FailureCode

ALL = ("a", "b", "c")
C = FailureCode


def after(code, *, tier="a", route=ALL, eligible=ALL, tried=(), retries=0) -> Outcome:
    one = partial(
        decide, retries=retries, max_retries=3, now=0.0, deadline_at=None, backoff=make_backoff("fixed", 60.0)
    )
    return after_failure(
        Failure(code),
        tier=tier,
        route=route,
        eligible=eligible,
        tried=tried,
        decide=lambda failure, earlier: one(failure, earlier=earlier),
    )


@pytest.mark.parametrize("code", [c for c in C if FAILURE_TABLE[c].next_tier_after == 1])
def test_a_failing_tier_fails_over_to_the_next_at_once_and_free(code):  # R2.1
    outcome = after(code)
    assert outcome.decision.end == "failover"
    assert outcome.decision.backoff_s == 0
    assert outcome.route == ("b", "c")


@pytest.mark.parametrize("code", [c for c in C if c.startswith("INPUT_")])
def test_the_callers_own_mistake_never_goes_to_another_tier(code):  # R2.1
    assert after(code).decision.end == "fail"


@pytest.mark.parametrize("code", [C.WORKER_CRASHED, C.WORKER_STALLED, C.GPU_OOM])
def test_a_crash_or_want_of_memory_is_first_tried_again_where_it_was(code):  # R2.5
    first = after(code)
    assert (first.decision.end, first.route) == ("retry", ALL)
    second = after(code, tried=[Tried("a", code, charged=True)], retries=1)
    assert (second.decision.end, second.route) == ("failover", ("b", "c"))


def test_a_tier_that_was_passed_over_is_still_to_be_tried_in_the_round():
    assert after(C.UPSTREAM_TIMEOUT, tier="b").route == ("a", "c")


def test_the_pause_begins_only_when_every_tier_has_failed():
    tried = [Tried("a", C.UPSTREAM_TIMEOUT, charged=False), Tried("b", C.UPSTREAM_5XX, charged=False)]
    outcome = after(C.UPSTREAM_CONNECTION, tier="c", route=("c",), tried=tried)
    assert outcome.decision.end == "retry"
    assert outcome.decision.backoff_s > 0
    assert outcome.route == ALL


def test_a_tier_that_rejects_the_task_is_left_out_of_the_next_round():
    tried = [Tried("a", C.UPSTREAM_REJECTED, charged=False), Tried("b", C.UPSTREAM_5XX, charged=False)]
    assert after(C.UPSTREAM_TIMEOUT, tier="c", route=("c",), tried=tried).route == ("b", "c")


def test_a_rejection_by_the_last_tier_does_not_end_what_another_may_still_serve():
    tried = [Tried("a", C.UPSTREAM_TIMEOUT, charged=False)]
    outcome = after(C.UPSTREAM_REJECTED, tier="b", route=("b",), eligible=("a", "b"), tried=tried)
    assert (outcome.decision.end, outcome.route) == ("retry", ("a",))
    assert outcome.decision.reason.endswith(", of a")


def test_when_all_tiers_have_rejected_it_the_task_has_failed():
    tried = [Tried("a", C.UPSTREAM_AUTH, charged=False)]
    outcome = after(C.UPSTREAM_REJECTED, tier="b", route=("b",), eligible=("a", "b"), tried=tried)
    assert outcome.decision.end == "fail"


def test_all_retries_used_ends_it_only_after_the_last_tier_of_the_round():
    assert after(C.UPSTREAM_TIMEOUT, retries=3).decision.end == "failover"
    assert after(C.UPSTREAM_TIMEOUT, tier="c", route=("c",), retries=3).decision.end == "fail"


def test_an_interruption_keeps_the_round_as_it_was():
    outcome = after(C.INTERRUPTED, route=("b", "c"), tier="b")
    assert (outcome.decision.end, outcome.route) == ("requeue", ("b", "c"))


def test_with_one_tier_it_is_the_failure_table_alone():
    outcome = after(C.UPSTREAM_TIMEOUT, route=("a",), eligible=("a",))
    assert (outcome.decision.end, outcome.route) == ("retry", ("a",))


def test_a_task_whose_tiers_are_gone_waits_for_one():
    outcome = after(C.UPSTREAM_TIMEOUT, route=("a",), eligible=())
    assert (outcome.decision.end, outcome.route) == ("retry", ())
