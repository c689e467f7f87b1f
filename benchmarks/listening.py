"""How soon a commit is heard, by event stream and by webhook, and what listeners cost that hear nothing.

A part of `make bench`; `python -m benchmarks.listening` measures it alone and saves it beside the rest.

A commit's moment is its event's time, which the writer reads before the transaction is made durable: the figures hold
the sync to the disk, too. All moments are of one machine's clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import tempfile
import threading
import time
from contextlib import AsyncExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from benchmarks import material
from benchmarks.figures import free_port, summary
from benchmarks.recovery import REHEARSING
from benchmarks.service import Running, dump, service

SPINE = Path(__file__).parent / "results" / "spine.json"
ROUNDS = 300
READERS = 200
IDLE = 2000
IDLE_S = 30.0
"""Two keep-alives of each listener."""
LATER = "2100-01-01T00:00:00Z"
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


class Stream:
    """One open event stream; what arrives is noted by event id."""

    def __init__(self) -> None:
        self.heard: dict[int, float] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, running: Running, path: str, *, read: bool) -> Stream:
        """Connect and wait for the first line of the stream; read on only where asked to."""
        url = running.client.base_url
        reader, self._writer = await asyncio.open_connection(url.host, url.port)
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head
        await reader.readuntil(b": listening\n\n")
        if read:
            self._reading = asyncio.create_task(self._read(reader))
        return self

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            now = time.time()
            for number in _ID.findall(data):
                self.heard.setdefault(int(number), now)

    async def close(self) -> None:
        """Hang up."""
        assert self._writer is not None
        if self._reading is not None:
            self._reading.cancel()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Hook:
    """A webhook endpoint; what arrives is noted by event id."""

    def __init__(self) -> None:
        self.heard: dict[int, float] = {}
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.setdefault(int(self.headers["webhook-id"].rpartition("_")[2]), time.time())
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def change(running: Running, source: str, audio: str, **more: Any) -> str:
    """A task that is made and cancelled: two commits with an event each."""
    task = running.generate(source=source, audio=audio, not_before=LATER, **more)
    running.client.post(f"/tasks/{task['id']}/cancel").raise_for_status()
    return str(task["id"])


def delays(data_dir: Path, heard: dict[int, float], tasks: list[str]) -> list[float]:
    """Seconds from each event of `tasks` to its arrival."""
    with sqlite3.connect(f"file:{data_dir / 'greenroom.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT id, task_id, at FROM events").fetchall()
    wanted = set(tasks)
    return [heard[number] - at for number, task_id, at in rows if task_id in wanted and number in heard]


async def heard_by_stream(running: Running, data_dir: Path, source: str, audio: str) -> dict[str, float]:
    """Milliseconds from commit to arrival at one reader of all events."""
    stream = await Stream().open(running, "/events", read=True)
    tasks = [await asyncio.to_thread(change, running, source, audio) for _ in range(ROUNDS)]
    await _until(lambda: len(stream.heard) >= 2 * ROUNDS)
    await stream.close()
    found = delays(data_dir, stream.heard, tasks)
    assert len(found) == 2 * ROUNDS
    return summary(found, 1000)


async def heard_by_all(running: Running, data_dir: Path, source: str, audio: str) -> dict[str, float]:
    """Milliseconds from commit to arrival at the last of `READERS` readers of all events."""
    streams = [await Stream().open(running, "/events", read=True) for _ in range(READERS)]
    tasks: list[str] = []
    for _ in range(ROUNDS // 10):
        tasks.append(await asyncio.to_thread(change, running, source, audio))
        await _until(lambda: all(len(stream.heard) >= 2 * len(tasks) for stream in streams))
    for stream in streams:
        await stream.close()
    last = {number: max(stream.heard[number] for stream in streams) for number in streams[0].heard}
    return summary(delays(data_dir, last, tasks), 1000)


async def heard_by_webhook(running: Running, data_dir: Path, source: str, audio: str) -> dict[str, float]:
    """Milliseconds from commit to the arrival of its notice at the endpoint, one after the other."""
    hook = Hook()
    tasks: list[str] = []
    for _ in range(ROUNDS):
        callback = {"url": hook.url, "events": ["task.cancelled"]}
        tasks.append(await asyncio.to_thread(change, running, source, audio, callback=callback))
        await _until(lambda: len(hook.heard) >= len(tasks))
    hook.close()
    found = delays(data_dir, hook.heard, tasks)
    assert len(found) == ROUNDS
    return summary(found, 1000)


async def idle(running: Running, data_dir: Path, source: str, audio: str) -> dict[str, Any]:
    """What `IDLE` listeners to tasks that do nothing cost in memory and CPU, and a reader beside them."""
    process = psutil.Process(running.process.pid)
    waiting = [running.generate(source=source, audio=audio, not_before=LATER)["id"] for _ in range(20)]
    for _ in range(3):  # what grows with the first streams alone
        async with AsyncExitStack() as stack:
            for n in range(200):
                await _listen(stack, running, waiting[n % 20])
    await asyncio.sleep(2)
    alone = await _cpu_percent(process)
    before = process.memory_info().rss
    async with AsyncExitStack() as stack:
        grown = []
        for n in range(IDLE):
            await _listen(stack, running, waiting[n % 20])
            if (n + 1) % (IDLE // 4) == 0:
                grown.append(process.memory_info().rss - before)
        with_them = await _cpu_percent(process)
        beside = await heard_by_stream(running, data_dir, source, audio)
    return {
        "listeners": IDLE,
        # What was free before holds the first of them: the later ones tell what one costs.
        "kb_per_listener": round((grown[-1] - grown[0]) / (IDLE - IDLE // 4) / 1000, 1),
        "kb_in_all": round(grown[-1] / 1000),
        "cpu_percent_without": alone,
        "cpu_percent_with": with_them,
        "commit_to_stream_beside_them_ms": beside,
    }


async def _listen(stack: AsyncExitStack, running: Running, task_id: str) -> None:
    stream = await Stream().open(running, f"/tasks/{task_id}/events", read=False)
    stack.push_async_callback(stream.close)


async def _cpu_percent(process: psutil.Process) -> float:
    """Of one core, over `IDLE_S`."""
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(IDLE_S)
    return round((sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began) * 100, 2)


async def _until(condition: Any, bound_s: float = 60.0) -> None:
    end = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


async def _measure(running: Running, data_dir: Path) -> dict[str, Any]:
    source, audio = running.upload(material.portrait()), running.upload(material.speech())
    change(running, source, audio)
    return {
        "commit_to_stream_ms": await heard_by_stream(running, data_dir, source, audio),
        f"commit_to_the_last_of_{READERS}_streams_ms": await heard_by_all(running, data_dir, source, audio),
        "commit_to_webhook_ms": await heard_by_webhook(running, data_dir, source, audio),
        "idle_listeners": await idle(running, data_dir, source, audio),
    }


def listening(folder: Path) -> dict[str, Any]:
    """All of it, on one service."""
    data = folder / "listening"
    before = os.getloadavg()[0]
    more = {"GREENROOM_MAX_WAITING": "10000000", "GREENROOM_ALLOW_PRIVATE_ADDRESSES": "1", **REHEARSING}
    with service(data, "--slots", "1", port=free_port(), **more) as running:
        figures = asyncio.run(_measure(running, data))
    return figures | {"load_average": {"before": round(before, 1), "after": round(os.getloadavg()[0], 1)}}


def main() -> None:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory() as name:
        figures = listening(Path(name))
    print(json.dumps(figures, indent=2))
    dump(json.loads(SPINE.read_text()) | {"listening": figures}, SPINE)


if __name__ == "__main__":
    main()
