"""An attempt's conversation with the process that renders for it: heard to its end, or brought to one.

Whatever the process does, an outcome comes of it: its own word, what its death says, or why it was ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import msgspec

from app.failpoints import hit
from app.health.oom import rose
from app.retry.classifier import classify_exit, name_exit
from app.retry.taxonomy import Failure, FailureCode
from app.store.records import Claim
from app.tiers.tiers import DEVICES
from app.worker import wire
from app.worker.orders import Orders
from app.worker.slot_process import SlotProcess
from app.worker.slots import Slot

_HANG_UP_S = 1.0
"""Between a dying process's last closed pipe and its death lie milliseconds."""
_HUNG = frozenset({FailureCode.WORKER_UNRESPONSIVE, FailureCode.WORKER_STALLED})


class Conversation:
    """With the process that a slot has now. One thread holds it; orders come from any."""

    def __init__(
        self,
        claim: Claim,
        slot: Slot,
        orders: Orders,
        *,
        cancel_grace_s: float,
        count_oom_kills: Callable[[], int | None],
    ) -> None:
        """`cancel_grace_s`: how long a process that was asked to end may take. `count_oom_kills`: how often the kernel
        has killed for want of memory by now; None where it does not tell.
        """
        assert slot.process is not None
        self._claim = claim
        self._slot = slot
        self._process: SlotProcess = slot.process
        self._orders = orders
        self._cancel_grace_s = cancel_grace_s
        self._count_oom_kills = count_oom_kills
        self._oom_kills = count_oom_kills()
        self.poisoned = ""
        """Why the process must be replaced; empty: it need not."""
        self.postmortem: dict[str, Any] | None = None
        """What was found at a process that did not end the attempt by its own word."""
        self.calls: list[tuple[str, float]] = []
        """What other servers were asked for, and the seconds that each took."""

    def begin(self, job: wire.Run, *, at_once: bool = False) -> bool:
        """Give the process its job; whether it has it. If it is gone, its sentinel tells.

        `at_once`: only if that takes no waiting for the process (see `SlotProcess.send`).
        """
        return self._process.send(job, at_once=at_once)

    def hear_out(self) -> wire.Rendered | wire.Finished | Failure:
        """Wait for whatever ends the attempt: its word, its death, or an order to end."""
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

    def abandon(self) -> None:
        """Nobody will hear it out: end the process, if it is not ended already."""
        self.poisoned = self.poisoned or "the attempt broke off"
        self._process.kill()

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
        if (event.task_id, event.attempt) != (self._claim.task.id, self._claim.attempt):
            return self._broken(f"spoke of another attempt ({event.task_id}, {event.attempt})")
        if isinstance(event, wire.Rendered | wire.Finished | wire.Failed):
            self.calls = event.calls
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
                if failure.policy.kills_process and self._slot.plan.group == DEVICES:
                    self.poisoned = failure.code
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
        self.poisoned = how
        self.postmortem = {**self._last_look(), "how": how, "gone": self._process.kill()}
        return self._ending or Failure(FailureCode.WORKER_CRASHED, f"The worker process {how}.")

    def _died(self) -> Failure:
        exitcode = self._process.reap()
        self.poisoned = name_exit(exitcode)
        oom_kill = rose(self._oom_kills, self._count_oom_kills())
        failure = classify_exit(exitcode, self._process.last_words(), oom_kill=oom_kill)
        self.postmortem = {**self._last_look(), "how": self.poisoned}
        return self._ending or failure

    def _ask_to_end(self, failure: Failure) -> float:
        """Ask the child to yield; the moment (monotonic) from which it is killed."""
        if failure.code in _HUNG:
            return time.monotonic()
        self._process.send(wire.Cancel(self._claim.task.id, self._claim.attempt))
        return time.monotonic() + self._cancel_grace_s

    def _kill(self) -> Failure:
        """Take the stacks, then stop the process; its place gets a new one."""
        assert self._ending is not None
        self.poisoned = self._ending.code
        self.postmortem = {**self._last_look(), "stacks": self._process.stacks()}
        gone = self._process.stop(0)
        self.postmortem["gone"] = gone
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
