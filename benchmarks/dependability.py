"""`make bench-dependability`: how fast trouble is seen and overcome, and what the queue carries. Saved beside the rest.

Peers, measured on such a machine by the project's founders, stand in the design notes: job queues with durable writes
reach 600 to 2,900 accepted jobs/s at 16 connections there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks import material
from benchmarks.__main__ import RESULTS, free_port, percentile
from benchmarks.service import Running, dump, service

REHEARSING = {
    "GREENROOM_REHEARSALS": "1",
    "GREENROOM_TIER_RENDERER": "rehearsal",
    "GREENROOM_BACKOFF_CAP_S": "0.001",
}
KILLS = 12
CANCELS = 20
WAIT_S = 60.0


def until(condition: Callable[[], Any], step_s: float = 0.002) -> float:
    """Seconds until `condition` holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > WAIT_S:
            raise TimeoutError
        time.sleep(step_s)
    return time.monotonic() - began


def task_of(running: Running, task_id: str) -> dict[str, Any]:
    """The task now."""
    answer = running.client.get(f"/tasks/{task_id}")
    if answer.status_code != 200:
        raise RuntimeError(answer.text)
    task: dict[str, Any] = answer.json()
    return task


def renders(running: Running, task_id: str, attempt: int) -> bool:
    """Whether this attempt of the task has frames by now."""
    task = task_of(running, task_id)
    return len(task["attempts"]) == attempt and task["progress"]["phase"] == "render" and task["progress"]["done"] > 0


def summary(values: list[float], unit: float = 1.0) -> dict[str, float]:
    """Median, 99th percentile and count."""
    return {
        "p50": round(statistics.median(values) * unit, 3),
        "p99": round(percentile(values, 99) * unit, 3),
        "n": len(values),
    }


def slot_pid(running: Running) -> int:
    """The process of the only slot."""
    return int(running.client.get("/queue").json()["slots"][0]["pid"])


def worker_killed(running: Running, source: str, audio: str) -> dict[str, float]:
    """From SIGKILL of a worker to the task rendering again, with a warm spare standing by."""
    times = []
    for _ in range(KILLS):
        task = running.generate(source=source, audio=audio, options={"frame_s": 0.02})
        until(lambda task=task: renders(running, task["id"], 1))
        # The spare of the last round needs its own time to load.
        time.sleep(1.5)
        if task_of(running, task["id"])["is_terminal"]:
            continue
        os.kill(slot_pid(running), signal.SIGKILL)
        times.append(until(lambda task=task: renders(running, task["id"], 2)))
        running.client.post(f"/tasks/{task['id']}/cancel")
        running.wait(task["id"])
    return summary(times)


def cancelled(running: Running, source: str, audio: str) -> dict[str, float]:
    """From the request to cancel to the task's end, which comes after the last sign of work."""
    times = []
    for _ in range(CANCELS):
        task = running.generate(source=source, audio=audio, options={"frame_s": 0.02})
        until(lambda task=task: renders(running, task["id"], 1))
        began = time.monotonic()
        running.client.post(f"/tasks/{task['id']}/cancel")
        running.wait(task["id"])
        times.append(time.monotonic() - began)
    return summary(times, 1000)


def service_killed(folder: Path) -> dict[str, float]:
    """From SIGKILL of the service and its workers, with a restart after 1 s, to the task rendering again."""
    times = []
    for number in range(4):
        data, port = folder / f"killed-{number}", free_port()
        with service(data, "--slots", "1", port=port, **REHEARSING) as running:
            source, audio = running.upload(material.portrait()), running.upload(material.speech())
            task = running.generate(source=source, audio=audio, options={"frame_s": 0.1})
            until(lambda running=running, task=task: renders(running, task["id"], 1))
            family = [
                running.process.pid,
                *(p.pid for p in psutil.Process(running.process.pid).children(recursive=True)),
            ]
            killed = time.monotonic()
            for pid in family:
                os.kill(pid, signal.SIGKILL)
            running.process.wait()
            time.sleep(max(0.0, 1.0 - (time.monotonic() - killed)))
            with service(data, "--slots", "1", port=port, **REHEARSING) as again:
                until(lambda again=again, task=task: renders(again, task["id"], 2))
                times.append(time.monotonic() - killed)
                again.client.post(f"/tasks/{task['id']}/cancel")
    return summary(times)


def stopped(folder: Path) -> dict[str, Any]:
    """From SIGSTOP of a worker, at the default intervals, to the failed attempt, and to the task rendering again."""
    with service(folder / "stopped", "--slots", "1", port=free_port(), **REHEARSING) as running:
        source, audio = running.upload(material.portrait()), running.upload(material.speech())
        task = running.generate(source=source, audio=audio, options={"frame_s": 0.3})
        until(lambda: renders(running, task["id"], 1))
        pid = slot_pid(running)
        os.kill(pid, signal.SIGSTOP)
        detected = until(lambda: task_of(running, task["id"])["attempts"][0]["outcome"] is not None)
        again = detected + until(lambda: renders(running, task["id"], 2))
        woken = psutil.pid_exists(pid)
        running.client.post(f"/tasks/{task['id']}/cancel")
        return {"detected_s": round(detected, 2), "rendering_again_s": round(again, 2), "stopped_process_left": woken}


