"""What this service expects of its tasks: learned from what ended, seen in what runs, played through for what waits.

One read of the store, at most once a second and only while somebody asks, brings what other attempts took (those of
other services on the same database, too), what runs elsewhere, and the head of the queue. All else is memory. At a
start the newest attempts of the store teach it what it knew before.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from app.forecast.outlook import Outlook, Running, foresee
from app.forecast.queueing import Line, Server, Stand, Waiting
from app.forecast.running import Frames, whole
from app.forecast.spread import Spread, remaining
from app.render.contract import Phase
from app.service.experience import Experience, ForecastObserver
from app.store.errors import StoreUnavailable
from app.store.figures import QueuedWork, RunningWork, WorkInputs, Workload
from app.store.interface import Store
from app.store.records import TaskRecord
from app.tasks.rank import PRIORITY_DEFAULT, rank
from app.tasks.status import Status
from app.worker.attempt import Attempt
from app.worker.board import TierBoard
from app.worker.dispatcher import Dispatcher
from app.worker.pool import LocalPool
from app.worker.shared import Reading
from app.worker.slots import SlotState

FRESH_S = 1.0
"""How old what is known of the queue may be."""
REBUILT_FROM, _RENDERED, QUEUED = 1000, 500, 200
"""Attempts that are learned from at the start and at once later, and tasks of the queue that are played through."""
_OVERLAP_S = 10.0
"""Nodes' clocks differ, and a commit comes after the moment that it tells: so much is read twice, and counted once."""


