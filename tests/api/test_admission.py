"""Limits of the queue and of each client, what a full queue does (R3.9), and why a task waits (R0.13)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.api.ports import SlotView
from app.store.errors import StoreUnavailable
from tests.api.kit import Api, as_part, multipart, problem


def get(api: Api, task_id: str) -> dict[str, Any]:
    return dict(api.client.get(f"/tasks/{task_id}").json())


class TestClients:
    def ask(self, api: Api, inputs: dict[str, str], client: str | None) -> httpx.Response:
        return api.client.post("/generate", json=inputs, headers={"X-Client-Id": client} if client else {})

    def test_a_client_at_its_limit_is_refused_and_others_are_not(self, start_api: Any) -> None:  # R0.13
        api = start_api(max_waiting_per_client=2)
        inputs = api.inputs()
        first = [self.ask(api, inputs, "anna").json()["id"] for _ in range(2)]
        refused = self.ask(api, inputs, "anna")
        body = problem(refused, 429, "CLIENT_QUEUE_FULL")
        assert (body["limit"], body["client"], body["retryable"]) == (2, "anna", True)
        assert "2" in body["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        assert self.ask(api, inputs, "bert").status_code == 202
        api.start(first[0])
        assert self.ask(api, inputs, "anna").status_code == 202
        assert api.client.get("/queue").json()["limit_per_client"] == 2

    def test_without_a_name_the_address_counts(self, start_api: Any) -> None:
        api = start_api(max_waiting_per_client=1)
        inputs = api.inputs()
        task_id = self.ask(api, inputs, None).json()["id"]
        assert api.store.get(task_id).client == "127.0.0.1"
        problem(self.ask(api, inputs, None), 429, "CLIENT_QUEUE_FULL")
        assert self.ask(api, inputs, "anna").status_code == 202

    def test_a_repeat_is_answered_at_the_limit(self, start_api: Any) -> None:  # R3.5
        api = start_api(max_waiting_per_client=1)
        inputs, headers = api.inputs(), {"Idempotency-Key": "k"}
        first = api.client.post("/generate", json=inputs, headers=headers)
        again = api.client.post("/generate", json=inputs, headers=headers)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])

    def test_many_at_once_do_not_get_past_the_limit(self, start_api: Any) -> None:
        api = start_api(max_waiting_per_client=3)
        inputs = api.inputs()
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: self.ask(api, inputs, "anna").status_code, range(12)))
        assert sorted(answers) == [202] * 3 + [429] * 9

    @pytest.mark.parametrize("name", ["two words", "x" * 65, ""])
    def test_a_name_that_is_none_is_refused(self, shared: Api, name: str) -> None:
        answer = shared.client.post("/generate", json={"source": "upload:x"}, headers={"X-Client-Id": name})
        assert problem(answer, 422, "REQUEST_INVALID", "X-Client-Id")["reason"] == "format"

    def test_who_tries_again_is_the_one_who_waits(self, start_api: Any) -> None:
        api = start_api(max_waiting_per_client=1)
        inputs = api.inputs()
        task_id = self.ask(api, inputs, "anna").json()["id"]
        api.fail(api.start(task_id))
        self.ask(api, inputs, "anna")
        problem(api.client.post(f"/tasks/{task_id}/retry", headers={"X-Client-Id": "anna"}), 429, "CLIENT_QUEUE_FULL")
        again = api.client.post(f"/tasks/{task_id}/retry", headers={"X-Client-Id": "bert"})
        assert api.store.get(again.json()["id"]).client == "bert"


class TestSaturation:
    def test_a_full_queue_refuses_at_once(self, start_api: Any) -> None:  # R3.9
        api = start_api(max_waiting=1)
        api.submit()
        refused = api.generate()
        assert problem(refused, 429, "QUEUE_FULL")["limit"] == 1
        assert refused.headers["retry-after"] == "10", "nothing has ended yet that one could tell by"

    def test_a_full_queue_accepts_for_later_up_to_a_second_limit(self, start_api: Any) -> None:  # R3.9
        api = start_api(max_waiting=1, max_deferred=2)
        first = api.generate()
        assert (first.status_code, "task-deferred" in first.headers) == (202, False)
        for _ in range(2):
            answer = api.generate()
            assert (answer.status_code, answer.headers["task-deferred"]) == (202, "true")
            assert int(answer.headers["retry-after"]) >= 1
        assert problem(api.generate(), 429, "QUEUE_FULL")["limit"] == 3
        queue = api.client.get("/queue").json()
        assert (queue["limit"], queue["limit_deferred"]) == (1, 3)
        api.start(first.json()["id"])
        assert "task-deferred" in api.generate().headers

    def test_a_refused_one_is_told_when_a_place_is_expected_to_be_free(self, start_api: Any) -> None:  # R0.13, R1.6
        api = start_api(max_waiting=1, max_waiting_per_client=1)
        api.submit()
        api.forecast.room = {None: 41.2, "127.0.0.1": 77.0}
        refused = api.generate()
        assert (refused.status_code, refused.headers["retry-after"]) in ((429, "42"), (429, "77"))
        code = refused.json()["code"]
        assert refused.headers["retry-after"] == {"QUEUE_FULL": "42", "CLIENT_QUEUE_FULL": "77"}[code]
        other = api.client.post("/generate", json=api.inputs(), headers={"X-Client-Id": "bert"})
        assert (problem(other, 429, "QUEUE_FULL")["limit"], other.headers["retry-after"]) == (1, "42")

    def test_what_is_told_follows_the_pace_at_which_tasks_end(self, start_api: Any) -> None:
        api = start_api(max_waiting=1)
        for _ in range(3):
            api.finished()
        api.submit()
        assert int(api.generate().headers["retry-after"]) <= 5


class TestWhyItWaits:
    def test_each_reason_is_told(self, api: Api) -> None:  # R0.13
        task_id = api.submit()["id"]
        later = api.submit(not_before="2100-01-01T00:00:00Z")
        assert (later["wait_reason"], later["wait_until"]) == ("scheduled", "2100-01-01T00:00:00.000Z")
        assert get(api, task_id)["wait_reason"] == "slot"
        api.pool.view = [SlotView("cpu0", "quarantined", "cpu"), SlotView("cpu1", "down", "cpu")]
        assert get(api, task_id)["wait_reason"] == "no_ready_slot"
        assert api.submit()["wait_reason"] == "no_ready_slot"
        api.client.post("/queue/pause")
        assert get(api, task_id)["wait_reason"] == "paused"
        listed = api.client.get("/tasks").json()["tasks"]
        assert [task["wait_reason"] for task in listed] == ["paused", "scheduled", "paused"]
        api.pool.stopping = True
        assert get(api, task_id)["wait_reason"] == "draining"
        assert api.client.get("/queue").json()["draining"] is True
        api.pool.stopping = False
        api.pool.view = [SlotView("cpu0", "busy", "cpu")]
        api.client.post("/queue/resume")
        task = get(api, task_id)
        assert (task["wait_reason"], task["wait_until"], task["wait_cause"]) == ("slot", None, None)


class TestTheDatabaseIsAway:
    def test_a_task_that_was_written_is_not_denied(self, start_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        api = start_api(max_waiting=1, max_deferred=5)
        inputs = api.inputs()

        async def away(_store: object) -> None:
            raise StoreUnavailable("locked")

        for read in ("apaused", "afinish_rate"):
            monkeypatch.setattr(type(api.store), read, away)
        answers = [api.client.post("/generate", json=inputs) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert [answer.headers.get("task-deferred") for answer in answers] == [None, "true"]
        assert all(api.store.get(answer.json()["id"]) for answer in answers)


class TestDisk:
    def test_below_the_watermark_nothing_new_is_taken_in(self, api: Api) -> None:  # R3.12
        inputs, headers = api.inputs(), {"Idempotency-Key": "k"}
        first = api.client.post("/generate", json=inputs, headers=headers).json()["id"]
        api.fail(api.start(first))
        blobs = sorted(api.blobs.path("0" * 64).parent.parent.rglob("*"))
        api.disk.room = 999
        form, form_headers = multipart([("source", "x.png", b"x"), ("audio", "x.wav", b"x"), as_part({})])
        for refused in (
            api.client.post("/uploads", content=b"x", params={"name": "x"}),
            api.client.post("/generate", json=inputs),
            api.client.post("/generate", content=form, headers=form_headers),
            api.client.post(f"/tasks/{first}/retry"),
        ):
            body = problem(refused, 507, "DISK_LOW")
            assert (body["free_bytes"], body["limit"], body["retryable"]) == (999, 1000, True)
            assert int(refused.headers["retry-after"]) >= 1
        assert sorted(api.blobs.path("0" * 64).parent.parent.rglob("*")) == blobs
        again = api.client.post("/generate", json=inputs, headers=headers)
        assert (again.status_code, again.json()["id"]) == (202, first), "a repeat needs no room"
        assert api.client.get("/queue").json()["disk"] == {"low": True, "free_bytes": 999, "limit": 1000}
        api.disk.room = 1000
        assert api.client.post("/generate", json=inputs).status_code == 202
        assert api.client.get("/queue").json()["disk"]["low"] is False
