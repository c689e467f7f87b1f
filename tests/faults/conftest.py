"""The fault suite speaks to real services, whose slots load the renderer that fails on cue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import Service, gone, portrait, serve, speech, until

__all__ = ["portrait", "serve", "speech"]

REHEARSALS = {"GREENROOM_REHEARSALS": "1", "GREENROOM_TIER_RENDERER": "rehearsal", "GREENROOM_BACKOFF_CAP_S": "0.05"}


def family(service: Service) -> list[int]:
    """The processes of a service, itself included."""
    process = psutil.Process(service.process.pid)
    return [process.pid, *(child.pid for child in process.children(recursive=True))]


def until_dead(service: Service) -> None:
    """Wait until a service that kills itself is gone, with all its processes."""
    pids = family(service) if service.process.poll() is None else [service.process.pid]
    service.process.wait(90)
    until(lambda: all(gone(pid) for pid in pids), "all processes to be gone")


def assert_nothing_is_left(service: Service, *, results: int) -> None:
    """No half-written file, no leftover of an attempt, no shared memory; exactly so many results."""
    data = service.data_dir
    until(lambda: not list((data / "attempts").glob("*/*")), "the attempts' directories to be gone")
    assert not list((data / "blobs" / "tmp").iterdir())
    assert len(list((data / "results").glob("*/*"))) == results


def assert_published_once(service: Service, task: dict[str, Any]) -> None:
    """Exactly one file, with the checksum that the task tells."""
    [file] = (service.data_dir / "results" / task["id"]).iterdir()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == task["output"]["sha256"]
    assert service.http.get(task["links"]["output"]).content == file.read_bytes()


def shared_memory() -> set[str]:
    """Names of the shared-memory blocks that exist now."""
    return {path.name for path in Path("/dev/shm").glob("psm_*")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="every fault in every phase (minutes)")


@pytest.fixture
def rehearse(serve: Callable[..., Service]) -> Callable[..., Service]:
    """Starts a rehearsing service, with a failpoint if one is named."""

    def start(failpoints: str = "", **environment: str) -> Service:
        armed = {"GREENROOM_FAILPOINTS": failpoints} if failpoints else {}
        return serve(**REHEARSALS, **armed, **environment)

    return start
