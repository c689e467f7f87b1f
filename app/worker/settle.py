"""How an attempt is written down: published with its result, or closed with its failure and what follows.

Every write carries the claim. A refused one (the attempt is no longer current) changes nothing and leaves no file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from app.failpoints import hit
from app.retry.budget import RetryBudget
from app.retry.taxonomy import Failure, FailureCode
from app.store.errors import StaleClaim, StoreUnavailable
from app.store.interface import Store
from app.store.records import Artifact, AttemptEnd, Claim, InputRef, KeepFor, TaskRecord
from app.worker import wire
from app.worker.aftermath import Aftermath
from app.worker.board import TierBoard
from app.worker.matching import is_degraded
from app.worker.publish import publish, unpublish

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """How long results are kept for equal tasks, seconds from their end, and how many bytes of them."""

    ttl_s: float
    degraded_ttl_s: float
    max_bytes: int


class Settler:
    """Writes the ends of attempts."""

    def __init__(
        self,
        store: Store,
        *,
        data_dir: Path,
        board: TierBoard,
        aftermath: Aftermath,
        patience_s: float,
        budget: RetryBudget,
        locate: Callable[[InputRef], Path],
        attempts_dir: Path,
        confidence_threshold: float = 0.6,
        cache: CacheTerms | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`patience_s`: how long a write is tried again while the
        database is unavailable (about one lease). `confidence_threshold`: videos below it are not passed on.
        `cache`: None where results are not cached."""
        self._store = store
        self._data_dir = data_dir
        self._board = board
        self._aftermath = aftermath
        self._patience_s = patience_s
        self._budget = budget
        self._locate = locate
        self._attempts_dir = attempts_dir
        self._confidence_threshold = confidence_threshold
        self._cache = cache
        self._clock = clock

    def succeed(self, claim: Claim, finished: wire.Finished, elapsed_s: float, *, result_key: str | None = None) -> str:
        """Publish the file and commit SUCCEEDED; of one below the threshold, what follows instead.

        Returns the outcome for metrics. Raises OSError before the commit.
        """
        hit("rendered")
        if finished.confidence < self._confidence_threshold:
            return self._doubt(claim, finished, elapsed_s, result_key)
        artifact = publish(finished, self._data_dir)
        hit("published")
        try:
            self._patiently(
                lambda: self._store.succeed(
                    claim,
                    artifact,
                    served_by=claim.tier,
                    degraded=is_degraded(self._board.tiers, claim.tier),
                    stages=finished.stages,
                    facts=finished.facts,
                    quality=_quality(finished),
                    keep=self._keep(claim, result_key),
                )
            )
        except StaleClaim:
            # A commit that the database reported as failed may have reached the disk: then the retry finds it done.
            if not self._is_committed(claim, artifact):
                unpublish(artifact, self._data_dir)
                log.warning("late_result_refused", elapsed_s=round(elapsed_s, 3))
                return "stale"
        except RetryError:
            return self._unsettled()
        hit("committed")
        self._budget.attempt_ended(retried=False)
        log.info(
            "attempt_succeeded",
            tier=claim.tier,
            elapsed_s=round(elapsed_s, 3),
            frames=finished.frames,
            output=artifact.path,
            bytes=artifact.bytes,
        )
        return "succeeded"

    def _keep(self, claim: Claim, result_key: str | None) -> KeepFor | None:
        cache = self._cache
        if cache is None or result_key is None:
            return None
        ttl_s = cache.degraded_ttl_s if is_degraded(self._board.tiers, claim.tier) else cache.ttl_s
        return KeepFor(result_key, ttl_s, cache.max_bytes)

    def _doubt(self, claim: Claim, finished: wire.Finished, elapsed_s: float, result_key: str | None) -> str:
        """Make it again, or have a person look at it."""
        failure = _low_confidence(finished, self._confidence_threshold)
        settled = self.fail(claim, failure, None, elapsed_s, reviewable=True)
        if settled != "review":
            return settled
        artifact = publish(finished, self._data_dir)
        try:
            after = self._patiently(
                lambda: self._store.put_up_for_review(
                    claim,
                    artifact,
                    error=_error_of(failure),
                    served_by=claim.tier,
                    degraded=is_degraded(self._board.tiers, claim.tier),
                    stages=finished.stages,
                    facts=finished.facts,
                    quality=_quality(finished),
                    result_key=result_key,
                )
            )
        except StaleClaim:
            if not self._is_committed(claim, artifact):
                unpublish(artifact, self._data_dir)
                log.warning("late_result_refused", elapsed_s=round(elapsed_s, 3))
                return "stale"
            return "review"
        except RetryError:
            return self._unsettled()
        self._budget.attempt_ended(retried=False)
        if after.output is None:
            unpublish(artifact, self._data_dir)
            return "cancelled"
        log.warning(
            "put_up_for_review",
            tier=claim.tier,
            elapsed_s=round(elapsed_s, 3),
            confidence=finished.confidence,
            message=failure.message,
            output=artifact.path,
        )
        return "review"

    def fail(
        self,
        claim: Claim,
        failure: Failure,
        postmortem: dict[str, Any] | None,
        elapsed_s: float,
        *,
        reviewable: bool = False,
    ) -> str:
        """Close the attempt with `failure` and what the failure table says. Returns the outcome for metrics.

        `reviewable`: there is a video that a person could look at. Where that follows, nothing is written yet and the
        outcome is `review`.
        """
        hit("failed")
        try:
            return self._patiently(lambda: self._fail(claim, failure, postmortem, elapsed_s, reviewable))
        except StaleClaim:
            log.warning("late_failure_refused", code=failure.code, elapsed_s=round(elapsed_s, 3))
            return "stale"
        except RetryError:
            return self._unsettled()

    def _fail(
        self,
        claim: Claim,
        failure: Failure,
        postmortem: dict[str, Any] | None,
        elapsed_s: float,
        reviewable: bool,
    ) -> str:
        task = self._store.get(claim.task.id)
        if task is None:
            return self._lost(claim, failure, elapsed_s)
        failure = _in_the_callers_words(failure, task)
        now = self._clock()
        follows = self._aftermath.of(claim, task, failure, now)
        decision = follows.decision
        if decision.end == "review" and reviewable:
            return "review"
        # Without a video there is nothing to look at.
        end: AttemptEnd = "fail" if decision.end == "review" else decision.end
        retrying = end == "retry"
        backoff_ms = round(decision.backoff_s * 1000) if retrying else None
        after = self._store.end_attempt(
            claim,
            end,
            error=_error_of(failure),
            retry_at=now + decision.backoff_s if retrying else None,
            backoff_ms=backoff_ms,
            postmortem=postmortem,
            route=follows.route,
            followed_by=decision.reason,
        )
        self._budget.attempt_ended(retried=retrying)
        say = log.info if end in ("requeue", "cancel") else log.warning
        say(
            "retry_scheduled" if retrying else "attempt_ended",
            code=failure.code.value,
            message=failure.message,
            hint=failure.hint,
            reason=decision.reason,
            backoff_ms=backoff_ms,
            status=after.status.value,
            **self._whereabouts(claim, elapsed_s),
        )
        return _OUTCOMES[end]

    def _lost(self, claim: Claim, failure: Failure, elapsed_s: float) -> str:
        """There is no record to write to: the log alone tells what became of the task."""
        if failure.code is not FailureCode.TASK_LOST:
            raise StaleClaim(f"There is no task {claim.task.id}.")
        self._budget.attempt_ended(retried=False)
        log.error(
            "task_lost",
            code=failure.code.value,
            message=failure.message,
            hint=failure.hint,
            detail=failure.detail,
            **self._whereabouts(claim, elapsed_s),
        )
        return "lost"

    def _whereabouts(self, claim: Claim, elapsed_s: float) -> dict[str, Any]:
        """What the log of every failure carries beside the bound task, attempt, slot and trace."""
        task = claim.task
        return {
            "tier": claim.tier,
            "elapsed_s": round(elapsed_s, 3),
            "source": task.source.uri,
            "source_path": str(self._locate(task.source)),
            "audio": task.audio.uri,
            "audio_path": str(self._locate(task.audio)),
            "output_path": str(self._attempts_dir / f"{task.id}-{claim.attempt}"),
        }

    def _patiently(self, write: Callable[[], T]) -> T:
        for attempt in Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_delay(self._patience_s),
            wait=wait_exponential(multiplier=0.1, max=2.0),
        ):
            with attempt:
                return write()
        raise AssertionError("tenacity either returns or raises")

    def _is_committed(self, claim: Claim, artifact: Artifact) -> bool:
        task = self._patiently(lambda: self._store.get(claim.task.id))
        return task is not None and task.output is not None and task.output.path == artifact.path

    def _unsettled(self) -> str:
        # The lease runs out and the task is run again by whoever can reach the database then; that removes the file,
        # unless its commit did reach the disk.
        log.error("attempt_not_settled", reason="the database stayed unavailable", patience_s=self._patience_s)
        return "unsettled"


