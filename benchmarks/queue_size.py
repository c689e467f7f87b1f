"""What a million tasks in the table cost a claim, a create, and a POST.

An empty and a full database take turns, operation by operation, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from app.store.records import InputRef, NewTask
from app.store.sql import SqlStore, open_store
from benchmarks import material
from benchmarks.figures import free_port, summary
from benchmarks.service import Running, service

STORED = 1_000_000
ROUNDS = 300
FILE = InputRef("upload:x", "0" * 64, 1, "x")
SETTINGS = {"GREENROOM_MAX_WAITING": "10000000", "GREENROOM_REHEARSALS": "1", "GREENROOM_TIER_RENDERER": "rehearsal"}


def fill(path: Path, count: int) -> None:
    """Add `count` waiting tasks to a database, as copies of the one that waits there."""
    with create_engine(f"sqlite:///{path}").begin() as connection:
        columns = [row[1] for row in connection.execute(text("PRAGMA table_info(tasks)"))]
        listed = ", ".join(columns)
        picked = ", ".join("'bulk_' || n" if c == "id" else c for c in columns)
        connection.execute(
            text(
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :count) "
                f"INSERT INTO tasks ({listed}) SELECT {picked} FROM (SELECT * FROM tasks LIMIT 1), c"
            ),
            {"count": count},
        )
        connection.execute(text("UPDATE counters SET value = value + :n WHERE name = 'QUEUED'"), {"n": count})


def alternate(operations: list[Callable[[], object]]) -> list[list[float]]:
    """Seconds of each operation, taken in turns; who goes first changes."""
    times: list[list[float]] = [[] for _ in operations]
    turns = list(zip(operations, times, strict=True))
    for n in range(ROUNDS):
        for operation, taken in turns if n % 2 else reversed(turns):
            began = time.perf_counter()
            operation()
            taken.append(time.perf_counter() - began)
    return times


def store_times(paths: list[Path]) -> dict[str, list[list[float]]]:
    """Seconds of creates and claims in this process, per database."""
    stores = [open_store(path) for path in paths]

    def claim(store: SqlStore) -> None:
        assert store.claim("node", lease_s=600, tier="t", slot="s", device="cpu") is not None

    try:
        return {
            "create": alternate([lambda s=store: s.create(NewTask(FILE, FILE, priority=9)) for store in stores]),
            "claim": alternate([lambda s=store: claim(s) for store in stores]),
        }
    finally:
        for store in stores:
            store.close()


def seed(data_dir: Path) -> None:
    """A database as a service leaves it that accepted one task, paused."""
    with service(data_dir, "--slots", "1", port=free_port(), **SETTINGS) as running:
        running.client.post("/queue/pause").raise_for_status()
        post(running, *inputs(running))()


def inputs(running: Running) -> tuple[str, str]:
    """References of a portrait and of speech."""
    return running.upload(material.portrait()), running.upload(material.speech())


def post(running: Running, source: str, audio: str) -> Callable[[], object]:
    """A POST /generate."""
    return lambda: running.generate(source=source, audio=audio)


def post_times(folders: list[Path]) -> list[list[float]]:
    """Seconds of POST /generate, with nothing claimed meanwhile, per data directory."""
    with ExitStack() as stack:
        services = [
            stack.enter_context(service(folder, "--slots", "1", port=free_port(), **SETTINGS)) for folder in folders
        ]
        return alternate([post(running, *inputs(running)) for running in services])


def flatness(folder: Path) -> dict[str, Any]:
    """Claim, create and POST with an empty table and with a million waiting tasks, and the ratio of the medians."""
    folders = [folder / "empty", folder / "million"]
    for data in folders:
        seed(data)
    fill(folders[1] / "greenroom.db", STORED)
    taken = {"post": post_times(folders)}
    for data in folders:
        store = open_store(data / "greenroom.db")
        store.set_paused(False)
        store.close()
    taken |= store_times([data / "greenroom.db" for data in folders])
    results: dict[str, Any] = {}
    for name, (few, many) in taken.items():
        empty, full = summary(few, 1000), summary(many, 1000)
        ratios = {f"ratio_{at}": round(full[at] / empty[at], 2) for at in ("p10", "p50")}
        results[f"{name}_ms"] = {"empty": empty, "million": full, **ratios}
    return results
