"""Thousands of tasks from a manifest: so many in flight, and nothing twice when it is killed and started again.

What is done is written to a journal in the output folder before it can be done again: the request of a row before it
is sent (with its uploads and its idempotency key, so that a repeat finds the same task), and its end after the video is
in place. Starting again on the same folder goes on where it was.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from greenroom.client.aio import AsyncClient
from greenroom.client.errors import ApiError, GreenroomError, TaskNotSucceeded

JOURNAL = "journal.jsonl"
REPORT = "report.json"
_ADDRESS = re.compile(r"^(https?://|file://|upload:|task:)", re.IGNORECASE)
_NAME = re.compile(r"[\w][\w .-]{0,99}")
_JSON_COLUMNS = frozenset(
    {"options", "metadata", "callback", "after", "priority", "deadline_s", "start_deadline_s", "cache"}
)

State = Literal["waiting", "sending", "running", "succeeded", "failed"]


class ManifestError(ValueError):
    """The manifest cannot be used; the message names the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest. `request` are the fields of `POST /generate` with `source` and `audio` as written."""

    number: int
    name: str
    """The video's file name without its ending."""
    request: Mapping[str, Any]


@dataclass
class Outcome:
    """What became of a row."""

    row: int
    name: str
    state: State = "waiting"
    task_id: str | None = None
    output: str | None = None
    sha256: str | None = None
    seconds: float | None = None
    error: dict[str, str] | None = None
    """`code`, `message`, `hint`."""
    fraction: float | None = None


@dataclass
class Report:
    """The whole batch."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, state: State) -> int:
        """How many rows are in a state."""
        return sum(outcome.state == state for outcome in self.outcomes)


def read_manifest(path: Path) -> list[Row]:
    """The rows of a CSV file with a header, or of a JSONL file with an object per line.

    `source` and `audio` are required: files (relative to the manifest) or addresses. `name` names the video; without
    it, the row's number. In a CSV, `options.strength` is an option and `metadata.x` a member of the metadata. Raises
    `ManifestError`, OSError.
    """
    rows: list[Row] = []
    names: dict[str, int] = {}
    for number, fields in _readable(path):
        request = dict(fields)
        name = str(request.pop("name", "") or f"{number:06d}")
        if not _NAME.fullmatch(name):
            raise ManifestError(f"{path}, line {number}: the name {name!r} is not fit for a file.")
        if name in names:
            raise ManifestError(f"{path}, line {number}: the name {name!r} stands in line {names[name]} already.")
        names[name] = number
        for required in ("source", "audio"):
            given = request.get(required)
            if not isinstance(given, str) or not given:
                raise ManifestError(f"{path}, line {number}: `{required}` is missing.")
            if not _ADDRESS.match(given):
                file = (path.parent / given).resolve()
                if not file.is_file():
                    raise ManifestError(f"{path}, line {number}: `{required}`: there is no file {str(file)!r}.")
                request[required] = str(file)
        rows.append(Row(number, name, request))
    if not rows:
        raise ManifestError(f"{path} has no rows.")
    return rows


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
    journal = _Journal(out / JOURNAL)
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
        _write_report(out / REPORT, report)
    return report


async def _run(
    client: AsyncClient,
    row: Row,
    outcome: Outcome,
    out: Path,
    journal: _Journal,
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
        key, request = await journal.request(row, uploads)
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
        if _ADDRESS.match(given):
            return given
        if given not in self._sending or (self._sending[given].done() and self._sending[given].exception()):
            self._sending[given] = asyncio.create_task(self._send(Path(given)))
        return await asyncio.shield(self._sending[given])

    async def _send(self, file: Path) -> str:
        return (await self._client.upload(file))["uri"]


class _Journal:
    """What is on disk about a batch. Every line is written whole and flushed; a torn last line is left out."""

    def __init__(self, path: Path) -> None:
        self._requests: dict[str, tuple[str, dict[str, Any]]] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        for entry in _entries(path):
            if "request" in entry:
                self._requests[entry["row"]] = (entry["key"], entry["request"])
                self._ended.pop(entry["row"], None)
            else:
                self._ended[entry["row"]] = entry["outcome"]
        self._file = path.open("a", encoding="utf-8")

    def outcome(self, row: Row, out: Path, *, retry_failed: bool) -> Outcome | None:
        """How the row ended in an earlier run; None if it is to be run."""
        known = self._ended.get(_digest(row))
        if known is None:
            return None
        ended = Outcome(**known)
        if ended.state == "succeeded":
            return ended if (out / str(ended.output)).is_file() else None
        if retry_failed:
            self._requests.pop(_digest(row), None)  # that request has failed for good: another one is made
            return None
        return ended

    async def request(self, row: Row, uploads: _Uploads) -> tuple[str, dict[str, Any]]:
        """The row's key and request, the same as in an earlier run that did not come to its end."""
        digest = _digest(row)
        if digest not in self._requests:
            request = dict(row.request)
            for name in ("source", "audio"):
                request[name] = await uploads.address(request[name])
            self._requests[digest] = (f"batch-{uuid.uuid4()}", request)
            key, request = self._requests[digest]
            self._write({"row": digest, "key": key, "request": request})
        return self._requests[digest]

    def ended(self, row: Row, outcome: Outcome) -> None:
        """The row has come to its end."""
        self._write({"row": _digest(row), "outcome": asdict(outcome)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _digest(row: Row) -> str:
    """Names a row by what it asks for: a changed row is another one."""
    text = json.dumps([row.name, row.request], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the line that was being written when the batch was killed
            continue
    return entries


def _readable(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    """As `_lines`. Raises `ManifestError` for what is no text, or no table."""
    try:
        yield from _lines(path)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text (byte {error.start}): save it as such.") from None
    except csv.Error as error:
        raise ManifestError(f"{path} cannot be read as CSV: {error}.") from None


def _lines(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        # Not `splitlines`: a text within JSON may hold separators that it takes for the end of a line.
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
            if line.strip():
                try:
                    entry = json.loads(line)
                except ValueError as error:
                    raise ManifestError(f"{path}, line {number}: not JSON: {error}") from None
                if not isinstance(entry, dict):
                    raise ManifestError(f"{path}, line {number}: not an object.")
                yield number, entry
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is not None and len(reader.fieldnames) == 1 and ";" in reader.fieldnames[0]:
            raise ManifestError(f"{path}, line 1: its columns are separated by semicolons; separate them by commas.")
        for entry in reader:
            if None in entry:
                raise ManifestError(f"{path}, line {reader.line_num}: more values than columns.")
            yield reader.line_num, _from_columns(entry, path, reader.line_num)


def _from_columns(columns: Mapping[str, str | None], path: Path, number: int) -> dict[str, Any]:
    """CSV values as fields: `options.x` goes into `options`; numbers and JSON are read where the field is such."""
    fields: dict[str, Any] = {}
    for column, text in columns.items():
        if not text:
            continue
        name, dot, member = column.strip().partition(".")
        if dot:
            fields.setdefault(name, {})[member] = _value(text)
        elif name in _JSON_COLUMNS:
            try:
                fields[name] = json.loads(text)
            except ValueError:
                raise ManifestError(f"{path}, line {number}: `{name}` is not JSON: {text!r}") from None
        else:
            fields[name] = text
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _write_report(path: Path, report: Report) -> None:
    counts = {state: report.count(state) for state in ("succeeded", "failed", "waiting", "running", "sending")}
    body = {"counts": counts, "rows": [asdict(outcome) for outcome in report.outcomes]}
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(body, indent=1), encoding="utf-8")
    part.replace(path)
