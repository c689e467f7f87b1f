"""What a store should do, as a model small enough to be believed: tasks in a dict, no database, no threads.

Every method takes the time of the node that acts, since two nodes may have different clocks and a clock may jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from app.store.records import CancelOutcome
from app.tasks.rank import rank
from app.tasks.status import CLAIMABLE, Status

LEASE_S = 30.0
KEY_TTL_S = 60.0
Answer = Literal["new", "replayed", "conflict"]


@dataclass
class Expected:
    """A task as the model has it."""

    rank: float
    due_at: float | None
    """None: ready."""
    give_up_at: float | None
    deadline_at: float | None
    callback: bool = False
    """Its notices are written and never sent here, so that they keep it for ever."""
    status: Status = Status.QUEUED
    attempt: int = 0
    retries: int = 0
    owner: str = ""
    lease_until: float = 0.0
    flagged: bool = False
    finished_at: float = 0.0
    result_removed: bool = False
    priority: int = 5
    not_before: float | None = None
    after: tuple[str, ...] = ()
    chained: bool = False
    """It waits for those in `after`, until it is released."""
    history: list[Status] = field(default_factory=lambda: [Status.QUEUED])

    @property
    def waits(self) -> bool:
        return self.status in CLAIMABLE

    @property
    def lease(self) -> tuple[str | None, float | None]:
        return (self.owner, self.lease_until) if self.status is Status.RUNNING else (None, None)

    def late(self, now: float) -> bool:
        return self.waits and self.give_up_at is not None and self.give_up_at <= now

    def go(self, status: Status, now: float) -> None:
        self.status = status
        self.history.append(status)
        if status.is_terminal:
            self.finished_at = now
            self.chained = False

    def wait(self, status: Status, now: float, until: float | None = None) -> None:
        self.due_at = until if until is not None and until > now else None
        self.give_up_at = self.deadline_at
        self.go(status, now)


@dataclass
class Key:
    task_id: str
    body: str
    expires_at: float


class Model:
    """All tasks that were accepted and not forgotten, and the keys."""

    def __init__(self) -> None:
        self.tasks: dict[str, Expected] = {}
        self.keys: dict[str, Key] = {}
        self.paused = False

    # -- callers --------------------------------------------------------------------------------------------------
    def create(
        self,
        task_id: str,
        now: float,
        priority: int = 5,
        not_before: float | None = None,
        start_by: float | None = None,
        end_by: float | None = None,
        callback: bool = False,
        after: tuple[str, ...] = (),
    ) -> None:
        later = not_before is not None and not_before > now and not after
        limits = [at for at in (start_by, end_by) if at is not None]
        self.tasks[task_id] = Expected(
            rank(max(now, not_before or now), priority),
            not_before if later else None,
            min(limits, default=None),
            end_by,
            callback,
            priority=priority,
            not_before=not_before,
            after=after,
            chained=bool(after),
        )

    def unfinished(self, after: tuple[str, ...]) -> tuple[str, ...]:
        """Those that have not succeeded."""
        return tuple(task_id for task_id in after if self.tasks[task_id].status is not Status.SUCCEEDED)

    def release(self, now: float) -> set[str]:
        ids = {i for i, task in self.tasks.items() if task.chained and not self.unfinished(task.after)}
        for task in (self.tasks[task_id] for task_id in ids):
            base = max(now, task.not_before or now)
            task.chained = False
            task.rank = rank(base, task.priority)
            task.due_at = base if base > now else None
        return ids

    def break_chains(self, now: float) -> set[str]:
        broken: set[str] = set()
        bad = (Status.FAILED, Status.CANCELLED)
        while more := {
            task_id
            for task_id, task in self.tasks.items()
            if task.chained and any(self.tasks[one].status in bad for one in task.after)
        }:
            for task_id in more:
                self.tasks[task_id].go(Status.FAILED, now)
            broken |= more
        return broken

    def _needed(self) -> set[str]:
        return {task_id for task in self.tasks.values() if task.chained for task_id in task.after}

    def look_up(self, name: str, body: str, now: float) -> Answer:
        """What a create with this key has to answer."""
        known = self.keys.get(name)
        if known is None or self._is_past(known, now):
            return "new"
        return "replayed" if known.body == body else "conflict"

    def remember(self, name: str, body: str, task_id: str, now: float) -> None:
        self.keys[name] = Key(task_id, body, now + KEY_TTL_S)

    def cancel(self, task_id: str, now: float) -> CancelOutcome:
        expected = self.tasks.get(task_id)
        if expected is None:
            return "unknown"
        if expected.status.is_terminal:
            return "already_terminal"
        if expected.status is Status.RUNNING:
            expected.flagged = True
            return "requested"
        expected.go(Status.CANCELLED, now)
        return "cancelled"

    # -- workers --------------------------------------------------------------------------------------------------
    def claim(self, owner: str, now: float) -> str | None:
        if self.paused:
            return None
        for expected in self.tasks.values():
            if expected.due_at is not None and expected.due_at <= now and expected.waits:
                expected.due_at = None
        ready = [
            (expected.rank, task_id)
            for task_id, expected in self.tasks.items()
            if expected.waits and expected.due_at is None and not expected.chained and not expected.late(now)
        ]
        if not ready:
            return None
        task_id = min(ready)[1]
        expected = self.tasks[task_id]
        expected.attempt += 1
        expected.owner, expected.lease_until = owner, now + LEASE_S
        expected.go(Status.RUNNING, now)
        return task_id

    def current(self, task_id: str, attempt: int) -> Expected | None:
        """The task if this attempt may still write, else None."""
        expected = self.tasks.get(task_id)
        if expected is None or expected.status is not Status.RUNNING or expected.attempt != attempt:
            return None
        return expected

    def write(self, expected: Expected, what: str, now: float, until: float | None) -> None:
        if what == "renew":
            expected.lease_until = now + LEASE_S
        elif what in ("succeed", "fail"):
            expected.go(Status.SUCCEEDED if what == "succeed" else Status.FAILED, now)
        elif what == "cancel" or expected.flagged:
            expected.go(Status.CANCELLED, now)
        elif what == "requeue":
            expected.wait(Status.QUEUED, now, until)
        else:
            expected.retries += 1
            expected.wait(Status.RETRY_WAIT, now, until)

    # -- housekeeping: each returns the tasks that it must have touched -------------------------------------------
    def rescue(self, now: float) -> set[str]:
        return self._give_back(lambda task: task.lease_until <= now, now)

    def take_back(self, owner: str, now: float) -> set[str]:
        return self._give_back(lambda task: task.owner == owner, now)

    def expire_waiting(self, now: float) -> set[str]:
        late = {task_id for task_id, task in self.tasks.items() if task.late(now)}
        for task_id in late:
            self.tasks[task_id].go(Status.FAILED, now)
        return late

    def prune_keys(self, now: float) -> int:
        past = [name for name, known in self.keys.items() if self._is_past(known, now)]
        for name in past:
            del self.keys[name]
        return len(past)

    def expire_results(self, before: float) -> set[str]:
        old = {
            task_id
            for task_id, task in self.tasks.items()
            if task.status is Status.SUCCEEDED and not task.result_removed and task.finished_at <= before
        } - self._needed()
        for task_id in old:
            self.tasks[task_id].result_removed = True
        return old

    def purge(self, before: float, now: float) -> set[str]:
        kept = {known.task_id for known in self.keys.values() if known.expires_at > now} | self._needed()
        old = {
            task_id
            for task_id, task in self.tasks.items()
            if task.status.is_terminal and task.finished_at <= before and task_id not in kept and not task.callback
        }
        for task_id in old:
            del self.tasks[task_id]
        self.keys = {name: known for name, known in self.keys.items() if known.task_id not in old}
        return old

    # -- what can be asked ----------------------------------------------------------------------------------------
    def next_due(self) -> float | None:
        times: list[float | None] = []
        for task in self.tasks.values():
            if task.waits:
                times += (task.due_at, task.give_up_at)
            elif task.status is Status.RUNNING:
                times.append(task.lease_until)
        return min((at for at in times if at is not None), default=None)

    def scheduled(self, now: float) -> int:
        return sum(task.due_at is not None and task.due_at > now for task in self._waiting())

    def chained(self) -> int:
        return sum(task.chained for task in self._waiting())

    def waiting(self) -> int:
        return sum(1 for _ in self._waiting())

    def _waiting(self) -> Iterable[Expected]:
        return (task for task in self.tasks.values() if task.waits)

    def _is_past(self, known: Key, now: float) -> bool:
        return known.expires_at <= now and self.tasks[known.task_id].status.is_terminal

    def _give_back(self, lost: Callable[[Expected], bool], now: float) -> set[str]:
        ids = {task_id for task_id, task in self.tasks.items() if task.status is Status.RUNNING and lost(task)}
        for task_id in ids:
            task = self.tasks[task_id]
            if task.flagged:
                task.go(Status.CANCELLED, now)
            else:
                task.wait(Status.QUEUED, now)
        return ids
