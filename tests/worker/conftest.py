"""A real store, a real pool and a real dispatcher over a temporary directory, with the renderer that fails on cue."""

from __future__ import annotations

import hashlib
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.health.clocks import Limits
from app.render.contract import Phase
from app.retry.backoff import make_backoff
from app.retry.budget import RetryBudget
from app.store.records import Claim, EventRecord, InputRef, NewTask, TaskRecord
from app.store.sql import SqlStore, open_store
from app.tasks.ids import new_id
from app.telemetry.tracing import Untraced
from app.tiers.lineup import lineup
from app.tiers.tiers import DEVICES
from app.worker.aftermath import Aftermath
from app.worker.attempt import Attempt, AttemptSettings
from app.worker.board import TierBoard
from app.worker.dispatcher import ClaimTerms, Dispatcher
from app.worker.judges import Judges
from app.worker.launch import Served
from app.worker.pool import LocalPool
from app.worker.publish import discard
from app.worker.settle import Settler
from app.worker.sitting import SittingTerms
from app.worker.slots import Slot, SlotPlan
from tests.database import empty_database

WAIT_S = 75.0
"""Bound of every wait in these tests: above what the pool itself gives a process to start (60 s), since many wait for a
replacement; far above what a healthy run takes."""


@dataclass
class Observed:
    """What pool and attempts told the telemetry."""

    restarts: list[tuple[str, str]] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    breakers: list[tuple[str, str]] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    health: list[tuple[str, ...]] = field(default_factory=list)
    """What the monitors told, in order: (kind, slot, clock or code)."""

    def worker_restarted(self, slot: str, reason: str) -> None:
        self.restarts.append((slot, reason))

    def attempt_ended(self, tier: str, outcome: str, stages: Mapping[str, float], frames: int) -> None:
        self.ended.append((tier, outcome))

    def upstream_called(self, tier: str, call: str, seconds: float) -> None:
        raise AssertionError("no renderer of these tests calls another server")

    def health_checked(self, slot: str) -> None:
        self.health.append(("checked", slot))

    def health_strike(self, slot: str, clock: str) -> None:
        self.health.append(("strike", slot, clock))

    def health_recovered(self, slot: str) -> None:
        self.health.append(("recovered", slot))

    def health_verdict(self, slot: str, code: str) -> None:
        self.health.append(("verdict", slot, code))

    def video_judged(self, outcome: str, waited_s: float, seconds: float) -> None:
        self.judged.append(outcome)

    def breaker_changed(self, tier: str, state: str) -> None:
        self.breakers.append((tier, state))

    def health_refuted(self, slot: str, code: str) -> None:
        self.health.append(("refuted", slot, code))


