"""The queue, health, metrics, descriptions, and what every request has in common."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from app.api.ports import SlotView
from app.media.info import MediaInfo, MediaLimits
from app.retry.taxonomy import CodedError, FailureCode
from app.store.errors import StoreUnavailable
from tests.api.kit import Api, ApiFactory, multipart, problem


class TestQueue:
    def test_it_tells_how_it_stands(self, api: Api) -> None:
        api.pool.view = [SlotView("cpu0", "busy", "cpu", task_id="t", attempt=1, pid=7, since=1.8e9)]
        api.submit()
        api.submit(not_before="2100-01-01T00:00:00Z")
        queue = api.client.get("/queue").json()
        assert queue["by_status"]["QUEUED"] == 2
        assert (queue["runnable"], queue["scheduled"], queue["paused"], queue["limit"]) == (1, 1, False, 10_000)
        assert queue["oldest_runnable_age_s"] >= 0
        (slot,) = queue["slots"]
        assert (slot["name"], slot["state"], slot["since"]) == ("cpu0", "busy", "2027-01-15T08:00:00.000Z")

    def test_pausing_and_resuming(self, api: Api) -> None:
        task_id = api.submit()["id"]
        for _ in range(2):
            assert api.client.post("/queue/pause").json()["paused"] is True
        assert api.store.claim("node", lease_s=30, tier="warp", slot="s", device="cpu") is None
        assert api.submit()["status"] == "QUEUED"
        for _ in range(2):
            assert api.client.post("/queue/resume").json()["paused"] is False
        api.start(task_id)


class TestHealth:
    def test_live_is_cheap_and_asks_nobody(self, api: Api) -> None:
        api.store.close()
        assert api.client.get("/health/live").json() == {"status": "live"}

    def test_ready_and_not(self, api: Api) -> None:
        assert (api.client.get("/health/ready").status_code, api.client.get("/health/ready").json()["status"]) == (
            200,
            "ready",
        )
        api.readiness.ok = False
        answer = api.client.get("/health/ready")
        assert (answer.status_code, answer.json()["checks"]) == (503, {"database": "locked"})
        assert "retry-after" in answer.headers

    def test_a_check_that_hangs_is_not_ready(self, start_api: Any) -> None:
        api = start_api(readiness_timeout_s=0.05)
        api.readiness.release = threading.Event()
        try:
            assert api.client.get("/health/ready").status_code == 503
            assert api.client.get("/health/live").status_code == 200
        finally:
            api.readiness.release.set()


class TestMetrics:
    def test_the_page_is_the_services_own(self, shared: Api) -> None:
        answer = shared.client.get("/metrics")
        assert answer.text == "greenroom_up 1\n"
        assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"

    def test_requests_are_observed_by_template(self, api: Api) -> None:
        task_id = api.finished()
        api.observed.clear()
        for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/output", "/tasks/none", "/nothing/here", "/openapi.json"):
            api.client.get(path)
        api.client.request("PROPFIND", "/queue")
        api.observed.until(6)
        assert [seen[:3] for seen in api.observed] == [
            ("GET", "/tasks/{task_id}", 200),
            ("GET", "/tasks/{task_id}/output", 200),
            ("GET", "/tasks/{task_id}", 404),
            ("GET", "unmatched", 404),
            ("GET", "/openapi.json", 200),
            ("OTHER", "/queue", 405),
        ]
        assert all(0 < seen[3] < 10 for seen in api.observed)


class TestDescriptions:
    def test_the_page_needs_no_network(self, shared: Api) -> None:
        page = shared.client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "<script" not in page.text
        assert not re.search(r'(src|href)="(https?:)?//', page.text)
        for word in ("/generate", "Idempotency-Key", "not_before", "TASK_NOT_FINISHED", "INPUT_NO_FACE"):
            assert word in page.text

    def test_every_type_of_problem_has_its_place_on_the_page(self, shared: Api) -> None:
        body = problem(shared.client.get("/tasks/none"), 404, "TASK_NOT_FOUND")
        path, _, anchor = body["type"].partition("#")
        assert f'id="{anchor}"' in shared.client.get(path).text

    def test_openapi_says_what_is_there(self, shared: Api) -> None:
        description = shared.client.get("/openapi.json").json()
        paths = {(method, path) for path, item in description["paths"].items() for method in item}
        assert paths == {
            ("post", "/generate"),
            ("get", "/tasks"),
            ("get", "/tasks/{task_id}"),
            ("get", "/tasks/{task_id}/output"),
            ("post", "/tasks/{task_id}/cancel"),
            ("post", "/tasks/{task_id}/retry"),
            ("post", "/tasks/{task_id}/derive"),
            ("post", "/uploads"),
            ("get", "/uploads/{upload_id}"),
            ("get", "/tasks/{task_id}/deliveries"),
            ("post", "/tasks/{task_id}/deliveries/replay"),
            ("post", "/tasks/{task_id}/deliveries/{delivery_id}/replay"),
            ("get", "/deliveries"),
            ("get", "/queue"),
            ("post", "/queue/pause"),
            ("post", "/queue/resume"),
            ("get", "/health/live"),
            ("get", "/health/ready"),
            ("get", "/metrics"),
            ("get", "/stats"),
            ("get", "/alarms"),
            ("get", "/resources"),
            ("post", "/tasks/{task_id}/approve"),
            ("post", "/tasks/{task_id}/reject"),
            ("post", "/tasks/{task_id}/rerender"),
            ("get", "/tiers"),
            ("get", "/events"),
            ("get", "/tasks/{task_id}/events"),
            ("post", "/tiers/reload"),
            ("put", "/tiers/{name}/breaker"),
        }
        generate = description["paths"]["/generate"]["post"]
        assert set(generate["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
        assert {"202", "400", "413", "415", "422", "429", "500", "503", "507"} <= set(generate["responses"])
        for answer in ("422", "429"):
            assert "application/problem+json" in generate["responses"][answer]["content"]

    def test_openapi_has_no_loose_ends(self, shared: Api) -> None:
        answer = shared.client.get("/openapi.json")
        schemas = answer.json()["components"]["schemas"]
        named = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
        assert named <= set(schemas)
        assert "HTTPValidationError" not in answer.text


class TestEveryRequest:
    def test_it_has_an_id_which_the_caller_may_choose(self, shared: Api) -> None:
        assert shared.client.get("/health/live", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
        body = problem(shared.client.get("/none", headers={"X-Request-Id": "mine-2"}), 404, "NOT_FOUND")
        assert body["request_id"] == "mine-2"
        for bad in ("x" * 500, "two words"):
            assert shared.client.get("/health/live", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad

    def test_unknown_address_and_wrong_method(self, shared: Api) -> None:
        problem(shared.client.get("/none"), 404, "NOT_FOUND")
        answer = shared.client.delete("/queue")
        problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert "GET" in answer.headers["allow"]

    @pytest.mark.parametrize("path", ["/tasks/x", "/tasks", "/queue"])
    def test_a_database_that_is_away_is_503(self, api: Api, path: str) -> None:
        api.store.close()
        answer = api.client.get(path)
        assert problem(answer, 503, "STORE_UNAVAILABLE")["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 1

    def test_a_submission_while_the_database_is_away_is_503(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        inputs = api.inputs()

        async def away(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("database is locked")

        monkeypatch.setattr(api.store, "acreate", away)
        problem(api.client.post("/generate", json=inputs), 503, "STORE_UNAVAILABLE")

    def test_what_nobody_foresaw_is_a_500_with_an_id_and_no_trace(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("a secret of the inside")

        monkeypatch.setattr(api.store, "aget", broken)
        answer = api.client.get("/tasks/x")
        body = problem(answer, 500, "INTERNAL")
        assert answer.headers["x-request-id"] == body["request_id"]
        assert "secret" not in answer.text
        assert "ZeroDivision" not in answer.text

    @pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
    @pytest.mark.parametrize("form", [False, True])
    def test_a_failing_disk_is_503(self, api: Api, monkeypatch: pytest.MonkeyPatch, number: int, form: bool) -> None:
        def broken(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("app.intake.blobs.write_all", broken)
        content, headers = multipart([("file", "a.wav", b"x")]) if form else (b"x", {})
        answer = api.client.post("/uploads", content=content, headers=headers)
        body = problem(answer, 503, "DISK_ERROR")
        assert answer.headers["retry-after"]
        assert body["retryable"] is True
        assert body["reason"] == errno.errorcode[number]
        assert "operator" in body["hint"]

    def test_a_hung_media_helper_is_503_and_not_the_files_fault(self, start_api: ApiFactory) -> None:
        class Hung:
            async def probe(self, path: Path, limits: MediaLimits) -> MediaInfo:
                raise CodedError(FailureCode.MEDIA_HELPER_FAILED, reason="hung")

        api = start_api(prober=Hung())
        source, audio = api.upload(api.media.portrait), api.upload(api.media.speech)
        answer = api.client.post("/generate", json={"source": source, "audio": audio})
        body = problem(answer, 503, "MEDIA_HELPER_FAILED")
        assert answer.headers["retry-after"]
        assert body["retryable"] is True
        assert "not to blame" in body["hint"]

    def test_a_full_disk_is_507(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("app.intake.blobs.write_all", full)
        assert problem(api.client.post("/uploads", content=b"x"), 507, "DISK_FULL")["retryable"] is True
