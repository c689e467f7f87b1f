"""When waiting tasks start: the queue is played through, in its order, over the slots as they stand."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.forecast.spread import Spread, known, spread_of, total

_NEVER = float("inf")
_REPLAYS = 20
"""How often the queue is played through anew for tasks that come into its midst. Later ones go by those around them."""


@dataclass(frozen=True, slots=True)
class Stand:
    """How one tier stands."""

    name: str
    group: str
    """Its slots."""
    usable: bool = True
    degraded: bool = False
    limit: int | None = None
    """Most tasks at once; None: as many as there are slots."""
    patience_s: float = 10.0
    """A tier before others in a task's route is waited for so much longer."""


@dataclass(frozen=True, slots=True)
class Server:
    """One slot: when it is free. `tier` is what runs on it, None where nothing does."""

    group: str
    free: Spread | None = None
    """None: at once."""
    tier: str | None = None
    endless: bool = False
    """Nobody knows when it is free."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One waiting task, with what it is expected to take on a tier (None: nobody knows)."""

    place: tuple[float, str]
    """Rank and id: the lowest goes first."""
    route: tuple[str, ...]
    takes: Callable[[str], Spread | None]
    client: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """When a task starts, on which tier, and when it ends. None: nobody knows."""

    tier: str | None
    start: Spread | None
    """None: at once."""
    end: Spread | None
    waits: bool = True
    """False: a slot is free for it."""


UNKNOWN = Turn(None, None, None)


@dataclass(order=True, slots=True)
class _Free:
    """A place that is free at `at` seconds, give or take the root of `variance`."""

    at: float
    variance: float = field(default=0.0, compare=False)


