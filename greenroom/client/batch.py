"""Thousands of tasks from a manifest: so many in flight, and nothing twice when it is killed and started again.

What is done is written to a journal in the output folder before it can be done again: the request of a row before it
is sent (with its uploads and its idempotency key, so that a repeat finds the same task), and its end after the video is
in place. Starting again on the same folder goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from greenroom.client.aio import AsyncClient
from greenroom.client.errors import ApiError, GreenroomError, TaskNotSucceeded
from greenroom.client.journal import Journal
from greenroom.client.manifest import ADDRESS, Row
from greenroom.client.report import Outcome, Report

JOURNAL = "journal.jsonl"
REPORT = "report.json"


async def run_batch(
    client: AsyncClient,
    rows: Iterable[Row],
    out: Path,
    *,
    concurrency: int = 8,
    retry_failed: bool = False,
    on_change: Callable[[Outcome, Report], None] = lambda _outcome, _report: None,
) -> Report:
    """Run all rows, `concurrency` at once, and write `report.json`.

    Rows that ended in an earlier run are not run again (with `retry_failed`, those that failed are); rows that failed
    because the service was away are. Raises OSError; the errors of single rows stand in the report.
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / JOURNAL)
    report = Report()
    work: asyncio.Queue[tuple[Row, Outcome]] = asyncio.Queue()
    for row in rows:
        outcome = journal.outcome(row, out, retry_failed=retry_failed) or Outcome(row.number, row.name)
        report.outcomes.append(outcome)
        if outcome.state not in ("succeeded", "failed"):
            work.put_nowait((row, outcome))
    uploads = _Uploads(client)

    async def worker() -> None:
        while not work.empty():
            row, outcome = work.get_nowait()
            await _run(client, row, outcome, out, journal, uploads, partial(on_change, outcome, report))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, max(work.qsize(), 1))):
                group.create_task(worker())
    finally:
        journal.close()
        report.write(out / REPORT)
    return report


async def _run(
    client: AsyncClient,
    row: Row,
    outcome: Outcome,
    out: Path,
    journal: Journal,
    uploads: _Uploads,
    changed: Callable[[], None],
) -> None:
    began, final = time.monotonic(), True
    target = out / f"{row.name}.mp4"

    def show(task: Mapping[str, Any]) -> None:
        outcome.fraction = (task.get("progress") or {}).get("fraction")
        changed()

    try:
        outcome.state = "sending"
        changed()
        key, request = await journal.request(row, uploads.address)
        task = await client.generate(request["source"], request["audio"], idempotency_key=key, **_rest(request))
        outcome.state, outcome.task_id = "running", task["id"]
        changed()
        task = await client.wait(task, on_task=show)
        await client.download(task, target)
        assert task["output"] is not None
        outcome.state, outcome.output, outcome.sha256 = "succeeded", target.name, task["output"]["sha256"]
    except TaskNotSucceeded as error:
        told = error.task["error"] or {"code": error.task["status"], "message": str(error), "hint": ""}
        outcome.state = "failed"
        outcome.error = {name: str(told.get(name, "")) for name in ("code", "message", "hint")}
    except ApiError as error:
        final = not error.is_transient
        outcome.state = "failed"
        outcome.error = {"code": error.code, "message": error.message, "hint": error.hint}
    except (GreenroomError, OSError) as error:
        final = False
        outcome.state = "failed"
        hint = "Start the batch again: it goes on where it was."
        outcome.error = {"code": type(error).__name__, "message": str(error) or type(error).__name__, "hint": hint}
    outcome.seconds = round(time.monotonic() - began, 3)
    if final:
        journal.ended(row, outcome)
    changed()


def _rest(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in ("source", "audio")}


class _Uploads:
    """Each file is sent once, however many rows name it."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._sending: dict[str, asyncio.Task[str]] = {}

    async def address(self, given: str) -> str:
        """`given` as an address that the service takes."""
        if ADDRESS.match(given):
            return given
        if given not in self._sending or (self._sending[given].done() and self._sending[given].exception()):
            self._sending[given] = asyncio.create_task(self._send(Path(given)))
        return await asyncio.shield(self._sending[given])

    async def _send(self, file: Path) -> str:
        return (await self._client.upload(file))["uri"]
