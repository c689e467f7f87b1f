"""What the HTTP layer asks of the rest of the service. `service.py` passes the real things in, tests pass small ones.

No port gives access to a process: the API reads what the pool publishes about itself, and writes to the store alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.api.caching import ResultCache
from app.api.drop_in.terms import DropIn
from app.forecast.outlook import Outlook, foresee
from app.health.alarms import Alarms
from app.health.resources import Resources
from app.intake.resolve import Intake
from app.notify.address import TargetGuard
from app.store.interface import Store
from app.store.records import TaskRecord
from app.telemetry.statistics import Statistics
from app.telemetry.tracing import Tracing, Untraced
from app.tiers.tiers import Tiers


@dataclass(frozen=True, slots=True)
class LiveProgress:
    """How far a running attempt is, as its process last said. `total` 0 means unknown."""

    phase: str
    done: int
    total: int
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot as the pool sees it now. `since` in epoch seconds: when it entered `state`."""

    name: str
    state: str
    """For example `starting`, `idle`, `busy`, `stopping`, `quarantined`."""
    device: str
    task_id: str | None = None
    attempt: int | None = None
    pid: int | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class JudgesView:
    """The processes that watch the videos of light slots, and how many videos stand in line and before them."""

    slots: list[SlotView]
    waiting: int
    judging: int


READY_STATES = frozenset({"idle", "busy"})
"""Slots in these states take work, or will when they have done theirs."""


class LivePool(Protocol):
    """What runs at this moment. The calls read memory only: they take microseconds and never raise."""

    def progress(self, task_id: str) -> LiveProgress | None:
        """The progress of a task that runs here, None for any other."""

    def slots(self) -> list[SlotView]:
        """All slots, in a stable order."""

    def judges(self) -> JudgesView:
        """The judges now."""

    def draining(self) -> bool:
        """Whether no task is started here any more, since the service stops."""


class DiskSpace(Protocol):
    """The disk that inputs and results go to. Both calls may be made as often as one likes."""

    @property
    def low_bytes(self) -> int:
        """The watermark."""

    def free(self) -> int | None:
        """Free bytes; None where the disk does not tell."""

    def is_low(self) -> bool:
        """Whether less than the watermark is free."""


class TierDesk(Protocol):
    """The tiers: what they take, how they stand, and the switches on them. All but `reload` read memory only."""

    @property
    def tiers(self) -> Tiers:
        """Those in force."""

    def hold(self, route: Sequence[str]) -> tuple[str, float | None] | None:
        """Why no tier of a route can take a task, and until when (epoch seconds); None if one can or is merely busy."""

    def resources(self) -> list[dict[str, Any]]:
        """Every tier, JSON-ready."""

    def set_breaker(self, tier: str, *, is_open: bool) -> bool:
        """Open a breaker by hand and for good, or close it. False for an unknown tier. Blocks: it is durable."""

    async def reload(self) -> None:
        """Read the configuration anew and put its tiers in force. Raises `ReloadRefused`."""


class ReloadRefused(Exception):
    """The configuration cannot be used; the message says what is wrong with it. The tiers stay as they were."""


class Forecast(Protocol):
    """What is expected of tasks. All but `refresh` read memory only, and none raises."""

    async def refresh(self) -> None:
        """Know what is at most a second old; call it before the others."""

    def outlook(
        self, task: TaskRecord, *, reason: str | None, until: float | None = None, position: int | None = None
    ) -> Outlook:
        """Of a task that waits for `reason` (`Wait.reason`) until `until`; `position`: how many tasks go before it."""

    def wait_s(self) -> float | None:
        """How long a task of middling priority that came now would wait for its slot; None where nobody knows."""

    def room_s(self, client: str | None = None) -> float | None:
        """When the next task (of one client) leaves the queue; None where nobody knows."""


class HealthView(Protocol):
    """What the health watch knows. Reading it takes microseconds and asks nobody."""

    @property
    def alarms(self) -> Alarms:
        """All alarms."""

    @property
    def resources(self) -> Resources | None:
        """The last reading, None before the first."""

    def scale_out(self) -> list[str]:
        """The alarms against which another service would help."""


