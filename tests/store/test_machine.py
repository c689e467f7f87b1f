"""Random histories against a model: nothing is lost, nothing runs twice, final is final, stale writes do nothing.

Two nodes share one database. Their clocks disagree and jump, they die and come back, and their workers turn up again
long after somebody else has taken over (R1.7).
"""

from __future__ import annotations

import random
from dataclasses import replace

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

from app.store.errors import IdempotencyConflict, NoSuchPredecessor, PredecessorFailed, StaleClaim
from app.store.records import Callback, Claim, Release, TaskFilter, TaskRecord
from app.tasks.notices import NOTICES
from app.tasks.replay import CANCEL_REQUESTED, RELEASED
from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import ERROR, Clock, assert_consistent, claim, key, new_task, run, succeed
from tests.store.model import KEY_TTL_S, LEASE_S, Model

NODES = st.sampled_from((0, 1))
WRITES = ("renew", "succeed", "retry", "retry", "requeue", "fail", "cancel")
SWEEPS = ("rescue", "expire", "take_back", "keys", "results", "purge", "release", "release", "break")
DELAYS = (0, 0.25, 5, 40)
AGES = (0, 5, 40, 120)
STEPS = (0.25, 0.25, 1.0, 5.0, 31.0)
JUMPS = (-400.0, -20.0, -1.0, 2.0, 90.0)
CALLBACK = Callback("https://example.com/hook", NOTICES)
Order = tuple[int, int | None, int | None, int | None]
ORDERS: st.SearchStrategy[Order] = st.tuples(
    st.integers(0, 9),
    st.none() | st.none() | st.integers(0, 60),
    st.none() | st.none() | st.integers(1, 90),
    st.none() | st.none() | st.integers(1, 120),
)
"""Priority, and in how many seconds: not before, start deadline, deadline."""


class Node:
    """One service on the shared database, with a clock of its own."""

    def __init__(self, name: str, database: StoreFactory) -> None:
        self.name = name
        self.clock = Clock()
        self._database = database
        self.store = database(self.clock)

    def restart(self, *, orderly: bool) -> None:
        """Come back with a new store. A crashed one leaves the old one as it was."""
        if orderly:
            self.store.close()
        self.store = self._database(self.clock)


