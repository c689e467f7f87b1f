"""What the tests of several folders take."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any, Protocol, runtime_checkable

import psutil
import pytest
from hypothesis import settings

from app.loading import uncollected
from tests.postgresql import cluster

__all__ = ["cluster"]

LONG = "long"
"""The profile of Hypothesis under `--long`."""

LONGEST = ("tests/e2e/", "tests/faults/", "tests/cli/", "tests/worker/", "tests/test_readme.py", "tests/client/")
"""Files that take long, because they start services. Side by side with others they come first: were they last, one
process would end long after the others."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="random histories and requests at length (minutes)")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(LONG, max_examples=1000)
    if config.getoption("--long"):
        settings.load_profile(LONG)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell that runs us in the background had it ignored; what the tests start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Threads of torch that wait for each other spin, which takes the cores from all the other processes of the tests:
    # a demo beside a busy machine took 27 s of processor time, and 6 s like this. Slots inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The tests' own networks are small, and other tests have the other cores. Slots choose for themselves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Hundreds of interpreters are started: none but the first should have to compile our modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than there are cores: tests that start services wait for them much of the time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (psutil.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The collector of cycles would walk over modules and tests again and again: a fifth of what collecting costs."""
    with uncollected():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a process of pytest-xdist; all must agree on the order
        items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@runtime_checkable
class Logged(Protocol):
    """What a fixture is whose log belongs to the failure of a test that used it: a service, or what starts services."""

    def log_tail(self) -> str:
        """The last lines."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """The failure of a test shows the log of each service that it used."""
    report = yield
    if report.failed and report.when != "teardown":
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Logged):
                report.sections.append((f"log of {name}", value.log_tail()))
    return report


@pytest.fixture
def long(pytestconfig: pytest.Config) -> bool:
    """Whether to run at length."""
    return bool(pytestconfig.getoption("--long"))
