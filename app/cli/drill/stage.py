"""The stage of a drill: services of its own on a folder of its own, which may be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.cli.service_process import ServiceProcess

OWN: dict[str, str] = {
    "rehearsals": "true",
    "allow_private_addresses": "true",  # a webhook endpoint of the drill's own
    "database_url": "",  # SQLite in the stage's folder
    "otlp_endpoint": "",
    "drop_in_duix_dir": "",
    "drop_in_save_roots": "",
}
"""What a drill's service has otherwise than the configuration: it rehearses, and reaches nobody outside."""

_TIDY_S = 20.0
"""How long cleaning up may take after the end of a task."""


class Stage:
    """One service on `folder`, at an address that stays however often it is started; a second one on demand."""

    def __init__(self, folder: Path, flags: Sequence[str], *, ready_within_s: float) -> None:
        """`flags`: the configuration, as flags of `serve`; `ready_within_s`: how long a start may take."""
        self._folder = folder.resolve()
        self.data_dir = self._folder / "data"
        self._port = _free_port()
        own = [part for name, value in OWN.items() for part in ("--set", f"{name}={value}")]
        self._flags = [*flags, *own]
        self._ready_within_s = ready_within_s
        self._made: list[ServiceProcess] = []
        self.url = f"http://127.0.0.1:{self._port}"
        self.ready_s = 0.0
        """How long the last start took, until the service was ready."""

    def start(self, **settings: str) -> ServiceProcess:
        """Start the service, with more `settings` if there are any; it is ready then. Raises `CommandError`."""
        return self._launch("--port", str(self._port), name="service", settings=settings)

    def start_second(self) -> ServiceProcess:
        """Start one more service on the same data."""
        return self._launch("--port", "0", name="second", settings={})

    def _launch(self, *where: str, name: str, settings: Mapping[str, str]) -> ServiceProcess:
        began = time.monotonic()
        more = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        service = ServiceProcess(self._folder, *self._flags, *more, *where, name=name)
        self._made.append(service)
        service.wait_live()
        if not until(lambda: is_ready(service.url) or not service.runs, self._ready_within_s):
            reasons = httpx.get(f"{service.url}/health/ready", timeout=5.0).text
            raise service.failed(f"The service of the drill was not ready within {self._ready_within_s:g} s: {reasons}")
        if not service.runs:
            raise service.failed("The service of the drill ended before it was ready.")
        self.ready_s = time.monotonic() - began
        return service

    @property
    def services(self) -> list[ServiceProcess]:
        """Those that run, in the order of their starts."""
        return [service for service in self._made if service.runs]

    def restore(self) -> list[str]:
        """Leave one service, at the stage's address; what a drill left otherwise. Raises `CommandError`."""
        wrong = []
        for service in self.services:
            if service.url != self.url:
                wrong.append("a second service was still there")
                service.kill()
        if not self.services:
            wrong.append(f"the service was gone; the end of its log:\n{self._made[-1].log_tail()}")
            self.start()
        return wrong

    def close(self) -> list[str]:
        """Stop what runs, in order; what is left although nothing may be (`left`), exit codes other than 0 among it."""
        family = [process for service in self.services for process in service.family()]
        wrong = [f"a service exited with {code}" for code in (s.stop() for s in self.services) if code != 0]
        _gone, alive = psutil.wait_procs(family, timeout=_TIDY_S)
        wrong += [f"process {process.pid} outlived its service" for process in alive]
        return wrong + self.left()

    def abandon(self) -> None:
        """Kill whatever runs, and what it started: for a drill that is broken off."""
        for service in self.services:
            service.kill()
        for process in self._strays():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def left(self) -> list[str]:
        """What attempts left behind and ought to have been cleaned up, once there was time for it."""
        until(lambda: not self._left(), _TIDY_S)
        return self._left()

    def _left(self) -> list[str]:
        folders = [str(path.relative_to(self.data_dir)) for path in self.data_dir.glob("attempts/*/*")]
        uploads = [str(path.relative_to(self.data_dir)) for path in self.data_dir.glob("blobs/tmp/*")]
        strays = [f"process {process.pid}" for process in self._strays()]
        return [f"{what} is left" for what in (*folders, *uploads, *strays)]

    def _strays(self) -> list[psutil.Process]:
        """Processes that have something to do with this stage's attempts and do not belong to a running service."""
        known = {process.pid for service in self.services for process in service.family()}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            named = any(str(self.data_dir / "attempts") in word for word in process.info["cmdline"] or [])
            if named and process.pid not in known:
                found.append(process)
        return found

    def leases(self) -> list[str]:
        """Tasks that somebody holds. Only the database knows; it is read, and the service may be stopped."""
        connection = sqlite3.connect(f"file:{self.data_dir / 'greenroom.db'}?mode=ro", uri=True)
        try:
            return [str(row[0]) for row in connection.execute("SELECT id FROM tasks WHERE lease_owner IS NOT NULL")]
        finally:
            connection.close()

    def results(self, task_id: str) -> list[str]:
        """The files that are published for a task."""
        return sorted(path.name for path in (self.data_dir / "results" / task_id).glob("*"))


def freeze(processes: Sequence[psutil.Process]) -> None:
    """SIGSTOP, parents first."""
    _signal(processes, signal.SIGSTOP)


def thaw(processes: Sequence[psutil.Process]) -> None:
    """SIGCONT, children first."""
    _signal(processes[::-1], signal.SIGCONT)


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def is_ready(url: str) -> bool:
    """Whether the service says that it can take work."""
    try:
        return httpx.get(f"{url}/health/ready", timeout=5.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def all_slots_ready(url: str) -> bool:
    """Whether every slot stands by or works."""
    try:
        slots: list[dict[str, Any]] = httpx.get(f"{url}/queue", timeout=5.0).raise_for_status().json()["slots"]
    except httpx.HTTPError:
        return False
    return all(slot["state"] in ("idle", "busy") for slot in slots)


def until(condition: Callable[[], Any], patience_s: float) -> bool:
    """Whether `condition` came to hold within that time."""
    give_up_at = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
