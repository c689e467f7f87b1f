"""One attempt, from the claim to its settled end, in a thread of its own.

Whoever makes the attempt also hands its job to the slot's process. From then on only the thread acts on the process: it
hears it out, has the video judged where the process cannot, and writes the outcome under the claim's fence. The monitor
beside it watches the clocks and gives verdicts.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from app.cleanup.scope import CleanupScope
from app.health.clocks import Limits, Look
from app.health.monitor import HealthObserver, Monitor
from app.retry.classifier import NO_SPACE, classify_exception
from app.retry.taxonomy import CodedError, Failure, FailureCode
from app.store.interface import Store
from app.store.records import Claim, InputRef
from app.telemetry.tracing import Tracing
from app.worker import wire
from app.worker.board import TierBoard
from app.worker.conversation import Conversation
from app.worker.judges import Judges
from app.worker.lease import Lease
from app.worker.matching import Order, order_of
from app.worker.orders import Orders
from app.worker.phase_spans import record_phases
from app.worker.pool import LocalPool
from app.worker.settle import Settler
from app.worker.shared import Reading
from app.worker.slot_process import SlotProcess
from app.worker.slots import Slot

log = structlog.get_logger(__name__)

_UNWRITTEN = frozenset({"stale", "unsettled", "lost"})
"""Outcomes that no event tells of."""


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """The numbers of an attempt; seconds."""

    lease_s: float
    health_interval_s: float
    limits: Limits
    cancel_grace_s: float
    task_lost_s: float
    attempts_dir: Path
    progress_notice_s: float = 10.0
    """The least time between two notices of progress."""


class AttemptObserver(HealthObserver, Protocol):
    """What an attempt and its monitor tell the telemetry."""

    def attempt_ended(self, tier: str, outcome: str, stages: Mapping[str, float], frames: int) -> None:
        """An attempt is settled."""

    def upstream_called(self, tier: str, call: str, seconds: float) -> None:
        """A renderer called another server."""


class Attempt:
    """One running attempt. `start` begins it; `order_end` may be called from any thread."""

    def __init__(
        self,
        claim: Claim,
        slot: Slot,
        *,
        pool: LocalPool,
        judges: Judges,
        store: Store,
        board: TierBoard,
        settler: Settler,
        observer: AttemptObserver,
        locate: Callable[[InputRef], Path],
        settings: AttemptSettings,
        count_oom_kills: Callable[[], int | None],
        on_done: Callable[[Attempt], None],
        tracing: Tracing,
    ) -> None:
        assert slot.process is not None
        self.claim = claim
        self.slot = slot
        self._process: SlotProcess = slot.process
        self._pool = pool
        self._judges = judges
        self._board = board
        self._settler = settler
        self._observer = observer
        self._locate = locate
        self._settings = settings
        self._on_done = on_done
        self._tracing = tracing
        self._output_dir = settings.attempts_dir / f"{claim.task.id}-{claim.attempt}"
        self._orders = Orders()
        self._conversation = Conversation(
            claim, slot, self._orders, cancel_grace_s=settings.cancel_grace_s, count_oom_kills=count_oom_kills
        )
        self._lease = Lease(
            claim,
            self._orders,
            store,
            look=self.look,
            lease_s=settings.lease_s,
            task_lost_s=settings.task_lost_s,
            progress_notice_s=settings.progress_notice_s,
        )
        self._rendered_at: float | None = None
        """Since when its video is with the judges, monotonic seconds."""
        self._result_key: str | None = None
        self._prepared: Order | Failure | Exception | None = None
        self._made_directory = False
        self._handed_over = False
        self._failure: Failure | None = None
        self.began = time.monotonic()
        self._began_at = time.time()
        self._thread = threading.Thread(target=self._run, name=f"attempt-{claim.task.id}-{claim.attempt}", daemon=True)
        self._has_slot = True
        self._begun = board.begin(claim.tier)

    # -- for others -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Hand the job over and start the thread, in this order: the process need not wait until a new thread has its
        turn. What could wait for the process is left to the thread, and so is every failure.

        Raises RuntimeError where there is no thread to have: then the attempt never was.
        """
        try:
            self._prepared = self._prepare()
        except Exception as error:  # noqa: BLE001 - the thread raises it where the slot is given back
            self._prepared = error
        try:
            self._thread.start()
        except RuntimeError:
            if self._handed_over:
                self._conversation.abandon()
            if self._made_directory:
                shutil.rmtree(self._output_dir, ignore_errors=True)
            self._orders.close()
            self._board.ended(self.claim.tier, self._begun, Failure(FailureCode.INTERRUPTED))
            raise

    def _prepare(self) -> Order | Failure:
        if (failure := self._make_directory()) is not None:
            return failure
        self._made_directory = True
        try:
            order = order_of(self._board.tiers, self.claim.task, self.claim.tier)
        except CodedError as error:
            return error.failure
        self._result_key = order.result_key
        self._handed_over = self._conversation.begin(self._job(order), at_once=True)
        return order

    def order_end(self, failure: Failure) -> None:
        """End this attempt for `failure`; the first order counts. Returns at once."""
        self._orders.end(failure)

    def look(self) -> Look:
        """Both clocks now."""
        reading = self._process.read()
        now = time.monotonic()
        # Who waits for a judge does not hang: its process has done its part, and the judge has a monitor of its own.
        waited = 0 if self._rendered_at is None else round(1000 * (now - self._rendered_at))
        return Look(
            at=now,
            beats=reading.beats + waited,
            moves=reading.moves + waited,
            phase=reading.phase.value,
            done=reading.done,
            total=reading.total,
        )

    def reading_if_there(self) -> Reading | None:
        """What the process last wrote of itself, for views: None once it has been thrown away."""
        try:
            return self._process.read()
        except ValueError:
            return None

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Drive the attempt to its end. Never raises."""
        task = self.claim.task
        structlog.contextvars.bind_contextvars(
            task_id=task.id, attempt=self.claim.attempt, slot=self.slot.name, trace_id=task.trace_id
        )
        with CleanupScope() as scope:
            scope.add("leave the registry", self._leave)
            scope.add("release the slot", self._release)
            try:
                self._drive(scope)
            except Exception as error:
                log.exception("attempt_thread_failed")
                self._break_off(error, scope)

    def _drive(self, scope: CleanupScope) -> None:
        if self._made_directory:
            scope.add("delete the attempt's directory", lambda: shutil.rmtree(self._output_dir))
            scope.add("end the strays", self._process.end_strays)
        prepared = self._prepared
        if isinstance(prepared, Exception):
            raise prepared
        assert prepared is not None
        self._settle(prepared if isinstance(prepared, Failure) else self._outcome(prepared, scope), scope)

    def _outcome(self, order: Order, scope: CleanupScope) -> wire.Finished | Failure:
        if not self._handed_over:
            self._conversation.begin(self._job(order))
        waited_s = self._began_at - self.claim.task.enqueued_at
        log.info("attempt_started", tier=self.claim.tier, waited_s=round(waited_s, 3))
        monitor = self._monitor(order)
        scope.add("stop the monitor", monitor.stop)
        monitor.start()
        outcome = self._conversation.hear_out()
        return self._judged(outcome) if isinstance(outcome, wire.Rendered) else outcome

    def _break_off(self, error: Exception, scope: CleanupScope) -> None:
        """End what can not go on for a fault of ours. A process that may still be at work must not get another job."""
        if self._has_slot:
            self._conversation.abandon()
        try:
            self._settle(
                Failure(FailureCode.INTERNAL, f"The service could not go on with the attempt: {error!r}"), scope
            )
        except Exception:
            # The lease runs out and the task is rescued: nothing is lost, but it must be seen.
            log.exception("attempt_not_settled")

    def _make_directory(self) -> Failure | None:
        """Make the attempt's directory, or the failure that this is: the host's, whatever the error looks like."""
        try:
            self._output_dir.mkdir(parents=True)
        except OSError as error:
            code = FailureCode.DISK_FULL if error.errno in NO_SPACE else FailureCode.INTERNAL
            return Failure(code, f"The attempt's directory could not be made: {error}")
        return None

    def _monitor(self, order: Order) -> Monitor:
        deadline_at, limit_s, now = self.claim.task.deadline_at, order.time_limit_s, time.monotonic()
        deadline = None if deadline_at is None else now + deadline_at - time.time()
        limit = None if limit_s is None else now + limit_s
        nearer = limit is not None and (deadline is None or limit < deadline)
        return Monitor(
            name=self.slot.name,
            look=self.look,
            renew=self._lease.renew,
            verdict=self.order_end,
            observer=self._observer,
            limits=self._settings.limits,
            interval_s=self._settings.health_interval_s,
            deadline=limit if nearer else deadline,
            at_deadline=FailureCode.RENDER_TIMEOUT if nearer else FailureCode.DEADLINE_EXCEEDED,
        )

    def _job(self, order: Order) -> wire.Run:
        task = self.claim.task
        here = task.trace and self._tracing.below(task.trace, task.id, "attempt", self.claim.attempt)
        return wire.Run(
            task_id=task.id,
            attempt=self.claim.attempt,
            tier=order.tier,
            source=str(self._locate(task.source)),
            source_sha256=task.source.sha256,
            audio=str(self._locate(task.audio)),
            output_dir=str(self._output_dir),
            options=order.options,
            batch_scale=0.5 ** self.claim.earlier.count(FailureCode.GPU_OOM),
            traceparent="" if here is None else here.traceparent,
            trace_id=task.trace_id,
        )

    def _judged(self, video: wire.Rendered) -> wire.Finished | Failure:
        """Have a judge watch what the process, which stays this attempt's until then, has rendered."""
        self._rendered_at = time.monotonic()
        task = self.claim.task
        order = wire.Judge(
            task_id=task.id,
            attempt=self.claim.attempt,
            source=str(self._locate(task.source)),
            audio=str(self._locate(task.audio)),
            output_dir=str(self._output_dir),
            video=video,
        )
        return self._judges.judge(order, self._orders)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _settle(self, outcome: wire.Finished | Failure, scope: CleanupScope) -> None:
        scope.run("stop the monitor")
        # Read before the slot is free: its next attempt begins a list of its own.
        steps, ended_at = self._process.steps() if self._tracing.on else [], time.time()
        self._failure = outcome if isinstance(outcome, Failure) else None
        if isinstance(outcome, wire.Finished):
            # The process is free for the next job while this one is published.
            scope.run("release the slot")
            settled = self._publish(outcome)
        else:
            settled = self._settler.fail(self.claim, outcome, self._conversation.postmortem, self._elapsed())
        stages = outcome.stages if isinstance(outcome, wire.Finished) else {}
        frames = outcome.frames if isinstance(outcome, wire.Finished) else 0
        self._observer.attempt_ended(self.claim.tier, settled, stages, frames)
        for call, seconds in self._conversation.calls:
            self._observer.upstream_called(self.claim.tier, call, seconds)
        if settled not in _UNWRITTEN:
            record_phases(self._tracing, self.claim, steps, began_at=self._began_at, ended_at=ended_at)

    def _publish(self, finished: wire.Finished) -> str:
        try:
            return self._settler.succeed(self.claim, finished, self._elapsed(), result_key=self._result_key)
        except OSError as error:
            return self._settler.fail(self.claim, classify_exception(error), None, self._elapsed())

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _release(self) -> None:
        self._has_slot = False
        try:
            self._board.ended(self.claim.tier, self._begun, self._failure)
        finally:
            self._pool.release(
                self.slot, task_id=self.claim.task.id, failure=self._failure, poisoned=self._conversation.poisoned
            )

    def _leave(self) -> None:
        self._orders.close()
        self._on_done(self)
