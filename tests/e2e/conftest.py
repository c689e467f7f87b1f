"""A real service: `greenroom serve` as a process of its own, spoken to over a real socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.database import empty_database

SAMPLES = Path(__file__).parents[2] / "samples"
WAIT_S = 90.0
"""Bound of every wait: a cold start loads torch, on a machine that may be busy."""
ACCOUNT_S = 5.0
"""A service that failed a test may not answer either."""
TAIL_LINES = 60

FRUGAL = {"GREENROOM_LOG_FORMAT": "json", "GREENROOM_SPARES": "0"}
"""What services get unless a test says otherwise. A spare process costs as much as the slot that it stands by for."""


class Service:
    """One `greenroom serve` process on a data directory."""

    def __init__(self, data_dir: Path, *flags: str, **environment: str) -> None:
        self.data_dir = data_dir
        if not data_dir.exists() and "GREENROOM_DATABASE_URL" not in environment:
            data_dir.mkdir(parents=True)
            empty_database(data_dir / "greenroom.db")
        self.log = data_dir.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", "--port", "0", "--data-dir", str(data_dir), *flags],
                stdout=log,
                stderr=log,
                env=os.environ | FRUGAL | environment,
            )
        self.http = httpx.Client(base_url=self._url(), timeout=WAIT_S)

    def _url(self) -> str:
        file = self.data_dir / "service.json"

        def written() -> str | None:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                found = json.loads(file.read_text())
            except (FileNotFoundError, ValueError):
                return None
            return str(found["url"]) if found["pid"] == self.process.pid else None

        return str(until(written, "the service to listen", self.log_tail))

    def until_ready(self) -> Service:
        until(lambda: self.http.get("/health/ready").status_code == 200, "readiness", self.account)
        return self

    def post(self, source: Path, audio: Path, **request: Any) -> dict[str, Any]:
        files = {
            "source": (source.name, source.read_bytes()),
            "audio": (audio.name, audio.read_bytes()),
            "request": (None, json.dumps(request), "application/json"),
        }
        answer = self.http.post("/generate", files=files)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def task(self, task_id: str, wait: float = 0) -> dict[str, Any]:
        answer = self.http.get(f"/tasks/{task_id}", params={"wait": wait} if wait else None)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until_ended(self, task_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            task = self.task(task_id, wait=20)
            return task if task["is_terminal"] else None

        return dict(until(ended, f"{task_id} to end", lambda: self.account(task_id)))

    def until_rendering(self, task_id: str) -> None:
        def rendering() -> bool:
            progress = self.task(task_id)["progress"]
            return bool(progress["phase"] == "render" and progress["done"] > 0)

        until(rendering, f"{task_id} to render", lambda: self.account(task_id))

    def slot_pid(self) -> int:
        return int(self.http.get("/queue").json()["slots"][0]["pid"])

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def until_logged(self, event: str, task_id: str | None = None, count: int = 1) -> list[dict[str, Any]]:
        """The records of `event`, of one task or all, once there are as many as `count`.

        What is logged of a change is written after its commit, so that callers may hear of it first.
        """

        def found() -> list[dict[str, Any]] | None:
            records = [r for r in self.records() if r["event"] == event and task_id in (None, r.get("task_id"))]
            return records if len(records) >= count else None

        return list(until(found, f"{count} records of {event}", self.log_tail))

    def log_tail(self) -> str:
        """The last lines that services on this data directory wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]) or "(nothing)"

    def account(self, task_id: str | None = None) -> str:
        """What the service knows, for a failure: the task with its attempts, the queue, the end of its log."""
        paths = ([f"/tasks/{task_id}"] if task_id is not None else []) + ["/queue", "/health/ready"]
        alive = self.process.poll()
        parts = [f"service: {'runs' if alive is None else f'exited with {alive}'}", *map(self._shown, paths)]
        return "\n".join([*parts, "log:", self.log_tail()])

    def _shown(self, path: str) -> str:
        try:
            return f"GET {path}: {self.http.get(path, timeout=ACCOUNT_S).text}"
        except httpx.HTTPError as error:
            return f"GET {path}: {error!r}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def until(condition: Callable[[], Any], what: str, tell: Callable[[], str] = str) -> Any:
    """Poll an outside condition, bounded. `tell` says what is known if it does not come."""
    end = time.monotonic() + WAIT_S
    while not (value := condition()):
        if time.monotonic() >= end:
            raise AssertionError(f"timed out waiting for {what}\n{tell()}")
        time.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie counts as ended)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Starter:
    """Starts services on one data directory, which share a log."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._made: list[Service] = []

    def __call__(self, *flags: str, **environment: str) -> Service:
        self._made.append(Service(self._data_dir, *flags, **environment))
        return self._made[-1]

    def log_tail(self) -> str:
        """The last lines of the log. A test that fails shows them (`tests/conftest.py`)."""
        return self._made[-1].log_tail() if self._made else "(no service was started)"

    def stop(self) -> None:
        """Stop what still runs."""
        for service in self._made:
            service.http.close()
            if service.process.poll() is None:
                service.stop(signal.SIGKILL)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path / "data")
    yield starter
    starter.stop()


@pytest.fixture(scope="session")
def portrait() -> Path:
    return next(iter(sorted(SAMPLES.glob("portrait.*"))))


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """Makes a WAV of the given length from the bundled speech, repeated if need be."""
    folder = tmp_path_factory.mktemp("speech")

    def cut(seconds: float) -> Path:
        path = folder / f"speech {seconds} s.wav"
        with wave.open(str(next(iter(sorted(SAMPLES.glob("speech.*")))))) as source:
            rate = source.getframerate()
            samples = np.frombuffer(source.readframes(source.getnframes()), "<i2")
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, rate, 0, "NONE", ""))
            out.writeframes(np.resize(samples, round(seconds * rate)).tobytes())
        return path

    return cut
