"""The order in which runnable tasks are claimed."""

from __future__ import annotations

PRIORITY_MIN, PRIORITY_MAX, PRIORITY_DEFAULT = 0, 9, 5

HEAD_START_S = 60.0
"""Seconds by which one priority level goes ahead of the next lower one. A low task that has waited that much longer
goes first all the same, so nothing starves."""


def rank(enqueued_at: float, priority: int, head_start_s: float = HEAD_START_S) -> float:
    """The claim order of a task: lower goes first. `enqueued_at` in epoch seconds, `priority` 0 (low) to 9 (high)."""
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise ValueError(f"priority must be {PRIORITY_MIN} to {PRIORITY_MAX}, not {priority}")
    return enqueued_at - priority * head_start_s
