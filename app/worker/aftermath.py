"""What follows a failed attempt of a task: whether it is tried again, when, on which tiers, and why. Writes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from app.retry.backoff import Backoff
from app.retry.budget import RetryBudget
from app.retry.decision import decide
from app.retry.failover import Outcome, Tried, after_failure
from app.retry.taxonomy import Failure, FailureCode
from app.store.records import Claim, TaskRecord
from app.worker.board import TierBoard
from app.worker.matching import eligible


class Aftermath:
    """Asks the failure table, the board of tiers and the retry budget of this node."""

    def __init__(
        self, board: TierBoard, *, max_retries: int, backoff: Backoff, backoff_cap_s: float, budget: RetryBudget
    ) -> None:
        """`backoff_cap_s`: what a retry waits over the budget."""
        self._board = board
        self._max_retries = max_retries
        self._backoff = backoff
        self._backoff_cap_s = backoff_cap_s
        self._budget = budget

    def of(self, claim: Claim, task: TaskRecord, failure: Failure, now: float) -> Outcome:
        """What follows `failure` at `now` (epoch seconds); `task` is the record as it stands, with its attempts."""
        outcome = self._decide(claim, task, failure, now)
        if outcome.decision.end != "retry":
            return outcome
        backoff_s, reason = outcome.decision.backoff_s, outcome.decision.reason
        asked_s = failure.detail.get("retry_after_s", 0.0)
        if asked_s > backoff_s:
            backoff_s = min(asked_s, max(backoff_s, self._backoff_cap_s))
            reason += f"; the server asked for {asked_s:g} s"
        if not self._budget.allows():
            backoff_s = max(backoff_s, self._backoff_cap_s)
            reason += "; the retry budget of this node is spent, so it waits the longest backoff"
        return replace(outcome, decision=replace(outcome.decision, backoff_s=backoff_s, reason=reason))

    def _decide(self, claim: Claim, task: TaskRecord, failure: Failure, now: float) -> Outcome:
        """What follows, with the tiers that may serve the task then."""
        tried = [
            Tried(attempt.tier, FailureCode(attempt.error["code"]), charged=attempt.backoff_ms is not None)
            for attempt in task.attempts
            if attempt.n != claim.attempt and attempt.error and attempt.outcome == "failed"
        ]
        decide_one = partial(
            decide,
            retries=task.retries,
            max_retries=self._max_retries,
            now=now,
            deadline_at=task.deadline_at,
            backoff=self._backoff,
        )
        return after_failure(
            failure,
            tier=claim.tier,
            route=claim.task.route,
            eligible=eligible(self._board.tiers, task),
            tried=tried,
            decide=lambda failed, earlier: decide_one(failed, earlier=earlier),
        )
