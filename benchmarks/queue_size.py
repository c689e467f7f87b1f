"""What a million tasks in the table cost a claim, a create, and a POST."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from app.store.records import InputRef, NewTask
from app.store.sql import open_store
from benchmarks import material
from benchmarks.figures import free_port, summary
from benchmarks.service import service

STORED = 1_000_000
ROUNDS = 300
FILE = InputRef("upload:x", "0" * 64, 1, "x")


def fill(path: Path, count: int) -> None:
    """Add `count` waiting tasks to a database, as copies of one."""
    store = open_store(path)
    seed = store.create(NewTask(FILE, FILE)).task
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
            {"count": count, "seed": seed.id},
        )
        connection.execute(text("UPDATE counters SET value = value + :n WHERE name = 'QUEUED'"), {"n": count})


def store_times(path: Path) -> dict[str, list[float]]:
    """Seconds of creates and claims in this process."""
    store = open_store(path)
    times: dict[str, list[float]] = {"create": [], "claim": []}
    for _ in range(ROUNDS):
        began = time.perf_counter()
        store.create(NewTask(FILE, FILE, priority=9))
        times["create"].append(time.perf_counter() - began)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        assert store.claim("node", lease_s=600, tier="t", slot="s", device="cpu") is not None
        times["claim"].append(time.perf_counter() - began)
    store.close()
    return times


def post_times(data_dir: Path) -> list[float]:
    """Seconds of POST /generate, one after the other, with nothing claimed meanwhile."""
    with service(
        data_dir, "--slots", "1", port=free_port(), GREENROOM_MAX_WAITING="10000000",
        GREENROOM_REHEARSALS="1", GREENROOM_TIER_RENDERER="rehearsal",
    ) as running:  # fmt: skip
        running.client.post("/queue/pause").raise_for_status()
        source, audio = running.upload(material.portrait()), running.upload(material.speech())
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            running.generate(source=source, audio=audio)
            times.append(time.perf_counter() - began)
        return times


def flatness(folder: Path) -> dict[str, Any]:
    """Claim, create and POST with an empty table and with a million waiting tasks, and the ratio of the medians."""
    taken: dict[int, dict[str, list[float]]] = {}
    for stored in (0, STORED):
        data = folder / f"stored-{stored}"
        data.mkdir()
        path = data / "greenroom.db"
        if stored:
            fill(path, stored)
        taken[stored] = store_times(path) | {"post": post_times(data)}
    results: dict[str, Any] = {}
    for name in taken[0]:
        empty, full = (summary(taken[stored][name], 1000) for stored in (0, STORED))
        results[f"{name}_ms"] = {"empty": empty, "million": full, "ratio": round(full["p50"] / empty["p50"], 2)}
    return results
