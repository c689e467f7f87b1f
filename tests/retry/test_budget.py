"""The retry budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.retry.budget import RetryBudget


def test_without_traffic_every_retry_is_within_the_budget():
    budget = RetryBudget()
    for _ in range(19):
        assert budget.allows()
        budget.attempt_ended(retried=True)


@given(st.lists(st.booleans(), min_size=20, max_size=300))
def test_a_storm_is_held_to_the_share(wanted):
    """However many fail: once there is traffic, granted retries never exceed a fifth of the recent attempts."""
    budget = RetryBudget()
    for _ in range(20):
        budget.attempt_ended(retried=False)
    granted = [False] * 20
    for failed in wanted:
        grant = failed and budget.allows()
        budget.attempt_ended(retried=grant)
        granted = ([*granted, grant])[-100:]
        assert sum(granted) <= 0.2 * len(granted) + 1


def test_the_budget_recovers():
    budget = RetryBudget()
    for _ in range(50):
        budget.attempt_ended(retried=True)
    assert not budget.allows()
    for _ in range(100):
        budget.attempt_ended(retried=False)
    assert budget.allows()
