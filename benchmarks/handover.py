"""How long a slot stands between two renders, and how long a task waits for an idle one.

The rehearsal renderer notes the moments of its first and its last line; with `reuse` there is next to nothing between
them. The moments are read from the attempts' facts in the service's database, and compared with each other and with the
caller's clock: all on one machine.
"""

from __future__ import annotations

import json
import sqlite3
import time
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import material
from benchmarks.figures import summary
from benchmarks.service import Running

NO_OP = {"fps": 1, "size": 16, "reuse": True}
"""A render of about a millisecond, once the process has made the first one."""
JOBS = 200
PICKUPS = 100


class Rendered(NamedTuple):
    """One attempt's moments, epoch seconds."""

    claimed: float
    began: float
    """The renderer's first line."""
    ended: float
    """The renderer's last line."""
    checking_s: float
    """How long the finished file was then checked and judged, which is work on the task."""


def half_second(path: Path) -> Path:
    """The first half second of the sample speech."""
    with wave.open(str(material.speech())) as source, wave.open(str(path), "wb") as out:
        out.setparams(source.getparams())
        out.writeframes(source.readframes(source.getframerate() // 2))
    return path


def rendered(data_dir: Path, tasks: list[str]) -> list[Rendered]:
    """The successful attempts of `tasks`, by their beginning."""
    with sqlite3.connect(f"file:{data_dir / 'greenroom.db'}?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT task_id, started_at, facts, stages FROM attempts WHERE outcome = 'succeeded'"
        ).fetchall()
    wanted = set(tasks)
    found = [
        (claimed, json.loads(facts), json.loads(stages))
        for task_id, claimed, facts, stages in rows
        if task_id in wanted
    ]
    return sorted(
        Rendered(claimed, facts["began_at"], facts["ended_at"], stages["check"] + stages["judge"])
        for claimed, facts, stages in found
    )


def turnaround(running: Running, data_dir: Path, source: str, audio: str) -> dict[str, Any]:
    """With `JOBS` tasks queued for one slot: from the last line of a render to the next first line, its parts, and the
    same without the check of the finished file, which lies in between and is work on the task. Milliseconds.
    """
    running.wait(running.generate(source=source, audio=audio, options=NO_OP)["id"])
    running.client.post("/queue/pause").raise_for_status()
    tasks = [running.generate(source=source, audio=audio, options=NO_OP)["id"] for _ in range(JOBS)]
    running.client.post("/queue/resume").raise_for_status()
    # Nobody waits for the single tasks: answering each waiting caller would be part of what is measured.
    while not running.client.get(f"/tasks/{tasks[-1]}").json()["is_terminal"]:
        time.sleep(0.1)
    assert all(running.wait(task)["status"] == "SUCCEEDED" for task in tasks)
    spans = rendered(data_dir, tasks)
    pairs = list(pairwise(spans))
    return {
        "last_line_to_first_line_ms": summary([later.began - earlier.ended for earlier, later in pairs], 1000),
        "checked_to_first_line_ms": summary(
            [later.began - earlier.ended - earlier.checking_s for earlier, later in pairs], 1000
        ),
        "checking_ms": summary([span.checking_s for span in spans], 1000),
        "last_line_to_claim_ms": summary([later.claimed - earlier.ended for earlier, later in pairs], 1000),
        "claim_to_first_line_ms": summary([span.began - span.claimed for span in spans], 1000),
        "renderer_ms": summary([span.ended - span.began for span in spans], 1000),
        "tasks_per_s": round((len(spans) - 1) / (spans[-1].began - spans[0].began), 1),
    }


def pickup(running: Running, data_dir: Path, source: str, audio: str) -> dict[str, Any]:
    """From the 202 in the caller's hand, and from the request's first byte, to the first line on an idle slot; ms."""
    asked: dict[str, float] = {}
    answered: dict[str, float] = {}
    for _ in range(PICKUPS):
        began = time.time()
        task = running.generate(source=source, audio=audio, options=NO_OP)["id"]
        asked[task], answered[task] = began, time.time()
        running.wait(task)
        while any(slot["state"] != "idle" for slot in running.client.get("/queue").json()["slots"]):
            time.sleep(0.001)
    first = {task: rendered(data_dir, [task])[0].began for task in asked}
    return {
        "answer_to_first_line_ms": summary([first[task] - answered[task] for task in asked], 1000),
        "request_to_first_line_ms": summary([first[task] - asked[task] for task in asked], 1000),
        "request_to_answer_ms": summary([answered[task] - asked[task] for task in asked], 1000),
    }
