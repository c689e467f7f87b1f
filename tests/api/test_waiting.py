"""Requests that wait for a task's end: what wakes them, whatever goes wrong meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.api import waiting
from app.store.sql import open_store
from app.tasks.status import Status
from tests.store.kit import new_task

WAIT_S = 30.0


def test_an_unforeseen_error_of_one_look_leaves_no_request_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PULSE_S", 0.01)

    async def scenario() -> None:
        here, elsewhere = open_store(tmp_path / "greenroom.db"), open_store(tmp_path / "greenroom.db")
        created = await here.acreate(new_task())
        aevents, failed = here.aevents, asyncio.Event()

        async def broken_once(*args: Any, **given: Any) -> Any:
            if not failed.is_set():
                failed.set()
                raise LookupError("a surprise")
            return await aevents(*args, **given)

        monkeypatch.setattr(here, "aevents", broken_once)
        asking = asyncio.create_task(waiting.TaskWaiters(here).until_terminal(created.task.id, 3600))
        await asyncio.wait_for(failed.wait(), WAIT_S)
        await elsewhere.acancel(created.task.id)  # another process's commits are heard by looking alone
        task = await asyncio.wait_for(asking, WAIT_S)
        assert task is not None
        assert task.status is Status.CANCELLED
        here.close()
        elsewhere.close()

    asyncio.run(scenario())
