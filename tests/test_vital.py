"""The service's own threads: one that dies is told in the log and ends readiness."""

from __future__ import annotations

import ast
import asyncio
import threading
import time
from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

import pytest
import structlog

import app
from app.cleanup.disk import DiskWatch
from app.service.service import Service
from app.service.views import Readiness
from app.vital import VitalThread, task_fault
from app.worker.dispatcher import Dispatcher
from app.worker.pool import LocalPool
from tests.worker.conftest import audio, bench, store, submit  # noqa: F401 - fixtures

OF_ONE_JOB = {
    "health/monitor.py", "intake/lookup.py", "media/encode.py", "render/command/program.py",
    "telemetry/otlp.py", "telemetry/task_spans.py", "worker/attempt.py", "worker/harness.py", "worker/slot_process.py",
}  # fmt: skip
"""Threads of an attempt, of a child process, of its output, of a name looked up; and those that only tell spans."""
WAIT_S = 30.0


def readiness(node, *others):
    return Readiness(node.store, node.pool, node.judges, node.dispatcher, DiskWatch(node.folder, 0), others)


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_thread_that_dies_says_of_what():
    def work():
        raise SystemExit("a surprise")

    thread = VitalThread(work, "worker")
    with structlog.testing.capture_logs() as lines:
        thread.start()
        thread.join(WAIT_S)
    assert thread.fault == "the thread worker died: SystemExit('a surprise')"
    assert [(line["event"], line["log_level"], line["thread"]) for line in lines] == [
        ("thread_died", "critical", "worker")
    ]


def test_a_thread_that_was_stopped_has_no_fault():
    done = threading.Event()
    thread = VitalThread(lambda: done.wait(WAIT_S) and None, "worker")
    assert thread.wind_up(0.0), "it never began"
    thread.start()
    assert not thread.wind_up(0.01), "it was not told to end"
    done.set()
    assert thread.wind_up(WAIT_S)
    assert thread.fault == ""


def test_a_task_of_the_event_loop_that_ended_of_an_error_has_a_fault():
    async def scenario():
        async def broken():
            raise LookupError("a surprise")

        died, stopped, never = asyncio.create_task(broken()), asyncio.create_task(asyncio.sleep(WAIT_S)), None
        assert task_fault("sender", stopped) == ""
        stopped.cancel()
        await asyncio.wait([died, stopped])
        assert task_fault("sender", died) == "the task sender ended: LookupError('a surprise')"
        assert task_fault("sender", stopped) == task_fault("sender", never) == ""

    asyncio.run(scenario())


def test_a_service_whose_parts_work_is_ready(bench):  # noqa: F811
    node = bench()
    node.until_idle()
    assert readiness(node).check()[0]


def test_a_service_whose_dispatcher_died_is_not_ready(bench, monkeypatch):  # noqa: F811
    def dies(dispatcher):
        raise SystemExit("a surprise")

    node = bench()
    node.until_idle()
    monkeypatch.setattr(Dispatcher, "_fill_slots", dies)
    until(lambda: node.dispatcher.fault)
    ready, checks = readiness(node).check()
    assert not ready
    assert checks["parts"] == "the thread dispatcher died: SystemExit('a surprise')"


def test_a_service_whose_supervisor_died_is_not_ready(bench, monkeypatch):  # noqa: F811
    def dies(pool):
        raise SystemExit("a surprise")

    node = bench()
    node.until_idle()
    monkeypatch.setattr(LocalPool, "_round", dies)
    node.pool.reconfigure([slot.plan for slot in node.pool.slots()], {})
    until(lambda: node.pool.fault)
    ready, checks = readiness(node).check()
    assert not ready
    assert checks["parts"] == "the thread pool died: SystemExit('a surprise')"


def test_a_service_any_of_whose_other_parts_died_is_not_ready(bench):  # noqa: F811
    class Dead:
        fault = "the thread janitor died: OSError()"

    node = bench()
    node.until_idle()
    ready, checks = readiness(node, Dead()).check()
    assert not ready
    assert checks["parts"] == Dead.fault


def test_every_thread_of_the_service_itself_is_one_that_is_missed():
    root = Path(app.__path__[0])
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("threading.Thread", "Thread")
    }
    assert {path for path in found if not path.startswith("cli/")} == OF_ONE_JOB


def test_a_step_of_the_end_that_fails_stops_none_of_those_after_it():
    async def scenario():
        service, server = Service.__new__(Service), MagicMock()
        service.settings = MagicMock(shutdown_grace_s=0.0)
        for part in ("rendering", "releaser", "watch", "deliverer", "intake", "sandbox", "janitor", "app"):
            setattr(service, part, MagicMock())
        service.task_spans = None
        service.rendering.tier_control.stop = service.deliverer.stop = service.intake.close = AsyncMock()
        service.sandbox.close = AsyncMock()
        service.releaser.stop = AsyncMock(side_effect=LookupError("a surprise"))
        service.rendering.dispatcher.stop.side_effect = LookupError("another")

        async def broken():
            raise OSError("the server broke down")

        with pytest.raises(OSError, match="the server broke down"):
            await service._stop(server, asyncio.create_task(broken()))
        service.rendering.judges.stop.assert_called_once_with()
        service.sandbox.close.assert_awaited_once_with()
        service.janitor.stop.assert_called_once_with()
        server.end.assert_called_once_with()

    asyncio.run(scenario())
