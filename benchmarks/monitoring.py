"""`make bench-monitoring`: what the health checks cost a render (R0.11). Saved beside the rest.

Three services stand side by side: one with checks as they are, one without (an interval that never comes), one that
checks `OFTEN` times as often. They render the same CPU-bound clip of half a minute in turns, in changing order, so that
a machine that others use, too, slows them alike. The cost is the ratio within each turn, in wall time and in the CPU
time of service and worker, as the mean of the turns' logarithms with its 95 % interval from resampling.

The third service makes a cost visible that the noise hides: its excess, divided by `RENEWED`. The dearest part of a
check, renewing the lease, follows a heartbeat, and those come once a second however often is checked: the quotient is
above the true cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
RESAMPLED = 10_000


def cpu_s(running: Running) -> float:
    """User and system time so far of the service and its processes."""
    parent = psutil.Process(running.process.pid)
    return sum(sum(process.cpu_times()[:2]) for process in (parent, *parent.children(recursive=True)))


def render(running: Running, source: str, audio: str) -> tuple[float, float]:
    """Wall and CPU seconds of one task, from its start to its end."""
    before = cpu_s(running)
    began = time.monotonic()
    task = running.wait(running.generate(source=source, audio=audio, cache=False)["id"])
    assert task["status"] == "SUCCEEDED", task["error"]
    return time.monotonic() - began, cpu_s(running) - before


def checks(running: Running) -> int:
    """Health checks that the service has made."""
    lines = running.client.get("/metrics").text.splitlines()
    return round(sum(float(line.split()[-1]) for line in lines if line.startswith("greenroom_health_checks_total{")))


def excess(ones: list[float], others: list[float], share: float = 1.0) -> dict[str, float]:
    """By how many per cent `ones` exceed `others`, pair by pair, times `share`: mean and 95 % interval."""
    logs = np.log(np.array(ones) / np.array(others))
    chance = np.random.default_rng(1)
    means = chance.choice(logs, (RESAMPLED, len(logs))).mean(axis=1)
    low, middle, high = (
        np.expm1(value) * 100 * share
        for value in (*np.percentile(means, [2.5]), logs.mean(), *np.percentile(means, [97.5]))
    )
    return {"mean": round(float(middle), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def measure(pairs: int, folder: Path) -> dict[str, Any]:
    """`pairs` turns of all three services."""
    wall: dict[str, list[float]] = {name: [] for name in SERVICES}
    cpu: dict[str, list[float]] = {name: [] for name in SERVICES}
    with ExitStack() as stack:
        refs = {}
        running = {}
        half, long = half_second(folder / "half.wav"), material.long_speech(folder / "long.wav")
        for name, environment in SERVICES.items():
            one = stack.enter_context(
                service(
                    folder / name.replace(" ", "-"),
                    "--slots",
                    "1",
                    port=free_port(),
                    GREENROOM_SPARES="0",
                    **environment,
                )
            )
            running[name] = one
            refs[name] = (one.upload(material.portrait()), one.upload(long))
            render(one, refs[name][0], one.upload(half))  # warm
        names = list(SERVICES)
        for turn in range(pairs):
            for name in names if turn % 2 == 0 else reversed(names):
                seconds, spent = render(running[name], *refs[name])
                wall[name].append(seconds)
                cpu[name].append(spent)
        checked = {name: checks(one) for name, one in running.items()}
    return {
        "pairs": pairs,
        "render_s": {name: round(float(np.median(values)), 2) for name, values in wall.items()},
        "cpu_s": {name: round(float(np.median(values)), 2) for name, values in cpu.items()},
        "checks": checked,
        "cost_percent": {"wall": excess(wall["as it is"], wall["off"]), "cpu": excess(cpu["as it is"], cpu["off"])},
        "cost_percent_at_most_by_checking_often": {
            "wall": excess(wall["often"], wall["off"], 1 / RENEWED),
            "cpu": excess(cpu["often"], cpu["off"], 1 / RENEWED),
        },
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    with tempfile.TemporaryDirectory() as name:
        results = measure(parser.parse_args().pairs, Path(name))
    print(json.dumps(results, indent=2))
    dump(results, RESULTS / "monitoring.json")


if __name__ == "__main__":
    main()
