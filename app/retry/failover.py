"""Where a task goes after a failed attempt: the same tier, the next one of this round, or a new round. Pure.

A round is over when every tier of the task's route has failed; only then a pause begins, as the failure table says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.retry.decision import Decision
from app.retry.taxonomy import FAILURE_TABLE, Failure, FailureCode


@dataclass(frozen=True, slots=True)
class Tried:
    """A failed attempt of the task, before this one."""

    tier: str
    code: FailureCode
    charged: bool
    """Whether a retry was charged for it: failing over to the next tier is free."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows, and the tiers that may serve the task from now on, best first."""

    decision: Decision
    route: tuple[str, ...]


Decide = Callable[[Failure, Sequence[FailureCode]], Decision]
"""The decision of the failure table for one failure, after the charged retries with these codes."""


def after_failure(
    failure: Failure,
    *,
    tier: str,
    route: Sequence[str],
    eligible: Sequence[str],
    tried: Sequence[Tried],
    decide: Decide,
) -> Outcome:
    """Decide what follows `failure` of an attempt on `tier`.

    `route` are the tiers of this round that had not failed before it, `eligible` all that may serve the task at all.
    """
    policy = failure.policy
    charged = [attempt.code for attempt in tried if attempt.charged]
    here = decide(failure, charged)
    if policy.retries is None or policy.next_tier_after is None or here.end in ("cancel", "requeue"):
        return Outcome(here, tuple(route))
    failed_here = 1 + sum(a.tier == tier and FAILURE_TABLE[a.code].next_tier_after is not None for a in tried)
    if failed_here < policy.next_tier_after and here.end == "retry":
        return Outcome(here, tuple(route))
    rest = tuple(name for name in route if name != tier)
    if rest:
        return Outcome(Decision("failover", 0.0, f"{failure.code} on {tier}: on to {rest[0]}"), rest)
    return _new_round(failure, here, tier, eligible, tried, charged, decide)


def _new_round(
    failure: Failure,
    here: Decision,
    tier: str,
    eligible: Sequence[str],
    tried: Sequence[Tried],
    charged: Sequence[FailureCode],
    decide: Decide,
) -> Outcome:
    """Every tier has failed: those whose failure can pass are tried again, after the pause of one such failure."""
    if not eligible:
        # The tiers were changed meanwhile, and none may serve it for now: it waits for one.
        return Outcome(here, ())
    last = {attempt.tier: attempt.code for attempt in tried} | {tier: failure.code}
    again = tuple(name for name in eligible if name not in last or FAILURE_TABLE[last[name]].retryable)
    if not again:
        return Outcome(replace(here, end="fail") if here.end == "retry" else here, tuple(eligible))
    if here.end == "retry":
        return Outcome(here, again)
    for name in again:
        if name in last and last[name] != failure.code:
            other = decide(Failure(last[name]), charged)
            if other.end == "retry":
                return Outcome(replace(other, reason=f"{other.reason}, of {name}"), again)
    return Outcome(here, again)
