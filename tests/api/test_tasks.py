"""Reading, waiting for, listing and cancelling tasks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.api.ports import LiveProgress
from app.forecast.outlook import Outlook, Running
from app.forecast.spread import Spread
from app.retry.taxonomy import Failure, FailureCode
from app.store.creation import as_error
from tests.api.kit import Api, problem

FIELDS = {
    "id", "status", "is_terminal", "progress", "queue_position", "queue_wait_s", "wait_reason", "wait_until",
    "wait_cause", "attempts", "served_by", "cached", "degraded",
    "quality", "error", "output", "links", "retry_of", "derived_from", "after", "waits_for", "trace_id",
    "created_at", "started_at", "finished_at", "metadata",
}  # fmt: skip
LATER = "2100-01-01T00:00:00Z"


def get(api: Api, task_id: str, **query: Any) -> httpx.Response:
    return api.client.get(f"/tasks/{task_id}", params=query)


class TestGet:
    def test_the_fields_are_those_of_the_contract(self, api: Api) -> None:
        task = get(api, api.finished()).json()
        assert set(task) == FIELDS
        assert set(task["progress"]) == {"phase", "done", "total", "fraction", "eta_s"}
        assert set(task["output"]) == {"url", "sha256", "bytes", "duration_s", "width", "height", "fps"}
        assert set(task["links"]) == {
            "self", "output", "events", "cancel", "retry", "retries", "derive", "derived", "deliveries", "review",
        }  # fmt: skip
        assert set(task["attempts"][0]) == {
            "n", "tier", "slot", "started_at", "ended_at", "outcome", "error", "backoff_ms", "postmortem",
            "why", "followed_by",
        }  # fmt: skip

    @pytest.mark.parametrize("task_id", ["none", "x" * 5000, "task_%00", "..%252f..", "ü", "task_01'%20OR%201=1"])
    @pytest.mark.parametrize("wait", [None, 1])
    def test_unknown_is_404(self, shared: Api, task_id: str, wait: int | None) -> None:  # R0.13
        body = problem(get(shared, task_id, **({"wait": wait} if wait else {})), 404, "TASK_NOT_FOUND")
        assert body["retryable"] is False
        assert body["hint"].strip()

    def test_a_waiting_task_tells_its_place(self, api: Api) -> None:
        first, second = api.submit()["id"], api.submit()["id"]
        assert [get(api, t).json()["queue_position"] for t in (first, second)] == [0, 1]

    def test_a_waiting_task_tells_when_it_starts_and_ends_and_when_to_ask_again(self, api: Api) -> None:  # R1.6
        api.submit()
        api.forecast.any = Outlook(wait_s=30.0, eta_s=41.5, ends=Running(Spread(41.5, 0.05), 0.0))
        submitted = api.generate()
        answers = [submitted, get(api, submitted.json()["id"])]
        for answer in answers:
            task = answer.json()
            assert (task["queue_wait_s"], task["progress"]["eta_s"]) == (30.0, 41.5)
            assert 30 <= int(answer.headers["retry-after"]) <= 41
        assert api.forecast.positions[task["id"]] == 1
        listed = api.client.get("/tasks").json()["tasks"]
        assert [task["progress"]["eta_s"] for task in listed] == [41.5, 41.5]
        early = problem(api.client.get(f"/tasks/{task['id']}/output"), 409, "TASK_NOT_FINISHED")
        assert 30 <= early["retry_after_s"] <= 41

    def test_one_that_nobody_can_foresee_says_so(self, api: Api) -> None:  # R1.6
        task_id = api.submit()["id"]
        api.client.post("/queue/pause")
        answer = get(api, task_id)
        assert (answer.json()["queue_wait_s"], answer.json()["progress"]["eta_s"]) == (None, None)
        assert int(answer.headers["retry-after"]) >= 1

    def test_a_running_task_shows_what_its_process_says(self, api: Api) -> None:
        task_id = api.submit()["id"]
        api.start(task_id)
        bare = get(api, task_id).json()
        assert bare["progress"] == {"phase": None, "done": 0, "total": 0, "fraction": 0.0, "eta_s": None}
        api.pool.live[task_id] = LiveProgress("render", 30, 120, eta_s=12.3)
        api.forecast.told[task_id] = Outlook(eta_s=12.3, ends=Running(Spread(20.0, 0.05), 7.7))
        answer = get(api, task_id)
        task = answer.json()
        assert task["progress"] == {"phase": "render", "done": 30, "total": 120, "fraction": 0.25, "eta_s": 12.3}
        assert (task["status"], task["wait_reason"], task["queue_position"]) == ("RUNNING", None, None)
        assert task["attempts"][0]["outcome"] is None
        assert 8 <= int(answer.headers["retry-after"]) <= 13

    def test_a_false_hundred_percent_does_not_show_as_done(self, api: Api) -> None:  # R1.4
        task_id = api.submit()["id"]
        api.start(task_id)
        api.pool.live[task_id] = LiveProgress("encode", 120, 120)
        task = get(api, task_id).json()
        assert task["progress"]["fraction"] < 1
        assert (task["is_terminal"], task["output"]) == (False, None)

    def test_a_finished_task_reads_identical_for_ever(self, api: Api) -> None:
        task_id = api.finished()
        first = get(api, task_id)
        # A late word of its process changes nothing.
        api.pool.live[task_id] = LiveProgress("render", 1, 2)
        second = get(api, task_id)
        assert first.content == second.content
        assert "retry-after" not in first.headers
        etag = first.headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):  # a proxy that compresses makes it weak
            again = api.client.get(f"/tasks/{task_id}", headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert api.client.get(f"/tasks/{task_id}", headers={"If-None-Match": '"other"'}).status_code == 200

    def test_a_failure_without_words_is_shown_with_words(self, api: Api) -> None:  # R0.1
        task_id = api.submit()["id"]
        api.fail(api.start(task_id), message="", hint="")
        task = get(api, task_id).json()
        assert task["status"] == "FAILED"
        assert task["error"]["code"] == "WORKER_CRASHED"
        assert task["error"]["message"]
        assert task["error"]["hint"]
        assert task["error"]["retryable"] is True
        assert task["attempts"][0]["error"]["message"]
        assert task["progress"]["fraction"] is None
        assert task["links"] == {
            "self": f"/tasks/{task_id}", "output": None, "events": f"/tasks/{task_id}/events", "cancel": None,
            "retry": f"/tasks/{task_id}/retry", "retries": f"/tasks?retry_of={task_id}", "deliveries": None,
            "review": None, "derive": f"/tasks/{task_id}/derive", "derived": f"/tasks?derived_from={task_id}",
        }  # fmt: skip

    def test_a_retry_tells_when(self, api: Api) -> None:
        task_id = api.submit()["id"]
        error = {"code": "GPU_OOM", "message": "", "hint": ""}
        claim = api.start(task_id)
        api.store.end_attempt(claim, "retry", error=error, retry_at=time.time() + 20, backoff_ms=20_000)
        answer = get(api, task_id)
        task = answer.json()
        assert (task["status"], task["wait_reason"], task["wait_cause"]) == ("RETRY_WAIT", "retry_backoff", "GPU_OOM")
        assert task["created_at"] < task["wait_until"]
        assert 15 <= int(answer.headers["retry-after"]) <= 20


class TestLongPoll:
    def ask(
        self, api: Api, path: str, threads: ThreadPoolExecutor, **kwargs: Any
    ) -> Future[tuple[float, httpx.Response]]:
        """Ask in a thread; the moment of the answer, and the answer. Returns once the request waits."""
        began = threading.Semaphore(0)
        read = type(api.store).aget

        async def noted(*args: Any) -> Any:
            # A waiting request registers first and reads then: from here on no end escapes it.
            began.release()
            return await read(api.store, *args)

        api.store.aget = noted  # type: ignore[method-assign]

        def go() -> tuple[float, httpx.Response]:
            answer = api.client.request(kwargs.pop("method", "GET"), path, timeout=30, **kwargs)
            return time.monotonic(), answer

        future = threads.submit(go)
        assert began.acquire(timeout=20)
        return future

    def test_the_end_is_told_at_once(self, api: Api) -> None:  # R1.6
        task_id = api.submit()["id"]
        claim = api.start(task_id)
        with ThreadPoolExecutor() as threads:
            asked = self.ask(api, f"/tasks/{task_id}?wait=20", threads)
            api.succeed(claim)
            ended = time.monotonic()
            at, answer = asked.result(25)
        assert answer.json()["status"] == "SUCCEEDED"
        assert at - ended < 1.0  # 100 ms on a machine that does nothing else

    def test_many_wait_for_one(self, api: Api) -> None:
        task_id = api.submit()["id"]
        claim = api.start(task_id)
        with ThreadPoolExecutor(30) as threads:
            asked = [self.ask(api, f"/tasks/{task_id}?wait=20", threads) for _ in range(20)]
            api.succeed(claim)
            assert {f.result(25)[1].json()["status"] for f in asked} == {"SUCCEEDED"}
        assert api.app.state.waiters._waiting == {}

    def test_a_cancelled_wait_ends_too(self, api: Api) -> None:
        task_id = api.submit()["id"]
        with ThreadPoolExecutor() as threads:
            asked = self.ask(api, f"/tasks/{task_id}?wait=20", threads)
            api.client.post(f"/tasks/{task_id}/cancel")
            assert asked.result(25)[1].json()["status"] == "CANCELLED"

    def test_without_an_end_the_answer_comes_in_time(self, api: Api) -> None:
        task_id = api.submit()["id"]
        began = time.monotonic()
        answer = get(api, task_id, wait=0.2)
        assert 0.2 <= time.monotonic() - began < 5
        assert (answer.status_code, answer.json()["status"]) == (200, "QUEUED")

    def test_a_finished_task_is_answered_at_once(self, api: Api) -> None:
        task_id = api.finished()
        began = time.monotonic()
        get(api, task_id, wait=60)
        assert time.monotonic() - began < 5

    def test_a_submission_can_wait_for_its_result(self, api: Api) -> None:
        inputs = api.inputs()
        with ThreadPoolExecutor() as threads:
            headers = {"Prefer": "respond-async, wait=20"}
            asked = self.ask(api, "/generate", threads, method="POST", json=inputs, headers=headers)
            claim = api.store.claim("node", lease_s=30, tier="warp", slot="cpu0", device="cpu")
            assert claim is not None
            api.succeed(claim)
            answer = asked.result(25)[1]
        assert (answer.status_code, answer.json()["status"]) == (202, "SUCCEEDED")
        assert answer.headers["preference-applied"] == "wait=20"

    def test_stopping_answers_all_who_wait(self, api: Api) -> None:
        task_id = api.submit()["id"]
        with ThreadPoolExecutor() as threads:
            asked = self.ask(api, f"/tasks/{task_id}?wait=60", threads)
            loop = api.app.state.waiters._loop
            loop.call_soon_threadsafe(api.app.state.waiters.close)
            assert asked.result(10)[1].json()["status"] == "QUEUED"

    def test_a_client_that_goes_away_is_not_waited_for(self, api: Api) -> None:
        task_id = api.submit()["id"]
        api.raw(f"GET /tasks/{task_id}?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n".encode(), then_close=True)
        api.observed.until(4)
        assert api.app.state.waiters._waiting == {}

    def test_a_wait_is_bounded(self, start_api: Any) -> None:
        api = start_api(max_wait_s=0.1)
        task_id = api.submit()["id"]
        began = time.monotonic()
        get(api, task_id, wait=1e9)
        headers = {"Prefer": "wait=999999"}
        answer = api.client.post("/generate", json=api.inputs(), headers=headers)
        assert answer.headers["preference-applied"] == "wait=0.1"
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", ""])
    def test_a_wrong_wait_is_refused(self, shared: Api, wait: str) -> None:
        problem(get(shared, "task_1", wait=wait), 422, "REQUEST_INVALID", "wait")

    @pytest.mark.parametrize("prefer", ["wait=soon", "wait", "wait=-1", "=;,", "handling=lenient"])
    def test_a_preference_that_is_not_understood_is_ignored(self, api: Api, prefer: str) -> None:
        answer = api.client.post("/generate", json=api.inputs(), headers={"Prefer": prefer})
        assert answer.status_code == 202
        assert "preference-applied" not in answer.headers


class TestList:
    def test_newest_first_page_by_page(self, api: Api) -> None:
        inputs = api.inputs()
        ids = [api.client.post("/generate", json=inputs).json()["id"] for _ in range(5)]
        seen, path, pages = [], "/tasks?limit=2", 0
        while path:
            page = api.client.get(path).json()
            seen += [t["id"] for t in page["tasks"]]
            assert all(t["attempts"] is None for t in page["tasks"])
            path, pages = page["links"]["next"], pages + 1
        assert (seen, pages) == (ids[::-1], 3)

    def test_filters_and_their_links(self, api: Api) -> None:
        inputs = api.inputs()
        kept = [api.client.post("/generate", json=inputs | {"renderer": "warp"}).json() for _ in range(3)]
        api.client.post("/generate", json=inputs)
        api.client.post(f"/tasks/{kept[0]['id']}/cancel")

        def ids(**query: Any) -> list[str]:
            found, answer = [], api.client.get("/tasks", params={"limit": 1} | query)
            while True:
                assert answer.status_code == 200, answer.text
                found += [t["id"] for t in answer.json()["tasks"]]
                following = answer.json()["links"]["next"]
                if following is None:
                    return found
                answer = api.client.get(following)

        assert ids(status="CANCELLED") == [kept[0]["id"]]
        assert len(ids(status=["CANCELLED", "QUEUED"])) == 4
        assert ids(renderer="warp", status="QUEUED") == [kept[2]["id"], kept[1]["id"]]
        assert ids(renderer="none") == []
        assert ids(created_before="2000-01-01T00:00:00Z") == []
        assert len(ids(created_after="2000-01-01T00:00:00+02:00", created_before=LATER)) == 4

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 201}, "limit"),
            ({"limit": "many"}, "limit"),
            ({"status": "DONE"}, "status.0"),
            ({"status": ["QUEUED", "queued"]}, "status.1"),
            ({"cursor": "rubbish"}, "cursor"),
            ({"cursor": "x" * 600}, "cursor"),
            ({"cursor": ""}, "cursor"),
            ({"created_after": "yesterday"}, "created_after"),
            ({"created_before": "2026-01-01"}, "created_before"),
            ({"stauts": "QUEUED"}, "stauts"),
            ({"limit": [1, 2]}, "limit"),
        ],
        ids=str,
    )
    def test_a_wrong_query_is_named(self, shared: Api, query: dict[str, Any], field: str) -> None:
        problem(shared.client.get("/tasks", params=query), 422, "REQUEST_INVALID", field)

    def test_a_cursor_is_only_a_position(self, api: Api) -> None:
        first, second, third = (api.submit()["id"] for _ in range(3))
        api.client.post(f"/tasks/{first}/cancel")
        following = api.client.get("/tasks", params={"limit": 1}).json()["links"]["next"]
        cursor = httpx.URL(following).params["cursor"]
        found = api.client.get("/tasks", params={"cursor": cursor, "status": "CANCELLED"}).json()["tasks"]
        assert [t["id"] for t in found] == [first], (second, third)


class TestCancel:
    def test_the_error_reads_the_same_wherever_the_task_was(self, api: Api) -> None:
        waiting, running = api.submit(priority=0)["id"], api.submit(priority=9)["id"]
        claim = api.start(running)
        for task_id in (waiting, running):
            api.client.post(f"/tasks/{task_id}/cancel")
        api.store.end_attempt(claim, "cancel", error=as_error(Failure(FailureCode.CANCELLED)))
        errors = [get(api, task_id).json()["error"] for task_id in (waiting, running)]
        assert errors[0] == errors[1]
        assert errors[0]["message"] == "The task was cancelled."

    def test_a_waiting_task_is_cancelled_at_once(self, api: Api) -> None:
        task_id = api.submit()["id"]
        answer = api.client.post(f"/tasks/{task_id}/cancel")
        assert (answer.status_code, answer.json()["outcome"]) == (202, "cancelled")
        assert answer.json()["task"]["status"] == "CANCELLED"

    def test_a_running_task_is_asked(self, api: Api) -> None:
        task_id = api.submit()["id"]
        claim = api.start(task_id)
        for _ in range(2):
            answer = api.client.post(f"/tasks/{task_id}/cancel")
            assert (answer.status_code, answer.json()["outcome"]) == (202, "requested")
            assert answer.json()["task"]["wait_reason"] == "cancelling"
        assert api.store.renew(claim, lease_s=30).cancel_requested_at is not None

    def test_a_finished_task_stays_as_it_is(self, api: Api) -> None:
        task_id = api.finished()
        before = get(api, task_id).content
        for _ in range(2):
            answer = api.client.post(f"/tasks/{task_id}/cancel")
            assert (answer.status_code, answer.json()["outcome"]) == (200, "already_terminal")
        assert get(api, task_id).content == before

    @pytest.mark.parametrize("task_id", ["none", "x" * 5000])
    def test_unknown_is_404(self, shared: Api, task_id: str) -> None:
        problem(shared.client.post(f"/tasks/{task_id}/cancel"), 404, "TASK_NOT_FOUND")
