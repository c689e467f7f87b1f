"""`make soak`: rehearsals with random faults against a real service; it and its workers are killed now and then.

Every accepted task must end once, as its rehearsal intends; nothing may be left. Prints and saves the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import material
from benchmarks.figures import free_port, moment

RESULTS = Path(__file__).parent / "results"
MIB = 1024 * 1024
RESTART_AFTER_S = 1.0
"""What a supervisor such as systemd waits before it starts a killed service again."""
KILL_EVERY_S = 2.5
SERVICE_KILL_EVERY = 8
"""Every so many kills it is the service that is killed, and every second time of those with all its processes."""
START_S = 90.0
END_S = 900.0
SETTINGS = {
    "GREENROOM_REHEARSALS": "1",
    "GREENROOM_TIER_RENDERER": "rehearsal",
    "GREENROOM_SLOTS": "3",
    "GREENROOM_LOG_FORMAT": "json",
    "GREENROOM_BACKOFF_CAP_S": "0.2",
    "GREENROOM_HEALTH_INTERVAL_S": "1.5",
    **{f"GREENROOM_PHASE_{phase}_S": "5" for phase in ("LOAD", "FETCH", "ANALYSE", "RENDER", "ENCODE")},
}
HANGING = ({"fault": "stop"}, {"fault": "block_gil"}, {"fault": "block"}, {"fault": "stall"}, {"fault": "stuck_frame"})
FAILING = (
    {"fault": "raise", "exception": "queue.Empty"},
    {"fault": "raise", "exception": "BrokenPipeError"},
    {"fault": "raise", "code": "GPU_OOM"},
    {"fault": "raise", "code": "INPUT_NO_FACE"},
    {"fault": "exit", "exit_code": 0},
    {"fault": "exit", "exit_code": 3},
    {"fault": "kill"},
    {"fault": "fill_disk", "megabytes": 4},
    {"fault": "leak"},
    {"fault": "false_done"},
    {"fault": "half_frame"},
    {"fault": "garbage_frame"},
    {"fault": "foreign_frame"},
    {"fault": "leave_behind"},
    {"fault": "unplayable"},
    {"fault": "short"},
)
NOT_RETRIED = "INPUT_NO_FACE"
ALARMS = ("WORKER_UNRESPONSIVE", "WORKER_STALLED")


def rehearsal(chance: random.Random) -> dict[str, Any]:
    """Options of one task: most come to nothing bad or to one fault, some fail always, some hang."""
    options: dict[str, Any] = {
        "frame_s": 0.02,
        "phase": chance.choice(["load", "analyse", "render", "render", "encode"]),
    }
    kind = chance.random()
    if kind < 0.4:
        return options
    fault = chance.choice(HANGING if kind > 0.9 else FAILING)
    return options | fault | {"frame": chance.randint(0, 24), "times": None if 0.4 <= kind < 0.5 else 1}


def succeeds(options: dict[str, Any]) -> bool:
    """Whether the rehearsal means its task to succeed."""
    return "fault" not in options or (options["times"] is not None and options.get("code") != NOT_RETRIED)


def percentiles(values: list[float]) -> dict[str, Any]:
    """Count, p50 and p99."""
    if not values:
        return {"count": 0, "p50_s": None, "p99_s": None}
    p50, p99 = np.percentile(values, [50, 99])
    return {"count": len(values), "p50_s": round(float(p50), 3), "p99_s": round(float(p99), 3)}


class Stage:
    """The service on its port and data directory, restarted as often as it is killed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.data = folder / "data"
        self._log = (folder / "service.log").open("ab")
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self.process = self._start()
        self.warmed_up = ""
        """The task of the warming up."""

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "app", "serve", "--port", str(self.port), "--data-dir", str(self.data)]
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, env={**os.environ, **SETTINGS})

    def until_ready(self) -> None:
        """Wait for /health/ready."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            try:
                if self.client.get("/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise TimeoutError("the service is not ready")

    def family(self) -> list[psutil.Process]:
        """Service and children."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def kill(self, *, all_of_it: bool) -> None:
        """SIGKILL, and a new start after the pause of a supervisor."""
        for process in reversed(self.family() if all_of_it else [psutil.Process(self.process.pid)]):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(30)
        time.sleep(RESTART_AFTER_S)
        self.process = self._start()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(90)
        self.client.close()
        self._log.close()
        return code

    def warm_up(self, source: str, audio: str) -> None:
        """One task, asked for by many at once: the connections to the database are open then."""
        task = self.client.post("/generate", json={"source": source, "audio": audio}).raise_for_status().json()
        with ThreadPoolExecutor(16) as callers:
            list(callers.map(lambda _: self.client.get(f"/tasks/{task['id']}", params={"wait": 5}), range(64)))
        self.warmed_up = str(task["id"])

    def measure(self) -> dict[str, Any]:
        """Threads, descriptors, memory and processes, at rest."""
        while any(slot["state"] != "idle" for slot in self.client.get("/queue").json()["slots"]):
            time.sleep(0.05)
        time.sleep(3.0)  # the spare is there again
        family = self.family()
        return {
            "threads": family[0].num_threads(),
            "descriptors": family[0].num_fds(),
            "memory_mib": round(family[0].memory_info().rss / MIB, 1),
            "processes": len(family),
        }