class StoreMachine(RuleBasedStateMachine):
    factory: StoreFactory

    def __init__(self) -> None:
        super().__init__()
        self.database = self.factory.fresh()
        self.nodes = [Node(name, self.database) for name in ("node-1", "node-2")]
        self.model = Model()
        self.held: list[Claim] = []
        """All claims ever given, good or stale."""
        self.final: dict[str, TaskRecord] = {}
        """How each ended task read when it was first seen to have ended."""
        self.turn = 0
        self.purged = False

    def teardown(self) -> None:
        store = self.nodes[0].store
        assert_consistent(store, purged=self.purged)
        for task_id, expected in self.model.tasks.items():
            aside = (CANCEL_REQUESTED, RELEASED)
            statuses = [event.status for event in store.events(task_id) if event.type not in aside]
            assert statuses == expected.history
            told = [notice.event_id for notice in run(store.outbox.adeliveries(task_id))]
            changes = [event.id for event in store.events(task_id) if event.type in NOTICES]
            assert told == (changes if expected.callback else []), "a state without its notice, or a notice without"
        self.database.close()

    # -- callers --------------------------------------------------------------------------------------------------
    @initialize(orders=st.lists(ORDERS, min_size=3, max_size=6))
    def create_some(self, orders: list[Order]) -> None:
        for order in orders:
            self.create(0, order)

    @rule(node=NODES, order=ORDERS)
    def create(self, node: int, order: Order) -> None:
        priority, delay, start_in, end_in = order
        callback = priority % 3 == 0
        store, now = self.nodes[node].store, self.nodes[node].clock.now
        not_before, start_by, end_by = (None if wait is None else now + wait for wait in (delay, start_in, end_in))
        task = store.create(
            new_task(
                priority=priority,
                not_before=not_before,
                start_deadline_at=start_by,
                deadline_at=end_by,
                callback=CALLBACK if callback else None,
            )
        ).task
        self.model.create(task.id, now, priority, not_before, start_by, end_by, callback)

    @rule(node=NODES, order=ORDERS, which=st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True))
    def follow(self, node: int, order: Order, which: list[int]) -> None:
        """A task that waits for others: whatever these are by now, known or not."""
        priority, delay, start_in, end_in = order
        store, now = self.nodes[node].store, self.nodes[node].clock.now
        ids = [*self.model.tasks, "task_unknown"]
        after = tuple(dict.fromkeys(ids[-1 - number % len(ids)] for number in which))
        not_before, start_by, end_by = (None if wait is None else now + wait for wait in (delay, start_in, end_in))
        wanted = new_task(
            priority=priority,
            not_before=not_before,
            start_deadline_at=start_by,
            deadline_at=end_by,
            after=after,
            waits_for=after,
        )
        ended = [self.model.tasks[one].status for one in after if one in self.model.tasks]
        if "task_unknown" in after or Status.FAILED in ended or Status.CANCELLED in ended:
            with pytest.raises((NoSuchPredecessor, PredecessorFailed)):
                store.create(wanted)
            return
        task = store.create(wanted).task
        self.model.create(task.id, now, priority, not_before, start_by, end_by, after=after)

    def hopeful(self, which: list[int]) -> list[int]:
        """Places of tasks, as `follow` counts them, that run or have succeeded, or else wait."""
        worth = {Status.SUCCEEDED: 0, Status.RUNNING: 0, Status.QUEUED: 1, Status.RETRY_WAIT: 1}
        places = [*range(1, len(self.model.tasks) + 1)]
        statuses = [task.status for task in self.model.tasks.values()][::-1]
        good = sorted((worth[status], place) for place, status in zip(places, statuses, strict=True) if status in worth)
        return [good[number % len(good)][1] for number in which] if good else [1]

    @rule(node=NODES, name=st.sampled_from("ab"), body=st.sampled_from("xy"))
    def create_with_key(self, node: int, name: str, body: str) -> None:
        store, now = self.nodes[node].store, self.nodes[node].clock.now
        answer = self.model.look_up(name, body, now)
        if answer == "conflict":
            with pytest.raises(IdempotencyConflict) as conflict:
                store.create(new_task(), key(name, body=body, ttl_s=KEY_TTL_S))
            assert conflict.value.task_id == self.model.keys[name].task_id
            return
        created = store.create(new_task(), key(name, body=body, ttl_s=KEY_TTL_S))
        assert created.replayed == (answer == "replayed")
        if created.replayed:
            assert created.task.id == self.model.keys[name].task_id
        else:
            self.model.create(created.task.id, now)
            self.model.remember(name, body, created.task.id, now)

    @rule(node=NODES, which=st.integers(0, 7))
    def cancel(self, node: int, which: int) -> None:
        ids = [*self.model.tasks, "task_unknown"]
        task_id = ids[-1 - which % len(ids)]
        assert self.nodes[node].store.cancel(task_id) == self.model.cancel(task_id, self.nodes[node].clock.now)

    @rule(node=NODES, paused=st.sampled_from([False, False, False, True]))
    def pause(self, node: int, paused: bool) -> None:
        self.nodes[node].store.set_paused(paused)
        self.model.paused = paused

    # -- time and death -------------------------------------------------------------------------------------------
    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        for node in self.nodes:
            node.clock.advance(seconds)

    @rule(node=NODES, seconds=st.sampled_from(JUMPS))
    def a_clock_jumps(self, node: int, seconds: float) -> None:
        self.nodes[node].clock.advance(seconds)

    @rule(node=NODES, orderly=st.booleans(), takes_back=st.booleans())
    def restart(self, node: int, orderly: bool, takes_back: bool) -> None:
        self.nodes[node].restart(orderly=orderly)
        if takes_back:
            self.sweep(node, "take_back", 0)

    # -- workers --------------------------------------------------------------------------------------------------
    @rule(node=NODES, times=st.integers(1, 3))
    def claim(self, node: int, times: int) -> None:
        for _ in range(times):
            self.claim_one(node)

    def claim_one(self, node: int) -> None:
        name, now = self.nodes[node].name, self.nodes[node].clock.now
        wanted = self.model.claim(name, now)
        held = claim(self.nodes[node].store, name, LEASE_S)
        assert (None if held is None else held.task.id) == wanted
        if held is not None:
            assert held.attempt == self.model.tasks[held.task.id].attempt
            self.held.append(held)

    @precondition(lambda self: self.held)
    @rule(
        node=NODES,
        which=st.sampled_from([0, 0, 1, 1, 2, 3, 5]),
        what=st.sampled_from(WRITES),
        delay=st.sampled_from(DELAYS),
    )
    def write(self, node: int, which: int, what: str, delay: float) -> None:
        """A worker writes, through either node: its lease may be good, run out, or long be another's."""
        self.write_as(node, self.held[-1 - which % len(self.held)], what, delay)

    @precondition(lambda self: self.zombies())
    @rule(node=NODES, which=st.integers(0, 3), what=st.sampled_from(WRITES))
    def write_late(self, node: int, which: int, what: str) -> None:
        """A worker comes back whose task runs in another's hands."""
        zombies = self.zombies()
        self.write_as(node, zombies[-1 - which % len(zombies)], what, 0)

    def zombies(self) -> list[Claim]:
        running = {task_id: task.attempt for task_id, task in self.model.tasks.items() if task.lease != (None, None)}
        return [held for held in self.held if held.attempt < running.get(held.task.id, 0)]

    def write_as(self, node: int, held: Claim, what: str, delay: float) -> None:
        now, until = self.nodes[node].clock.now, self.nodes[node].clock.now + delay
        expected = self.model.current(held.task.id, held.attempt)
        if expected is None:
            before = self.seen(node, held.task.id)
            with pytest.raises(StaleClaim):
                self.do(node, held, what, until)
            assert self.seen(node, held.task.id) == before
            return
        task = self.do(node, held, what, until)
        assert (task.cancel_requested_at is not None) == expected.flagged
        self.model.write(expected, what, now, until)

    def do(self, node: int, held: Claim, what: str, until: float) -> TaskRecord:
        store = self.nodes[node].store
        if what == "renew":
            return store.renew(held, lease_s=LEASE_S)
        if what == "succeed":
            return succeed(store, held)
        retry_at = until if what in ("retry", "requeue") else None
        return store.end_attempt(held, what, error=ERROR, retry_at=retry_at)  # type: ignore[arg-type]

    def seen(self, node: int, task_id: str) -> object:
        """All that a write could change."""
        store = self.nodes[node].store
        return store.get(task_id), store.events(task_id), store.queue()

    # -- housekeeping ---------------------------------------------------------------------------------------------
    @rule(node=NODES, kind=st.sampled_from(SWEEPS), age=st.sampled_from(AGES))
    def sweep(self, node: int, kind: str, age: float) -> None:
        store, now, name = self.nodes[node].store, self.nodes[node].clock.now, self.nodes[node].name
        match kind:
            case "rescue":
                touched, wanted = store.rescue_expired(), self.model.rescue(now)
            case "expire":
                touched, wanted = store.expire_waiting(), self.model.expire_waiting(now)
            case "take_back":
                touched, wanted = store.take_back(name), self.model.take_back(name, now)
            case "results":
                touched, wanted = store.expire_results(now - age), self.model.expire_results(now - age)
            case "release":
                ready = run(store.areleasable(1000))
                released = [run(store.arelease(task.id, Release(task.source, task.audio, ()))) for task in ready]
                touched, wanted = [task for task in released if task is not None], self.model.release(now)
            case "break":
                touched, wanted = run(store.abreak_chains()), self.model.break_chains(now)
            case "purge":
                touched, wanted = store.purge_tasks(now - age), self.model.purge(now - age, now)
                self.purged = self.purged or bool(wanted)
            case _:
                assert store.prune_keys() == self.model.prune_keys(now)
                return
        assert {task.id for task in touched} == wanted
        assert len(touched) == len(wanted)

    # -- what always holds ----------------------------------------------------------------------------------------
    @invariant()
    def both_nodes_see_what_the_model_has(self) -> None:
        self.turn = 1 - self.turn
        node = self.nodes[self.turn]
        tasks = run(node.store.alist(TaskFilter(), limit=1000)).tasks
        assert {task.id for task in tasks} == set(self.model.tasks), "no task is lost, none is there twice"
        for task in tasks:
            expected = self.model.tasks[task.id]
            assert (task.status, task.attempt, task.retries) == (expected.status, expected.attempt, expected.retries)
            assert (task.lease_owner, task.lease_expires_at) == expected.lease
            assert (task.result_removed_at is not None) == expected.result_removed
            waits_for = self.model.unfinished(expected.after) if expected.chained else None
            assert task.waits_for == waits_for
            if task.status.is_terminal:
                ended = replace(task, result_removed_at=None)
                assert self.final.setdefault(task.id, ended) == ended
        stats = node.store.queue()
        assert stats.scheduled == self.model.scheduled(node.clock.now)
        assert stats.chained == self.model.chained()
        assert stats.runnable == self.model.waiting() - stats.scheduled - stats.chained
        assert node.store.next_due() == self.model.next_due()


