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

        return str(until(written, "the service to listen"))

    def until_ready(self) -> Service:
        until(lambda: self.http.get("/health/ready").status_code == 200, "readiness")
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
        return dict(until(lambda: (t := self.task(task_id, wait=20)) and t["is_terminal"] and t, f"{task_id} to end"))

    def until_rendering(self, task_id: str) -> None:
        def rendering() -> bool:
            progress = self.task(task_id)["progress"]
            return bool(progress["phase"] == "render" and progress["done"] > 0)

        until(rendering, f"{task_id} to render")

    def slot_pid(self) -> int:
        return int(self.http.get("/queue").json()["slots"][0]["pid"])

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll an outside condition, bounded."""
    end = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie counts as ended)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services on one data directory; stops what still runs."""
    made: list[Service] = []

    def start(*flags: str, **environment: str) -> Service:
        made.append(Service(tmp_path / "data", *flags, **environment))
        return made[-1]

    yield start
    for service in made:
        service.http.close()
        if service.process.poll() is None:
            service.stop(signal.SIGKILL)


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
