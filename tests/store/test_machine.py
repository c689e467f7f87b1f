"""Random histories against a simple model: nothing is lost, nothing runs twice, final is final (R1.7)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from app.store.interface import IdempotencyConflict, StaleClaim
from app.store.records import Claim
from app.tasks.rank import rank
from app.tasks.status import CLAIMABLE, Status
from tests.store.conftest import StoreFactory
from tests.store.kit import ERROR, Clock, assert_consistent, claim, key, must_get, new_task, succeed

OWNERS = ("node-1", "node-2")


@dataclass
class Expected:
    """A task as the model has it."""

    rank: float
    due_at: float
    start_by: float | None
    end_by: float | None
    status: Status = Status.QUEUED
    attempt: int = 0
    retries: int = 0
    owner: str = ""
    lease_until: float = 0.0
    flagged: bool = False
    history: list[Status] = field(default_factory=lambda: [Status.QUEUED])

    def go(self, status: Status) -> None:
        self.status = status
        self.history.append(status)

    def late(self, now: float) -> bool:
        limits = [self.end_by, self.start_by if self.attempt == 0 else None]
        return self.status in CLAIMABLE and any(at is not None and at <= now for at in limits)


class StoreMachine(RuleBasedStateMachine):
    factory: StoreFactory
    claims = Bundle("claims")
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.database = self.factory.fresh()
        self.clock = Clock()
        self.store = self.database(self.clock)
        self.model: dict[str, Expected] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.paused = False

    def teardown(self) -> None:
        assert_consistent(self.store)
        for task_id, expected in self.model.items():
            statuses = [event.status for event in self.store.events(task_id) if event.type != "task.cancel_requested"]
            assert statuses == expected.history
        self.database.close()

    # -- callers --------------------------------------------------------------------------------------------------
    @rule(
        target=ids,
        priority=st.integers(0, 9),
        delay=st.none() | st.integers(0, 60),
        start_in=st.none() | st.integers(1, 90),
        end_in=st.none() | st.integers(1, 120),
    )
    def create(self, priority: int, delay: int | None, start_in: int | None, end_in: int | None) -> str:
        now = self.clock.now
        due_at = now if delay is None else now + delay
        start_by, end_by = (None if wait is None else now + wait for wait in (start_in, end_in))
        task = self.store.create(
            new_task(
                priority=priority,
                not_before=None if delay is None else due_at,
                start_deadline_at=start_by,
                deadline_at=end_by,
            )
        ).task
        self.model[task.id] = Expected(rank(due_at, priority), due_at, start_by, end_by)
        return task.id

    @rule(name=st.sampled_from("ab"), body=st.sampled_from("xy"))
    def create_with_key(self, name: str, body: str) -> None:
        now = self.clock.now
        known = self.keys.get(name)
        if known is not None and known[1] != body:
            with pytest.raises(IdempotencyConflict) as conflict:
                self.store.create(new_task(), key(name, body=body))
            assert conflict.value.task_id == known[0]
            return
        created = self.store.create(new_task(), key(name, body=body))
        if known is None:
            assert not created.replayed
            self.keys[name] = (created.task.id, body)
            self.model[created.task.id] = Expected(rank(now, 5), now, None, None)
        else:
            assert created.replayed
            assert known == (created.task.id, body)

    @rule(task_id=ids)
    def cancel(self, task_id: str) -> None:
        expected = self.model[task_id]
        answer = self.store.cancel(task_id)
        if expected.status.is_terminal:
            assert answer == "already_terminal"
        elif expected.status is Status.RUNNING:
            assert answer == "requested"
            expected.flagged = True
        else:
            assert answer == "cancelled"
            expected.go(Status.CANCELLED)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.store.set_paused(paused)
        self.paused = paused

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- workers --------------------------------------------------------------------------------------------------
    @rule(target=claims, owner=st.sampled_from(OWNERS))
    def claim(self, owner: str) -> object:
        now = self.clock.now
        ready = [
            (expected.rank, task_id)
            for task_id, expected in self.model.items()
            if expected.status in CLAIMABLE and expected.due_at <= now and not expected.late(now)
        ]
        held = claim(self.store, owner)
        if self.paused or not ready:
            assert held is None
            return multiple()
        assert held is not None
        assert held.task.id == min(ready)[1]
        expected = self.model[held.task.id]
        expected.attempt += 1
        expected.owner, expected.lease_until = owner, now + 30
        expected.go(Status.RUNNING)
        assert held.attempt == expected.attempt
        return held

    def current(self, held: Claim) -> Expected | None:
        """The model of a claim's task if the claim is still good."""
        expected = self.model[held.task.id]
        good = expected.status is Status.RUNNING and expected.attempt == held.attempt
        return expected if good else None

    @rule(held=claims)
    def renew(self, held: Claim) -> None:
        expected = self.current(held)
        if expected is None:
            with pytest.raises(StaleClaim):
                self.store.renew(held, lease_s=30)
            return
        task = self.store.renew(held, lease_s=30)
        expected.lease_until = self.clock.now + 30
        assert (task.cancel_requested_at is not None) == expected.flagged

    @rule(held=claims)
    def succeed(self, held: Claim) -> None:
        expected = self.current(held)
        if expected is None:
            with pytest.raises(StaleClaim):
                succeed(self.store, held)
            return
        succeed(self.store, held)
        expected.go(Status.SUCCEEDED)

    @rule(held=claims, end=st.sampled_from(["retry", "fail", "requeue", "cancel"]), delay=st.integers(0, 40))
    def end(self, held: Claim, end: str, delay: int) -> None:
        expected = self.current(held)
        retry_at = self.clock.now + delay if end == "retry" else None
        if expected is None:
            with pytest.raises(StaleClaim):
                self.store.end_attempt(held, end, error=ERROR, retry_at=retry_at)  # type: ignore[arg-type]
            return
        self.store.end_attempt(held, end, error=ERROR, retry_at=retry_at)  # type: ignore[arg-type]
        if end == "fail":
            expected.go(Status.FAILED)
        elif end == "cancel" or expected.flagged:
            expected.go(Status.CANCELLED)
        elif end == "requeue":
            expected.due_at = self.clock.now
            expected.go(Status.QUEUED)
        else:
            assert retry_at is not None
            expected.due_at = retry_at
            expected.retries += 1
            expected.go(Status.RETRY_WAIT)

    def give_back(self, ids: set[str]) -> None:
        for task_id in ids:
            expected = self.model[task_id]
            expected.due_at = self.clock.now
            expected.go(Status.CANCELLED if expected.flagged else Status.QUEUED)

    def running(self) -> dict[str, Expected]:
        return {task_id: expected for task_id, expected in self.model.items() if expected.status is Status.RUNNING}

    # -- housekeeping ---------------------------------------------------------------------------------------------
    @rule()
    def rescue(self) -> None:
        expired = {task_id for task_id, task in self.running().items() if task.lease_until <= self.clock.now}
        assert {task.id for task in self.store.rescue_expired()} == expired
        self.give_back(expired)

    @rule(owner=st.sampled_from(OWNERS))
    def restart(self, owner: str) -> None:
        own = {task_id for task_id, task in self.running().items() if task.owner == owner}
        assert {task.id for task in self.store.take_back(owner)} == own
        self.give_back(own)

    @rule()
    def expire(self) -> None:
        late = {task_id for task_id, task in self.model.items() if task.late(self.clock.now)}
        assert {task.id for task in self.store.expire_waiting()} == late
        for task_id in late:
            self.model[task_id].go(Status.FAILED)

    @invariant()
    def every_task_is_as_the_model_has_it(self) -> None:
        for task_id, expected in self.model.items():
            task = must_get(self.store, task_id)
            assert (task.status, task.attempt, task.retries) == (expected.status, expected.attempt, expected.retries)
        stats = self.store.queue()
        waiting = [task for task in self.model.values() if task.status in CLAIMABLE]
        assert stats.scheduled == sum(task.due_at > self.clock.now for task in waiting)
        assert stats.runnable == len(waiting) - stats.scheduled


def test_random_histories_agree_with_the_model(store_factory: StoreFactory) -> None:
    StoreMachine.factory = store_factory
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