class Foresight:
    """The forecasts of one service. Safe to use from any thread."""

    def __init__(
        self,
        store: Store,
        pool: LocalPool,
        board: TierBoard,
        dispatcher: Dispatcher,
        *,
        owner: str,
        observer: ForecastObserver,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`owner`: this node, whose attempts it sees itself."""
        self._store = store
        self._pool = pool
        self._board = board
        self._dispatcher = dispatcher
        self._owner = owner
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._experience = Experience(observer)
        self._since = 0.0
        self._read_at = float("-inf")
        self._stands: Mapping[str, Stand] = {}
        self._line = Line({}, [], [])
        self._line_at = 0.0
        self._elsewhere: dict[str, RunningWork] = {}

    # -- learning ---------------------------------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Learn from the newest attempts of the store. Call once, at the start. Raises `StoreUnavailable`."""
        work = self._store.workload(since=0.0, rendered=REBUILT_FROM, queued=0)
        for rendered in work.rendered:
            self._experience.learn(rendered, observed=False)
        self._since = work.at

    async def refresh(self) -> None:
        """Know what is at most `FRESH_S` old. While the database is away, what was known holds."""
        if self._claim_turn():
            with contextlib.suppress(StoreUnavailable):
                work = await self._store.aworkload(since=self._since, rendered=_RENDERED, queued=QUEUED)
                # Not in the event loop: two hundred tasks are a few milliseconds.
                await asyncio.to_thread(self._take, work)

    def catch_up(self) -> None:
        """As `refresh`, for threads."""
        if self._claim_turn():
            with contextlib.suppress(StoreUnavailable):
                self._take(self._store.workload(since=self._since, rendered=_RENDERED, queued=QUEUED))

    def _claim_turn(self) -> bool:
        """Whether it is time to read. Others that ask meanwhile go by the last word: one read at a time is enough."""
        now = self._monotonic()
        with self._lock:
            if now - self._read_at < FRESH_S:
                return False
            self._read_at = now
            return True

    def _take(self, work: Workload) -> None:
        for rendered in work.rendered:
            self._experience.learn(rendered, observed=True)
        with self._lock:
            self._since = max(self._since, work.at - _OVERLAP_S)
            self._elsewhere = {run.task_id: run for run in work.running if run.owner != self._owner}
            self._stands = {stand.name: stand for stand in self._board.stands()}
        # The queue is played through without the lock: nobody is kept waiting for that.
        queue = [self._waiting(queued) for queued in work.queued]
        line = Line(self._stands, self._servers(work.at), queue, work.queued_more)
        with self._lock:
            self._line, self._line_at = line, work.at

    # -- what is expected -------------------------------------------------------------------------------------------

    def outlook(
        self, task: TaskRecord, *, reason: str | None, until: float | None = None, position: int | None = None
    ) -> Outlook:
        """Of a task that waits for `reason` until `until` (epoch seconds). `position`: tasks that go before it."""
        now = self._clock()
        with self._lock:
            running = turn = takes = None
            if task.status is Status.RUNNING:
                running = self._running(task.id, now)
            elif reason == "twin" and task.twin_of is not None:
                running = self._running(task.twin_of, now)
                turn = None if running else self._line.turn_of(task.twin_of)
            elif not task.status.is_terminal:
                waiting = self._waiting(_queued(task))
                # The speech of one that waits for others may be theirs to make.
                takes = self._takes(waiting) if task.audio.media else None
                if reason == "slot":
                    turn = self._line.turn(waiting, position)
            until_s = None if until is None else until - now
            if reason == "predecessor":
                until_s = self._last_of(task.waits_for or (), now)
                if until_s is not None and task.not_before is not None:
                    until_s = max(until_s, task.not_before - now)
            outlook = foresee(
                reason,
                until_s=until_s,
                age_s=now - (task.started_at or task.enqueued_at),
                running=running,
                turn=turn,
                turn_age_s=max(now - self._line_at, 0.0),
                takes=takes,
            )
        if outlook.eta_s is not None and task.attempt == 0 and reason == "slot":
            self._experience.told(task.id, now, outlook.eta_s)
        return outlook

    def left_of(self, attempt: Attempt, reading: Reading) -> float | None:
        """Seconds until an attempt of this service ends; None where nobody knows."""
        with self._lock:
            running = self._here(attempt, reading)
        return None if running is None else running.whole.left(running.elapsed)

    def wait_s(self) -> float | None:
        """How long a task of middling priority that came now would wait for its slot; None where nobody knows."""
        now = self._clock()
        route = tuple(tier.name for tier in self._board.tiers.candidates(None, "any"))
        newcomer = Waiting((rank(now, PRIORITY_DEFAULT), ""), route, lambda _tier: None)
        with self._lock:
            turn = self._line.newcomer(newcomer)
            return foresee("slot", turn=turn, turn_age_s=max(now - self._line_at, 0.0)).wait_s

    def room_s(self, client: str | None = None) -> float | None:
        """When the next task (of one client) leaves the queue; None where nobody knows."""
        with self._lock:
            start = self._line.room(client)
            return None if start is None else start.left(max(self._clock() - self._line_at, 0.0))

    # -- how --------------------------------------------------------------------------------------------------------

    def _running(self, task_id: str, now: float) -> Running | None:
        attempt = self._dispatcher.attempt_of(task_id)
        if attempt is not None and (reading := attempt.reading_if_there()) is not None:
            return self._here(attempt, reading)
        run = self._elsewhere.get(task_id)
        expected = None if run is None else self._experience.expect(run.tier, run.inputs)
        return None if run is None or expected is None else Running(expected.took, max(now - run.started_at, 0.0))

    def _last_of(self, task_ids: Sequence[str], now: float) -> float | None:
        """In how many seconds all of these tasks have ended; None where nobody knows."""
        lefts = []
        for task_id in task_ids:
            if (running := self._running(task_id, now)) is not None:
                lefts.append(running.whole.left(running.elapsed))
            elif (turn := self._line.turn_of(task_id)) is not None and turn.end is not None:
                lefts.append(turn.end.left(max(now - self._line_at, 0.0)))
            else:
                return None
        return max(lefts, default=None)

    def _here(self, attempt: Attempt, reading: Reading) -> Running | None:
        elapsed = self._monotonic() - attempt.began
        expected = self._experience.expect(attempt.claim.tier, _inputs(attempt.claim.task))
        frames = None
        # What the process wrote before it heard of this attempt tells of another one.
        if reading.phase is Phase.RENDER and reading.since >= attempt.began:
            frames = Frames(reading.done, reading.total, reading.since - attempt.began)
        spread = whole(expected, frames, elapsed)
        return None if spread is None else Running(spread, elapsed)

    def _servers(self, now: float) -> list[Server]:
        """The slots of this service, and those of others that are seen to work."""
        attempts = {attempt.slot.name: attempt for attempt in self._dispatcher.running()}
        servers = []
        for slot in self._pool.slots():
            if slot.retiring or slot.state not in (SlotState.IDLE, SlotState.BUSY):
                continue
            attempt = attempts.get(slot.name) if slot.state is SlotState.BUSY else None
            reading = None if attempt is None else attempt.reading_if_there()
            if attempt is None or reading is None:
                servers.append(Server(slot.plan.group))
                continue
            running = self._here(attempt, reading)
            servers.append(_server(slot.plan.group, attempt.claim.tier, running))
        return servers + [
            _server(stand.group, run.tier, self._running(run.task_id, now))
            for run in self._elsewhere.values()
            if (stand := self._stands.get(run.tier)) is not None
        ]

    def _waiting(self, queued: QueuedWork) -> Waiting:
        expected: dict[str, Spread | None] = {}

        def takes(tier: str) -> Spread | None:
            if tier not in expected:
                found = self._experience.expect(tier, queued.inputs)
                expected[tier] = None if found is None else found.took
            return expected[tier]

        return Waiting((queued.rank, queued.task_id), queued.route, takes, queued.client)

    def _takes(self, waiting: Waiting) -> Spread | None:
        """What an attempt takes on the first tier of its route that can be used."""
        usable = (name for name in waiting.route if name in self._stands and self._stands[name].usable)
        return waiting.takes(next(usable, ""))


def _queued(task: TaskRecord) -> QueuedWork:
    return QueuedWork(rank(task.enqueued_at, task.priority), task.id, task.route, task.client, _inputs(task))


def _inputs(task: TaskRecord) -> WorkInputs:
    return WorkInputs(task.source.sha256, task.source.media, task.audio.media, task.options)


def _server(group: str, tier: str, running: Running | None) -> Server:
    if running is None:
        return Server(group, tier=tier, endless=True)
    return Server(group, remaining(running.whole, running.elapsed), tier)
