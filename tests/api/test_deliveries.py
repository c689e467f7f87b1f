"""Callbacks in requests, and what is shown of their deliveries (R1.10)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.notify.address import TargetGuard
from app.store.deliveries import Try, Verdict
from app.tasks.notices import DEFAULT_NOTICES
from tests.api.kit import Api, problem

URL = "https://192.0.9.1/hook"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def deliver(api: Api, verdict: Verdict, **tried: Any) -> list[str]:
    """Settle all notices that are due now; their ids."""

    async def settled() -> list[str]:
        outbox = api.store.outbox
        taken = await outbox.atake("node", lease_s=60, limit=100, per_endpoint=100, in_flight={})
        for notice in taken:
            assert await outbox.asettle(notice, "node", Try(notice.at, 0.5, **tried), verdict, notice.at + 5000)
        return [notice.id for notice in taken]

    return asyncio.run(settled())


def cancelled(api: Api, **callback: Any) -> str:
    task_id = str(api.submit(callback={"url": URL} | callback)["id"])
    assert api.client.post(f"/tasks/{task_id}/cancel").status_code == 202
    return task_id


def deliveries(api: Api, task_id: str) -> list[dict[str, Any]]:
    answer = api.client.get(f"/tasks/{task_id}/deliveries")
    assert answer.status_code == 200
    return list(answer.json()["deliveries"])


def test_a_callback_is_kept_with_its_task_and_its_secret_is_never_shown(api: Api) -> None:
    task = api.submit(callback={"url": URL, "events": ["task.running", "task.running"], "secret": SECRET})
    assert task["links"]["deliveries"] == f"/tasks/{task['id']}/deliveries"
    kept = api.store.get(task["id"])
    assert kept is not None
    assert kept.callback is not None
    assert (kept.callback.url, kept.callback.events, kept.callback.secret) == (URL, ("task.running",), SECRET)
    shown = [
        api.client.get(f"/tasks/{task['id']}").text,
        api.client.get("/tasks").text,
        str(deliveries(api, task["id"])),
    ]
    assert not [text for text in shown if SECRET in text or "MfKQ9r8" in text]


def test_without_a_callback_there_are_no_deliveries(api: Api) -> None:
    task = api.submit()
    assert task["links"]["deliveries"] is None
    assert deliveries(api, task["id"]) == []
    assert api.client.post(f"/tasks/{task['id']}/deliveries/replay").json() == {"replayed": []}


def test_what_is_not_asked_for_is_the_default(api: Api) -> None:
    kept = api.store.get(api.submit(callback={"url": URL})["id"])
    assert kept is not None
    assert kept.callback is not None
    assert kept.callback.events == DEFAULT_NOTICES
    assert kept.callback.secret is None


@pytest.mark.parametrize(
    ("callback", "field", "reason"),
    [
        ({"url": "ftp://example.com/x"}, "callback.url", "url"),
        ({"url": "https://"}, "callback.url", "url"),
        ({"url": "example.com/hook"}, "callback.url", "url"),
        ({"url": "https://user:pass@example.com/"}, "callback.url", "userinfo"),
        ({"url": "https://example.com:99999/"}, "callback.url", "url"),
        ({"url": "http://127.0.0.1/hook"}, "callback.url", "private_address"),
        ({"url": "http://localhost:8000/hook"}, "callback.url", "private_address"),
        ({"url": "http://[::1]/hook"}, "callback.url", "private_address"),
        ({"url": "http://[::ffff:10.0.0.1]/hook"}, "callback.url", "private_address"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "callback.url", "private_address"),
        ({"url": "http://2130706433/"}, "callback.url", "private_address"),
        ({"url": URL, "events": ["task.exploded"]}, "callback.events.0", "unknown_event"),
        ({"url": URL, "events": "task.failed"}, "callback.events", "list_type"),
        ({"url": URL, "secret": "whsec_%%%"}, "callback.secret", "secret"),
        ({"url": URL, "secret": ""}, "callback.secret", "string_too_short"),
    ],
)
def test_a_callback_that_cannot_work_is_refused_by_name(
    shared: Api, callback: dict[str, Any], field: str, reason: str
) -> None:
    body = problem(shared.generate(callback=callback), 422, "REQUEST_INVALID", field)
    assert body["reason"] == reason
    assert "%%%" not in str(body)


def test_private_addresses_are_taken_where_the_operator_allows_them() -> None:
    asyncio.run(TargetGuard(allow_private=True).check("http://127.0.0.1:9/hook"))


def test_the_same_key_with_another_callback_is_another_request(api: Api) -> None:
    inputs, key = api.inputs(), {"Idempotency-Key": "k"}
    first = api.client.post("/generate", json=inputs | {"callback": {"url": URL}}, headers=key)
    assert first.status_code == 202
    other = api.client.post("/generate", json=inputs | {"callback": {"url": f"{URL}2"}}, headers=key)
    problem(other, 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")


def test_a_retried_task_tells_the_same_callback(api: Api) -> None:
    task_id = str(api.submit(callback={"url": URL, "secret": SECRET})["id"])
    api.fail(api.start(task_id))
    deliver(api, "gone", status=410)
    again = api.client.post(f"/tasks/{task_id}/retry").json()
    kept = api.store.get(again["id"])
    assert kept is not None
    assert kept.callback is not None
    assert (kept.callback.url, kept.callback.secret, kept.callback.closed) == (URL, SECRET, False)


def test_each_delivery_tells_all_its_tries_and_the_next(api: Api) -> None:
    task_id = cancelled(api)
    [waiting] = deliveries(api, task_id)
    assert (waiting["type"], waiting["state"], waiting["tries"]) == ("task.cancelled", "pending", [])
    assert waiting["id"] == f"{task_id}_{waiting['event_id']}"
    deliver(api, "retry", error="READ_TIMEOUT", message="No answer within 10 s.")
    [failed] = deliveries(api, task_id)
    [tried] = failed["tries"]
    assert failed["next_try_at"] > tried["at"]
    assert (tried["status"], tried["error"]) == (None, "READ_TIMEOUT")
    assert (tried["message"], tried["seconds"]) == ("No answer within 10 s.", 0.5)


def test_the_dead_are_listed_page_by_page(api: Api) -> None:
    tasks = [cancelled(api) for _ in range(3)]
    deliver(api, "dead", status=500)
    first = api.client.get("/deliveries", params={"state": "dead", "limit": 2}).json()
    assert [one["task_id"] for one in first["deliveries"]] == tasks[:0:-1]
    second = api.client.get(first["links"]["next"]).json()
    assert [one["task_id"] for one in second["deliveries"]] == tasks[:1]
    assert second["links"]["next"] is None
    assert api.client.get("/deliveries").json()["deliveries"][0]["tries"][0]["status"] == 500
    assert api.client.get("/deliveries?state=delivered").json()["deliveries"] == []
    problem(api.client.get("/deliveries?state=lost"), 422, "REQUEST_INVALID", "state")
    problem(api.client.get("/deliveries?cursor=x"), 422, "REQUEST_INVALID", "cursor")


def test_one_or_all_are_sent_again(api: Api) -> None:
    task_id = str(api.submit(callback={"url": URL, "events": ["task.queued", "task.cancelled"]})["id"])
    api.client.post(f"/tasks/{task_id}/cancel")
    sent = deliver(api, "dead", status=500) + deliver(api, "dead", status=500)
    answer = api.client.post(f"/tasks/{task_id}/deliveries/{sent[1]}/replay")
    assert (answer.status_code, answer.json()) == (202, {"replayed": [sent[1]]})
    assert deliver(api, "delivered", status=200) == [sent[1]]
    assert api.client.post(f"/tasks/{task_id}/deliveries/replay").json() == {"replayed": sent}
    assert deliver(api, "delivered", status=200) + deliver(api, "delivered", status=200) == sent
    assert [len(one["tries"]) for one in deliveries(api, task_id)] == [2, 3]


def test_what_cannot_be_sent_again_is_said(api: Api) -> None:
    task_id = str(api.submit(callback={"url": URL, "events": ["task.progress"]})["id"])
    claim = api.start(task_id)
    assert api.store.outbox.progress(claim, 1, 2, "render", at_least_s=0)
    [progress] = deliveries(api, task_id)
    path = f"/tasks/{task_id}/deliveries"
    problem(api.client.post(f"{path}/{progress['id']}/replay"), 409, "DELIVERY_NOT_REPLAYABLE")
    for other in ("nonsense", f"{task_id}_", f"{task_id}_99", f"{task_id}_{'9' * 30}", "task_x_1"):
        problem(api.client.post(f"{path}/{other}/replay"), 404, "DELIVERY_NOT_FOUND")
    for unknown in ("/tasks/none/deliveries/replay", "/tasks/none/deliveries/none_1/replay"):
        problem(api.client.post(unknown), 404, "TASK_NOT_FOUND")
    problem(api.client.get("/tasks/none/deliveries"), 404, "TASK_NOT_FOUND")
