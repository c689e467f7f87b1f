"""What the store's tests are built from: a clock to turn by hand, tasks to put in, work to do on them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import patch

from alembic import command

from app.store.interface import Store
from app.store.records import Artifact, Claim, IdempotencyKey, InputRef, KeepFor, NewTask, TaskFilter, TaskRecord
from app.tasks.replay import replay
from app.tasks.status import Status

T = TypeVar("T")

START = 1_800_000_000.0
ERROR = {"code": "WORKER_CRASHED", "message": "It died.", "hint": "Look.", "detail": {"signal": 11}}
ARTIFACT = Artifact("results/a.mp4", "c" * 64, 1234, 2.5, 640, 480, 25.0, 62)
CACHE_KEY = "a" * 64


class Clock:
    """A clock that moves when told."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def blob(name: str = "face.png") -> InputRef:
    return InputRef(f"upload:{name}", sha(name), 10, name, {"kind": "image", "width": 64})


def new_task(**changes: Any) -> NewTask:
    return NewTask(**({"source": blob(), "audio": blob("voice.wav")} | changes))


def key(name: str = "k", *, client: str = "c", body: str = "body", ttl_s: float = 86_400.0) -> IdempotencyKey:
    return IdempotencyKey(name, client, sha(body), ttl_s)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def create(store: Store, **changes: Any) -> TaskRecord:
    return store.create(new_task(**changes)).task


def claim(store: Store, owner: str = "node-1", lease_s: float = 30.0) -> Claim | None:
    return store.claim(owner, lease_s=lease_s, tier="warp", slot="cpu-0", device="cpu")


def must_claim(store: Store, owner: str = "node-1", lease_s: float = 30.0) -> Claim:
    held = claim(store, owner, lease_s)
    assert held is not None
    return held


def succeed(store: Store, held: Claim) -> TaskRecord:
    return store.succeed(held, ARTIFACT, served_by="warp")


def finish(store: Store, held: Claim, result_key: str = CACHE_KEY) -> TaskRecord:
    """Succeed with a result of its own, which the cache keeps under `result_key`."""
    artifact = replace(ARTIFACT, path=f"results/{held.task.id}/{held.attempt}.mp4")
    return store.succeed(held, artifact, served_by="warp", keep=KeepFor(result_key, 3600.0, 10**9))


def must_get(store: Store, task_id: str) -> TaskRecord:
    task = store.get(task_id)
    assert task is not None
    return task


def kinds(store: Store, task_id: str) -> list[str]:
    return [event.type.removeprefix("task.") for event in store.events(task_id)]


def assert_consistent(store: Store, *, purged: bool = False) -> None:
    """What must hold at every moment, whatever happened before. `purged`: some tasks were deleted with their events."""
    seen: dict[Status, int] = dict.fromkeys(Status, 0)
    cursor = None
    while True:
        page = run(store.alist(TaskFilter(), cursor=cursor, limit=1000))
        for listed in page.tasks:
            task = must_get(store, listed.id)
            events = store.events(task.id)
            seen[task.status] += 1
            assert replay(events) is task.status
            assert events[-1].id == task.last_event_id
            assert events[-1].attempt == task.attempt
            assert (task.lease_owner is not None) == (task.status is Status.RUNNING)
            assert (task.finished_at is not None) == task.status.is_terminal
            assert [attempt.n for attempt in task.attempts] == list(range(1, task.attempt + 1))
            live = [attempt.n for attempt in task.attempts if attempt.outcome is None]
            assert live == ([task.attempt] if task.status is Status.RUNNING else [])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert store.queue().by_status == seen
    ids = [event.id for event in store.events(None, limit=1_000_000)]
    assert ids == (sorted(set(ids)) if purged else list(range(1, len(ids) + 1)))


@contextmanager
def migrations_break() -> Iterator[None]:
    """Have every migration end in a RuntimeError when all its statements are done and nothing is committed."""
    upgrade = command.upgrade

    def break_after(*args: Any) -> None:
        upgrade(*args)
        raise RuntimeError("power cut")

    with patch.object(command, "upgrade", break_after):
        yield
