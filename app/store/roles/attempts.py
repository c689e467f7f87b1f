"""What is asked of attempts, in threads: claimed, held, ended, and taken back where their holder is gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from app.store.figures import AttemptEnding, TaskEnding
from app.store.records import Artifact, AttemptEnd, Claim, KeepFor, Offer, TaskRecord


class Attempts(Protocol):
    """Attempts from the claim to the end, and what ends without one."""

    def claim(
        self,
        owner: str,
        *,
        lease_s: float,
        slot: str,
        device: str,
        tier: str = "",
        offers: Mapping[tuple[str, ...], Offer] | None = None,
        first_only: bool = False,
    ) -> Claim | None:
        """Take the best-ranked runnable task in one transaction: RUNNING, attempt + 1, lease, attempt row, event.

        With `offers` only tasks of these routes, each on the tier that is offered for its route; without them any
        task, on `tier`. Skips tasks that are not due and those past their deadline (`expire_waiting` ends them). None
        when there is nothing to run or the queue is paused.

        `first_only`: one route is offered, and None also when its best-ranked task is not the first of all that are
        ready, or when a scheduled one has come due and is still to be put in its place: who knows only of that route
        does not pass over others.
        """

    def renew(self, claim: Claim, *, lease_s: float) -> TaskRecord:
        """Push the lease further and return the task as it is (the cancel flag!). Raises `StaleClaim`."""

    def succeed(
        self,
        claim: Claim,
        artifact: Artifact,
        *,
        served_by: str,
        degraded: bool = False,
        quality: dict[str, Any] | None = None,
        stages: dict[str, float] | None = None,
        facts: dict[str, Any] | None = None,
        keep: KeepFor | None = None,
    ) -> TaskRecord:
        """RUNNING -> SUCCEEDED with the artifact, in one commit, also where a cancel was asked for: the work is done.

        With `keep` the result is cached, and equal tasks that wait may have it.
        Raises `StaleClaim`.
        """

    def put_up_for_review(
        self,
        claim: Claim,
        artifact: Artifact,
        *,
        error: dict[str, Any],
        served_by: str,
        quality: dict[str, Any],
        degraded: bool = False,
        stages: dict[str, float] | None = None,
        facts: dict[str, Any] | None = None,
        result_key: str | None = None,
    ) -> TaskRecord:
        """RUNNING -> REVIEW with the artifact and the `error` that says why, in one commit.

        Equal tasks that wait may have it once it is approved, where it has a `result_key`.
        To CANCELLED, without the artifact, where that was asked for. Raises `StaleClaim`.
        """

    def end_attempt(
        self,
        claim: Claim,
        end: AttemptEnd,
        *,
        error: dict[str, Any] | None,
        retry_at: float | None = None,
        backoff_ms: int | None = None,
        postmortem: dict[str, Any] | None = None,
        route: tuple[str, ...] | None = None,
        followed_by: str | None = None,
    ) -> TaskRecord:
        """Close the attempt without a result: to RETRY_WAIT, FAILED, QUEUED (free) or CANCELLED.

        `retry` is charged, `failover` (to another tier) is not. `retry_at` is when it may run again (now if None),
        `route` the tiers that may serve it then (as before if None); the task keeps its rank. `followed_by` says in
        words what was decided. Where the task's cancel flag is set, `retry`, `failover` and `requeue` become `cancel`.
        `error` is a failure as `{code, message, hint, detail}`: it goes to the attempt, and with `fail` to the task.
        Raises `StaleClaim`.
        """

    def expire_waiting(self, now: float | None = None) -> list[TaskRecord]:
        """Fail waiting tasks whose start deadline or deadline has passed, with DEADLINE_EXCEEDED."""

    def rescue_expired(self) -> list[TaskRecord]:
        """Return tasks whose lease ran out to QUEUED, free of charge (to CANCELLED if that was asked)."""

    def take_back(self, owner: str) -> list[TaskRecord]:
        """At a restart: the same for every task leased to `owner`, at once."""

    def attempt_endings(self, owner: str, *, since: float, limit: int) -> list[AttemptEnding]:
        """Attempts of `owner` that ended after `since`, newest first, at most `limit`."""

    def task_endings(self, owner: str, *, since: float, limit: int) -> list[TaskEnding]:
        """The last `limit` tasks that ended after `since`, newest first, less those that ended in another's attempt."""