class Bench:
    """One node: everything between the store and the slot processes."""

    def __init__(self, folder: Path, store: SqlStore, *, slots: int = 1, renderer: str = "rehearsal", **numbers: Any):
        self.folder = folder
        self.store = store
        self.seen = Observed()
        self.oom_kills = 0
        self.lines: list[str] = []
        self._changed = threading.Condition()
        store.subscribe(self._on_events)
        plans = [SlotPlan(f"cpu-{index}", "cpu", "", 1) for index in range(slots)]
        self.pool = LocalPool(
            plans,
            serves={DEVICES: [Served(renderer, renderer)]},
            run_dir=folder / "run",
            owner=new_id("node"),
            start_timeout_s=numbers.get("start_timeout_s", 60.0),
            sink=lambda slot, line: self.lines.append(line),
            observer=self.seen,
            spares={plans[0]: numbers.get("spares", 0)},
        )
        nobody = LocalPool(
            [], serves={}, run_dir=folder / "run", owner=new_id("node"), start_timeout_s=60.0,
            sink=lambda slot, line: None, observer=self.seen,
        )  # fmt: skip
        terms = SittingTerms(60.0, 5.0, Limits(3, {phase.value: 60.0 for phase in Phase}), 2.0)
        self.judges = judges = Judges(nobody, count=1, terms=terms, observer=self.seen)
        tiers = lineup([], default_renderer="warp", rehearsals=True, has_cuda=False)
        self.board = TierBoard(tiers, self.pool, store, node="node-a", observer=self.seen)
        self.settings = AttemptSettings(
            lease_s=numbers.get("lease_s", 30.0),
            health_interval_s=numbers.get("health_interval_s", 5.0),
            limits=Limits(3, {phase.value: numbers.get("phase_s", 60.0) for phase in Phase}),
            cancel_grace_s=numbers.get("cancel_grace_s", 2.0),
            task_lost_s=numbers.get("task_lost_s", 60.0),
            attempts_dir=folder / "attempts",
        )
        budget, cap_s = RetryBudget(), numbers.get("backoff_cap_s", 0.01)
        aftermath = Aftermath(
            self.board, max_retries=3, backoff=make_backoff("seed", cap_s), backoff_cap_s=cap_s, budget=budget
        )
        settler = Settler(
            store, data_dir=folder, board=self.board, aftermath=aftermath,
            patience_s=numbers.get("patience_s", 5.0), budget=budget,
            locate=lambda ref: folder / ref.sha256, attempts_dir=folder / "attempts",
        )  # fmt: skip

        def make(claim: Claim, slot: Slot, done: Callable[[Attempt], None]) -> Attempt:
            return Attempt(
                claim, slot, pool=self.pool, judges=judges, store=store, board=self.board, settler=settler,
                observer=self.seen, locate=lambda reference: folder / reference.sha256, settings=self.settings,
                count_oom_kills=lambda: self.oom_kills, on_done=done, tracing=Untraced(),
            )  # fmt: skip

        self.dispatcher = Dispatcher(
            store, self.pool, self.board, ClaimTerms("node-a", self.settings.lease_s), make, self._discard
        )

    def _discard(self, task_id: str, attempt: int) -> None:
        discard(task_id, attempt, self.folder)

    def start(self) -> Bench:
        self.dispatcher.start()
        return self

    def _on_events(self, events: Sequence[EventRecord]) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition that a commit or a slot can make true; looked at on every event and every 20 ms."""
        end = time.monotonic() + WAIT_S
        with self._changed:
            while not (value := condition()):
                assert time.monotonic() < end, f"timed out waiting for {what}"
                self._changed.wait(0.02)
        return value

    def task(self, task_id: str) -> TaskRecord:
        task = self.store.get(task_id)
        assert task is not None
        return task

    def until_ended(self, task_id: str) -> TaskRecord:
        self.until(lambda: self.task(task_id).status.is_terminal, f"the end of {task_id}")
        self.until(lambda: self.dispatcher.running_count() == 0, "the attempt's cleanup")
        return self.task(task_id)

    def until_moving(self, task_id: str) -> None:
        def moving() -> bool:
            attempt = self.dispatcher.attempt_of(task_id)
            look = attempt.reading_if_there() if attempt is not None else None
            return look is not None and look.phase == Phase.RENDER and look.done > 0

        self.until(moving, f"{task_id} to render")

    def until_idle(self) -> None:
        self.until(lambda: all(slot.state.value == "idle" for slot in self.pool.slots()), "idle slots")

    def pid(self, index: int = 0) -> int:
        process = self.pool.slots()[index].process
        assert process is not None
        return process.pid


def write_tone(folder: Path) -> InputRef:
    """Half a second of a tone, stored in `folder` under its hash."""
    tone = (np.sin(np.arange(8000) * 0.2) * 8000).astype("<i2")
    path = folder / "tone.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(tone.tobytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(folder / digest)
    return InputRef(uri="upload:tone", sha256=digest, bytes=16044, name="tone.wav")


@pytest.fixture
def audio(tmp_path: Path) -> InputRef:
    """Half a second of a tone, stored under its hash."""
    return write_tone(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(empty_database(tmp_path / "greenroom.db"))
    yield opened
    opened.close()


@pytest.fixture
def bench(tmp_path: Path, store: SqlStore) -> Iterator[Callable[..., Bench]]:
    """Makes started benches; stops them at the end."""
    made: list[Bench] = []

    def make(**numbers: Any) -> Bench:
        made.append(Bench(tmp_path, store, **numbers).start())
        return made[-1]

    yield make
    for one in made:
        one.dispatcher.stop(0)


@pytest.fixture
def submit(store: SqlStore, audio: InputRef) -> Callable[..., str]:
    """Queues a rehearsal with the given options; returns the task id."""
    import asyncio

    def queue(*, deadline_at: float | None = None, not_before: float | None = None, **options: Any) -> str:
        new = NewTask(
            source=audio,
            audio=audio,
            renderer="rehearsal",
            fallback="none",
            route=("rehearsal",),
            options=options,
            deadline_at=deadline_at,
            not_before=not_before,
        )
        return asyncio.run(store.acreate(new)).task.id

    return queue
