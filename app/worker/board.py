"""The board: what this node knows of its tiers at this moment. Breakers, what runs, what was measured.

The dispatcher asks it where a task goes, attempts tell it how they ended. A breaker's state survives a restart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog

from app.forecast.queueing import Stand
from app.retry.breaker import Breaker, BreakerRecord, BreakerSettings, BreakerState, Ticket
from app.retry.router import Placement, TierState, place
from app.retry.taxonomy import Failure
from app.store.errors import StoreUnavailable
from app.store.interface import Store
from app.store.records import ReadyRoute
from app.tiers.tiers import Tier, Tiers
from app.worker.live_tier import LiveTier, breaker_verdict, verdict

log = structlog.get_logger(__name__)

_BREAKERS = "breakers"


class GroupSource(Protocol):
    """The slots, as the board sees them."""

    def group_size(self, group: str) -> tuple[int, int, int]:
        """Of a group: slots that could start a task now, slots that work or soon will, all slots."""


class BoardObserver(Protocol):
    """What the board tells the telemetry."""

    def breaker_changed(self, tier: str, state: str) -> None:
        """A breaker opened, closed, or admits a probe."""


@dataclass(frozen=True, slots=True)
class TierView:
    """One tier for people and programs. Times in epoch seconds and seconds."""

    name: str
    renderer: str
    enabled: bool
    degraded: bool
    only_by_name: bool
    absent: str
    breaker: BreakerState
    breaker_until: float | None
    breaker_openings: int
    slots: int
    free: int
    running: int
    latency_s: float | None
    success: float | None
    measured: int
    """Attempts that latency and success were measured over."""


class TierBoard:
    """The tiers of one node. Safe to use from any thread."""

    def __init__(
        self,
        tiers: Tiers,
        slots: GroupSource,
        store: Store,
        *,
        node: str,
        observer: BoardObserver,
        no_judge: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the breakers' states that this node left in the store. `no_judge`: why there is no judge, if so."""
        self._slots = slots
        self._store = store
        self._node = node
        self._observer = observer
        self._no_judge = no_judge
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._tiers = tiers
        self._live: dict[str, LiveTier] = {}
        self._serial = 0
        kept = store.kept(self._key) or {}
        for tier in tiers.all.values():
            self._live[tier.name] = LiveTier(self._breaker(tier, _record(kept.get(tier.name))))

    @property
    def tiers(self) -> Tiers:
        """The tiers in force."""
        with self._lock:
            return self._tiers

    def replace(self, tiers: Tiers) -> None:
        """Put other tiers in force. A tier that stays keeps its breaker's state and its measurements."""
        with self._lock:
            before = self._live
            self._tiers = tiers
            self._live = {}
            for tier in tiers.all.values():
                old = before.get(tier.name)
                live = LiveTier(self._breaker(tier, old.breaker.record if old else None))
                if old is not None:
                    live.running, live.outcomes = old.running, old.outcomes
                self._live[tier.name] = live

    # -- for the dispatcher -----------------------------------------------------------------------------------------

    def place(self, ready: Sequence[ReadyRoute]) -> dict[tuple[str, ...], Placement]:
        """For each route, where its next task goes now."""
        with self._lock:
            states = self._states(ready)
            return {waiting.route: place(waiting.route, states) for waiting in ready}

    def group(self, tier: str) -> str:
        """The slots that `tier` runs in."""
        with self._lock:
            return self._tiers.all[tier].group

    def begin(self, tier: str) -> tuple[Ticket | None, int]:
        """An attempt begins; what comes back is for `ended`."""
        with self._lock:
            self._serial += 1
            live = self._live.get(tier)
            if live is None:
                return None, self._serial
            live.running[self._serial] = self._monotonic()
            ticket = live.breaker.allow()
            if ticket is not None and ticket.probe:
                self._changed(tier, BreakerState.HALF_OPEN)
            return ticket, self._serial

    def ended(self, tier: str, begun: tuple[Ticket | None, int], failure: Failure | None) -> None:
        """The attempt that `begin` announced is over; `failure` None: it served."""
        ticket, serial = begun
        with self._lock:
            live = self._live.get(tier)
            if live is None:
                return
            started = live.running.pop(serial, None)
            ok = verdict(failure)
            if started is not None and ok is not None:
                live.outcomes.append((self._monotonic() - started, ok))
            if ticket is None or not live.breaker.done(ticket, breaker_verdict(failure)):
                return
            state = live.breaker.state
            self._changed(tier, state, failure)
        self._remember()

    def force(self, tier: str, state: BreakerState) -> bool:
        """Open a breaker by hand and for good, or close it. False for a tier that is not there."""
        with self._lock:
            live = self._live.get(tier)
            if live is None:
                return False
            live.breaker.force(state)
            self._changed(tier, state)
        self._remember()
        return True

    # -- for views --------------------------------------------------------------------------------------------------

    def hold(self, route: Sequence[str]) -> tuple[str, float | None] | None:
        """Why no tier of a route can take a task at all, and until when; None if one can or is merely busy."""
        with self._lock:
            known = [name for name in route if name in self._live]
            if not known:
                return "no_tier", None
            states = self._states([])
            if any(not states[name].down and not states[name].breaker_open for name in known):
                return None
            if all(states[name].down for name in known):
                return "no_ready_slot", None
            times = [self._live[name].breaker.until for name in known if states[name].breaker_open]
            return "breaker_open", min((at for at in times if at is not None), default=None)

    def stands(self) -> list[Stand]:
        """All tiers, in order, as forecasts need them."""
        with self._lock:
            states = self._states([])
            return [
                Stand(
                    name=tier.name,
                    group=tier.group,
                    usable=not states[tier.name].down and not states[tier.name].breaker_open,
                    degraded=tier.degraded,
                    limit=tier.settings.concurrency,
                    patience_s=tier.settings.patience_s,
                )
                for tier in self._tiers.all.values()
            ]

    def views(self) -> list[TierView]:
        """All tiers, in order."""
        with self._lock:
            return [self._view(tier) for tier in self._tiers.all.values()]

    # -- how --------------------------------------------------------------------------------------------------------

    def _states(self, ready: Sequence[ReadyRoute]) -> Mapping[str, TierState]:
        first: dict[str, int] = {}
        for waiting in ready:
            for name in waiting.route[:1]:
                first[name] = first.get(name, 0) + waiting.tasks
        return {tier.name: self._state(tier, first.get(tier.name, 0)) for tier in self._tiers.all.values()}

    def _state(self, tier: Tier, waiting: int) -> TierState:
        live = self._live[tier.name]
        free, working, slots = self._slots.group_size(tier.group)
        limit = tier.settings.concurrency
        if limit is not None:
            free, slots = min(free, limit - len(live.running)), min(slots, limit)
        latency = live.latency_s
        now = self._monotonic()
        oldest = min(live.running.values(), default=now)
        return TierState(
            name=tier.name,
            degraded=tier.degraded,
            down=self._down(tier, working),
            breaker_open=not live.breaker.would_allow(),
            free=max(free, 0),
            slots=max(slots, 1),
            waiting=waiting,
            frees_in_s=max(0.0, (latency or 0.0) - (now - oldest)),
            latency_s=latency,
            success=live.success,
            patience_s=tier.settings.patience_s,
        )

    def _down(self, tier: Tier, working: int) -> str:
        if not tier.settings.enabled:
            return "switched off"
        if absent := self._tiers.absence(tier):
            return absent
        if not working:
            return "no slot is ready"
        # What could not be judged would be rendered in vain.
        no_judge = self._no_judge() if tier.capabilities.judged_apart else ""
        return f"nobody can judge its videos: {no_judge}" if no_judge else ""

    def _view(self, tier: Tier) -> TierView:
        live, state = self._live[tier.name], self._state(tier, 0)
        return TierView(
            name=tier.name,
            renderer=tier.settings.renderer,
            enabled=tier.settings.enabled,
            degraded=tier.degraded,
            only_by_name=tier.settings.only_by_name,
            absent=state.down,
            breaker=live.breaker.state,
            breaker_until=live.breaker.until,
            breaker_openings=live.breaker.record.openings,
            slots=state.slots,
            free=state.free,
            running=len(live.running),
            latency_s=state.latency_s,
            success=state.success if live.outcomes else None,
            measured=len(live.outcomes),
        )

    def _breaker(self, tier: Tier, record: BreakerRecord | None) -> Breaker:
        settings: BreakerSettings = tier.settings.breaker.settings(tier.settings.time_limit_s)
        return Breaker(settings, self._clock, record=record)

    def _changed(self, tier: str, state: BreakerState, failure: Failure | None = None) -> None:
        self._observer.breaker_changed(tier, state.value)
        say = log.warning if state is BreakerState.OPEN else log.info
        say("breaker_changed", tier=tier, state=state.value, code=failure.code.value if failure else None)

    @property
    def _key(self) -> str:
        return f"{_BREAKERS}:{self._node}"

    def _remember(self) -> None:
        with self._lock:
            records = {name: asdict(live.breaker.record) for name, live in self._live.items()}
        try:
            self._store.keep(self._key, records)
        except StoreUnavailable as error:
            log.warning("breakers_not_kept", error=str(error))


def _record(kept: dict[str, Any] | None) -> BreakerRecord | None:
    return None if kept is None else BreakerRecord(**(kept | {"state": BreakerState(kept["state"])}))
