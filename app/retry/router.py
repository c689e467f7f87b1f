"""Which tier takes a task: pure decisions from the state of the tiers, each with its reasons.

A task's route names the tiers that may serve it in this round, best first. Among those that can serve now, the first
one is taken that costs the task little more time than the best of the others: the wait for a slot, and what failures
are expected to cost. How long the render itself takes does not count, since the operator put the better tier first; it
counts through the wait, so that the share of work follows the measured speed and success once tiers are loaded. A tier
whose results are degraded serves only where no other can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_LEAST_SUCCESS = 0.05
"""A tier without any success lately costs twenty attempts, not infinitely many: it may recover."""


@dataclass(frozen=True, slots=True)
class TierState:
    """One tier at this moment, as the router sees it."""

    name: str
    degraded: bool = False
    down: str = ""
    """Why it can take no task for now (no healthy slot, switched off ...); empty: it can."""
    breaker_open: bool = False
    free: int = 0
    """Slots that could start a task at once."""
    slots: int = 1
    waiting: int = 0
    """Tasks that wait with this tier as their first choice."""
    frees_in_s: float = 0.0
    """When the next slot is expected to be free, if none is."""
    latency_s: float | None = None
    """How long an attempt took lately (median); None: not known yet."""
    success: float = 1.0
    """Share of attempts that served lately."""
    patience_s: float = 10.0

    @property
    def wait_s(self) -> float:
        """How long a task that comes now is expected to wait for a slot."""
        queue = self.waiting * (self.latency_s or 0.0) / max(self.slots, 1)
        return queue if self.free else self.frees_in_s + queue

    @property
    def lost_s(self) -> float:
        """Seconds that a task is expected to lose here: waiting, and by attempts that fail."""
        return self.wait_s + (self.latency_s or 0.0) * (1 / max(self.success, _LEAST_SUCCESS) - 1)


@dataclass(frozen=True, slots=True)
class Placement:
    """The tier that a route's next task goes to, and why; `tier` is None while it waits."""

    tier: str | None
    reason: str
    considered: tuple[dict[str, Any], ...] = field(default=())

    def why(self) -> dict[str, Any]:
        """As it is kept with the attempt."""
        return {"reason": self.reason, "considered": list(self.considered)}


def place(route: Sequence[str], states: Mapping[str, TierState]) -> Placement:
    """Choose a tier for the next task of `route`. Tiers that `states` does not know are not of this service."""
    known = [states[name] for name in route if name in states]
    usable = [state for state in known if not state.down and not state.breaker_open]
    full = [state for state in usable if not state.degraded]
    candidates = full or usable
    notes = tuple(_note(state, passed=state not in candidates) for state in known)
    if not candidates:
        return Placement(None, _nobody(known), notes)
    chosen = _chosen(candidates)
    first = known[0]
    if chosen.free <= 0:
        return Placement(None, f"{chosen.name} is busy", notes)
    if chosen is first:
        reason = f"{chosen.name} is first in line"
    elif first in candidates:
        reason = f"{chosen.name} keeps the task waiting less than {first.name}, or fails less"
    else:
        reason = f"{chosen.name} serves, since {_obstacle(first, full)}"
    return Placement(chosen.name, reason, notes)


def _chosen(candidates: Sequence[TierState]) -> TierState:
    """The first in order that costs no more than its patience above the cheapest."""
    cheapest = min(state.lost_s for state in candidates)
    return next(state for state in candidates if state.lost_s <= cheapest + state.patience_s)


def _obstacle(state: TierState, full: Sequence[TierState]) -> str:
    if state.down:
        return f"{state.name} is down ({state.down})"
    if state.breaker_open:
        return f"the breaker of {state.name} is open"
    return f"{state.name} is degraded" if full else f"{state.name} cannot"


def _nobody(known: Sequence[TierState]) -> str:
    if not known:
        return "no tier of this service may serve it"
    return "; ".join(_obstacle(state, ()) for state in known)


def _note(state: TierState, *, passed: bool) -> dict[str, Any]:
    note: dict[str, Any] = {"tier": state.name}
    if state.down:
        note["down"] = state.down
    elif state.breaker_open:
        note["breaker"] = "open"
    else:
        note["free"] = state.free
        note["lost_s"] = round(state.lost_s, 3)
        if passed:
            note["passed_over"] = "degraded"
    return note
