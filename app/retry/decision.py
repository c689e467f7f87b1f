"""What to do after a failed attempt: a pure decision from the failure table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.retry.backoff import Backoff
from app.retry.taxonomy import Failure, FailureCode


@dataclass(frozen=True, slots=True)
class Decision:
    """`end` of the attempt as the store knows it; `backoff_s` counts for a retry; `reason` is for the log."""

    end: Literal["retry", "failover", "fail", "requeue", "cancel", "review"]
    backoff_s: float
    reason: str


def decide(
    failure: Failure,
    *,
    earlier: Sequence[FailureCode],
    retries: int,
    max_retries: int,
    now: float,
    deadline_at: float | None,
    backoff: Backoff,
) -> Decision:
    """Decide what follows `failure`.

    `earlier` are the codes of this task's failed attempts before, `retries` the retries charged so far over all
    causes. A retry that could only start past `deadline_at` (epoch seconds) is not scheduled. `backoff` is asked with
    the number of this cause's retry and its row's first delay. A video of low confidence that is not made again goes to
    a person.
    """
    decision = _decide(failure, earlier, retries, max_retries, now, deadline_at, backoff)
    if decision.end == "fail" and failure.code is FailureCode.LOW_CONFIDENCE:
        return replace(decision, end="review", reason=f"{decision.reason}; a person decides")
    return decision


def _decide(
    failure: Failure,
    earlier: Sequence[FailureCode],
    retries: int,
    max_retries: int,
    now: float,
    deadline_at: float | None,
    backoff: Backoff,
) -> Decision:
    policy = failure.policy
    if failure.code is FailureCode.CANCELLED:
        return Decision("cancel", 0.0, "cancelled")
    if policy.retries is None:
        return Decision("requeue", 0.0, f"{failure.code} is free of charge")
    same = sum(code == failure.code for code in earlier)
    if policy.retries == 0:
        return Decision("fail", 0.0, f"{failure.code} is not retried")
    if same >= policy.retries:
        return Decision("fail", 0.0, f"{failure.code} was retried {same} times, its limit")
    if retries >= max_retries:
        return Decision("fail", 0.0, f"all {max_retries} retries are used")
    backoff_s = backoff(same + 1, policy.first_delay_s)
    if deadline_at is not None and now + backoff_s >= deadline_at:
        return Decision("fail", 0.0, "the deadline would pass before the next try")
    return Decision("retry", backoff_s, f"{failure.code}, retry {retries + 1} of {max_retries}")
