"""A service in simulated time: mixes of tasks, the service's own forecasts, and no processes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from app.api.why_waiting import Holds, waiting
from app.forecast.queueing import Stand
from app.render.contract import Phase
from app.service.foresight import Foresight
from app.store.figures import QueuedWork, RenderedWork, RunningWork, WorkInputs, Workload
from app.store.records import InputRef, TaskRecord
from app.tasks.rank import rank
from app.tasks.status import Status
from app.worker.slots import SlotState

START = 1_800_000_000.0
_FPS = 25


@dataclass(frozen=True)
class Kind:
    """One kind of task: what it is made from, and what it really takes."""

    tier: str
    share: float
    speech_s: tuple[float, float]
    """Shortest and longest; their logarithms are spread evenly."""
    begin_s: float
    per_second: float
    after_s: float = 0.0
    """After the last frame."""
    source: str = "image"
    width: int = 512
    templates: int = 0
    """Videos are of so many templates; each is analysed once, at `analysis` seconds per second of speech."""
    analysis_s: float = 0.0
    noise: float = 0.1
    """Standard deviation of the logarithm of the time that it takes."""
    frames: bool = True
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mix:
    """A load: kinds of tasks, slots per tier, and how they come."""

    kinds: tuple[Kind, ...]
    slots: dict[str, int]
    load: float
    """Work that comes as a share of what the slots can do."""
    tasks: int = 1500
    burst: int = 1
    """So many come at once."""
    outliers: float = 0.0
    """Share of tasks that take three times as long."""
    slower_from: float = 1.0
    """From this share of the tasks on the machine is half as fast."""


PORTRAITS = Kind("warp", 1.0, (3, 60), 0.8, 0.45, after_s=0.8)
MIXES = {
    "portraits": Mix((PORTRAITS,), {"warp": 2}, 0.7),
    "templates": Mix(
        (
            Kind("warp", 0.4, (3, 60), 0.8, 0.45, after_s=0.8, noise=0.12),
            Kind("warp", 0.35, (5, 90), 1.0, 0.9, after_s=1.5, source="video", width=1280, templates=12, analysis_s=14),
            Kind("warp", 0.15, (5, 40), 1.5, 2.1, after_s=3, source="video", width=1920, templates=4, analysis_s=30),
            Kind("studio", 0.1, (5, 60), 6.0, 3.0, noise=0.3, frames=False, options={"steps": 20}),
        ),
        {"warp": 2, "studio": 1},
        0.75,
        outliers=0.02,
    ),
    "bursts": Mix((PORTRAITS,), {"warp": 2}, 0.8, burst=40),
    "machine_slows": Mix((PORTRAITS,), {"warp": 1}, 0.4, slower_from=0.5),
    "erratic_server": Mix((Kind("studio", 1.0, (5, 60), 5.0, 2.0, noise=0.5, frames=False),), {"studio": 3}, 0.6),
}


@dataclass(eq=False)
class Job:
    """One simulated task."""

    record: TaskRecord
    kind: Kind
    took: float
    """What its attempt takes."""
    after: float
    before: float
    """Until its first frame."""
    warm: bool
    bend: float
    """Frames go as the elapsed share of their time to this power: 1 is an even pace."""
    started: float = math.inf
    polls: int = 0
    known: float = math.inf
    told: dict[str, tuple[float, float | None]] = field(default_factory=dict)

    @property
    def ended(self) -> float:
        return self.started + self.took


class World:
    """A service without processes: what `Foresight` asks of store, pool, board and dispatcher, at a simulated time."""

    owner = "node"

    def __init__(self, mix: Mix) -> None:
        self.now = START
        self.mix = mix
        self.queue: list[Job] = []
        self.rendering: dict[str, Job] = {}
        """By slot."""
        self.rendered: list[tuple[float, RenderedWork]] = []
        self._stands = [Stand(tier, tier) for tier in mix.slots]
        slots = [(tier, f"{tier}{n}") for tier, size in mix.slots.items() for n in range(size)]
        self._slots = {
            name: SimpleNamespace(
                name=name, plan=SimpleNamespace(name=name, group=tier), state=SlotState.IDLE, retiring=""
            )
            for tier, name in slots
        }
        self.foresight = Foresight(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            SimpleNamespace(running=self.attempts, attempt_of=self._attempt_of),  # type: ignore[arg-type]
            owner=self.owner,
            observer=SimpleNamespace(eta_missed=lambda _told, _ratio: None),  # type: ignore[arg-type]
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    # -- store, board, pool and dispatcher ----------------------------------------------------------------------------

    def workload(self, *, since: float, rendered: int, queued: int) -> Workload:
        done = [work for at, work in self.rendered[-rendered:] if at > since]
        waits = sorted(self.queue, key=place)
        head = tuple(_queued(job) for job in waits[:queued])
        runs = tuple(
            RunningWork(job.record.id, self.owner, job.kind.tier, job.started, _inputs(job))
            for job in self.rendering.values()
        )
        return Workload(self.now, tuple(done), runs, head, max(len(waits) - queued, 0))

    def stands(self) -> list[Stand]:
        return self._stands

    def slots(self) -> list[Any]:
        return list(self._slots.values())

    def attempts(self) -> list[Any]:
        return [self._attempt(job, slot) for slot, job in self.rendering.items()]

    def _attempt_of(self, task_id: str) -> Any:
        return next((attempt for attempt in self.attempts() if attempt.claim.task.id == task_id), None)

    def _attempt(self, job: Job, slot: str) -> Any:
        elapsed = self.now - job.started
        share = (elapsed - job.before) / max(job.took - job.before - job.after, 1e-9)
        total = round(_FPS * job.record.audio.media["duration_s"])
        shows = job.kind.frames and 0.0 <= share <= 1.0
        reading = SimpleNamespace(
            phase=Phase.RENDER if shows else Phase.ANALYSE,
            attempt=1,
            done=int(share**job.bend * total) if shows else 0,
            total=total if shows else 0,
            since=job.started + job.before,
        )
        return SimpleNamespace(
            slot=self._slots[slot],
            began=job.started,
            claim=SimpleNamespace(task=job.record, tier=job.kind.tier, attempt=1),
            reading_if_there=lambda: reading,
        )

    # -- the service --------------------------------------------------------------------------------------------------

    def start_what_can(self) -> list[Job]:
        started = []
        for name, slot in self._slots.items():
            fitting = [job for job in self.queue if job.kind.tier == slot.plan.group]
            if name not in self.rendering and fitting:
                job = min(fitting, key=place)
                self.queue.remove(job)
                job.started = self.now
                job.record = replace(job.record, status=Status.RUNNING, started_at=self.now, attempt=1)
                self.rendering[name], slot.state = job, SlotState.BUSY
                started.append(job)
        return started

    def end(self, job: Job) -> None:
        name = next(name for name, rendering in self.rendering.items() if rendering is job)
        del self.rendering[name]
        self._slots[name].state = SlotState.IDLE
        job.record = replace(job.record, status=Status.SUCCEEDED)
        facts: dict[str, Any] = {"last_frame_at": self.now - job.after} if job.kind.frames else {}
        if job.kind.source == "video" and job.kind.analysis_s:
            facts["analysis_cached"] = job.warm
        work = RenderedWork(job.record.id, 1, job.kind.tier, job.started, self.now, facts, _inputs(job))
        self.rendered.append((self.now, work))

    def expect(self, job: Job) -> tuple[float | None, int]:
        """What a caller is told now: seconds to the end, and when to ask again."""
        self.foresight.catch_up()
        wait = waiting(job.record, self.now, Holds())
        told = self.foresight.outlook(job.record, reason=wait.reason, until=wait.until)
        return told.eta_s, told.again_s


def jobs(mix: Mix, seed: int) -> list[Job]:
    """The tasks of a mix, in the order in which they come."""
    chance = random.Random(seed)
    drawn = chance.choices(mix.kinds, [kind.share for kind in mix.kinds], k=mix.tasks)
    slow_from = mix.slower_from * mix.tasks
    analysed: set[str] = set()
    made = [_job(chance, kind, n, analysed, 2.0 if n >= slow_from else 1.0, mix) for n, kind in enumerate(drawn)]
    # They come as fast as the busiest tier can bear.
    rates = []
    for tier, slots in mix.slots.items():
        work = sum(job.took for job in made if job.kind.tier == tier)
        rates.append(slots * mix.load * mix.tasks / work if work else math.inf)
    at = START
    for n, job in enumerate(made):
        if n % mix.burst == 0:
            at += chance.expovariate(min(rates) / mix.burst)
        job.record = replace(job.record, created_at=at, enqueued_at=at)
    return made


def _job(chance: random.Random, kind: Kind, n: int, analysed: set[str], slow: float, mix: Mix) -> Job:
    low, high = kind.speech_s
    speech = math.exp(chance.uniform(math.log(low), math.log(high)))
    template = f"{kind.tier}-{kind.width}-{chance.randrange(kind.templates)}" if kind.templates else f"face-{n}"
    warm = template in analysed
    analysed.add(template)
    before = kind.begin_s + (0.0 if warm else kind.analysis_s)
    took = before + kind.per_second * speech + kind.after_s
    factor = math.exp(chance.gauss(0, kind.noise)) * slow * (3.0 if chance.random() < mix.outliers else 1.0)
    height = kind.width if kind.source == "image" else kind.width * 9 // 16
    source = InputRef("upload:x", template, 1, "x", {"kind": kind.source, "width": kind.width, "height": height})
    audio = InputRef("upload:y", f"speech-{n}", 1, "y", {"kind": "audio", "duration_s": speech})
    record = TaskRecord(
        id=f"task_{n:06}", status=Status.QUEUED, priority=chance.choice((5, 5, 5, 7)), source=source, audio=audio,
        renderer=None, fallback="any", route=(kind.tier,), options=kind.options, metadata={}, client="", trace_id="",
        created_at=START, enqueued_at=START, not_before=None, start_deadline_at=None, deadline_at=None, started_at=None,
        finished_at=None, attempt=0, retries=0, retry_at=None, retry_reason=None, cancel_requested_at=None, error=None,
        output=None, served_by=None, degraded=False, quality=None, lease_owner=None, lease_expires_at=None,
        last_event_id=1,
    )  # fmt: skip
    return Job(
        record, kind, took * factor, kind.after_s * factor, before * factor, warm, math.exp(chance.gauss(0, 0.1))
    )


def place(job: Job) -> tuple[float, str]:
    """Where a task stands in the queue."""
    return rank(job.record.enqueued_at, job.record.priority), job.record.id


def _inputs(job: Job) -> WorkInputs:
    task = job.record
    return WorkInputs(task.source.sha256, task.source.media, task.audio.media, task.options)


def _queued(job: Job) -> QueuedWork:
    return QueuedWork(*place(job), job.record.route, job.record.client, _inputs(job))
