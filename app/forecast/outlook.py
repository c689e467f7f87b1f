"""What can be told of a task that has not ended: how long it waits, when it ends, and when asking again pays."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.forecast.asking import LEAST_S, MOST_S, ask_again, ask_blindly
from app.forecast.queueing import Turn
from app.forecast.spread import Spread

_DELAY_MOST_S = 3600
_CANCELLING_S = 1
_BY_THE_CLOCK = frozenset({"scheduled", "retry_backoff", "breaker_open", "predecessor"})
"""Reasons to wait that end at a moment that is known, or expected."""
_BY_TURNS = frozenset({None, "slot", "twin"})


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt: what it takes in all, and for how long it has run."""

    whole: Spread
    elapsed: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """Of one task. Seconds; None where nobody can know."""

    wait_s: float | None = None
    """Until it starts; None where it runs."""
    eta_s: float | None = None
    """Until it ends."""
    delay_s: float = 0.0
    """Before so long nothing can happen."""
    ends: Running | None = None
    """What is expected from then on."""
    age_s: float = 0.0
    """For how long nothing has been known."""
    soon: bool = False
    """It ends any moment."""

    @property
    def again_s(self) -> int:
        """After how many whole seconds to ask again."""
        if self.soon:
            return _CANCELLING_S
        if self.ends is not None:
            after = ask_again(self.ends.whole, self.ends.elapsed, most=MOST_S)
        else:
            after = 0 if self.delay_s > 0.0 else ask_blindly(self.age_s)
        return min(max(math.ceil(self.delay_s) + after, LEAST_S), _DELAY_MOST_S)


def foresee(
    reason: str | None,
    *,
    until_s: float | None = None,
    age_s: float = 0.0,
    running: Running | None = None,
    turn: Turn | None = None,
    turn_age_s: float = 0.0,
    takes: Spread | None = None,
) -> Outlook:
    """The outlook of a task that waits for `reason` (`app.api.resource.Wait`; None: it runs), which ends in `until_s`.

    `running` is its attempt, or its leader's; `turn` what the queue gave it `turn_age_s` ago; `takes` what an attempt
    of it is expected to take; `age_s` for how long it has waited or run.
    """
    age_s = max(age_s, 0.0)
    if reason == "cancelling":
        return Outlook(soon=True)
    if reason in _BY_THE_CLOCK and until_s is not None:
        delay = max(until_s, 0.0)
        if takes is None:
            return Outlook(delay, None, delay_s=delay, age_s=age_s)
        return Outlook(delay, delay + takes.mid, delay_s=delay, ends=Running(takes, 0.0))
    if reason not in _BY_TURNS:
        return Outlook(age_s=age_s)
    if running is not None:
        left = running.whole.left(running.elapsed)
        return Outlook(left if reason == "twin" else None, left, ends=running)
    if turn is None or (turn.start is None and turn.waits):
        return Outlook(age_s=age_s)
    wait = 0.0 if turn.start is None else turn.start.left(turn_age_s)
    if turn.end is None:
        return Outlook(wait, None, age_s=age_s)
    # It still waits: what it takes, at least, is ahead of it.
    after = 0.0 if takes is None else takes.mid
    return Outlook(wait, max(turn.end.left(turn_age_s), wait + after), ends=Running(turn.end, turn_age_s))
