"""When a notice that was not taken is tried again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

HOUR = 3600.0
SCHEDULE_S: tuple[float, ...] = (
    0.0, 5.0, 300.0, 1800.0, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR,
)  # fmt: skip
"""Seconds from one try to the next, beginning with the commit: ten tries in a little more than three days.
Source: DESIGN section 10, and the operational advice of Standard Webhooks."""

JITTER = 0.2
"""The most that is added to a delay, as a part of it: notices that failed together do not come back together."""

RETRY_AFTER_MOST_S = 24 * HOUR
"""An endpoint may ask for more patience than the schedule has, within the schedule's longest delay."""


def next_try(
    failed: int, now: float, *, schedule: Sequence[float], chance: float, retry_after: float | None = None
) -> float | None:
    """When to try again after `failed` failed tries, None if that was the last one.

    `chance` is uniform from 0 to 1; `retry_after` is the endpoint's wish in seconds. Times in epoch seconds.
    """
    if failed >= len(schedule):
        return None
    planned = schedule[failed] * (1 + JITTER * chance)
    return now + max(planned, min(retry_after or 0.0, RETRY_AFTER_MOST_S))


def seconds_of(retry_after: str, now: float) -> float | None:
    """A `Retry-After` header in seconds from `now`, None where it is missing or not understood."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())