@dataclass
class Soak:
    """One run: what was asked for, what was done to the service, what came of it."""

    stage: Stage
    wanted: int
    chance: random.Random
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    worker_kills: list[tuple[float, str]] = field(default_factory=list)
    """When, and in which slot."""
    service_kills: list[float] = field(default_factory=list)
    health_lives: list[dict[str, float]] = field(default_factory=list)
    """What each service that was killed had counted of its health checks until then."""
    over: threading.Event = field(default_factory=threading.Event)

    def submit_all(self, source: str, audio: str) -> None:
        """Queue the rehearsals, each with a key, asking again until it is answered."""
        for number in range(self.wanted):
            options = rehearsal(self.chance)
            body = {"source": source, "audio": audio, "options": options}
            while True:
                try:
                    answer = self.stage.client.post(
                        "/generate", json=body, headers={"Idempotency-Key": f"soak-{number}"}
                    )
                except httpx.TransportError:
                    time.sleep(0.1)
                    continue
                if answer.status_code in (200, 202):
                    self.accepted[answer.json()["id"]] = options
                    break
                if answer.status_code < 500:
                    raise RuntimeError(answer.text)
                time.sleep(0.1)
            self.over.wait(0.15)

    def kill_now_and_then(self) -> None:
        """Kill a busy worker every few seconds, and every few times the service."""
        chance = random.Random(self.wanted)
        count = 0
        while not self.over.wait(KILL_EVERY_S * chance.uniform(0.6, 1.4)):
            count += 1
            try:
                slots = self.stage.client.get("/queue").json()["slots"]
                # A process that hangs is left to the health check: that is what it is there for.
                busy = [
                    slot
                    for slot in slots
                    if slot["state"] == "busy"
                    and slot["pid"]
                    and self.accepted.get(slot["task_id"], {}).get("fault") not in _hanging()
                ]
                if not busy:
                    continue
                if count % SERVICE_KILL_EVERY == 0:
                    self.health_lives.append(health_metrics(self.stage))
                    self.service_kills.append(time.time())
                    self.stage.kill(all_of_it=count % (2 * SERVICE_KILL_EVERY) == 0)
                    self.stage.until_ready()
                    continue
                slot, now = chance.choice(busy), time.time()
                os.kill(slot["pid"], signal.SIGKILL)
                self.worker_kills.append((now, slot["name"]))
            except (httpx.TransportError, ProcessLookupError):
                continue

    def until_all_ended(self) -> list[dict[str, Any]]:
        """The tasks, once nothing waits or runs; those that are not there are missing."""
        end = time.monotonic() + END_S
        while time.monotonic() < end:
            try:
                tasks = [self.stage.client.get(f"/tasks/{task_id}") for task_id in self.accepted]
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            found = [answer.json() for answer in tasks if answer.status_code == 200]
            if all(task["is_terminal"] for task in found):
                return found
            time.sleep(0.5)
        return found

    def report(self, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """The figures."""
        ended = {task["id"]: task for task in tasks if task["is_terminal"]}
        meant = {task_id: succeeds(options) for task_id, options in self.accepted.items()}
        wrong = [
            (task["id"], self.accepted[task["id"]], task["status"], [_code(attempt) for attempt in task["attempts"]])
            for task in ended.values()
            if (task["status"] == "SUCCEEDED") is not meant[task["id"]]
        ]
        killed = {task_id for task_id, _ in self._killed(tasks)}
        # A fault of the first attempt that a kill of the service came before is used up by the interrupted attempt.
        killed |= {task["id"] for task in tasks if any(a["outcome"] == "interrupted" for a in task["attempts"])}
        results = self.stage.data / "results"
        return {
            "accepted": len(self.accepted),
            "succeeded": sum(task["status"] == "SUCCEEDED" for task in ended.values()),
            "failed_as_intended": sum(task["status"] == "FAILED" and not meant[task["id"]] for task in ended.values()),
            "ended_otherwise": {
                "after_kills_of_this_soak": [row for row in wrong if row[0] in killed],
                "unexplained": [row for row in wrong if row[0] not in killed],
            },
            "lost": len(self.accepted) - len(ended),
            "duplicated": sum(_ran_twice(task, results) for task in ended.values())
            + sum(
                folder.name not in {*self.accepted, self.stage.warmed_up}
                for folder in results.glob("*")
                if any(folder.iterdir())
            ),
            "attempts": sum(len(task["attempts"]) for task in tasks),
            "false_alarms": sum(
                _code(attempt) in ALARMS and not self._hangs_in(task["id"], attempt["n"])
                for task in tasks
                for attempt in task["attempts"]
            ),
            "recovery_after_worker_kill": percentiles(self._after_worker_kills(tasks)),
            "recovery_after_service_kill": percentiles(self._after_service_kills(tasks)),
            "kills": {"workers": len(self.worker_kills), "services": len(self.service_kills)},
        }

    def scorecard(self, figures: dict[str, Any], tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """What the run says about dependability (R3.14).

        A failure is an attempt that ended by one, asked for or not, or a kill of the service; the time between two is
        the run's length over their number. Recovery of an attempt is until the next one starts, its pause included.
        Health checks are judged by what each rehearsal was: a healthy attempt that was ended as hung is a false alarm,
        a hung one that came to any other end is a missed one.
        """
        failed = [
            (task, number)
            for task in tasks
            for number, attempt in enumerate(task["attempts"])
            if attempt["outcome"] == "failed"
        ]
        recovered = [
            moment(task["attempts"][number + 1]["started_at"]) - moment(task["attempts"][number]["ended_at"])
            for task, number in failed
            if number + 1 < len(task["attempts"])
        ]
        failures = len(failed) + len(self.service_kills)
        hung, missed = self._hangs(tasks)
        return {
            "mean_time_between_failures_s": round(figures["seconds"] / failures, 2) if failures else None,
            "failures": failures,
            "recovery_after_a_failed_attempt": percentiles(recovered),
            "recovery_after_worker_kill": figures["recovery_after_worker_kill"],
            "recovery_after_service_kill": figures["recovery_after_service_kill"],
            "health_checks": {
                "hung_attempts": hung,
                "missed": missed,
                "false_alarms": figures["false_alarms"],
                "misjudged_per_cent_of_attempts": round(
                    100 * (figures["false_alarms"] + missed) / max(figures["attempts"], 1), 3
                ),
            },
        }

    def health_counted(self) -> dict[str, float]:
        """What all lives of the service have counted of their health checks, summed."""
        lives = [*self.health_lives, health_metrics(self.stage)]
        return {name: sum(life.get(name, 0.0) for life in lives) for name in lives[-1]}

    def _hangs_in(self, task_id: str, attempt: int) -> bool:
        """Whether the rehearsal means this attempt to hang."""
        options = self.accepted[task_id]
        return options.get("fault") in _hanging() and (options["times"] is None or attempt <= options["times"])

    def _hangs(self, tasks: list[dict[str, Any]]) -> tuple[int, int]:
        """Attempts that hung as rehearsed, and those among them that ended otherwise than as hung.

        Attempts that a kill of this soak ended before their time are left out.
        """
        killed = self._killed(tasks)
        ends = [
            _code(attempt)
            for task in tasks
            for attempt in task["attempts"]
            if self._hangs_in(task["id"], attempt["n"])
            and attempt["outcome"] != "interrupted"
            and (task["id"], attempt["n"]) not in killed
        ]
        return len(ends), sum(code not in ALARMS for code in ends)

    def _killed(self, tasks: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
        """Whom the worker kills hit, task and attempt, and when: who was in the slot at that moment, not before."""
        hit = {}
        for at, slot in self.worker_kills:
            for task in tasks:
                for attempt in task["attempts"]:
                    ended = attempt["ended_at"]
                    there = moment(attempt["started_at"]) <= at and (ended is None or moment(ended) >= at)
                    if attempt["slot"] == slot and there:
                        hit[task["id"], attempt["n"]] = at
        return hit

    def _after_worker_kills(self, tasks: list[dict[str, Any]]) -> list[float]:
        """From a worker's SIGKILL to the start of its task's next attempt, the pause before a retry included."""
        starts = {(task["id"], a["n"]): moment(a["started_at"]) for task in tasks for a in task["attempts"]}
        return [
            starts[task_id, number + 1] - at
            for (task_id, number), at in self._killed(tasks).items()
            if (task_id, number + 1) in starts
        ]

    def _after_service_kills(self, tasks: list[dict[str, Any]]) -> list[float]:
        """From the service's SIGKILL to the first start of an attempt after it."""
        starts = sorted(moment(attempt["started_at"]) for task in tasks for attempt in task["attempts"])
        return [next(start for start in starts if start > at) - at for at in self.service_kills if starts[-1] > at]


def _hanging() -> set[str]:
    return {str(options["fault"]) for options in HANGING}


def _code(attempt: dict[str, Any]) -> str | None:
    return attempt["error"]["code"] if attempt["error"] else None


def _ran_twice(task: dict[str, Any], results: Path) -> bool:
    spans = sorted((moment(a["started_at"]), moment(a["ended_at"])) for a in task["attempts"] if a["ended_at"])
    files = len(list((results / task["id"]).glob("*")))
    successes = sum(attempt["outcome"] == "succeeded" for attempt in task["attempts"])
    good = 1 if task["status"] == "SUCCEEDED" else 0
    return files != good or successes != good or any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def health_metrics(stage: Stage) -> dict[str, float]:
    """What the running service has counted of its health checks since its start."""
    totals: dict[str, float] = {}
    for line in stage.client.get("/metrics").text.splitlines():
        name = line.partition("{")[0]
        if name.startswith("greenroom_health_") and name.endswith("_total"):
            totals[name] = totals.get(name, 0.0) + float(line.split()[-1])
    return totals


def short_speech(path: Path) -> Path:
    """One second of the sample speech."""
    with wave.open(str(material.speech())) as source, wave.open(str(path), "wb") as out:
        out.setparams(source.getparams())
        out.writeframes(source.readframes(source.getframerate()))
    return path


def run(wanted: int, seed: int) -> dict[str, Any]:
    """One soak."""
    with tempfile.TemporaryDirectory(prefix="greenroom-soak-") as name:
        folder = Path(name)
        blocks = set(Path("/dev/shm").glob("psm_*"))
        stage = Stage(folder)
        stage.until_ready()
        refs = []
        for path in (material.portrait(), short_speech(folder / "speech.wav")):
            answer = stage.client.post("/uploads", params={"name": path.name}, content=path.read_bytes())
            refs.append(f"upload:{answer.raise_for_status().json()['id']}")
        stage.warm_up(*refs)
        before = stage.measure()
        load = {"before": round(os.getloadavg()[0], 1)}
        soak = Soak(stage, wanted, random.Random(seed))
        began = time.monotonic()
        killer = threading.Thread(target=soak.kill_now_and_then)
        killer.start()
        try:
            soak.submit_all(*refs)
            tasks = soak.until_all_ended()
        finally:
            soak.over.set()
            killer.join()
        stage.until_ready()
        tasks = soak.until_all_ended()
        figures = {"seed": seed, "seconds": round(time.monotonic() - began, 1), **soak.report(tasks)}
        figures["scorecard"] = soak.scorecard(figures, tasks)
        figures["health_metrics"] = soak.health_counted()
        # On a machine that others use, too, what takes time takes longer.
        figures["load_average"] = load | {"after": round(os.getloadavg()[0], 1)}
        after = stage.measure()
        family = stage.family()
        code = stage.stop()
        _gone, alive = psutil.wait_procs(family, timeout=10)
        orphans = [p for p in psutil.process_iter(["cmdline"]) if str(stage.data) in " ".join(p.info["cmdline"] or [])]
        left = {
            "exit_code": code,
            "processes": len(alive) + len(orphans),
            "attempt_folders": len(list((stage.data / "attempts").glob("*/*"))),
            "half_uploads": len(list((stage.data / "blobs" / "tmp").glob("*"))),
            "shared_memory_blocks": len(set(Path("/dev/shm").glob("psm_*")) - blocks),
        }
        return figures | {"at_rest": {"before": before, "after": after}, "left_after_stop": left}


def page(figures: dict[str, Any]) -> str:
    """The figures as a small page."""

    def rows(name: str, value: Any) -> list[str]:
        if isinstance(value, dict):
            return [row for key, part in value.items() for row in rows(f"{name}, {key}" if name else key, part)]
        return [f"| {name.replace('_', ' ')} | {json.dumps(value)} |"]

    return "\n".join(
        ["# Soak", "", "Made by `make soak`.", "", "| figure | value |", "|---|---|", *rows("", figures), ""]
    )


def main() -> int:
    """Run, print, save; 1 if something was lost, doubled, unexplained or left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    figures = run(arguments.tasks, arguments.seed)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps(figures, indent=2) + "\n")
    (RESULTS / "soak.md").write_text(page(figures))
    print(json.dumps(figures, indent=2))
    left = figures["left_after_stop"]
    bad = figures["lost"] or figures["duplicated"] or figures["ended_otherwise"]["unexplained"] or any(left.values())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