def test_random_histories_agree_with_the_model(store_factory: StoreFactory, long: bool) -> None:  # R1.7
    StoreMachine.factory = store_factory
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=600 if long else store_factory.histories,
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


@pytest.mark.long_on_postgresql
@pytest.mark.parametrize("chained", [False, True], ids=["troubled", "chained"])
@pytest.mark.parametrize("seed", range(3))
def test_a_long_busy_history_agrees_with_the_model(
    store_factory: StoreFactory, seed: int, chained: bool, long: bool
) -> None:
    """Hypothesis finds odd histories but likes them sparse; this one is dense: hundreds of attempts."""
    chance = random.Random(seed)
    StoreMachine.factory = store_factory
    machine = StoreMachine()
    weights = {"create": 14, "key": 3, "cancel": 3, "pause": 2, "time": 14, "jump": 1, "restart": 1, "claim": 24}
    weights |= {"write": 40, "sweep": 10, "follow": 5}
    writes, late, steps = WRITES, 0.2, (0.25, 1.0, 5.0, 20.0)
    if chained:  # Most succeed, so that those that wait for them get their turn.
        weights |= {"create": 8, "cancel": 1, "follow": 20, "sweep": 30}
        writes, late, steps = (*["succeed"] * 6, "renew", "retry", "requeue", "fail"), 0.05, (0.25, 1.0, 5.0)
    for _ in range(2000 if long else 300):
        node = chance.choice((0, 1))
        match chance.choices(list(weights), list(weights.values()))[0]:
            case "create":
                delay, start_in, end_in = (chance.randint(1, 90) if chance.random() < late else None for _ in range(3))
                machine.create(node, (chance.randint(0, 9), delay, start_in, end_in))
            case "follow":
                delay, start_in, end_in = (chance.randint(1, 90) if chance.random() < late else None for _ in range(3))
                which = chance.sample(range(12), chance.choice([1, 1, 2, 3]))
                if chance.random() < 0.9:
                    which = machine.hopeful(chance.sample(range(12), len(which)))
                machine.follow(node, (chance.randint(0, 9), delay, start_in, end_in), which)
            case "key":
                machine.create_with_key(node, chance.choice("ab"), chance.choice("xy"))
            case "cancel":
                machine.cancel(node, chance.randint(0, 20))
            case "pause":
                machine.pause(node, chance.random() < 0.3)
            case "time":
                machine.time_passes(chance.choice(steps))
            case "jump":
                machine.a_clock_jumps(node, chance.choice(JUMPS))
            case "restart":
                machine.restart(node, orderly=chance.random() < 0.5, takes_back=chance.random() < 0.5)
            case "claim":
                machine.claim_one(node)
            case "write" if machine.held:
                which = chance.choice([0, 0, 0, 1, 1, 2, 3, 8])
                machine.write(node, which, chance.choice(writes), chance.choice(DELAYS))
            case "sweep":
                machine.sweep(node, chance.choice(SWEEPS), chance.choice(AGES))
        machine.both_nodes_see_what_the_model_has()
    machine.teardown()
