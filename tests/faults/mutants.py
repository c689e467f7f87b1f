"""A pytest plugin that switches one safety of the store or of publishing off: `-p tests.faults.mutants --mutant NAME`.

The tests of the tests run suites with it and expect them to fail. The service itself has no such switch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, select, update

from app.store import claims, transitions
from app.store.rows import TASK, task_record
from app.store.schema import tasks
from app.store.transitions import load
from app.tasks.status import Status
from app.worker import publish as publishing
from app.worker import settle


def without_fences() -> None:
    """A write of an attempt is taken from whoever knows the task's id."""

    def held(tx: Any, claim: Any) -> Any:
        task = load(tx, claim.task.id)
        if task is None or task.status is not Status.RUNNING:
            raise claims._stale(claim)
        return task

    claims.held_task = held
    claims._RENEW = (
        update(tasks)
        .where(tasks.c.id == bindparam("task"), tasks.c.status == Status.RUNNING.value)
        .values(lease_expires_at=bindparam("until"))
        .returning(*TASK)
    )


def without_leases() -> None:
    """A running task is rescued whether its lease has run out or not."""

    def rescue_expired(tx: Any, limit: int) -> Any:
        rows = tx.connection.execute(select(*TASK).where(tasks.c.lease_expires_at.is_not(None)).limit(limit)).all()
        return [claims._give_back(tx, task_record(row), "lease_expired") for row in rows]

    claims.rescue_expired = rescue_expired


def without_notices() -> None:
    """Changes of status are not told; the beginnings of tasks and attempts are."""
    transitions.announce = lambda *_change: None


def publish_late() -> None:
    """The file follows its commit, and is copied under its final name."""
    late: list[Callable[[], None]] = []
    whole = publishing.publish

    def publish(finished: Any, data_dir: Path) -> Any:
        kept = data_dir / f"{finished.task_id}-{finished.attempt}.kept"
        shutil.copyfile(finished.path, kept)
        artifact = whole(finished, data_dir)
        target = data_dir / artifact.path
        target.unlink()
        late.append(lambda: shutil.move(kept, target))
        return artifact

    def hit(name: str) -> None:
        while name == "committed" and late:
            late.pop()()

    settle.publish = publish
    settle.hit = hit


def publish_unfenced() -> None:
    """A file whose commit was refused stays."""
    settle.unpublish = lambda artifact, data_dir: None


MUTANTS = {
    "fences": without_fences,
    "leases": without_leases,
    "notices": without_notices,
    "publish-late": publish_late,
    "publish-unfenced": publish_unfenced,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", choices=MUTANTS, required=True)


def pytest_configure(config: pytest.Config) -> None:
    MUTANTS[config.getoption("--mutant")]()
