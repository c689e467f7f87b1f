"""How late scheduled tasks start (R3.8), also across a kill and restart of the service."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks import material
from benchmarks.figures import free_port, moment, summary
from benchmarks.handover import NO_OP, half_second
from benchmarks.recovery import REHEARSING, family
from benchmarks.service import service

TASKS = 100
STEP_S = 0.1
KILLED_AFTER_S = 3.0
DOWN_S = 1.0


def lags(folder: Path) -> dict[str, Any]:
    """`TASKS` tasks, one due each `STEP_S`; the service is killed with its workers and started again after `DOWN_S`.

    Lags are from the due moment to the claim; of those that fell due while the service was down, from readiness.
    """
    data = folder / "scheduled"
    with service(data, "--slots", "2", port=free_port(), **REHEARSING) as running:
        source, audio = running.upload(material.portrait()), running.upload(half_second(folder / "half.wav"))
        first = time.time() + 4
        due = {}
        for number in range(TASKS):
            at = first + number * STEP_S
            stamp = datetime.fromtimestamp(at, UTC).isoformat()
            due[running.generate(source=source, audio=audio, options=NO_OP, not_before=stamp)["id"]] = at
        time.sleep(max(0.0, first + KILLED_AFTER_S - time.time()))
        killed = time.time()
        for process in family(running):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        running.process.wait()
        time.sleep(DOWN_S)
        with service(data, "--slots", "2", port=free_port(), **REHEARSING) as again:
            back = time.time()
            tasks = [again.wait(task) for task in due]
    started = {task["id"]: [moment(attempt["started_at"]) for attempt in task["attempts"]] for task in tasks}
    on_time = [started[task][0] - at for task, at in due.items() if at < killed - 0.5 or at > back]
    overdue = [started[task][-1] - back for task, at in due.items() if killed < at <= back]
    once = sum(sum(a["outcome"] == "succeeded" for a in task["attempts"]) == 1 for task in tasks)
    return {
        "lag_s": summary(on_time),
        "overdue_after_ready_s": summary(overdue) if overdue else None,
        "succeeded_once": once,
        "of": TASKS,
    }
