"""`make bench-monitoring`: what the health checks cost a render (R0.11). Saved beside the rest.

Three services stand side by side: one with checks as they are, one without (an interval that never comes), one that
checks `OFTEN` times as often. They render the same CPU-bound clip in turns, in changing order, so that a machine that
others use, too, slows them alike.

All that a check does happens in the service's process, which has little else to do while a clip is rendered. So its
processor time per second of rendering is the figure: what the third service spends beyond the second is the price of
its checks. Divided by `RENEWED` it is above what the first one pays: the dearest part of a check, renewing the lease,
follows a heartbeat, and those come once a second however often is checked. It is told as a share of one core, all of
which is taken to be the render's loss. Processor time does not depend on what else the machine does; the ratios of
whole renders, in wall and processor time, stand beside it and do. Means have 95 % intervals, from resampling the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks import material
from benchmarks.figures import free_port
from benchmarks.handover import half_second
from benchmarks.service import Running, dump, service

RESULTS = Path(__file__).parent / "results"
NORMAL_S = 5.0
OFTEN = 100
RENEWED = 5
"""How much oftener the third service renews the lease: with each heartbeat, not each fifth."""
NEVER = {"GREENROOM_HEALTH_INTERVAL_S": "100000", "GREENROOM_LEASE_S": "100000"}
"""The lease is renewed by the checks: without them it must last."""
SERVICES: dict[str, dict[str, str]] = {
    "as it is": {"GREENROOM_HEALTH_INTERVAL_S": str(NORMAL_S)},
    "off": NEVER,
    # More checks than heartbeats: most find none, which must not end the attempt.
    "often": {"GREENROOM_HEALTH_INTERVAL_S": str(NORMAL_S / OFTEN), "GREENROOM_HEALTH_STRIKES": "1000000"},
}
TARGET_PERCENT = 1.0
RESAMPLED = 10_000


class Spent(NamedTuple):
    """Seconds that one render took: of the clock, of the service's processor time, of its processes'."""

    wall: float
    service: float
    workers: float


def cpu_s(running: Running) -> tuple[float, float]:
    """User and system time so far of the service, and of its processes."""
    parent = psutil.Process(running.process.pid)
    own = parent.cpu_times()
    return own.user + own.system, sum(sum(child.cpu_times()[:2]) for child in parent.children(recursive=True))


def render(running: Running, source: str, audio: str) -> Spent:
    """One task, from its start to its end."""
    service_before, workers_before = cpu_s(running)
    began = time.monotonic()
    task = running.wait(running.generate(source=source, audio=audio, cache=False)["id"])
    assert task["status"] == "SUCCEEDED", task["error"]
    wall = time.monotonic() - began
    service_after, workers_after = cpu_s(running)
    return Spent(wall, service_after - service_before, workers_after - workers_before)


def checks(running: Running) -> int:
    """Health checks that the service has made."""
    lines = running.client.get("/metrics").text.splitlines()
    return round(sum(float(line.split()[-1]) for line in lines if line.startswith("greenroom_health_checks_total{")))


def mean(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval, by resampling."""
    found = np.array(values)
    chance = np.random.default_rng(1)
    low, high = np.percentile(chance.choice(found, (RESAMPLED, len(found))).mean(axis=1), [2.5, 97.5])
    return {"mean": round(float(found.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def excess(ones: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """By how many per cent `ones` exceed `others`, pair by pair."""
    return {
        name: round(float(np.expm1(value)) * 100, 2)
        for name, value in mean(list(np.log(np.array(ones) / np.array(others)))).items()
    }


def figures(spent: dict[str, list[Spent]]) -> dict[str, Any]:
    """What the turns tell."""
    share = {name: [100 * one.service / one.wall for one in rows] for name, rows in spent.items()}
    more = [often - off for often, off in zip(share["often"], share["off"], strict=True)]
    at_most = mean([each / RENEWED for each in more])
    whole = {name: [one.service + one.workers for one in rows] for name, rows in spent.items()}
    wall = {name: [one.wall for one in rows] for name, rows in spent.items()}
    return {
        "turns": len(more),
        "cost_at_most_percent_of_a_core": at_most,
        "target_percent": TARGET_PERCENT,
        "within_target": at_most["high"] <= TARGET_PERCENT,
        "checking_often_percent_of_a_core": mean(more),
        "service_percent_of_a_core": {name: mean(rows) for name, rows in share.items()},
        "render_s": {name: round(float(np.median(rows)), 2) for name, rows in wall.items()},
        "render_processor_s": {name: round(float(np.median(rows)), 2) for name, rows in whole.items()},
        "render_with_checks_beyond_one_without_percent": {
            "wall": excess(wall["as it is"], wall["off"]),
            "processor": excess(whole["as it is"], whole["off"]),
        },
    }


def measure(turns: int, folder: Path) -> dict[str, Any]:
    """`turns` of all three services."""
    spent: dict[str, list[Spent]] = {name: [] for name in SERVICES}
    load = [round(os.getloadavg()[0], 1)]
    with ExitStack() as stack:
        refs = {}
        running = {}
        half, long = half_second(folder / "half.wav"), material.long_speech(folder / "long.wav", 2)
        for name, environment in SERVICES.items():
            data = folder / name.replace(" ", "-")
            more = {"GREENROOM_SPARES": "0", **environment}
            one = stack.enter_context(service(data, "--slots", "1", port=free_port(), **more))
            running[name] = one
            refs[name] = (one.upload(material.portrait()), one.upload(long))
            render(one, refs[name][0], one.upload(half))  # warm
        names = list(SERVICES)
        for turn in range(turns):
            for name in names if turn % 2 == 0 else reversed(names):
                spent[name].append(render(running[name], *refs[name]))
        checked = {name: checks(one) for name, one in running.items()}
    load.append(round(os.getloadavg()[0], 1))
    return figures(spent) | {"checks": checked, "load_average": dict(zip(("before", "after"), load, strict=True))}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    with tempfile.TemporaryDirectory() as name:
        results = measure(parser.parse_args().turns, Path(name))
    print(json.dumps(results, indent=2))
    dump(results, RESULTS / "monitoring.json")


if __name__ == "__main__":
    main()