def turnaround(running: Running, source: str, audio: str) -> dict[str, float]:
    """From one end to the next start on a slot, with queued no-op rehearsals."""
    from benchmarks.__main__ import _time

    options = {"fps": 1, "size": 16}
    tasks = [running.generate(source=source, audio=audio, options=options) for _ in range(100)]
    spans = sorted((_time(t["started_at"]), _time(t["finished_at"])) for t in (running.wait(t["id"]) for t in tasks))
    cycle = (spans[-1][0] - spans[0][0]) / (len(spans) - 1)
    gaps = [max(0.0, later[0] - earlier[1]) for earlier, later in pairwise(spans)]
    return {**summary(gaps, 1000), "ms_per_job": round(cycle * 1000, 2)}


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


def durable_posts(running: Running, source: str, audio: str, folder: Path) -> dict[str, Any]:
    """Accepted tasks a second at 1, 16 and 64 connections, each committed before its answer."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return {"skipped": "wrk is not installed (Debian: apt install wrk)"}
    script = folder / "post.lua"
    script.write_text(LUA % (source, audio))
    results: dict[str, Any] = {}
    for connections in (1, 16, 64):
        command = [wrk, "-t1", f"-c{connections}", "-d6s", "-s", str(script), f"{running.client.base_url}generate"]
        if not str(running.client.base_url).endswith("/"):
            command[-1] = f"{running.client.base_url}/generate"
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        row = next(line for line in out.splitlines() if line.startswith("RESULT")).split()
        errors = int(next(line for line in out.splitlines() if line.startswith("ERRORS")).split()[1])
        results[str(connections)] = {
            "requests_per_s": round(int(row[1]) / (int(row[2]) / 1e6)),
            "p50_ms": float(row[3]),
            "p99_ms": float(row[4]),
            "errors": errors,
        }
    return results


def claims(folder: Path) -> dict[str, Any]:
    """Claim and create latency with no task and with a million in the table."""
    from sqlalchemy import create_engine, text

    from app.store.records import InputRef, NewTask
    from app.store.sql import open_store

    file = InputRef("upload:x", "0" * 64, 1, "x")
    results = {}
    path = folder / "claims.db"
    for stored in (0, 1_000_000):
        if stored:
            store = open_store(path)
            seed = store.create(NewTask(file, file)).task
            store.close()
            with create_engine(f"sqlite:///{path}").begin() as connection:
                columns = [row[1] for row in connection.execute(text("PRAGMA table_info(tasks)"))]
                listed = ", ".join(columns)
                picked = ", ".join("'bulk_' || n" if c == "id" else c for c in columns)
                connection.execute(
                    text(
                        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :count) "
                        f"INSERT INTO tasks ({listed}) SELECT {picked} FROM tasks, c WHERE tasks.id = :seed"
                    ),
                    {"count": stored, "seed": seed.id},
                )
                connection.execute(text("UPDATE counters SET value = value + :n WHERE name = 'QUEUED'"), {"n": stored})
        store = open_store(path)
        creating, claiming = [], []
        for _ in range(300):
            began = time.perf_counter()
            store.create(NewTask(file, file, priority=9))
            creating.append(time.perf_counter() - began)
        for _ in range(300):
            began = time.perf_counter()
            assert store.claim("node", lease_s=600, tier="t", slot="s", device="cpu") is not None
            claiming.append(time.perf_counter() - began)
        store.close()
        results[str(stored)] = {"create_ms": summary(creating, 1000), "claim_ms": summary(claiming, 1000)}
    return results


def idle_cpu(running: Running) -> float:
    """CPU of the service process, per cent of one core, over 10 s with nothing to do."""
    process = psutil.Process(running.process.pid)
    before = process.cpu_times()
    time.sleep(10)
    after = process.cpu_times()
    return round((after.user + after.system - before.user - before.system) * 10, 2)


def main() -> None:
    """Measure everything."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with service(
            folder / "one", "--slots", "1", port=free_port(), GREENROOM_MAX_WAITING="10000000", **REHEARSING
        ) as one:
            source, audio = one.upload(material.portrait()), one.upload(material.speech())
            results["idle_cpu_percent"] = idle_cpu(one)
            results["worker_killed_to_rendering_s"] = worker_killed(one, source, audio)
            results["cancel_to_end_ms"] = cancelled(one, source, audio)
            results["turnaround_ms"] = turnaround(one, source, audio)
            results["durable_posts"] = durable_posts(one, source, audio, folder)
        print(json.dumps(results, indent=2), flush=True)
        results["service_killed_to_rendering_s"] = service_killed(folder)
        results["stopped"] = stopped(folder)
        results["store"] = claims(folder)
    print(json.dumps(results, indent=2))
    dump(results, RESULTS / "dependability.json")


if __name__ == "__main__":
    main()