class Readiness(Protocol):
    """Whether the service can do its work."""

    def check(self) -> tuple[bool, dict[str, Any]]:
        """Ready or not, and a JSON-ready word on each part. May block shortly: it is called in a thread."""


class RequestObserver(Protocol):
    """Told once per finished request."""

    def __call__(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the template (`/tasks/{task_id}`), or `unmatched`; `seconds` until the last byte left."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The numbers of the HTTP layer. Seconds and bytes."""

    data_dir: Path
    """Paths of artifacts are relative to this."""
    max_upload_bytes: int = 2 * 1024**3
    """Limit of one uploaded file or multipart part."""
    max_json_bytes: int = 1024 * 1024
    body_idle_s: float = 60.0
    """A request whose body stops arriving for this long is given up."""
    max_metadata_bytes: int = 16 * 1024
    """Limit of `metadata` as compact JSON."""
    max_waiting: int | None = 10_000
    """Tasks that may wait before POST /generate answers 429; None for no limit."""
    max_deferred: int = 0
    """So many more are accepted for later, and told so; 0: none, they are refused."""
    cached_when_full: bool = False
    """A full queue still answers from the cache."""
    max_waiting_per_client: int | None = None
    """Tasks of one client that may wait; None for no limit of its own."""
    upload_ttl_s: float = 24 * 3600.0
    idempotency_ttl_s: float = 24 * 3600.0
    """How long a key is good at least; never less than its task lives."""
    default_deadline_s: float | None = None
    """`deadline_s` of requests that set none."""
    max_wait_s: float = 60.0
    """The longest long-poll."""
    readiness_timeout_s: float = 2.0
    version: str = "0.1.0"


def _no_metrics() -> tuple[bytes, str]:
    return b"", "text/plain; version=0.0.4; charset=utf-8"


def _unobserved(method: str, route: str, status: int, seconds: float) -> None:  # noqa: ARG001
    return None


class _Boundless:
    """A disk that nobody watches."""

    low_bytes = 0

    def free(self) -> int | None:
        return None

    def is_low(self) -> bool:
        return False


class _Unwatched:
    """A service without a health watch."""

    def __init__(self) -> None:
        self.alarms = Alarms()
        self.resources: Resources | None = None

    def scale_out(self) -> list[str]:
        return []


class _Unforeseen:
    """A service that has learned nothing: it knows what stands in the task."""

    async def refresh(self) -> None:
        return None

    def outlook(
        self,
        task: TaskRecord,
        *,
        reason: str | None,
        until: float | None = None,
        position: int | None = None,  # noqa: ARG002
    ) -> Outlook:
        now = time.time()
        return foresee(reason, until_s=None if until is None else until - now, age_s=now - task.enqueued_at)

    def wait_s(self) -> float | None:
        return None

    def room_s(self, client: str | None = None) -> float | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class ApiDependencies:
    """Everything that `create_app` needs."""

    store: Store
    intake: Intake
    pool: LivePool
    tiers: TierDesk
    readiness: Readiness
    settings: ApiSettings
    render_metrics: Callable[[], tuple[bytes, str]] = _no_metrics
    """The metrics page and its content type."""
    observe_request: RequestObserver = field(default=_unobserved)
    disk: DiskSpace = field(default_factory=_Boundless)
    check_target: Callable[[str], Awaitable[None]] = TargetGuard(allow_private=False).check
    """Raises `CodedError` for an address that webhooks are not sent to."""
    statistics: Statistics = field(default_factory=Statistics)
    health: HealthView = field(default_factory=_Unwatched)
    cache: ResultCache | None = None
    """Where results are served again; None: every task is rendered."""
    drop_in: DropIn = field(default_factory=DropIn)
    """The addresses of other servers that are served too."""
    tracing: Tracing = field(default_factory=Untraced)
    forecast: Forecast = field(default_factory=_Unforeseen)
    clock: Callable[[], float] = time.time
