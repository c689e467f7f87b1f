"""Tasks that name others: waiting for them, using their videos, being refused for them (R1.5)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.records import Artifact, TaskRecord
from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers
from tests.api.kit import VIDEO, Api, ApiFactory, problem

ERROR = {"code": "WORKER_CRASHED", "message": "", "hint": ""}


def until(check: Callable[[], Any], what: str) -> Any:
    """Wait for what the releaser does in its own time."""
    give_up_at = time.monotonic() + 30
    while not (found := check()):
        assert time.monotonic() < give_up_at, f"waited in vain for {what}"
        time.sleep(0.005)
    return found


def show(api: Api, task_id: str) -> dict[str, Any]:
    return dict(api.client.get(f"/tasks/{task_id}").json())


def record(api: Api, task_id: str) -> TaskRecord:
    found = api.store.get(task_id)
    assert found is not None
    return found


def until_released(api: Api, task_id: str) -> TaskRecord:
    return until(lambda: record(api, task_id).waits_for is None and record(api, task_id), f"{task_id} to be released")


def until_ended(api: Api, task_id: str) -> dict[str, Any]:
    return dict(api.client.get(f"/tasks/{task_id}", params={"wait": 30}).json())


@pytest.fixture
def movie(api: Api) -> bytes:
    """What a finished task's file holds where another uses it: a real little video with sound."""
    return api.media.video.read_bytes()


@pytest.fixture(params=["source", "audio"])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_task_waits_for_the_video_that_it_is_made_of(api: Api, movie: bytes, role: str) -> None:
    first = api.submit()["id"]
    waiting = api.submit(**{role: f"task:{first}"})
    assert (waiting["status"], waiting["wait_reason"], waiting["waits_for"]) == ("QUEUED", "predecessor", [first])
    assert (waiting["after"], waiting["queue_position"]) == ([first], None)
    assert show(api, waiting["id"])["queue_position"] is None
    assert api.client.get("/queue").json()["chained"] == 1
    api.succeed(api.start(first), movie)
    task = until_released(api, waiting["id"])
    used = getattr(task, role)
    assert (used.uri, used.name, used.bytes) == (f"task:{first}", "face.mp4", len(movie))
    assert used.media["kind"] == "video"
    assert api.blobs.path(used.sha256).read_bytes() == movie
    shown = show(api, task.id)
    assert (shown["wait_reason"], shown["waits_for"], shown["after"]) == ("slot", [], [first])
    api.succeed(api.start(task.id))
    assert [event.type for event in api.store.events(task.id)] == [
        "task.queued", "task.released", "task.running", "task.succeeded",
    ]  # fmt: skip


def test_the_video_of_a_finished_task_is_an_input_like_any_other(api: Api, movie: bytes, role: str) -> None:  # R1.3
    first = api.finished(movie)
    second = api.submit(**{role: f"task:{first}"}, if_unfinished="refuse")
    assert (second["wait_reason"], second["waits_for"], second["after"]) == ("slot", [], [first])
    Path(api.data_dir / record(api, first).output.path).unlink()  # type: ignore[union-attr]
    api.start(second["id"])
    assert api.blobs.path(getattr(record(api, second["id"]), role).sha256).read_bytes() == movie


def test_after_waits_for_all_of_them_and_uses_none(api: Api) -> None:
    before = [api.submit(priority=9 - n)["id"] for n in range(3)]
    last = api.submit(after=[*before, before[0]])
    assert last["after"] == before
    for n, task_id in enumerate(before, 1):
        assert show(api, last["id"])["waits_for"] == before[n - 1 :]
        api.succeed(api.start(task_id))
    until_released(api, last["id"])
    api.start(last["id"])


def test_unfinished_is_refused_where_that_is_asked_and_nothing_is_queued(api: Api) -> None:
    done, first = api.finished(), api.submit()["id"]
    answer = api.generate(source=f"task:{first}", after=[done, first], if_unfinished="refuse")
    body = problem(answer, 409, "PREDECESSOR_UNFINISHED", "source")
    assert (body["retryable"], body["task_id"], body["state"]) == (True, first, "QUEUED")
    assert int(answer.headers["retry-after"]) == body["retry_after_s"] >= 1
    assert [error["field"] for error in body["errors"]] == ["source", "after.1"]
    mixed = api.generate(source=f"task:{first}", after=["nobody"], if_unfinished="refuse")
    assert problem(mixed, 422, "PREDECESSOR_NOT_FOUND", "after.0")["retryable"] is False  # Waiting would not help.
    assert "retry-after" not in mixed.headers
    api.start(first)
    body = problem(api.generate(after=[first], if_unfinished="refuse"), 409, "PREDECESSOR_UNFINISHED", "after.0")
    assert body["state"] == "RUNNING"
    assert api.client.get("/queue").json()["by_status"]["QUEUED"] == 0


