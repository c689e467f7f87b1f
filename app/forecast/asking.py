"""When asking again pays: few questions, and a short time from the end of a task to the answer that tells of it.

A question costs something and so does not knowing. Where an end is as likely now as at any moment, it is cheapest to
ask in equal steps, of the square root of twice the price over the rate; where the chance grows, ever closer: the steps
are such that the root of rate over twice the price adds up to one over each. Source: Keller, "Optimum checking
schedules for systems subject to random failure", Management Science 21 (3), 1974.
"""

from __future__ import annotations

import math

from app.forecast.spread import Spread

PRICE_S = 0.2
"""What a question may cost in seconds of not knowing."""
_SURPRISE = 0.01
"""The share of tasks that end at any moment of their expected time all the same: cancelled, failed, overtaken."""
LEAST_S, MOST_S = 1, 300
_BLIND_LEAST_S, _BLIND_SHARE = 2.0, 0.1
"""Where nothing is known, a task is likely to go on for as long as it did: ask after a tenth of that."""


def ask_again(whole: Spread, elapsed: float = 0.0, *, most: int = MOST_S) -> int:
    """Seconds, 1 to `most`, after which to ask for something that takes `whole` in all and `elapsed` until now."""
    surprise = _SURPRISE / max(whole.left(elapsed, 0.9), _SURPRISE)
    before = whole.strain(elapsed)
    at, reached = 0, 0.0
    while at < most:
        step = max(1, at // 10)
        after = whole.strain(elapsed + at + step)
        reached += math.sqrt((max(after - before, 0.0) / step + surprise) / (2.0 * PRICE_S)) * step
        at, before = at + step, after
        if reached >= 1.0:
            break
    return min(max(at, LEAST_S), most)


def ask_blindly(age: float, *, most: int = 60) -> int:
    """Seconds after which to ask for something of which is known only that it has lasted for `age` seconds."""
    return min(max(math.ceil(max(age * _BLIND_SHARE, _BLIND_LEAST_S)), LEAST_S), most)
