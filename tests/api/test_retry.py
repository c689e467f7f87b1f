"""`POST /tasks/{id}/retry`: a failed task tried again as a new one (section 10 of the design, R0.13, R3.5)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.kit import Api, ApiFactory, problem
from tests.api.test_chains import until_released


def retry(api: Api, task_id: str, **headers: str) -> httpx.Response:
    return api.client.post(f"/tasks/{task_id}/retry", headers=headers)


def failed(api: Api, **fields: Any) -> str:
    task_id = str(api.submit(**fields)["id"])
    api.fail(api.start(task_id))
    return task_id


def test_a_failed_task_is_tried_again_as_a_new_one_with_the_same_order(api: Api) -> None:
    order = {"renderer": "warp", "priority": 8, "metadata": {"order": 7}, "start_deadline_s": 100, "deadline_s": 500}
    old_id = failed(api, **order)
    answer = retry(api, old_id)
    assert answer.status_code == 202
    shown = answer.json()
    assert shown["id"] != old_id
    assert answer.headers["location"] == f"/tasks/{shown['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert (shown["status"], shown["retry_of"], shown["metadata"]) == ("QUEUED", old_id, {"order": 7})
    assert shown["attempts"] == []
    old, new = api.store.get(old_id), api.store.get(shown["id"])
    assert old is not None
    assert new is not None
    assert (new.source, new.audio, new.options) == (old.source, old.audio, {})
    assert (new.renderer, new.fallback, new.priority) == (old.renderer, old.fallback, 8)
    assert new.deadline_at == pytest.approx(new.created_at + 500, abs=1)
    assert new.start_deadline_at == pytest.approx(new.created_at + 100, abs=1)
    assert api.store.events(new.id)[0].data == {"retry_of": old_id}
    api.start(new.id)


def test_the_failed_task_reads_as_before_and_leads_to_those_that_try_it_again(api: Api) -> None:  # R0.13
    old_id = failed(api)
    api.submit()
    before = api.client.get(f"/tasks/{old_id}")
    links = before.json()["links"]
    assert links["retry"] == f"/tasks/{old_id}/retry"
    assert api.client.get(links["retries"]).json()["tasks"] == []
    again = [retry(api, old_id).json()["id"] for _ in range(2)]
    listed = api.client.get(links["retries"]).json()["tasks"]
    assert [task["id"] for task in listed] == again[::-1]
    page = api.client.get(links["retries"], params={"retry_of": old_id, "limit": 1}).json()
    assert [task["id"] for task in api.client.get(page["links"]["next"]).json()["tasks"]] == again[:1]
    after = api.client.get(f"/tasks/{old_id}")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])


def test_a_scheduled_task_that_failed_is_tried_again_at_once(api: Api) -> None:
    task_id = api.submit(not_before="2100-01-01T00:00:00Z", start_deadline_s=5)["id"]
    (late,) = api.store.expire_waiting(now=5e9)
    assert late.id == task_id
    again = retry(api, task_id).json()
    assert again["wait_reason"] == "slot"
    kept = api.store.get(again["id"])
    assert kept is not None
    assert kept.start_deadline_at == pytest.approx(time.time() + 5, abs=2)


def test_only_a_failed_task_is_tried_again(api: Api) -> None:
    waiting = api.submit()["id"]
    body = problem(retry(api, waiting), 409, "TASK_NOT_FAILED")
    assert (body["state"], body["retryable"]) == ("QUEUED", False)
    claim = api.start(waiting)
    assert problem(retry(api, waiting), 409, "TASK_NOT_FAILED")["state"] == "RUNNING"
    api.succeed(claim)
    assert problem(retry(api, waiting), 409, "TASK_NOT_FAILED")["state"] == "SUCCEEDED"
    links = api.client.get(f"/tasks/{waiting}").json()["links"]
    assert (links["retry"], links["retries"]) == (None, None)
    cancelled = api.submit()["id"]
    api.store.cancel(cancelled)
    assert problem(retry(api, cancelled), 409, "TASK_NOT_FAILED")["state"] == "CANCELLED"


@pytest.mark.parametrize("task_id", ["none", "x" * 5000])
def test_an_unknown_task_is_404(shared: Api, task_id: str) -> None:
    problem(retry(shared, task_id), 404, "TASK_NOT_FOUND")
    problem(retry(shared, task_id, **{"Idempotency-Key": "unknown"}), 404, "TASK_NOT_FOUND")


def test_inputs_that_are_gone_are_told_by_name(api: Api) -> None:
    task_id = failed(api)
    task = api.store.get(task_id)
    assert task is not None
    api.blobs.path(task.audio.sha256).unlink()
    body = problem(retry(api, task_id), 410, "INPUTS_GONE", "audio")
    assert "speech.wav" in body["detail"]
    api.blobs.path(task.source.sha256).unlink()
    body = problem(retry(api, task_id), 410, "INPUTS_GONE", "source")
    assert [error["field"] for error in body["errors"]] == ["source", "audio"]
    assert api.client.get("/tasks", params={"retry_of": task_id}).json()["tasks"] == []


def test_a_key_makes_one_task_however_many_ask_at_once(api: Api) -> None:  # R3.5
    task_id, other = failed(api), failed(api)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: retry(api, task_id, **{"Idempotency-Key": "again"}), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == [""] + ["true"] * 7
    body = problem(retry(api, other, **{"Idempotency-Key": "again"}), 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")
    assert body["task_id"] == answers[0].json()["id"]
    problem(retry(api, task_id, **{"Idempotency-Key": "two words"}), 400, "IDEMPOTENCY_KEY_INVALID", "Idempotency-Key")


def test_a_repeat_finds_its_task_also_when_the_inputs_are_gone(api: Api) -> None:  # R3.5
    task_id = failed(api)
    first = retry(api, task_id, **{"Idempotency-Key": "k"}).json()["id"]
    task = api.store.get(task_id)
    assert task is not None
    api.blobs.path(task.audio.sha256).unlink()
    assert retry(api, task_id, **{"Idempotency-Key": "k"}).json()["id"] == first


def test_a_full_queue_refuses_it(start_api: Any) -> None:  # R3.9
    api = start_api(max_waiting=1)
    task_id = failed(api)
    api.submit()
    problem(retry(api, task_id), 429, "QUEUE_FULL")


def test_it_can_be_waited_for(api: Api) -> None:
    task_id = failed(api)
    answer = retry(api, task_id, Prefer="wait=0")
    assert answer.headers["preference-applied"] == "wait=0"


def deadline_left_s(api: Api, task_id: str) -> float | None:
    task = api.store.get(task_id)
    assert task is not None
    return None if task.deadline_at is None else task.deadline_at - task.created_at


def test_the_services_own_deadline_is_set_anew_the_callers_is_kept(start_api: ApiFactory) -> None:
    api = start_api(default_deadline_s=500)
    own, none = failed(api, deadline_s=60), failed(api)
    assert deadline_left_s(api, retry(api, own).json()["id"]) == pytest.approx(60, abs=5)
    again = retry(api, none).json()["id"]
    assert deadline_left_s(api, again) == pytest.approx(500, abs=5)
    task = api.store.get(again)
    assert task is not None
    assert task.default_deadline


def test_the_time_that_a_chained_task_waited_is_no_part_of_its_deadline_when_tried_again(
    start_api: ApiFactory,
) -> None:
    api = start_api(default_deadline_s=500)
    first = api.submit()["id"]
    chained = api.submit(after=[first])["id"]
    api.store._writer.run(lambda tx: tx.connection.exec_driver_sql("UPDATE tasks SET created_at = created_at - 3000"))
    api.succeed(api.start(first))
    until_released(api, chained)
    api.fail(api.start(chained))
    assert deadline_left_s(api, chained) == pytest.approx(3500, abs=20)
    assert deadline_left_s(api, retry(api, chained).json()["id"]) == pytest.approx(500, abs=5)