def test_a_video_in_review_has_not_finished(api: Api, movie: bytes) -> None:
    first = api.submit()["id"]
    path = api.data_dir / "results" / "review.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(movie)
    artifact = Artifact("results/review.mp4", hashlib.sha256(movie).hexdigest(), len(movie), 1.0, 64, 48, 25.0, 25)
    held = api.start(first)
    api.store.put_up_for_review(held, artifact, error=ERROR, served_by="warp", quality={"confidence": 0.1})
    refused = api.generate(source=f"task:{first}", if_unfinished="refuse")
    assert problem(refused, 409, "PREDECESSOR_UNFINISHED", "source")["state"] == "REVIEW"
    waiting = api.submit(source=f"task:{first}")
    assert waiting["waits_for"] == [first]
    api.client.post(f"/tasks/{first}/approve", json={"who": "ann"}).raise_for_status()
    until_released(api, waiting["id"])


@pytest.mark.parametrize("named", ["task:none", "task:", "TASK:" + "x" * 200])
def test_an_unknown_task_is_told_by_the_field_that_names_it(shared: Api, named: str) -> None:
    problem(shared.generate(source=named), 422, "PREDECESSOR_NOT_FOUND", "source")
    problem(shared.generate(audio=named), 422, "PREDECESSOR_NOT_FOUND", "audio")
    body = problem(shared.generate(after=["nobody"], source=named), 422, "PREDECESSOR_NOT_FOUND", "source")
    assert [error["field"] for error in body["errors"]] == ["source", "after.0"]


@pytest.mark.parametrize("given", ["task_1", [""], ["x" * 129], [7], ["t"] * 101], ids=str)
def test_malformed_after_is_422(shared: Api, given: Any) -> None:
    answer = shared.generate(after=given)
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("after")


def test_a_task_that_ended_without_a_video_is_refused(api: Api) -> None:
    failed, cancelled = api.submit()["id"], api.submit()["id"]
    api.store.cancel(cancelled)
    api.fail(api.start(failed))
    body = problem(api.generate(source=f"task:{failed}"), 409, "PREDECESSOR_FAILED", "source")
    assert (body["state"], body["error_code"], body["retryable"]) == ("FAILED", "WORKER_CRASHED", False)
    body = problem(api.generate(after=[cancelled]), 409, "PREDECESSOR_FAILED", "after.0")
    assert (body["task_id"], body["state"]) == (cancelled, "CANCELLED")


def test_a_video_whose_time_is_up_is_410_and_will_do_for_after(api: Api, movie: bytes) -> None:
    first = api.finished(movie)
    api.store.expire_results(time.time() + 1)
    body = problem(api.generate(source=f"task:{first}"), 410, "OUTPUT_EXPIRED", "source")
    assert body["task_id"] == first
    assert api.submit(after=[first])["wait_reason"] == "slot"


def test_a_video_that_is_not_what_was_published_is_refused(api: Api, movie: bytes) -> None:
    first = api.finished(movie)
    path = api.data_dir / "results" / f"{first}.mp4"
    path.write_bytes(movie[::-1])
    body = problem(api.generate(source=f"task:{first}"), 422, "INPUT_NOT_FOUND", "source")
    assert body["reason"] == "result_gone"
    path.unlink()
    problem(api.generate(audio=f"task:{first}"), 422, "INPUT_NOT_FOUND", "audio")


