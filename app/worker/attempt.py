"""One attempt, from the claim to its settled end, in a thread of its own.

It hands the job to a slot's process, waits for its word, its death or an order to end, and writes the outcome under
the claim's fence. The monitor beside it watches the clocks and gives verdicts; only this thread acts on the process.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from app.cleanup.scope import CleanupScope
from app.failpoints import hit
from app.health.clocks import Limits, Look
from app.health.monitor import HealthObserver, Monitor
from app.health.oom import rose
from app.render.contract import Phase
from app.render.vanished import Presence
from app.retry.classifier import NO_SPACE, classify_exception, classify_exit, name_exit
from app.retry.taxonomy import CodedError, Failure, FailureCode
from app.store.interface import StaleClaim, Store
from app.store.records import Claim, InputRef
from app.telemetry.tracing import Span, Tracing, attempt_span
from app.tiers.tiers import DEVICES
from app.worker import wire
from app.worker.board import Order, TierBoard
from app.worker.judges import Judges
from app.worker.orders import Orders
from app.worker.pool import LocalPool
from app.worker.settle import Settler
from app.worker.shared import Reading
from app.worker.slot import SlotProcess
from app.worker.slots import Slot

log = structlog.get_logger(__name__)

_HANG_UP_S = 1.0
"""Between a dying process's last closed pipe and its death lie milliseconds."""
_UNWRITTEN = frozenset({"stale", "unsettled", "lost"})
"""Outcomes that no event tells of."""
_HUNG = frozenset({FailureCode.WORKER_UNRESPONSIVE, FailureCode.WORKER_STALLED})


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
    """One running attempt. `run` is its thread; `order_end` may be called from any thread."""

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
        self._store = store
        self._board = board
        self._begun = board.begin(claim.tier)
        self._settler = settler
        self._observer = observer
        self._locate = locate
        self._settings = settings
        self._count_oom_kills = count_oom_kills
        self._oom_kills = count_oom_kills()
        self._on_done = on_done
        self._tracing = tracing
        self._output_dir = settings.attempts_dir / f"{claim.task.id}-{claim.attempt}"
        self._orders = Orders()
        self._rendered_at: float | None = None
        """Since when its video is with the judges, monotonic seconds."""
        self._poisoned = ""
        self._result_key: str | None = None
        self._failure: Failure | None = None
        self._postmortem: dict[str, Any] | None = None
        self._record = Presence(f"The record of task {claim.task.id}", settings.task_lost_s)
        self._calls: list[tuple[str, float]] = []
        self.began = time.monotonic()
        self._began_at = time.time()
        self.handed_over = threading.Event()
        """The process has its job, or will never get it."""
        self.thread = threading.Thread(target=self.run, name=f"attempt-{claim.task.id}-{claim.attempt}", daemon=True)

    # -- for others -------------------------------------------------------------------------------------------------

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

    def run(self) -> None:
        """Drive the attempt to its end. Never raises."""
        task = self.claim.task
        structlog.contextvars.bind_contextvars(
            task_id=task.id, attempt=self.claim.attempt, slot=self.slot.name, trace_id=task.trace_id
        )
        try:
            with CleanupScope() as scope:
                scope.add("leave the registry", self._leave)
                scope.add("release the slot", self._release)
                if (failure := self._make_directory()) is not None:
                    self._settle(failure, scope)
                    return
                scope.add("delete the attempt's directory", lambda: shutil.rmtree(self._output_dir))
                scope.add("end the strays", self._process.end_strays)
                try:
                    order = self._board.order(task, self.claim.tier)
                except CodedError as error:
                    self._settle(error.failure, scope)
                    return
                self._result_key = order.result_key
                self._hand_over(order)
                self.handed_over.set()
                log.info("attempt_started", tier=self.claim.tier, waited_s=round(self._began_at - task.enqueued_at, 3))
                monitor = self._monitor(order)
                scope.add("stop the monitor", monitor.stop)
                monitor.start()
                outcome = self._drive()
                self._settle(self._judged(outcome) if isinstance(outcome, wire.Rendered) else outcome, scope)
        except Exception:
            # The lease runs out and the task is rescued: nothing is lost, but it must be seen.
            log.exception("attempt_thread_failed")

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
            renew=lambda: self._check_lease(),
            verdict=self.order_end,
            observer=self._observer,
            limits=self._settings.limits,
            interval_s=self._settings.health_interval_s,
            deadline=limit if nearer else deadline,
            at_deadline=FailureCode.RENDER_TIMEOUT if nearer else FailureCode.DEADLINE_EXCEEDED,
        )

    def _check_lease(self) -> None:
        """Renew the lease, in the monitor's thread. Raises `StoreUnavailable`, after which the render just goes on."""
        try:
            task = self._store.renew(self.claim, lease_s=self._settings.lease_s)
        except StaleClaim as error:
            self._refused(error)
            return
        self._record.seen()
        if task.cancel_requested_at is not None:
            self.order_end(Failure(FailureCode.CANCELLED))
        look = self.look()
        if look.phase == Phase.RENDER:
            # Other phases count other things: only frames grow from one notice to the next.
            self._store.outbox.progress(
                self.claim, look.done, look.total, look.phase, at_least_s=self._settings.progress_notice_s
            )

    def _refused(self, error: StaleClaim) -> None:
        """The claim is not current. Another attempt may be: then this one ends now. A record may also be gone."""
        if self._store.get(self.claim.task.id) is not None:
            log.warning("attempt_superseded", reason=str(error))
            self.order_end(Failure(FailureCode.INTERRUPTED, str(error)))
            return
        log.warning("task_record_missing", lost_after_s=self._settings.task_lost_s)
        try:
            self._record.missing()
        except CodedError as lost:
            self.order_end(lost.failure)

    def _hand_over(self, order: Order) -> None:
        """Give the process its job. If it is gone, its sentinel tells."""
        task = self.claim.task
        here = task.trace and self._tracing.below(task.trace, task.id, "attempt", self.claim.attempt)
        self._process.send(
            wire.Run(
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

    def _drive(self) -> wire.Rendered | wire.Finished | Failure:
        """Wait for whatever ends the attempt."""
        kill_at: float | None = None
        while True:
            timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
            ready = wait([self._process.events, self._process.sentinel, self._orders.bell], timeout)
            dead = self._process.sentinel in ready
            if (dead or self._process.events in ready) and (outcome := self._hear()) is not None:
                return outcome
            if dead:
                return self._died()
            if self._orders.bell in ready:
                self._orders.heard()
            if self._ending is not None and kill_at is None:
                kill_at = self._ask_to_end(self._ending)
            if kill_at is not None and time.monotonic() >= kill_at:
                return self._kill()

    @property
    def _ending(self) -> Failure | None:
        return self._orders.ending

    def _hear(self) -> wire.Rendered | wire.Finished | Failure | None:
        """All that the child has said; an outcome if it ends the attempt."""
        while True:
            try:
                event = self._process.take()
            except EOFError:
                return self._hung_up()
            except msgspec.DecodeError as error:
                return self._broken(f"sent a broken message: {error}")
            if event is None or (outcome := self._understand(event)) is not None:
                return None if event is None else outcome

    def _understand(self, event: wire.Event) -> wire.Rendered | wire.Finished | Failure | None:
        if isinstance(event, wire.Ready | wire.StartFailed | wire.Judged):
            return self._broken(f"spoke out of turn ({type(event).__name__})")
        if (event.task_id, event.attempt) != (self.claim.task.id, self.claim.attempt):
            return self._broken(f"spoke of another attempt ({event.task_id}, {event.attempt})")
        if isinstance(event, wire.Rendered | wire.Finished | wire.Failed):
            self._calls = event.calls
        match event:
            case wire.Rendered() | wire.Finished():
                ending = self._ending
                return event if ending is None or ending.code is FailureCode.INTERRUPTED else ending
            case wire.Failed():
                if event.code not in FailureCode.__members__:
                    return self._broken(f"named a failure that does not exist ({event.code})")
                failure = Failure(FailureCode(event.code), event.message, event.hint, event.detail)
                if failure.code is FailureCode.CANCELLED:
                    return self._ending or failure
                if failure.policy.kills_process and self.slot.plan.group == DEVICES:
                    self._poisoned = failure.code
                return self._ending or failure
            case wire.Started():
                hit("started")
                return None

    def _hung_up(self) -> Failure:
        """The child's end of the pipe is closed: it dies just now, or it can never be heard again."""
        wait([self._process.sentinel], _HANG_UP_S)
        return self._broken("closed its pipe") if self._process.is_alive() else self._died()

    def _broken(self, how: str) -> Failure:
        """A process whose word cannot be trusted is ended before anything else touches its directory."""
        self._poisoned = how
        self._postmortem = {**self._last_look(), "how": how, "gone": self._process.kill()}
        return self._ending or Failure(FailureCode.WORKER_CRASHED, f"The worker process {how}.")

    def _died(self) -> Failure:
        exitcode = self._process.reap()
        self._poisoned = name_exit(exitcode)
        oom_kill = rose(self._oom_kills, self._count_oom_kills())
        failure = classify_exit(exitcode, self._process.last_words(), oom_kill=oom_kill)
        self._postmortem = {**self._last_look(), "how": self._poisoned}
        return self._ending or failure

    def _ask_to_end(self, failure: Failure) -> float:
        """Ask the child to yield; the moment (monotonic) from which it is killed."""
        if failure.code in _HUNG:
            return time.monotonic()
        self._process.send(wire.Cancel(self.claim.task.id, self.claim.attempt))
        return time.monotonic() + self._settings.cancel_grace_s

    def _kill(self) -> Failure:
        """Take the stacks, then stop the process; its place gets a new one."""
        assert self._ending is not None
        self._poisoned = self._ending.code
        self._postmortem = {**self._last_look(), "stacks": self._process.stacks()}
        gone = self._process.stop(0)
        self._postmortem["gone"] = gone
        return self._ending

    def _last_look(self) -> dict[str, Any]:
        reading = self._process.read()
        return {
            "phase": reading.phase.value,
            "done": reading.done,
            "total": reading.total,
            "pid": self._process.pid,
            "peak_memory_bytes": reading.peak_memory,
        }

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
            settled = self._settler.fail(self.claim, outcome, self._postmortem, self._elapsed())
        stages = outcome.stages if isinstance(outcome, wire.Finished) else {}
        frames = outcome.frames if isinstance(outcome, wire.Finished) else 0
        self._observer.attempt_ended(self.claim.tier, settled, stages, frames)
        for call, seconds in self._calls:
            self._observer.upstream_called(self.claim.tier, call, seconds)
        if settled not in _UNWRITTEN:
            self._trace(steps, ended_at)

    def _trace(self, steps: Sequence[tuple[Phase, float]], ended_at: float) -> None:
        """Record the phases as spans; the attempt's own is made of its event."""
        task, n = self.claim.task, self.claim.attempt
        # A process that died before it began shows the steps of the attempt before.
        own = [(phase, at) for phase, at in steps if at >= self._began_at]
        ends = [*(at for _phase, at in own[1:]), ended_at]
        if task.trace is None:
            return
        for index, ((phase, began), ended) in enumerate(zip(own, ends, strict=False)):
            context = self._tracing.below(task.trace, task.id, "attempt", n, index)
            about: dict[str, str | int] = {
                "greenroom.task.id": task.id,
                "greenroom.attempt": n,
                "greenroom.tier": self.claim.tier,
            }
            parent = attempt_span(task.id, n)
            self._tracing.record(Span(context, parent, phase.value, "internal", began, ended, about))

    def _publish(self, finished: wire.Finished) -> str:
        try:
            return self._settler.succeed(self.claim, finished, self._elapsed(), result_key=self._result_key)
        except OSError as error:
            return self._settler.fail(self.claim, classify_exception(error), None, self._elapsed())

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _release(self) -> None:
        self._board.ended(self.claim.tier, self._begun, self._failure)
        self._pool.release(self.slot, task_id=self.claim.task.id, failure=self._failure, poisoned=self._poisoned)

    def _leave(self) -> None:
        self.handed_over.set()
        self._orders.close()
        self._on_done(self)
