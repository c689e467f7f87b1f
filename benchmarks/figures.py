"""Small things that all benchmarks share."""

from __future__ import annotations

import socket
from datetime import datetime

import numpy as np


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def moment(stamp: str) -> float:
    """An ISO time as epoch seconds."""
    return datetime.fromisoformat(stamp).timestamp()


def percentile(values: list[float], q: float) -> float:
    """The q-th percentile (0..100) of `values`."""
    return float(np.percentile(values, q))


def summary(values: list[float], unit: float = 1.0) -> dict[str, float]:
    """10th percentile (what a quiet machine does), median, 99th percentile, worst and count; `unit` is a factor."""
    return {
        "p10": round(percentile(values, 10) * unit, 3),
        "p50": round(percentile(values, 50) * unit, 3),
        "p99": round(percentile(values, 99) * unit, 3),
        "max": round(max(values) * unit, 3),
        "n": len(values),
    }
