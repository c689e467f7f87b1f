"""`make bench-dependability`: how fast trouble is seen and overcome, and what the queue carries. Saved beside the rest.

Peers, measured on such a machine by the project's founders, stand in the design notes: job queues with durable writes
reach 600 to 2,900 accepted jobs/s at 16 connections there. The load average at the beginning and the end stands in the
report: on a machine that others use, too, look at the 10th percentiles.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks import caching, failover, material, recovery
from benchmarks.figures import free_port
from benchmarks.handover import half_second, pickup, turnaround
from benchmarks.parts import measure_parts
from benchmarks.queue_size import flatness
from benchmarks.recovery import REHEARSING, family
from benchmarks.scheduled import lags
from benchmarks.service import Running, service

RESULTS = Path(__file__).parent / "results"
IDLE_S = 10.0
KEY_ROUNDS = 3
KEY_ROUND_S = 4


LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"source": "%s", "audio": "%s", "not_before": "2100-01-01T00:00:00Z"}'
function done(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%.1f %%.1f\\n", summary.requests, summary.duration,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
  io.write(string.format("ERRORS %%d\\n", summary.errors.status + summary.errors.timeout + summary.errors.connect))
end
"""

KEYS_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local number = %d
local body = '{"source": "%s", "audio": "%s", "cache": %s, "options": {"seed": '
function request()
  number = number + 1
  return wrk.format(nil, nil, nil, body .. number .. '}}')
end
""" + LUA[LUA.index("function done") :]


def posts(running: Running, source: str, audio: str, folder: Path) -> dict[str, Any]:
    """Accepted tasks a second at 1, 16 and 64 connections, each committed before its answer."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return {"skipped": "wrk is not installed (Debian: apt install wrk)"}
    script = folder / "post.lua"
    script.write_text(LUA % (source, audio))
    results: dict[str, Any] = {}
    for connections in (1, 16, 64):
        results[str(connections)] = _wrk(wrk, running, script, connections, 6)
    return results


def _wrk(wrk: str, running: Running, script: Path, connections: int, seconds: int) -> dict[str, Any]:
    url = f"{str(running.client.base_url).rstrip('/')}/generate"
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    row = next(line for line in out.splitlines() if line.startswith("RESULT")).split()
    errors = int(next(line for line in out.splitlines() if line.startswith("ERRORS")).split()[1])
    return {
        "requests_per_s": round(int(row[1]) / (int(row[2]) / 1e6)),
        "p50_ms": float(row[3]),
        "p99_ms": float(row[4]),
        "errors": errors,
    }


def idle_cpu(running: Running) -> dict[str, float]:
    """CPU with nothing to do, per cent of one core: the service's process, and with all its processes."""
    everyone = family(running)

    def spent() -> list[float]:
        return [sum(process.cpu_times()[:2]) for process in everyone]

    before = spent()
    time.sleep(IDLE_S)
    used = [(after - earlier) / IDLE_S * 100 for earlier, after in zip(before, spent(), strict=True)]
    return {"service": round(used[0], 2), "with_its_processes": round(sum(used), 2)}


def on_one_service(folder: Path) -> dict[str, Any]:
    """All that one service on one slot can show."""
    data = folder / "one"
    more = {"GREENROOM_MAX_WAITING": "10000000", **REHEARSING}
    with service(data, "--slots", "1", port=free_port(), **more) as one:
        source, audio = one.upload(material.portrait()), one.upload(material.speech())
        short = one.upload(half_second(folder / "half.wav"))
        return {
            "turnaround": turnaround(one, data, source, short),
            "pickup": pickup(one, data, source, short),
            # By now the spare has loaded, which is no idling.
            "idle_cpu_percent": idle_cpu(one),
            "worker_killed_to_rendering_s": recovery.worker_killed(one, source, audio),
            "cancel_to_end_ms": recovery.cancelled(one, source, audio),
            "cancel_to_end_of_a_deaf_render_ms": recovery.cancelled_and_deaf(one, source, audio),
        }


def durable_posts(folder: Path) -> dict[str, Any]:
    """Accepted tasks a second on a service that does nothing else."""
    more = {"GREENROOM_MAX_WAITING": "10000000", **REHEARSING}
    with service(folder / "posts", "--slots", "1", port=free_port(), **more) as one:
        return posts(one, one.upload(material.portrait()), one.upload(material.speech()), folder)


def cache_keys(folder: Path) -> dict[str, Any]:
    """Posts that take part in the cache beside posts that do not (`cache: false`), in turns; none equals another.

    The queue is paused, so that all of them could run at once: who is scheduled for later joins nobody.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        return {"skipped": "wrk is not installed (Debian: apt install wrk)"}
    rates: dict[bool, list[int]] = {True: [], False: []}
    spent: dict[bool, list[float]] = {True: [], False: []}
    with service(folder / "keys", "--slots", "1", port=free_port(), GREENROOM_MAX_WAITING="10000000") as one:
        source, audio = one.upload(material.portrait()), one.upload(material.speech())
        one.client.post("/queue/pause").raise_for_status()
        process = psutil.Process(one.process.pid)
        for number in range(2 * KEY_ROUNDS):
            keyed = number % 2 == 0
            script = folder / "keys.lua"
            script.write_text(KEYS_LUA % (number * 10_000_000, source, audio, str(keyed).lower()))
            before = sum(process.cpu_times()[:2])
            found = _wrk(wrk, one, script, 16, KEY_ROUND_S)
            assert not found["errors"], found
            rates[keyed].append(found["requests_per_s"])
            posted = found["requests_per_s"] * KEY_ROUND_S
            spent[keyed].append(round(1000 * (sum(process.cpu_times()[:2]) - before) / posted, 3))
    median = {keyed: statistics.median(found) for keyed, found in rates.items()}
    cpu = {keyed: statistics.median(found) for keyed, found in spent.items()}
    return {
        "with_keys_per_s": rates[True],
        "without_per_s": rates[False],
        "ratio_of_medians": round(median[True] / median[False], 3),
        "processor_ms_per_post": {"with_keys": cpu[True], "without": cpu[False]},
    }


PARTS: dict[str, Callable[[Path], Any]] = {
    "one_service": on_one_service,
    "durable_posts": durable_posts,
    "service_killed_to_rendering_s": recovery.service_killed,
    "worker_stopped": recovery.worker_stopped,
    "service_stopped": recovery.service_stopped,
    "scheduled": lags,
    "failover": failover.added,
    "cache": caching.hits,
    "posts_with_cache_keys": cache_keys,
    "queue_size": flatness,
}


def main() -> None:
    """Measure all parts, or those that are named; what was saved of the others stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    measure_parts(PARTS, parser.parse_args().parts or list(PARTS), RESULTS / "dependability.json")


if __name__ == "__main__":
    main()