def test_a_failed_predecessor_fails_the_whole_chain_at_once(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(source=f"task:{first}")["id"]
    third = api.submit(after=[second])["id"]
    api.fail(api.start(first))
    task = until_ended(api, third)
    assert (task["status"], task["error"]["code"], task["attempts"]) == ("FAILED", "PREDECESSOR_FAILED", [])
    assert second in task["error"]["message"]
    assert first in task["error"]["message"]
    assert (task["wait_reason"], task["waits_for"], task["after"]) == (None, [], [second])


def test_cancelling_one_that_waits_leaves_its_predecessor_alone(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(after=[first])["id"]
    third = api.submit(after=[second])["id"]
    assert api.client.post(f"/tasks/{second}/cancel").json()["outcome"] == "cancelled"
    assert "was cancelled" in until_ended(api, third)["error"]["message"]
    api.succeed(api.start(first))


def test_a_video_that_will_not_do_fails_the_task_that_waited_for_it(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(audio=f"task:{first}")["id"]
    api.succeed(api.start(first), api.media.silent_video.read_bytes())
    error = until_ended(api, second)["error"]
    assert error["code"] == "INPUT_INVALID"


def test_a_task_that_can_neither_go_nor_fail_holds_up_no_other(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    first = api.submit()["id"]
    stuck = api.submit(audio=f"task:{first}")["id"]
    other = api.submit(after=[first])["id"]
    refused, arelease = [], api.store.arelease

    async def surprise(task_id: str, _error: object) -> None:
        refused.append(task_id)
        raise ValueError("a surprise")

    async def slowly(task_id: str, *release: Any) -> TaskRecord | None:
        await asyncio.sleep(0.2)  # the other one's end comes in the middle of it
        return await arelease(task_id, *release)

    monkeypatch.setattr(api.store, "arefuse_release", surprise)
    monkeypatch.setattr(api.store, "arelease", slowly)
    api.succeed(api.start(first), api.media.silent_video.read_bytes())
    until(lambda: refused, "the release to be refused")
    until_released(api, other)
    assert set(refused) == {stuck}


def test_inputs_that_no_tier_takes_are_refused_at_once_where_that_is_known(api: Api) -> None:
    api.desk.tiers = Tiers([TierSettings(name="warp", renderer="warp", sources=("image",))])
    first = api.submit()["id"]
    body = problem(api.generate(source=f"task:{first}"), 422, "INPUT_INVALID", "source")
    assert body["reason"] == "source_kind"


def test_a_tier_that_takes_less_fails_the_task_and_one_that_is_gone_lets_it_wait(api: Api, movie: bytes) -> None:
    first = api.submit()["id"]
    late, named = api.submit(audio=f"task:{first}")["id"], api.submit(renderer="warp", after=[first])["id"]
    api.desk.tiers = Tiers([TierSettings(name="other", renderer="still", max_audio_s=0.01)])
    api.succeed(api.start(first), movie)
    error = until_ended(api, late)["error"]
    assert error["code"] == "INPUT_INVALID"
    assert "other cannot serve it: the speech is longer" in error["message"]
    assert until_released(api, named).route == ()


def test_a_repeat_finds_the_waiting_task_whatever_became_of_the_other(api: Api) -> None:  # R3.5
    first = api.submit()["id"]
    order = api.inputs() | {"source": f"task:{first}"}
    headers = {"Idempotency-Key": "chain"}
    made = api.client.post("/generate", json=order, headers=headers).json()["id"]
    for change in ({}, {"if_unfinished": "wait"}):
        again = api.client.post("/generate", json=order | change, headers=headers)
        assert (again.json()["id"], again.headers["idempotent-replayed"]) == (made, "true")
    other = api.client.post("/generate", json=order | {"if_unfinished": "refuse"}, headers=headers)
    problem(other, 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")
    api.fail(api.start(first))
    until_ended(api, made)
    assert api.client.post("/generate", json=order, headers=headers).json()["status"] == "FAILED"


def test_deadlines_count_from_the_submission_the_services_own_from_the_release(start_api: ApiFactory) -> None:
    api = start_api(default_deadline_s=500)
    first = api.submit()["id"]
    own, none = api.submit(after=[first], deadline_s=60)["id"], api.submit(after=[first])["id"]
    assert record(api, none).deadline_at is None
    api.succeed(api.start(first))
    for task_id, seconds in ((own, 60), (none, 500)):
        task = until_released(api, task_id)
        assert task.deadline_at == pytest.approx(time.time() + seconds, abs=20)


def test_equal_tasks_on_one_predecessor_are_rendered_once(start_api: ApiFactory) -> None:  # R2.7
    api = start_api(cached=True)
    first = api.submit()["id"]
    twins = [api.submit(source=f"task:{first}")["id"] for _ in range(5)]
    alone = api.submit(source=f"task:{first}", cache=False)["id"]
    api.succeed(api.start(first), api.media.video.read_bytes())
    found = [until_released(api, task_id) for task_id in (*twins, alone)]
    assert len([task for task in found if task.twin_of is None]) == 2
    for _ in range(2):
        claim = api.store.claim("node", lease_s=30, tier="warp", slot="cpu0", device="cpu")
        assert claim is not None
        api.succeed(claim)
    api.store.settle_twins()
    assert all(show(api, task_id)["status"] == "SUCCEEDED" for task_id in (*twins, alone))
    cached = api.submit(source=f"task:{first}")
    assert (cached["status"], cached["cached"], cached["after"]) == ("SUCCEEDED", True, [first])


def retry(api: Api, task_id: str) -> httpx.Response:
    return api.client.post(f"/tasks/{task_id}/retry")


def test_a_broken_chain_is_tried_again_from_its_first_failed_task_on(api: Api, movie: bytes) -> None:
    first = api.submit()["id"]
    second = api.submit(source=f"task:{first}", start_deadline_s=900)["id"]
    third = api.submit(after=[second])["id"]
    api.fail(api.start(first))
    until_ended(api, third)
    body = problem(retry(api, second), 409, "PREDECESSOR_FAILED", "source")
    assert body["task_id"] == first
    anew = [retry(api, task_id).json() for task_id in (first, second, third)]
    ids = [task["id"] for task in anew]
    assert [task["waits_for"] for task in anew] == [[], ids[:1], ids[1:2]]
    assert [task["retry_of"] for task in anew] == [first, second, third]
    api.succeed(api.start(ids[0]), movie)
    task = until_released(api, ids[1])
    assert task.source.uri == f"task:{ids[0]}"
    assert task.start_deadline_at == pytest.approx(task.created_at + 900)
    api.succeed(api.start(ids[1]))
    until_released(api, ids[2])


def test_the_newest_retry_counts(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(after=[first])["id"]
    api.fail(api.start(first))
    until_ended(api, second)
    again = retry(api, first).json()["id"]
    api.fail(api.start(again))
    last = retry(api, again).json()["id"]
    assert retry(api, second).json()["waits_for"] == [last]


def test_a_released_task_that_fails_is_tried_again_at_once(api: Api, movie: bytes) -> None:
    first = api.finished(movie)
    second = api.submit(source=f"task:{first}", after=[first])["id"]
    api.fail(api.start(second))
    api.store.expire_results(time.time() + 1)
    assert retry(api, second).json()["wait_reason"] == "slot"
    api.store.purge_tasks(time.time() - 1)


def test_a_full_queue_counts_those_that_wait(start_api: ApiFactory) -> None:  # R3.9
    api = start_api(max_waiting=2)
    first = api.submit()["id"]
    api.submit(after=[first])
    problem(api.generate(after=[first]), 429, "QUEUE_FULL")


def test_a_long_chain_runs_to_its_end(api: Api, movie: bytes) -> None:
    ids = [api.submit()["id"]]
    for _ in range(20):
        ids.append(api.submit(source=f"task:{ids[-1]}")["id"])
    for task_id in ids:
        until_released(api, task_id)
        api.succeed(api.start(task_id), movie)
    assert show(api, ids[-1])["status"] == "SUCCEEDED"


def test_the_stream_tells_of_the_release(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(after=[first])["id"]
    api.succeed(api.start(first))
    until_released(api, second)
    api.succeed(api.start(second))
    text = api.client.get(f"/tasks/{second}/events", params={"type": "task.released"}).text
    assert text.count("event: task.released") == 1


def test_rejecting_a_video_in_review_breaks_the_chain(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(after=[first])["id"]
    artifact = Artifact("results/x.mp4", "0" * 64, len(VIDEO), 1.0, 64, 48, 25.0, 25)
    api.store.put_up_for_review(api.start(first), artifact, error=ERROR, served_by="warp", quality={})
    api.client.post(f"/tasks/{first}/reject", json={"who": "ann", "reason": "No."}).raise_for_status()
    assert "LOW_CONFIDENCE" in until_ended(api, second)["error"]["message"]
