"""Several processes on one database, and one that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.tasks.status import Status
from tests.store.conftest import StoreFactory
from tests.store.kit import Clock, assert_consistent, create, must_get

ROOT = Path(__file__).parents[2]

CLAIM_ALL = """
import sys
from app.store.sql import open_store
from tests.store.kit import Clock, claim, create
store = open_store(sys.argv[1], Clock())
print("ready", flush=True)
sys.stdin.readline()
while (held := claim(store, sys.argv[2])) is not None:
    print(held.task.id, flush=True)
store.close()
"""

CREATE_FOR_EVER = """
import asyncio, sys
from app.store.sql import open_store
from tests.store.kit import Clock, key, new_task
store = open_store(sys.argv[1], Clock())

async def caller(n):
    count = 0
    while True:
        count += 1
        created = await store.acreate(new_task(), key(f"{n}-{count}") if n % 2 else None)
        print(created.task.id, flush=True)

async def main():
    await asyncio.gather(*(caller(n) for n in range(8)))

asyncio.run(main())
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_two_processes_claim_each_task_once(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)
    ids = {create(store).id for _ in range(200)}
    processes = [start(CLAIM_ALL, store_factory.url, owner) for owner in ("node-1", "node-2")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        answers.append(out.split())
    assert len(answers[0]) + len(answers[1]) == 200
    assert set(answers[0]) | set(answers[1]) == ids
    for owner, mine in zip(("node-1", "node-2"), answers, strict=True):
        assert all(must_get(store, task_id).lease_owner == owner for task_id in mine)
    assert store.queue().by_status[Status.RUNNING] == 200
    assert_consistent(store)


def test_no_accepted_task_is_lost_when_the_service_is_killed(store_factory: StoreFactory, clock: Clock) -> None:
    process = start(CREATE_FOR_EVER, store_factory.url)
    assert process.stdout is not None
    accepted = [process.stdout.readline().strip() for _ in range(300)]
    process.kill()
    accepted += process.stdout.read().split("\n")[:-1]  # a last line cut short was never an answer
    assert process.wait() == -9
    store = store_factory(clock)
    assert len(accepted) >= 300
    assert len(set(accepted)) == len(accepted)
    assert all(must_get(store, task_id).status is Status.QUEUED for task_id in accepted)
    assert_consistent(store)
