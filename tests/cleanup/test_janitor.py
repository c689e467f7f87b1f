"""The janitor removes what nobody can need, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.cleanup.janitor import ORPHAN_AGE_S, Janitor
from app.store.records import Artifact, InputRef, NewTask, UploadRecord
from app.store.sql import open_store


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "greenroom.db")
    yield opened
    opened.close()


@pytest.fixture
def janitor(store, tmp_path):
    return Janitor(
        store,
        attempts_dir=tmp_path / "attempts",
        results_dir=tmp_path / "results",
        sweep_blobs=lambda: 0,
        interval_s=3600,
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
