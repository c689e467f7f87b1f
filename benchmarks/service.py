"""A service of our own to measure: started as a user starts it, on a free port, with an empty data directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

START_TIMEOUT_S = 120.0


@dataclass
class Running:
    """A running service."""

    client: httpx.Client
    process: subprocess.Popen[bytes]
    live_s: float
    """Seconds from the start of the process to the first answer of /health/live."""
    ready_s: float
    """The same for /health/ready."""

    def workers(self) -> list[psutil.Process]:
        """The slot processes."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "app.worker.child" in " ".join(child.cmdline())]

    def upload(self, path: Path) -> str:
        """Upload a file; its reference."""
        answer = self.client.post("/uploads", params={"name": path.name}, content=path.read_bytes())
        answer.raise_for_status()
        return f"upload:{answer.json()['id']}"

    def generate(self, **request: Any) -> dict[str, Any]:
        """POST /generate; the task."""
        answer = self.client.post("/generate", json=request)
        answer.raise_for_status()
        task: dict[str, Any] = answer.json()
        return task

    def wait(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended."""
        while True:
            task: dict[str, Any] = self.client.get(f"/tasks/{task_id}", params={"wait": 30}).json()
            if task["is_terminal"]:
                return task


def _until(url_of: Any, path: str, process: subprocess.Popen[bytes], began: float) -> float:
    while time.monotonic() - began < START_TIMEOUT_S:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode}")
        try:
            if (url := url_of()) and httpx.get(url + path, timeout=2).status_code == 200:
                return time.monotonic() - began
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise TimeoutError(f"{path} did not answer 200 within {START_TIMEOUT_S} s")


@contextmanager
def service(data_dir: Path, *flags: str, port: int, **environment: str) -> Iterator[Running]:
    """Start `greenroom serve` on `port`, wait until it is ready, stop it with SIGTERM at the end."""
    log = (data_dir.parent / f"{data_dir.name}.log").open("wb")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", str(port), "--data-dir", str(data_dir), *flags],
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        live_s = _until(lambda: url, "/health/live", process, began)
        ready_s = _until(lambda: url, "/health/ready", process, began)
        with httpx.Client(base_url=url, timeout=120) as client:
            yield Running(client, process, live_s, ready_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def dump(results: dict[str, Any], path: Path) -> None:
    """Save results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
