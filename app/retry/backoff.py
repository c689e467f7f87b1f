"""How long to wait before a retry. The arithmetic is tenacity's; this names our formula."""

from __future__ import annotations

import random
from collections.abc import Callable

from tenacity import RetryCallState, wait_exponential

Uniform = Callable[[float, float], float]


def seed_backoff(retry: int, first_delay_s: float, *, cap_s: float = 60.0, uniform: Uniform = random.uniform) -> float:
    """Seconds before retry number `retry` (1-based): `min(first * 2**(retry-1), cap) * uniform(0.5, 1.0)`.

    Source: DESIGN section 7 (the seed formula). `first_delay_s` of 0 retries at once.
    """
    if first_delay_s <= 0:
        return 0.0
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = retry
    return float(wait_exponential(multiplier=first_delay_s, max=cap_s)(state)) * uniform(0.5, 1.0)
