"""A service of one's own for a while: `greenroom serve` as a child process on a free port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from app.cli.errors import CommandError
from app.cli.watch import running_service

LIVE_WITHIN_S = 60.0
"""A cold disk can take its time with the first imports; a service that is not up by then will not come."""
STOP_WITHIN_S = 60.0
"""More than the service's own grace for running attempts."""
_LOOK_EVERY_S = 0.05
_TAIL_LINES = 20


class ServiceProcess:
    """`greenroom serve` below `folder` (database, files and log), in a session of its own.

    Its own session keeps the terminal's Ctrl-C away from it: it is stopped by `stop`, in order.
    """

    def __init__(self, folder: Path, *more: str, name: str = "service") -> None:
        """`more` are flags of `serve`; several services below one folder have a `name` each, for their logs."""
        self.data_dir = folder / "data"
        self._log = folder / f"{name}.log"
        self._started = time.monotonic()
        self.url = ""
        self.live_after_s = 0.0
        flags = ["--host", "127.0.0.1", "--port", "0", "--data-dir", str(self.data_dir), "--log-format", "json"]
        flags += ["--set", "database_url="]  # its own, whatever variables and files say
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, "-m", "app", "serve", *flags, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_live(self) -> None:
        """Wait until `/health/live` answers. Raises `CommandError` with the log's end if it dies or takes long."""
        deadline = self._started + LIVE_WITHIN_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self.failed(f"The service ended with {self._process.returncode} before it was up.")
            url = running_service(self.data_dir, self._process.pid)
            if url is not None and _answers(url):
                self.url, self.live_after_s = url, time.monotonic() - self._started
                return
            time.sleep(_LOOK_EVERY_S)
        raise self.failed(f"The service was not up within {LIVE_WITHIN_S:g} s.")

    def failed(self, message: str) -> CommandError:
        """The error that says so, with the end of the service's log."""
        hint = "`greenroom doctor` looks for what is wrong on this machine."
        return CommandError("SERVICE_FAILED", f"{message} The end of its log:\n{self.log_tail()}", hint)

    def log_tail(self) -> str:
        """The last lines that the service wrote."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "(it wrote nothing)"

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process.poll() is None

    def family(self) -> list[psutil.Process]:
        """The service's process and all below it; none once it is gone."""
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL the service and all below it, as a crash of the machine does, and wait until they are gone."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=STOP_WITHIN_S)

    def stop(self) -> int:
        """SIGTERM, wait, and as a last resort kill the whole session. Returns the exit code (negative: the signal)."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=2.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
