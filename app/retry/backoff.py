"""How long to wait before a retry: four strategies, whose arithmetic is tenacity's."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, Protocol

from tenacity import RetryCallState, wait_exponential, wait_fixed, wait_random_exponential
from tenacity.wait import wait_base

Uniform = Callable[[float, float], float]
BackoffName = Literal["seed", "fixed", "exponential", "full_jitter"]


class Backoff(Protocol):
    """A strategy."""

    def __call__(self, retry: int, first_delay_s: float) -> float:
        """Seconds before retry number `retry` (1-based) of a cause whose first delay is `first_delay_s`.

        Never negative and never over the strategy's cap; 0 if `first_delay_s` is.
        """


def make_backoff(name: BackoffName, cap_s: float, *, uniform: Uniform = random.uniform) -> Backoff:
    """The strategy called `name`, none of whose waits is longer than `cap_s` seconds.

    - `seed`: `min(first * 2**(retry-1), cap) * uniform(0.5, 1)`. Source: DESIGN section 7.
    - `fixed`: `min(first, cap)` every time.
    - `exponential`: `min(first * 2**(retry-1), cap)`.
    - `full_jitter`: evenly from 0 to that. Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    `uniform` is the randomness of `seed`; that of `full_jitter` is tenacity's own, the `random` module's.
    """

    def seed(retry: int, first_delay_s: float) -> float:
        return _asked(wait_exponential(multiplier=first_delay_s, max=cap_s), retry) * uniform(0.5, 1.0)

    def fixed(retry: int, first_delay_s: float) -> float:
        return _asked(wait_fixed(min(first_delay_s, cap_s)), retry)

    def exponential(retry: int, first_delay_s: float) -> float:
        return _asked(wait_exponential(multiplier=first_delay_s, max=cap_s), retry)

    def full_jitter(retry: int, first_delay_s: float) -> float:
        return _asked(wait_random_exponential(multiplier=first_delay_s, max=cap_s), retry)

    chosen: dict[BackoffName, Backoff] = {
        "seed": seed,
        "fixed": fixed,
        "exponential": exponential,
        "full_jitter": full_jitter,
    }
    strategy = chosen[name]

    def pause(retry: int, first_delay_s: float) -> float:
        # tenacity's powers overflow into the cap, whatever they are multiplied with.
        return strategy(retry, first_delay_s) if first_delay_s > 0 else 0.0

    return pause


def _asked(wait: wait_base, retry: int) -> float:
    """What a strategy of tenacity's says before retry number `retry`."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = retry
    return float(wait(state))
