"""The two clocks of a running attempt, judged by a pure function: is the process answering; does the work move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.retry.taxonomy import Failure, FailureCode


@dataclass(frozen=True, slots=True)
class Limits:
    """When an attempt counts as unhealthy. `phase_s` is the time without movement that each phase is allowed."""

    strikes: int
    phase_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Look:
    """What one check saw. `beats` and `moves` are counters that only grow while process and work are alive."""

    at: float
    beats: int
    moves: int
    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Health:
    """The state between two checks: the last counters, failed checks in a row, and when the work last moved."""

    beats: int
    moves: int
    moved_at: float
    strikes: int = 0

    @classmethod
    def begin(cls, look: Look) -> Health:
        """The state at the start of an attempt."""
        return cls(look.beats, look.moves, look.at)


def judge(health: Health, look: Look, limits: Limits) -> tuple[Health, Failure | None]:
    """The state after `look`, and the failure if the attempt is to be ended.

    A heartbeat that has not moved since the last check is one strike; `limits.strikes` in a row are
    WORKER_UNRESPONSIVE, and one good check clears them. A progress clock that stands for longer than its phase
    allows is WORKER_STALLED. A slow job that moves is neither.
    """
    strikes = 0 if look.beats != health.beats else health.strikes + 1
    moved_at = look.at if look.moves != health.moves else health.moved_at
    after = replace(health, beats=look.beats, moves=look.moves, moved_at=moved_at, strikes=strikes)
    where = f"phase {look.phase}, {look.done} of {look.total or '?'}"
    detail = {"phase": look.phase, "done": look.done, "total": look.total}
    if strikes >= limits.strikes:
        text = f"The worker process gave no heartbeat in {strikes} checks in a row ({where})."
        return after, Failure(FailureCode.WORKER_UNRESPONSIVE, text, detail=detail)
    allowed = limits.phase_s[look.phase]
    stood = look.at - moved_at
    if strikes == 0 and stood > allowed:
        text = f"The work did not move for {stood:.0f} s; {allowed:.0f} s are allowed ({where})."
        return after, Failure(FailureCode.WORKER_STALLED, text, detail=detail)
    return after, None
