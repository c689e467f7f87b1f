"""Equal requests over HTTP: served at once, joined, or rendered anew where that is asked (R2.7, R3.9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers
from tests.api.kit import VIDEO, Api, ApiFactory, problem


@pytest.fixture
def cached(start_api: ApiFactory) -> Api:
    return start_api(cached=True)


def result_file(api: Api, task_id: str) -> Path:
    return api.data_dir / "results" / f"{task_id}.mp4"


def test_an_equal_request_is_answered_with_a_finished_task(cached: Api) -> None:
    first = cached.finished()
    answer = cached.generate(metadata={"order": 2}, priority=9)
    task = answer.json()
    assert (answer.status_code, task["status"], task["cached"]) == (202, "SUCCEEDED", True)
    assert task["id"] != first
    assert (task["served_by"], task["attempts"], task["metadata"]) == ("warp", [], {"order": 2})
    assert (task["wait_reason"], task["started_at"]) == (None, None)
    assert "Retry-After" not in answer.headers
    assert answer.headers["ETag"]
    assert cached.client.get(task["links"]["output"]).content == VIDEO
    assert cached.client.get(f"/tasks/{task['id']}").json() == task
    assert cached.client.get(f"/tasks/{first}").json()["cached"] is False


@pytest.mark.parametrize("options", [{"strength": 1}, {"strength": 1.0, "seed": None}, {}])
def test_defaults_said_aloud_are_no_difference(cached: Api, options: dict[str, Any]) -> None:
    cached.finished(options={})
    assert cached.submit(options=options)["cached"]


@pytest.mark.parametrize("change", [{"options": {"strength": 0.5}}, {"options": {"seed": 7}}, {"swap": True}])
def test_another_request_is_rendered(cached: Api, change: dict[str, Any]) -> None:
    cached.finished()
    if change.pop("swap", False):
        change["source"] = cached.upload(cached.media.video)
    task = cached.submit(**change)
    assert (task["status"], task["cached"], task["wait_reason"]) == ("QUEUED", False, "slot")


def test_what_counts_is_the_content_and_not_the_name(cached: Api, tmp_path: Path) -> None:
    cached.finished()
    copy = tmp_path / "another name.png"
    copy.write_bytes(cached.media.portrait.read_bytes())
    assert cached.submit(source=cached.upload(copy))["cached"]


def test_a_running_twin_is_waited_for(cached: Api) -> None:
    leader = cached.submit()["id"]
    claim = cached.start(leader)
    follower = cached.submit()
    assert (follower["status"], follower["wait_reason"], follower["queue_position"]) == ("QUEUED", "twin", None)
    queue = cached.client.get("/queue").json()
    assert (queue["joined"], queue["runnable"]) == (1, 0)
    cached.succeed(claim)
    cached.store.settle_twins()
    task = cached.client.get(f"/tasks/{follower['id']}").json()
    assert (task["status"], task["cached"]) == ("SUCCEEDED", True)
    assert cached.client.get(task["links"]["output"]).content == VIDEO


def test_cache_false_renders_anew_and_joins_nobody(cached: Api) -> None:
    cached.finished()
    anew = cached.submit(cache=False)
    assert (anew["status"], anew["cached"], anew["wait_reason"]) == ("QUEUED", False, "slot")
    assert cached.submit(cache=False)["wait_reason"] == "slot"
    assert cached.submit(cache=True)["cached"]


def test_a_service_without_a_cache_renders_everything(api: Api) -> None:
    api.finished()
    assert api.submit(cache=True)["status"] == "QUEUED"
    assert api.client.get("/queue").json()["cache"] is None


@pytest.mark.parametrize("damage", ["gone", "shorter", "another"])
def test_a_result_whose_file_is_not_what_was_published_is_never_served(cached: Api, damage: str) -> None:
    first = cached.finished()
    assert cached.submit()["cached"]
    file = result_file(cached, first)
    match damage:
        case "gone":
            file.unlink()
        case "shorter":
            file.write_bytes(VIDEO[:-1])
        case _:
            file.write_bytes(VIDEO[::-1])
    task = cached.submit()
    assert (task["status"], task["cached"]) == ("QUEUED", False)
    assert cached.store.cache().results == 0
    cached.succeed(cached.start(task["id"]))
    assert cached.submit()["cached"]


def test_a_degraded_result_answers_only_who_allows_one(cached: Api) -> None:
    cached.desk.tiers = Tiers([TierSettings(name="warp", renderer="warp"), TierSettings(name="last", renderer="still")])
    task_id = cached.submit()["id"]
    claim = cached.start(task_id)
    degraded = claim.task.cache_keys[-1]
    assert len(claim.task.cache_keys) == 2
    cached.serve_with(claim, degraded)
    assert cached.submit()["cached"]
    assert not cached.submit(fallback="equal")["cached"]
    assert not cached.submit(renderer="warp")["cached"]


def test_a_good_result_goes_before_a_degraded_one(cached: Api) -> None:
    tiers = [TierSettings(name="last", renderer="warp", degraded=True), TierSettings(name="warp", renderer="warp")]
    cached.desk.tiers = Tiers(tiers)
    first, second = cached.submit(), cached.submit(fallback="equal")
    claims = [cached.start(task["id"]) for task in (first, second)]
    cached.serve_with(claims[0], claims[0].task.cache_keys[-1], VIDEO)
    cached.serve_with(claims[1], claims[1].task.cache_keys[0], VIDEO[::-1])
    task = cached.submit()
    assert cached.client.get(task["links"]["output"]).content == VIDEO[::-1]


def test_a_full_queue_refuses_all_but_what_is_cached(start_api: ApiFactory) -> None:  # R3.9
    api = start_api(cached=True, max_waiting=1, cached_when_full=True)
    api.finished()
    api.submit(options={"seed": 1})
    assert api.submit()["cached"]
    problem(api.generate(options={"seed": 2}), 429, "QUEUE_FULL")
    problem(api.generate(options={"seed": 1}), 429, "QUEUE_FULL")


def test_a_full_queue_that_refuses_refuses_all(start_api: ApiFactory) -> None:  # R3.9
    api = start_api(cached=True, max_waiting=1)
    api.finished()
    api.submit(options={"seed": 1})
    problem(api.generate(), 429, "QUEUE_FULL")


def test_the_queue_tells_how_much_is_cached(cached: Api) -> None:
    assert cached.client.get("/queue").json()["cache"] == {"results": 0, "bytes": 0, "limit": 10**9}
    cached.finished()
    assert cached.client.get("/queue").json()["cache"] == {"results": 1, "bytes": len(VIDEO), "limit": 10**9}


def test_a_failed_task_that_is_tried_again_is_rendered_unless_an_equal_one_has_succeeded(cached: Api) -> None:
    failed = cached.submit()["id"]
    cached.fail(cached.start(failed))
    again = cached.client.post(f"/tasks/{failed}/retry").json()
    assert (again["status"], again["cached"]) == ("QUEUED", False)
    cached.succeed(cached.start(again["id"]))
    assert cached.client.post(f"/tasks/{failed}/retry").json()["cached"]


def test_trying_again_what_was_to_be_rendered_anew_renders_anew(cached: Api) -> None:
    cached.finished()
    failed = cached.submit(cache=False)["id"]
    cached.fail(cached.start(failed))
    assert cached.client.post(f"/tasks/{failed}/retry").json()["status"] == "QUEUED"
