"""The janitor removes what nobody can need, and nothing else."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import structlog

from app.cleanup.janitor import ORPHAN_AGE_S, Janitor, Retention
from app.store.records import Artifact, InputRef, KeepFor, NewTask, UploadRecord
from app.store.sql import open_store
from tests.database import empty_database

DAY = 86_400.0
WAIT_S = 30.0


class Clock:
    """The real time, and as many days more as a test says."""

    def __init__(self) -> None:
        self.days = 0.0

    def __call__(self) -> float:
        return time.time() + self.days * DAY


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    opened = open_store(empty_database(tmp_path / "greenroom.db"))
    yield opened
    opened.close()


@pytest.fixture
def janitor(store, tmp_path, clock):
    return Janitor(
        store,
        attempts_dir=tmp_path / "attempts",
        results_dir=tmp_path / "results",
        sweep_blobs=lambda: 0,
        end_strays=list,
        retention=Retention(result_s=7 * DAY, task_s=30 * DAY),
        interval_s=3600,
        clock=clock,
    )


def old(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - ORPHAN_AGE_S - 60
    os.utime(path, (then, then))
    return path


def published(store, folder: Path) -> Path:
    file = InputRef(uri="upload:x", sha256="0" * 64, bytes=1, name="x")
    task = store.create(NewTask(source=file, audio=file)).task
    claim = store.claim("node", lease_s=30, tier="warp", slot="cpu-0", device="cpu")
    path = f"results/{task.id}/1.mp4"
    store.succeed(claim, Artifact(path, "0" * 64, 1, 1.0, 2, 2, 25.0, 25), served_by="warp")
    return old(folder / path)


def test_at_start_the_leftovers_of_this_nodes_attempts_go(janitor, tmp_path):
    (tmp_path / "attempts" / "task_a-1").mkdir(parents=True)
    (tmp_path / "attempts" / "task_a-1" / "half.mp4").write_text("x")
    janitor.sweep_start()
    assert not list((tmp_path / "attempts").iterdir())


def test_a_published_result_stays_and_one_that_no_task_points_to_goes(janitor, store, tmp_path):
    kept = published(store, tmp_path)
    zombie = old(kept.with_name("2.mp4"))
    orphan = old(tmp_path / "results" / "task_unknown" / "1.mp4")
    janitor.sweep()
    assert kept.exists()
    assert not zombie.exists()
    assert not orphan.exists()


def test_a_young_file_may_belong_to_an_attempt_that_has_not_committed_yet(janitor, tmp_path):
    young = tmp_path / "results" / "task_new" / "1.mp4"
    young.parent.mkdir(parents=True)
    young.write_text("x")
    janitor.sweep()
    assert young.exists()


def test_uploads_past_their_time_are_forgotten(janitor, store):
    import asyncio

    now = time.time()
    for name, expires in (("gone", now - 1), ("kept", now + 3600)):
        asyncio.run(store.aput_upload(UploadRecord(name, "0" * 64, 1, name, now - 7200, expires)))
    janitor.sweep()
    assert store.expired_uploads() == []
    assert asyncio.run(store.aget_upload("kept")) is not None


def test_a_result_goes_after_its_time_and_its_task_later(janitor, store, tmp_path, clock):
    path = published(store, tmp_path)
    task_id = path.parent.name
    clock.days = 6.9
    janitor.sweep()
    assert path.exists()
    clock.days = 7.1
    janitor.sweep()
    assert not path.parent.exists()
    assert store.get(task_id).result_removed_at is not None
    clock.days = 29.9
    janitor.sweep()
    assert store.get(task_id).output is not None
    clock.days = 30.1
    janitor.sweep()
    assert store.get(task_id) is None


def test_a_task_takes_its_result_along_where_results_are_kept_longer(store, tmp_path, clock):
    path = published(store, tmp_path)
    folders = {"attempts_dir": tmp_path / "attempts", "results_dir": tmp_path / "results"}
    retention = Retention(result_s=90 * DAY, task_s=DAY)
    clock.days = 2
    sweeps = {"sweep_blobs": lambda: 0, "end_strays": list}
    Janitor(store, **folders, **sweeps, retention=retention, interval_s=3600, clock=clock).sweep()
    assert store.get(path.parent.name) is None
    assert not path.exists()


def test_a_file_that_a_crash_left_after_its_result_expired_goes(janitor, store, tmp_path):
    path = published(store, tmp_path)
    store.expire_results(time.time())
    assert path.exists()
    janitor.sweep()
    assert not path.exists()


def test_tasks_that_have_not_ended_are_kept_however_old(janitor, store, clock):
    file = InputRef(uri="upload:x", sha256="0" * 64, bytes=1, name="x")
    task = store.create(NewTask(source=file, audio=file)).task
    clock.days = 10_000
    janitor.sweep()
    assert store.get(task.id) == task


def test_a_sweep_that_is_asked_for_does_not_wait_for_its_time(store, tmp_path):  # R3.12
    swept = threading.Semaphore(0)

    def sweep_blobs() -> int:
        swept.release()
        return 0

    janitor = Janitor(
        store, attempts_dir=tmp_path / "a", results_dir=tmp_path / "r", sweep_blobs=sweep_blobs, end_strays=list,
        retention=Retention(DAY, DAY), interval_s=DAY,
    )  # fmt: skip
    janitor.start()
    assert swept.acquire(timeout=WAIT_S), "the first sweep"
    janitor.sweep_soon()
    assert swept.acquire(timeout=WAIT_S), "the one asked for"
    janitor.stop()


def test_a_file_goes_when_neither_a_task_nor_the_cache_gives_it_out(janitor, store, tmp_path):  # R2.7
    file = InputRef(uri="upload:x", sha256="0" * 64, bytes=1, name="x")
    keys = ("a" * 64,)
    first = store.create(NewTask(source=file, audio=file, cache_keys=keys)).task
    claim = store.claim("node", lease_s=30, tier="warp", slot="cpu-0", device="cpu")
    artifact = Artifact(f"results/{first.id}/1.mp4", "0" * 64, 1, 1.0, 2, 2, 25.0, 25)
    store.succeed(claim, artifact, served_by="warp", keep=KeepFor(keys[0], 0.0, 10**9))
    path = old(tmp_path / artifact.path)
    janitor.sweep()
    assert path.exists()
    ended = store.get(first.id).finished_at
    store.expire_results(ended)
    janitor.sweep()
    assert not path.exists(), "nobody has it any more, and the cache's time is up"


def test_a_result_of_an_expired_task_stays_while_another_is_given_it(janitor, store, tmp_path):  # R2.7
    file = InputRef(uri="upload:x", sha256="0" * 64, bytes=1, name="x")
    keys = ("a" * 64,)
    first = store.create(NewTask(source=file, audio=file, cache_keys=keys)).task
    claim = store.claim("node", lease_s=30, tier="warp", slot="cpu-0", device="cpu")
    artifact = Artifact(f"results/{first.id}/1.mp4", "0" * 64, 1, 1.0, 2, 2, 25.0, 25)
    store.succeed(claim, artifact, served_by="warp", keep=KeepFor(keys[0], 3600.0, 10**9))
    path = old(tmp_path / artifact.path)
    second = store.create(NewTask(source=file, audio=file, cache_keys=keys)).task
    assert second.cached
    store.purge_tasks(store.get(first.id).finished_at)
    assert store.get(first.id) is None
    janitor.sweep()
    assert path.exists()
    assert store.get(second.id).output == artifact


def test_a_file_that_cannot_be_removed_keeps_no_other(janitor, tmp_path, monkeypatch):
    stuck, free = old(tmp_path / "results" / "a" / "1.mp4"), old(tmp_path / "results" / "b" / "1.mp4")
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path == stuck:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with structlog.testing.capture_logs() as lines:
        janitor.sweep()
    assert stuck.exists()
    assert not free.exists()
    assert [line["path"] for line in lines if line["event"] == "file_not_removed"] == [str(stuck)]
