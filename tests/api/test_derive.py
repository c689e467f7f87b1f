"""`POST /tasks/{id}/derive`: a new task from an old one, with changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.records import TaskRecord
from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers
from tests.api.kit import Api, ApiFactory, problem
from tests.media import makers


def derive(api: Api, task_id: str, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
    return api.client.post(f"/tasks/{task_id}/derive", json=changes, headers=headers)


def made(api: Api, task_id: str, **changes: Any) -> TaskRecord:
    answer = derive(api, task_id, **changes)
    assert answer.status_code == 202, answer.text
    return record(api, answer.json()["id"])


def record(api: Api, task_id: str) -> TaskRecord:
    found = api.store.get(task_id)
    assert found is not None
    return found


@pytest.fixture
def other_speech(tmp_path: Path) -> Path:
    return makers.write_wav(tmp_path / "other.wav", makers.tone(0.5))


def test_without_changes_it_is_the_same_order_as_a_new_task_with_a_link(api: Api) -> None:
    order = {"priority": 8, "metadata": {"order": 7}, "options": {"strength": 0.5}, "start_deadline_s": 100}
    old_id = api.finished(**order, deadline_s=500)
    answer = derive(api, old_id)
    shown = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/tasks/{shown['id']}")
    assert (shown["status"], shown["derived_from"], shown["metadata"]) == ("QUEUED", old_id, {"order": 7})
    old, new = record(api, old_id), record(api, shown["id"])
    assert new.id != old.id
    assert (new.source, new.audio, new.options) == (old.source, old.audio, {"strength": 0.5})
    assert (new.renderer, new.fallback, new.priority) == (None, "any", 8)
    assert new.deadline_at == pytest.approx(new.created_at + 500, abs=1)
    assert new.start_deadline_at == pytest.approx(new.created_at + 100, abs=1)
    assert api.store.events(new.id)[0].data == {"derived_from": old_id}


def test_a_task_lists_what_was_made_of_it_and_reads_as_before(api: Api) -> None:
    old_id = api.finished()
    before = api.client.get(f"/tasks/{old_id}")
    links = before.json()["links"]
    ids = {derive(api, old_id, priority=n).json()["id"] for n in (1, 2)}
    listed = api.client.get(links["derived"]).json()["tasks"]
    assert {task["id"] for task in listed} == ids
    page = api.client.get(links["derived"], params={"derived_from": old_id, "limit": 1}).json()
    rest = api.client.get(page["links"]["next"]).json()["tasks"]
    assert {task["id"] for task in (*page["tasks"], *rest)} == ids
    after = api.client.get(f"/tasks/{old_id}")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])
    assert api.client.post(links["derive"], json={}).status_code == 202


def test_another_audio_as_address_or_as_file(api: Api, other_speech: Path) -> None:
    old = record(api, api.finished())
    by_address = made(api, old.id, audio=api.upload(other_speech))
    assert by_address.source == old.source
    assert by_address.audio.name == "other.wav"
    parts = {"audio": ("spoken.wav", other_speech.read_bytes())}
    answer = api.client.post(f"/tasks/{old.id}/derive", files=parts, data={"request": '{"priority": 9}'})
    by_file = record(api, answer.json()["id"])
    assert (by_file.audio.uri, by_file.audio.sha256) == ("multipart:spoken.wav", by_address.audio.sha256)
    assert (by_file.source, by_file.priority) == (old.source, 9)


def test_its_own_video_as_the_new_source(api: Api, other_speech: Path) -> None:
    old_id = api.finished(api.media.video.read_bytes())
    new = made(api, old_id, source=f"task:{old_id}", audio=api.upload(other_speech))
    assert (new.source.media["kind"], new.after, new.waits_for) == ("video", (old_id,), None)


def test_options_and_metadata_are_merged_and_null_takes_away(api: Api) -> None:
    old_id = api.finished(options={"strength": 0.5, "seed": 3}, metadata={"a": 1, "b": {"c": 2, "d": 3}})
    new = made(api, old_id, options={"crop": "face", "seed": None}, metadata={"b": {"c": None, "e": [4]}})
    assert new.options == {"strength": 0.5, "crop": "face"}
    assert new.metadata == {"a": 1, "b": {"d": 3, "e": [4]}}
    assert made(api, new.id, options=None, metadata=None).options == {}


def test_another_renderer_brings_its_own_fallback(api: Api) -> None:
    tiers = [TierSettings(name="warp", renderer="warp"), TierSettings(name="last", renderer="still")]
    api.desk.tiers = Tiers(tiers)
    old_id = api.finished()
    assert made(api, old_id).route == ("warp", "last")
    named = made(api, old_id, renderer="still")
    assert (named.renderer, named.fallback, named.route) == ("still", "none", ("last",))
    assert made(api, named.id).fallback == "none"
    free = made(api, named.id, renderer=None)
    assert (free.renderer, free.fallback) == (None, "any")
    assert made(api, old_id, fallback="equal").route == ("warp",)


def test_what_is_wrong_after_the_change_is_told_and_nothing_is_queued(api: Api) -> None:
    old_id = api.finished(metadata={"long": "x" * 9000})
    problem(derive(api, old_id, options={"stength": 1}), 422, "REQUEST_INVALID", "options.stength")
    problem(derive(api, old_id, renderer="nobody"), 422, "REQUEST_INVALID", "renderer")
    problem(derive(api, old_id, metadata={"more": "x" * 9000}), 422, "REQUEST_INVALID", "metadata")
    problem(derive(api, old_id, retry_of="x"), 422, "REQUEST_INVALID", "retry_of")
    problem(derive(api, old_id, source="task:nobody"), 422, "PREDECESSOR_NOT_FOUND", "source")
    problem(derive(api, old_id, audio=api.upload(api.media.rubbish)), 422, "INPUT_INVALID", "audio")
    problem(api.client.post(f"/tasks/{old_id}/derive", content=b"[]"), 422, "REQUEST_INVALID")
    assert api.client.get("/queue").json()["by_status"]["QUEUED"] == 0


def test_the_callback_is_kept_replaced_or_dropped(start_api: ApiFactory) -> None:
    api = start_api(allow_private_addresses=True)
    callback = {"url": "http://127.0.0.1:9/hook", "events": ["task.failed"], "secret": "of mine"}
    old = record(api, api.submit(callback=callback)["id"])
    assert made(api, old.id).callback == old.callback
    assert made(api, old.id, callback=None).callback is None
    other = made(api, old.id, callback={"url": "http://127.0.0.1:9/other"}).callback
    assert other is not None
    assert (other.url, other.secret) == ("http://127.0.0.1:9/other", None)
    refused = derive(api, old.id, callback={"url": "nowhere"})
    problem(refused, 422, "REQUEST_INVALID", "callback.url")


def test_deadlines_the_cache_and_the_time_can_be_changed(start_api: ApiFactory) -> None:
    api = start_api(default_deadline_s=700, cached=True)
    old = api.submit(cache=False, not_before="2100-01-01T00:00:00Z", deadline_s=50)
    new = made(api, old["id"])
    assert (new.use_cache, new.not_before) == (False, record(api, old["id"]).not_before)
    free = made(api, old["id"], cache=None, not_before=None, deadline_s=None)
    assert (free.use_cache, free.not_before) == (True, None)
    assert free.deadline_at == pytest.approx(time.time() + 700, abs=5)


def test_any_task_can_be_derived_from_whatever_its_status(api: Api) -> None:
    waiting = api.submit()["id"]
    assert made(api, waiting).derived_from == waiting
    api.store.cancel(waiting)
    cancelled = made(api, waiting)
    assert cancelled.derived_from == waiting
    assert made(api, cancelled.id).derived_from == cancelled.id


def test_one_that_waits_for_others_gives_that_on(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(source=f"task:{first}")["id"]
    assert made(api, second, priority=9).waits_for == (first,)
    refused = derive(api, second, if_unfinished="refuse")
    problem(refused, 409, "PREDECESSOR_UNFINISHED", "source")
    free = made(api, second, source=api.upload(api.media.portrait), after=[])
    assert (free.waits_for, free.after) == (None, ())


def test_an_input_that_is_replaced_is_waited_for_no_more(api: Api, other_speech: Path) -> None:
    first, other = api.submit()["id"], api.submit()["id"]
    second = api.submit(source=f"task:{first}", after=[other])["id"]
    assert made(api, second, source=api.upload(api.media.portrait)).waits_for == (other,)
    assert made(api, second, source=f"task:{second}").waits_for == (second, other)
    assert made(api, second, audio=api.upload(other_speech)).waits_for == (first, other)
    both = api.submit(source=f"task:{first}", audio=f"task:{first}")["id"]
    assert made(api, both, source=api.upload(api.media.portrait)).waits_for == (first,)


def test_a_chain_behind_a_cancelled_task_is_made_anew(api: Api) -> None:
    first = api.submit()["id"]
    second = api.submit(source=f"task:{first}")["id"]
    api.store.cancel(first)
    while api.client.get(f"/tasks/{second}").json()["status"] == "QUEUED":
        time.sleep(0.01)
    problem(api.client.post(f"/tasks/{second}/retry"), 409, "PREDECESSOR_FAILED", "source")
    again = made(api, first)
    assert made(api, second, source=f"task:{again.id}").waits_for == (again.id,)


def test_no_body_at_all_changes_nothing(api: Api) -> None:
    old = record(api, api.finished(metadata={"order": 7}))
    answer = api.client.post(f"/tasks/{old.id}/derive")
    assert answer.status_code == 202, answer.text
    new = record(api, answer.json()["id"])
    assert (new.derived_from, new.source, new.audio, new.metadata) == (old.id, old.source, old.audio, {"order": 7})
    described = api.client.get("/openapi.json").json()["paths"]
    assert described["/tasks/{task_id}/derive"]["post"]["requestBody"]["required"] is False
    assert described["/generate"]["post"]["requestBody"]["required"] is True
    problem(api.client.post("/generate"), 422, "REQUEST_INVALID")


def test_inputs_that_are_gone_are_told_unless_they_are_replaced(api: Api, other_speech: Path) -> None:
    old = record(api, api.finished())
    api.blobs.path(old.audio.sha256).unlink()
    body = problem(derive(api, old.id), 410, "INPUTS_GONE", "audio")
    assert "speech.wav" in body["detail"]
    assert made(api, old.id, audio=api.upload(other_speech)).source == old.source
    api.blobs.path(old.source.sha256).unlink()
    body = problem(derive(api, old.id), 410, "INPUTS_GONE", "source")
    assert [error["field"] for error in body["errors"]] == ["source", "audio"]


@pytest.mark.parametrize("task_id", ["none", "x" * 5000])
def test_an_unknown_task_is_404(shared: Api, task_id: str) -> None:
    problem(derive(shared, task_id), 404, "TASK_NOT_FOUND")


def test_a_key_makes_one_task_and_stands_for_these_changes(api: Api) -> None:  # R3.5
    old_id, other = api.finished(), api.finished()
    key = {"Idempotency-Key": "again"}
    first = derive(api, old_id, key, priority=3)
    again = derive(api, old_id, key, priority=3)
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (first.json()["id"], "true")
    for answer in (
        derive(api, old_id, key),
        derive(api, old_id, key, priority=None),
        derive(api, other, key, priority=3),
    ):
        problem(answer, 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")
    assert derive(api, old_id, priority=3, request_id="again").json()["id"] == first.json()["id"]
    problem(derive(api, old_id, key, request_id="other"), 422, "REQUEST_INVALID", "request_id")
    api.blobs.path(record(api, old_id).audio.sha256).unlink()
    assert derive(api, old_id, key, priority=3).json()["id"] == first.json()["id"]


def test_the_same_again_is_answered_from_the_cache(start_api: ApiFactory) -> None:  # R2.7
    api = start_api(cached=True)
    old_id = api.finished()
    assert derive(api, old_id).json()["cached"]
    assert not derive(api, old_id, options={"strength": 0.5}).json()["cached"]


def test_a_full_queue_refuses_it_and_it_can_be_waited_for(start_api: ApiFactory) -> None:  # R3.9
    api = start_api(max_waiting=1)
    old_id = api.finished()
    answer = derive(api, old_id, {"Prefer": "wait=0"})
    assert answer.headers["preference-applied"] == "wait=0"
    problem(derive(api, old_id), 429, "QUEUE_FULL")
