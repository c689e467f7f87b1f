"""After two hundred tasks that ended in every way, the service holds what it held before them."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.store.dialect import EXTRA_READERS
from app.store.sql import READERS
from tests.e2e.conftest import WAIT_S, Service, until
from tests.faults.conftest import assert_nothing_is_left, shared_memory

TASKS = 200
SLOTS = 3
CHILDREN = SLOTS + 2
"""The slots, the spare and the media helper."""
CALLERS = 8
MEMORY_BOUND_MIB = 16
"""What the service may have grown by over the tasks: the page caches of SQLite's connections, which fill as the
file grows, and the allocator's reserve; 3 MiB were seen. A leak of an attempt's objects alone would not reach it in 200
tasks, which is why everything countable is counted."""
MIB = 1024 * 1024

DATABASE = ("greenroom.db", "greenroom.db-wal")
CONNECTIONS = 1 + READERS + EXTRA_READERS
"""The writer's, and as many readers' as ever read at once: SQLite keeps the descriptor of a closed connection for the
next one, so their number follows the busiest moment, which no caller can bring about for sure."""

NO_OP: dict[str, Any] = {"fps": 1, "size": 16, "reuse": True}
LONG = {"fps": 20, "frame_s": 1.0}
"""So long that it ends by its cancel only."""
KINDS: dict[str, tuple[int, dict[str, Any], str]] = {
    # how many of 200, options, how the task ends
    "refused by the renderer": (16, {"fault": "raise", "code": "INPUT_NO_FACE"}, "FAILED"),
    "fails once": (12, {"fault": "raise", "code": "UPSTREAM_5XX", "times": 1}, "SUCCEEDED"),
    "broken file once": (4, {"fault": "unplayable", "times": 1}, "SUCCEEDED"),
    "crashes": (5, {"fault": "kill", "times": 1}, "SUCCEEDED"),
    "crashes and leaves a child": (2, {"fault": "leave_behind", "times": 1}, "SUCCEEDED"),
    "garbles a message": (2, {"fault": "garbage_frame", "times": 1}, "SUCCEEDED"),
    "stops": (2, {"fault": "stop", "times": 1}, "SUCCEEDED"),
    "stalls": (2, {"fault": "stall", "times": 1}, "SUCCEEDED"),
    "cancelled while it runs": (10, LONG, "CANCELLED"),
    "cancelled while it waits": (10, LONG, "CANCELLED"),
}
HANGS = KINDS["stops"][0] + KINDS["stalls"][0]


def mixed(count: int) -> list[str]:
    """`count` kinds of task, at least one of each, in a fixed order.

    Every kind comes evenly over the day, and no two at one hour, so that a device that broke serves before it breaks
    again.
    """
    numbers = {kind: max(1, number * count // TASKS) for kind, (number, _options, _end) in KINDS.items()}
    numbers["no-op"] = count - sum(numbers.values())
    hours = [
        ((index + (0.618 * place) % 1) / number, kind)
        for place, (kind, number) in enumerate(numbers.items())
        for index in range(number)
    ]
    return [kind for _hour, kind in sorted(hours)]


@dataclass(frozen=True)
class Held:
    """What a service at rest holds."""

    threads: int
    descriptors: Counter[str]
    """By what they are: files by name, `pipe`, `socket`, `memfd` and other kinds by kind."""
    children: int
    leases: int
    attempt_directories: int
    memory_mib: float

    def exceeds(self, other: Held) -> dict[str, Any]:
        """What is more than in `other`, memory and the bounded number of database connections apart."""
        more = {
            name: (getattr(other, name), getattr(self, name))
            for name in ("threads", "children", "leases", "attempt_directories")
            if getattr(self, name) > getattr(other, name)
        }
        connections = Counter(dict.fromkeys(DATABASE, CONNECTIONS))
        return more | dict(self.descriptors - (other.descriptors | connections))


def descriptors(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        found[Path(target).name if target.startswith("/") else target.partition(":")[0]] += 1
    return found


class Day:
    """One service, what was asked of it, and how that ended."""

    def __init__(self, service: Service, portrait: Path, audio: Path) -> None:
        self.service = service.until_ready()
        self._refs = {}
        for name, path in (("source", portrait), ("audio", audio)):
            answer = service.http.post("/uploads", params={"name": path.name}, content=path.read_bytes())
            self._refs[name] = f"upload:{answer.raise_for_status().json()['id']}"

    def _submit(self, kind: str) -> str:
        options = NO_OP if kind == "no-op" else KINDS[kind][1]
        answer = self.service.http.post("/generate", json={**self._refs, "options": options})
        assert answer.status_code == 202, answer.text
        task = str(answer.json()["id"])
        if kind == "cancelled while it waits":
            assert self.service.http.post(f"/tasks/{task}/cancel").status_code in (200, 202)
        return task

    def live(self, count: int) -> None:
        """Go through `count` tasks; each must end as its kind says."""
        service = self.service
        kinds = mixed(count)
        with ThreadPoolExecutor(CALLERS) as callers:
            tasks = list(callers.map(self._submit, kinds))
            for kind, task in zip(kinds, tasks, strict=True):
                if kind == "cancelled while it runs":
                    service.until_rendering(task)
                    assert service.http.post(f"/tasks/{task}/cancel").status_code == 202
            ended = list(callers.map(service.until_ended, tasks))
        for kind, task in zip(kinds, ended, strict=True):
            wanted = "SUCCEEDED" if kind == "no-op" else KINDS[kind][2]
            assert task["status"] == wanted, (kind, task["error"], task["attempts"])

    def crowd(self) -> None:
        """Many callers at once: the store's readers and their connections are then as many as they ever become."""
        with ThreadPoolExecutor(4 * CALLERS) as callers:
            answers = callers.map(lambda _: self.service.http.get("/tasks").status_code, range(32 * CALLERS))
            assert set(answers) == {200}

    def held(self) -> Held:
        """What the service holds now. No caller is connected meanwhile."""
        process = psutil.Process(self.service.process.pid)
        with sqlite3.connect(f"file:{self.service.data_dir / 'greenroom.db'}?mode=ro", uri=True) as database:
            [leases] = database.execute("SELECT count(*) FROM tasks WHERE lease_owner IS NOT NULL").fetchone()
        return Held(
            threads=process.num_threads(),
            descriptors=descriptors(process.pid),
            children=len(process.children(recursive=True)),
            leases=leases,
            attempt_directories=len(list((self.service.data_dir / "attempts").glob("*/*"))),
            memory_mib=process.memory_info().rss / MIB,
        )

    def rest(self) -> None:
        """Until every slot is idle and has its process, the spare is there, and no caller is connected."""

        def idle() -> bool:
            slots = self.service.http.get("/queue").json()["slots"]
            return all(slot["state"] == "idle" for slot in slots)

        until(idle, "idle slots")
        self.service.http.close()
        process = psutil.Process(self.service.process.pid)
        until(lambda: not [c for c in process.net_connections() if c.status == "ESTABLISHED"], "callers to be gone")
        self.service.http = httpx.Client(base_url=self.service.http.base_url, timeout=WAIT_S)

    def settled(self, before: Held) -> Held:
        """What the service holds once it is no more than `before`, or after a bounded wait."""
        end = time.monotonic() + WAIT_S
        while (held := self.held()).exceeds(before) and time.monotonic() < end:
            time.sleep(0.05)
        return held