class Line:
    """The queue at one moment, played through. Tasks may be added to it."""

    def __init__(
        self, stands: Mapping[str, Stand], servers: Sequence[Server], queue: Sequence[Waiting], more: int = 0
    ) -> None:
        """`queue` in its order, `more`: how many tasks follow those."""
        self._stands = stands
        self._servers = servers
        self._more = more
        self._replays = _REPLAYS
        self._play(queue)
        starts = [turn.start.mid if turn.start else 0.0 for turn in self._turns if turn is not UNKNOWN]
        self._pace = (max(starts) - min(starts)) / len(starts) if starts else 0.0

    def turn(self, waiting: Waiting, position: int | None = None) -> Turn:
        """The turn of a task; one that is not in the line is put into it.

        `position`: how many tasks go before it, where that is known and it may stand behind the part that was played.
        """
        at = bisect_left(self._places, waiting.place)
        if at < len(self._places):
            if self._places[at] == waiting.place:
                return self._turns[at]
            if not self._replays:
                return self._between(waiting, at)
            self._replays -= 1
            self._play([*self._queue[:at], waiting, *self._queue[at:]])
            return self._turns[at]
        behind = self._more if position is None else min(max(position - len(self._places), 0), self._more)
        if behind:
            return _later(self._choose(waiting)[0], behind * self._pace)
        return self._append(waiting)

    def turn_of(self, task_id: str) -> Turn | None:
        """The turn of a task that is in the line; None for any other."""
        return next((turn for place, turn in zip(self._places, self._turns, strict=True) if place[1] == task_id), None)

    def newcomer(self, waiting: Waiting) -> Turn:
        """The turn of a task that would come now, at its place."""
        at = bisect_left(self._places, waiting.place)
        if at < len(self._places):
            return self._between(waiting, at)
        return _later(self._choose(waiting)[0], self._more * self._pace)

    def room(self, client: str | None = None) -> Spread | None:
        """When the next task leaves the queue (of one client); None where nobody knows."""
        if client is not None:
            first = self._firsts.get(client, UNKNOWN)
            return None if first is UNKNOWN else first.start or known(0.0)
        turns = [turn for turn in self._turns if turn is not UNKNOWN]
        if not turns:
            return None
        return min((turn.start or known(0.0) for turn in turns), key=lambda start: start.mid)

    def _play(self, queue: Sequence[Waiting]) -> None:
        self._groups: dict[str, list[_Free]] = {}
        self._tiers: dict[str, list[_Free]] = {
            stand.name: [_Free(0.0) for _ in range(stand.limit)]
            for stand in self._stands.values()
            if stand.limit is not None
        }
        for server in self._servers:
            free = _free(server)
            self._groups.setdefault(server.group, []).append(free)
            busy = self._tiers.get(server.tier or "")
            if busy:
                heapq.heapreplace(busy, free)
        for heap in self._groups.values():
            heapq.heapify(heap)
        self._queue: list[Waiting] = []
        self._places: list[tuple[float, str]] = []
        self._turns: list[Turn] = []
        self._firsts: dict[str, Turn] = {}
        """The next turn of each client."""
        for waiting in queue:
            self._append(waiting)

    def _between(self, waiting: Waiting, at: int) -> Turn:
        """It goes before others: it has the start of the first of them that would have taken the same tier."""
        turn, chosen = self._choose(waiting)
        if chosen is None:
            return turn
        for other in self._turns[at:]:
            if other.tier is not None and self._stands[other.tier].group == chosen.group:
                took = waiting.takes(other.tier) if other.tier in waiting.route else waiting.takes(chosen.name)
                end = None if took is None else total([took, *([other.start] if other.start else [])])
                return Turn(other.tier, other.start, end, waits=other.waits)
        return turn

    def _append(self, waiting: Waiting) -> Turn:
        turn, chosen = self._choose(waiting)
        self._queue.append(waiting)
        self._places.append(waiting.place)
        self._turns.append(turn)
        if turn is not UNKNOWN:
            self._firsts.setdefault(waiting.client, turn)
        if chosen is not None:
            ends = _NEVER if turn.end is None else turn.end.mid
            variance = 0.0 if turn.end is None else (turn.end.mid * turn.end.sigma) ** 2
            heapq.heapreplace(self._groups[chosen.group], _Free(ends, variance))
            if chosen.name in self._tiers:
                heapq.heapreplace(self._tiers[chosen.name], _Free(ends, variance))
        return turn

    def _choose(self, waiting: Waiting) -> tuple[Turn, Stand | None]:
        """As the router does: the first tier that has the task wait little longer than the best one."""
        known_ = [self._stands[name] for name in waiting.route if name in self._stands]
        usable = [stand for stand in known_ if stand.usable and self._groups.get(stand.group)]
        candidates = [stand for stand in usable if not stand.degraded] or usable
        if not candidates:
            return UNKNOWN, None
        frees = [(self._next(stand), stand) for stand in candidates]
        soonest = min(free.at for free, _ in frees)
        if soonest == _NEVER:
            return UNKNOWN, None
        free, chosen = next((free, stand) for free, stand in frees if free.at <= soonest + stand.patience_s)
        took = waiting.takes(chosen.name)
        if free.at <= 0.0:
            return Turn(chosen.name, None, took, waits=False), chosen
        start = spread_of(free.at, free.variance**0.5)
        return Turn(chosen.name, start, None if took is None else total([start, took])), chosen

    def _next(self, stand: Stand) -> _Free:
        free = self._groups[stand.group][0]
        limited = self._tiers.get(stand.name)
        if limited is not None:
            free = max(free, limited[0] if limited else _Free(_NEVER))
        return free


def _free(server: Server) -> _Free:
    if server.endless:
        return _Free(_NEVER)
    return _Free(0.0) if server.free is None else _Free(server.free.mid, (server.free.mid * server.free.sigma) ** 2)


def _later(turn: Turn, seconds: float) -> Turn:
    if turn is UNKNOWN or seconds <= 0.0:
        return turn
    shift = known(seconds)
    start = shift if turn.start is None else total([turn.start, shift])
    return Turn(turn.tier, start, None if turn.end is None else total([turn.end, shift]))
