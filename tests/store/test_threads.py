"""Real threads, two stores, one database file: what the answers and the rows must say whoever came first (R1.7)."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.store.errors import StaleClaim
from app.store.interface import Store
from app.store.records import Claim, TaskRecord
from app.tasks.status import CLAIMABLE, Status
from tests.store.conftest import StoreFactory
from tests.store.kit import ERROR, Clock, assert_consistent, claim, create, key, must_get, new_task, succeed

WORKERS = 6
LEASE_S = 30.0
MAX_PAUSE_S = 0.002
ENDS = ("succeed", "succeed", "succeed", "fail", "retry", "requeue", "cancel")


@dataclass(frozen=True)
class Answer:
    """One call that was not refused. `began` and `ended` are places in the one order of all calls' ends and begins."""

    began: int
    ended: int
    what: str
    task_id: str
    attempt: int
    earliest_expiry: float = 0.0
    """Of a claim or a renewal: the lease holds at least until then."""
    at: float = 0.0
    """The clock when the call had ended."""


class Crew:
    """Threads that do at random what callers, workers, zombies and sweepers do, and write down every answer."""

    def __init__(self, stores: list[Store], clock: Clock, seed: int, steps: int) -> None:
        self._stores, self._clock, self._steps, self._seed = stores, clock, steps, seed
        self._ticks = itertools.count()
        self.answers: list[Answer] = []
        self.made: list[str] = []
        self.by_key: defaultdict[str, set[str]] = defaultdict(set)
        self.failures: list[BaseException] = []

    def work(self) -> None:
        threads = [threading.Thread(target=self._run, args=(n,)) for n in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        store, held = self._stores[number % len(self._stores)], list[Claim]()
        try:
            for _ in range(self._steps):
                time.sleep(chance.random() * MAX_PAUSE_S)
                self._step(chance, store, f"node-{number}", held)
        except BaseException as error:
            self.failures.append(error)

    def _step(self, chance: random.Random, store: Store, name: str, held: list[Claim]) -> None:
        match chance.choices(["create", "key", "cancel", "time", "claim", "write", "rescue", "back"],
                             [10, 3, 2, 5, 12, 25, 4, 1])[0]:  # fmt: skip
            case "create":
                self.made.append(create(store, priority=chance.randint(0, 9)).id)
            case "key":
                word = str(chance.randint(0, 20))
                created = store.create(new_task(), key(word))
                self.by_key[word].add(created.task.id)
                if not created.replayed:
                    self.made.append(created.task.id)
            case "cancel" if self.made:
                store.cancel(chance.choice(self.made))
            case "time":
                self._clock.advance(chance.choice([0.5, 3.0, 12.0]))
            case "claim":
                before = self._clock.now
                taken = self._told("claim", lambda: claim(store, name, LEASE_S), before + LEASE_S)
                if taken is not None:
                    held.append(taken)
            case "write" if held:
                # Old claims are never thrown away: a worker whose task was given to another tries all the same.
                self._write(chance, store, held[-1 - chance.randint(0, min(4, len(held) - 1))])
            case "rescue":
                self._swept("rescued", store.rescue_expired)
            case "back":
                self._swept("taken_back", lambda: store.take_back(name))

    def _write(self, chance: random.Random, store: Store, claimed: Claim) -> None:
        if chance.random() < 0.4:
            expiry = self._clock.now + LEASE_S
            self._told("renew", lambda: store.renew(claimed, lease_s=LEASE_S), expiry, claimed)
            return
        end = chance.choice(ENDS)
        if end == "succeed":
            self._told("succeed", lambda: succeed(store, claimed), 0.0, claimed)
            return
        again = self._clock.now + chance.choice([0, 2.0])
        self._told(end, lambda: store.end_attempt(claimed, end, error=ERROR, retry_at=again), 0.0, claimed)  # type: ignore[arg-type]

    def _told(self, what: str, call: Callable[[], Any], expiry: float, claimed: Claim | None = None) -> Any:
        began = next(self._ticks)
        try:
            got = call()
        except StaleClaim:
            return None
        ended = next(self._ticks)
        of = claimed or got
        if of is not None:
            self.answers.append(Answer(began, ended, what, of.task.id, of.attempt, expiry, self._clock.now))
        return got

    def _swept(self, what: str, sweep: Callable[[], list[TaskRecord]]) -> None:
        began = next(self._ticks)
        found = sweep()
        ended, at = next(self._ticks), self._clock.now
        self.answers += [Answer(began, ended, what, task.id, task.attempt, at=at) for task in found]


class SharedClock(Clock):
    """A clock that several threads move."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> float:
        with self._lock:
            return super().advance(seconds)


def drain(store: Store, clock: Clock) -> None:
    """Do all that is left, as a service that comes back would."""
    clock.advance(LEASE_S + 1)
    store.rescue_expired()
    clock.advance(100)
    while (held := claim(store, "last")) is not None:
        succeed(store, held)


def test_threads_on_one_database_agree_on_what_happened(store_factory: StoreFactory, long: bool) -> None:
    for seed in range(40 if long else 2 if store_factory.histories > 10 else 1):
        database, clock = store_factory.fresh(), SharedClock()
        stores = [database(clock), database(clock)]
        crew = Crew(list(stores), clock, seed, steps=150)
        crew.work()
        assert crew.failures == []
        assert_no_two_held_a_task_at_once(crew.answers)
        assert_no_lease_was_cut_short(crew.answers)
        assert all(len(ids) == 1 for ids in crew.by_key.values())
        assert len(crew.made) == len(set(crew.made))
        assert_consistent(stores[0])
        drain(stores[1], clock)
        for task_id in crew.made:
            assert must_get(stores[0], task_id).status.is_terminal
        queue = stores[0].queue()
        assert sum(queue.by_status.values()) == len(crew.made)
        assert not any(queue.by_status[status] for status in (*CLAIMABLE, Status.RUNNING))
        assert_consistent(stores[0])
        database.close()


def assert_no_two_held_a_task_at_once(answers: list[Answer]) -> None:
    by_task: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_task[answer.task_id].append(answer)
    for calls in by_task.values():
        claims = {call.attempt: call for call in calls if call.what == "claim"}
        assert len(claims) == sum(call.what == "claim" for call in calls), "an attempt number was given twice"
        assert sorted(claims) == list(range(1, len(claims) + 1))
        ends = [call for call in calls if call.what not in ("claim", "renew")]
        assert len({call.attempt for call in ends}) == len(ends), "an attempt ended twice"
        for call in calls:
            next_claim = claims.get(call.attempt + 1)
            assert next_claim is None or call.began < next_claim.ended, f"{call} after {next_claim}"
        assert sum(call.what in ("succeed", "fail") for call in calls) <= 1


def assert_no_lease_was_cut_short(answers: list[Answer]) -> None:
    leases: defaultdict[tuple[str, int], list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.what in ("claim", "renew"):
            leases[answer.task_id, answer.attempt].append(answer)
    for rescue in (answer for answer in answers if answer.what == "rescued"):
        held = [lease for lease in leases[rescue.task_id, rescue.attempt] if lease.ended < rescue.began]
        assert all(lease.earliest_expiry <= rescue.at for lease in held), f"{rescue} although {held}"