def sample_sum(page: str, name: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    )


@pytest.mark.timeout(300)
def test_after_two_hundred_tasks_the_service_holds_what_it_held_before(  # R0.7, R0.10
    rehearse: Callable[..., Service], portrait: Path, speech: Callable[[float], Path]
) -> None:
    blocks = shared_memory()
    limits = {f"GREENROOM_PHASE_{phase}_S": "4" for phase in ("LOAD", "FETCH", "ANALYSE", "RENDER", "ENCODE")}
    service = rehearse(GREENROOM_SLOTS=str(SLOTS), GREENROOM_SPARES="1", GREENROOM_HEALTH_INTERVAL_S="1.2", **limits)
    day = Day(service, portrait, speech(0.5))
    day.live(len(KINDS) * 2)
    day.crowd()
    day.rest()
    until(lambda: day.held().children == CHILDREN, "all processes to be there")
    before = day.held()
    day.live(TASKS)
    day.rest()
    after = day.settled(before)
    assert not after.exceeds(before)
    assert after.children == before.children
    assert (after.leases, after.attempt_directories) == (0, 0)
    assert after.memory_mib - before.memory_mib < MEMORY_BOUND_MIB
    page = service.http.get("/metrics").text
    # Two hangs more come from the warming up.
    assert sample_sum(page, "greenroom_health_verdicts_total") >= HANGS + 2
    succeeded = service.http.get("/queue").json()["by_status"]["SUCCEEDED"]
    assert service.stop() == 0
    assert_nothing_is_left(service, results=succeeded)
    until(lambda: not shared_memory() - blocks, "the shared memory to be gone")
