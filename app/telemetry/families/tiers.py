"""Metrics of the tiers' breakers."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class TierMetrics:
    """The observer of the board of tiers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._breakers = Gauge(
            "greenroom_breaker_state",
            "The breaker of a tier: 0 closed, 1 half open, 2 open.",
            ["tier"],
            registry=registry,
        )
        self._breaker_changes = Counter(
            "greenroom_breaker_changes_total",
            "Changes of a tier's breaker, by the state that it changed to.",
            ["tier", "state"],
            registry=registry,
        )

    def breaker_changed(self, tier: str, state: str) -> None:
        """The breaker of a tier changed to `state`."""
        self._breakers.labels(tier).set(_BREAKER_STATES[state])
        self._breaker_changes.labels(tier, state).inc()

    def expect_tiers(self, states: Mapping[str, str]) -> None:
        """Show the breakers of these tiers (name -> state) from the start."""
        for tier, state in states.items():
            self._breakers.labels(tier).set(_BREAKER_STATES[state])
            for other in _BREAKER_STATES:
                self._breaker_changes.labels(tier, other)
