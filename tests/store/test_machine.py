"""Random histories against a simple model: nothing is lost, nothing runs twice, final is final (R1.7)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.store.interface import IdempotencyConflict, StaleClaim
from app.store.records import Claim, TaskFilter, TaskRecord
from app.tasks.rank import rank
from app.tasks.status import CLAIMABLE, Status
from tests.store.conftest import StoreFactory
from tests.store.kit import ERROR, Clock, assert_consistent, claim, key, new_task, run, succeed

OWNERS = ("node-1", "node-2")
WRITES = ("renew", "succeed", "retry", "retry", "requeue", "fail", "cancel")
DELAYS = (0, 0.25, 5, 40)
Order = tuple[int, int | None, int | None, int | None]
ORDERS: st.SearchStrategy[Order] = st.tuples(
    st.integers(0, 9),
    st.none() | st.none() | st.integers(0, 60),
    st.none() | st.none() | st.integers(1, 90),
    st.none() | st.none() | st.integers(1, 120),
)
"""Priority, and in how many seconds: not before, start deadline, deadline."""


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

    def __init__(self) -> None:
        super().__init__()
        self.database = self.factory.fresh()
        self.clock = Clock()
        self.store = self.database(self.clock)
        self.model: dict[str, Expected] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.paused = False
        self.held: list[Claim] = []
        """All claims ever given, good or stale."""

    def teardown(self) -> None:
        assert_consistent(self.store)
        for task_id, expected in self.model.items():
            statuses = [event.status for event in self.store.events(task_id) if event.type != "task.cancel_requested"]
            assert statuses == expected.history
        self.database.close()

    # -- callers --------------------------------------------------------------------------------------------------
    @initialize(orders=st.lists(ORDERS, min_size=3, max_size=6))
    def create_some(self, orders: list[Order]) -> None:
        for order in orders:
            self.create(order)

    @rule(order=ORDERS)
    def create_one(self, order: Order) -> None:
        self.create(order)

    def create(self, order: Order) -> None:
        priority, delay, start_in, end_in = order
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

    @rule(which=st.integers(0, 7))
    def cancel(self, which: int) -> None:
        task_id = list(self.model)[-1 - which % len(self.model)]
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

    @rule(paused=st.sampled_from([False, False, False, True]))
    def pause(self, paused: bool) -> None:
        self.store.set_paused(paused)
        self.paused = paused

    @rule(seconds=st.sampled_from([0.25, 0.25, 1.0, 5.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- workers --------------------------------------------------------------------------------------------------
    @rule(owner=st.sampled_from(OWNERS), times=st.integers(1, 3))
    def claim(self, owner: str, times: int) -> None:
        for _ in range(times):
            self.claim_one(owner)

    def claim_one(self, owner: str) -> None:
        now = self.clock.now
        ready = [
            (expected.rank, task_id)
            for task_id, expected in self.model.items()
            if expected.status in CLAIMABLE and expected.due_at <= now and not expected.late(now)
        ]
        held = claim(self.store, owner)
        if self.paused or not ready:
            assert held is None
            return
        assert held is not None
        assert held.task.id == min(ready)[1]
        expected = self.model[held.task.id]
        expected.attempt += 1
        expected.owner, expected.lease_until = owner, now + 30
        expected.go(Status.RUNNING)
        assert held.attempt == expected.attempt
        self.held.append(held)

    def current(self, held: Claim) -> Expected | None:
        """The model of a claim's task if the claim is still good."""
        expected = self.model[held.task.id]
        good = expected.status is Status.RUNNING and expected.attempt == held.attempt
        return expected if good else None

    @precondition(lambda self: self.held)
    @rule(
        which=st.sampled_from([0, 0, 1, 1, 2, 3, 5]),
        what=st.sampled_from(WRITES),
        delay=st.sampled_from(DELAYS),
    )
    def write(self, which: int, what: str, delay: float) -> None:
        held = self.held[-1 - which % len(self.held)]
        expected = self.model[held.task.id]
        if expected.status is not Status.RUNNING or expected.attempt != held.attempt:
            with pytest.raises(StaleClaim):
                self.do(held, what, delay)
            return
        task = self.do(held, what, delay)
        if what == "renew":
            assert (task.cancel_requested_at is not None) == expected.flagged
            expected.lease_until = self.clock.now + 30
        elif what in ("succeed", "fail"):
            expected.go(Status.SUCCEEDED if what == "succeed" else Status.FAILED)
        elif what == "cancel" or expected.flagged:
            expected.go(Status.CANCELLED)
        elif what == "requeue":
            expected.due_at = self.clock.now
            expected.go(Status.QUEUED)
        else:
            expected.due_at = self.clock.now + delay
            expected.retries += 1
            expected.go(Status.RETRY_WAIT)

    def do(self, held: Claim, what: str, delay: float) -> TaskRecord:
        if what == "renew":
            return self.store.renew(held, lease_s=30)
        if what == "succeed":
            return succeed(self.store, held)
        retry_at = self.clock.now + delay if what == "retry" else None
        return self.store.end_attempt(held, what, error=ERROR, retry_at=retry_at)  # type: ignore[arg-type]

    def give_back(self, ids: set[str]) -> None:
        for task_id in ids:
            expected = self.model[task_id]
            expected.due_at = self.clock.now
            expected.go(Status.CANCELLED if expected.flagged else Status.QUEUED)

    def running(self) -> dict[str, Expected]:
        return {task_id: expected for task_id, expected in self.model.items() if expected.status is Status.RUNNING}

    # -- housekeeping ---------------------------------------------------------------------------------------------
    @rule(kind=st.sampled_from(["rescue", "expire", *OWNERS]))
    def sweep(self, kind: str) -> None:
        now = self.clock.now
        if kind == "expire":
            late = {task_id for task_id, task in self.model.items() if task.late(now)}
            assert {task.id for task in self.store.expire_waiting()} == late
            for task_id in late:
                self.model[task_id].go(Status.FAILED)
        elif kind == "rescue":
            expired = {task_id for task_id, task in self.running().items() if task.lease_until <= now}
            assert {task.id for task in self.store.rescue_expired()} == expired
            self.give_back(expired)
        else:
            own = {task_id for task_id, task in self.running().items() if task.owner == kind}
            assert {task.id for task in self.store.take_back(kind)} == own
            self.give_back(own)

    @invariant()
    def every_task_is_as_the_model_has_it(self) -> None:
        tasks = run(self.store.alist(TaskFilter(), limit=1000)).tasks
        assert {task.id for task in tasks} == set(self.model)
        for task in tasks:
            expected = self.model[task.id]
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
            max_examples=30,
            stateful_step_count=50,
            deadline=None,
            phases=(
                Phase.explicit,
                Phase.reuse,
                Phase.generate,
            ),  # to shorten one takes minutes: thousands of databases
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_long_busy_history_agrees_with_the_model(store_factory: StoreFactory, seed: int) -> None:
    """Hypothesis finds odd histories but likes them sparse; this one is dense: hundreds of attempts."""
    chance = random.Random(seed)
    StoreMachine.factory = store_factory
    machine = StoreMachine()
    for _ in range(400):
        match chance.choices(["create", "key", "cancel", "pause", "time", "claim", "write", "sweep"],
                             [14, 2, 3, 2, 14, 24, 40, 5])[0]:  # fmt: skip
            case "create":
                delay, start_in, end_in = (chance.randint(1, 90) if chance.random() < 0.2 else None for _ in range(3))
                machine.create((chance.randint(0, 9), delay, start_in, end_in))
            case "key":
                machine.create_with_key(chance.choice("ab"), chance.choice("xy"))
            case "cancel" if machine.model:
                machine.cancel(chance.randint(0, 20))
            case "pause":
                machine.pause(chance.random() < 0.3)
            case "time":
                machine.time_passes(chance.choice([0.25, 1.0, 5.0, 20.0]))
            case "claim":
                machine.claim(chance.choice(OWNERS), 1)
            case "write" if machine.held:
                machine.write(chance.choice([0, 0, 0, 1, 1, 2, 3, 8]), chance.choice(WRITES), chance.choice(DELAYS))
            case "sweep":
                machine.sweep(chance.choice(["rescue", "expire", *OWNERS]))
        machine.every_task_is_as_the_model_has_it()
    machine.teardown()
