"""What it costs to answer from the result cache, beside a request that has to wait for its render."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.figures import free_port, percentile
from benchmarks.handover import half_second
from benchmarks.service import Running, service

HITS = 500
MISSES = 200
_IN_A_CENTURY = "2100-01-01T00:00:00Z"


def _posts(running: Running, count: int, *, cached: bool, **request: Any) -> list[float]:
    """Milliseconds of each POST /generate, one after the other."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        task = running.generate(**request)
        times.append((time.perf_counter() - began) * 1000)
        assert task["cached"] is cached, task
    return times


def hits(folder: Path) -> dict[str, Any]:
    """POSTs that end with a cached result, among them the first of a started service, which reads the whole file."""
    with service(folder / "cache", "--slots", "1", port=free_port()) as running:
        inputs = {
            "source": running.upload(material.portrait()),
            "audio": running.upload(half_second(folder / "half.wav")),
        }
        rendered = running.wait(running.generate(**inputs)["id"])
        assert rendered["status"] == "SUCCEEDED", rendered["error"]
        first = _posts(running, 1, cached=True, **inputs)
        served = _posts(running, HITS, cached=True, **inputs)
        queued = _posts(running, MISSES, cached=False, **inputs, not_before=_IN_A_CENTURY)
        return {
            "result_bytes": rendered["output"]["bytes"],
            "first_hit_ms": round(first[0], 2),
            "hit_p50_ms": round(percentile(served, 50), 2),
            "hit_p99_ms": round(percentile(served, 99), 2),
            "queued_p50_ms": round(percentile(queued, 50), 2),
            "queued_p99_ms": round(percentile(queued, 99), 2),
        }
