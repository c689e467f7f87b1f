"""What a failed test tells of the services that it used."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e import conftest
from tests.e2e.conftest import Service, until

pytest_plugins = ["pytester"]

SUITE = """
import pytest

class Process:
    def log_tail(self):
        return "the last words"

@pytest.fixture
def service():
    return Process()

@pytest.fixture
def started(service):
    return service

def test_that_fails(started):
    assert False

def test_that_passes(started):
    pass
"""


def test_a_failed_test_shows_the_log_of_the_services_behind_its_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.conftest import pytest_runtest_makereport")
    pytester.makepyfile(SUITE)
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*log of service*", "the last words"])


def test_a_wait_that_ends_in_vain_tells_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "WAIT_S", 0.0)
    with pytest.raises(AssertionError, match="timed out waiting for the end of it\nit hangs"):
        until(lambda: False, "the end of it", lambda: "it hangs")


class _Ended:
    """A process that is over."""

    def poll(self) -> int:
        return 3


def test_the_account_of_a_service_holds_task_queue_and_log_also_where_it_does_not_answer(tmp_path: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/queue":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, text=f"state of {request.url.path}")

    service = object.__new__(Service)
    service.process = _Ended()  # type: ignore[assignment]
    service.log = tmp_path / "data.log"
    service.log.write_text("first\nlast\n")
    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service") as service.http:
        told = service.account("task_1")
    for words in (
        "exited with 3",
        "state of /tasks/task_1",
        "GET /queue: ConnectError('refused')",
        "log:\nfirst\nlast",
    ):
        assert words in told