_OUTCOMES = {
    "retry": "failed",
    "failover": "failed",
    "fail": "failed",
    "requeue": "interrupted",
    "cancel": "cancelled",
}
"""What the metrics call an attempt, by its end."""


def _error_of(failure: Failure) -> dict[str, Any]:
    return {
        "code": failure.code.value,
        "message": failure.message,
        "hint": failure.hint,
        "retryable": failure.policy.retryable,
        "detail": failure.detail,
    }


def _quality(finished: wire.Finished) -> dict[str, Any]:
    return {"confidence": finished.confidence, "checks": finished.checks, "scores": finished.scores}


def _low_confidence(finished: wire.Finished, threshold: float) -> Failure:
    weak = sorted((score, name) for name, score in finished.scores.items() if score < threshold)
    named = ", ".join(f"{name} {score:.2f}" for score, name in weak)
    message = f"The video's confidence is {finished.confidence:.2f}, below {threshold:g}: {named}."
    return Failure(FailureCode.LOW_CONFIDENCE, message, detail=_quality(finished))


def _in_the_callers_words(failure: Failure, task: TaskRecord) -> Failure:
    """A renderer knows an input by the name of its blob, a hash; the caller knows it by its own name."""
    message = failure.message
    for reference in (task.source, task.audio):
        message = message.replace(reference.sha256, reference.name)
    return replace(failure, message=message)
