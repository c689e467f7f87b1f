"""Equal requests to a real service: one render, whatever happens to those that wait for it (R2.7, R3.9)."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Service, gone, until
from tests.e2e.test_tiers import configure
from tests.faults.conftest import family, until_dead

SLOW = {"frame_s": 0.1}
REHEARSING = {
    "GREENROOM_REHEARSALS": "1", "GREENROOM_BACKOFF_CAP_S": "0.01", "GREENROOM_CACHE_DEGRADED_TTL_S": "3600",
}  # fmt: skip


@pytest.fixture
def sharing(serve, tmp_path):
    """Starts services whose rehearsals are cached."""
    file = configure(tmp_path / "greenroom.toml", {"one": {}}, one={"cache_class": '"rehearsed"'})

    def start(**environment: str) -> Service:
        return serve("--config", str(file), **REHEARSING, **environment)

    return start


def order(service: Service, portrait, audio, **fields: Any) -> dict[str, Any]:
    """A request with uploads, so that many of them are quick."""
    uploads = {
        name: service.http.post("/uploads", content=path.read_bytes(), params={"name": path.name}).json()["uri"]
        for name, path in (("source", portrait), ("audio", audio))
    }
    return uploads | fields


def at_once(service: Service, request: dict[str, Any], count: int) -> list[dict[str, Any]]:
    with httpx.Client(base_url=service.http.base_url, timeout=60) as client, ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(lambda _: client.post("/generate", json=request), range(count)))
    assert {answer.status_code for answer in answers} == {202}
    return [answer.json() for answer in answers]


def metric(service: Service, name: str) -> float:
    lines = service.http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def renders(service: Service) -> int:
    return sum(record["event"] == "attempt_started" for record in service.records())


def ended(service: Service, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [service.until_ended(task["id"]) for task in tasks]


def test_fifty_equal_requests_at_once_are_one_render(sharing, portrait, speech):  # R2.7
    service = sharing().until_ready()
    tasks = ended(service, at_once(service, order(service, portrait, speech(0.5), options=SLOW), 50))
    assert len({task["id"] for task in tasks}) == 50
    assert {task["status"] for task in tasks} == {"SUCCEEDED"}
    assert sum(task["cached"] for task in tasks) == 49
    assert renders(service) == 1
    assert len({task["output"]["sha256"] for task in tasks}) == 1
    contents = {service.http.get(task["links"]["output"]).content for task in tasks}
    assert len(contents) == 1
    late = service.post(portrait, speech(0.5), options=SLOW)
    assert (late["status"], late["cached"]) == ("SUCCEEDED", True)
    # A caller has its answer before that is counted.
    until(
        lambda: sum(metric(service, f"greenroom_cache_{what}_total") for what in ("joins", "hits")) >= 50, "the count"
    )
    counted = {what: metric(service, f"greenroom_cache_{what}_total") for what in ("misses", "joins", "hits")}
    assert counted["misses"] == 1
    assert counted["joins"] + counted["hits"] == 50
    assert metric(service, "greenroom_cache_results") == 1


def test_a_rehearsal_is_rendered_each_time_unless_its_tier_names_a_cache_class(serve, portrait, speech):
    service = serve(GREENROOM_REHEARSALS="1", GREENROOM_TIER_RENDERER="rehearsal").until_ready()
    ended(service, [service.post(portrait, speech(0.5)) for _ in range(2)])
    assert renders(service) == 2


def test_cancelling_the_one_that_renders_leaves_the_others_a_result(sharing, portrait, speech):
    service = sharing().until_ready()
    request = order(service, portrait, speech(0.5), options={"frame_s": 0.3})
    leader, *followers = (service.http.post("/generate", json=request).json() for _ in range(3))
    service.until_rendering(leader["id"])
    assert [task["wait_reason"] for task in followers] == ["twin", "twin"]
    service.http.post(f"/tasks/{leader['id']}/cancel")
    done = ended(service, [leader, *followers])
    assert [task["status"] for task in done] == ["CANCELLED", "SUCCEEDED", "SUCCEEDED"]
    assert sorted(task["cached"] for task in done) == [False, False, True]
    assert renders(service) == 2


def test_what_the_input_is_to_blame_for_fails_all_that_wait(sharing, portrait, speech):
    service = sharing().until_ready()
    fault = {"fault": "raise", "code": "INPUT_NO_FACE", "frame": 3, "frame_s": 0.3}
    tasks = at_once(service, order(service, portrait, speech(0.5), options=fault), 4)
    done = ended(service, tasks)
    assert [(task["status"], task["error"]["code"]) for task in done] == [("FAILED", "INPUT_NO_FACE")] * 4
    assert renders(service) == 1


@pytest.mark.parametrize("point", ["claimed", "rendered", "published", "committed", "twins", "twins_settled"])
def test_no_follower_is_lost_when_the_service_is_killed(sharing, portrait, speech, point):  # R2.7
    service = sharing(GREENROOM_FAILPOINTS=f"{point}=kill")
    request = order(service, portrait, speech(0.5), options=SLOW)
    service.http.post("/queue/pause")  # until all of them wait
    tasks = at_once(service, request, 4)
    with suppress(httpx.TransportError):  # it may be dead before it has answered
        service.http.post("/queue/resume")
    until_dead(service)
    assert service.process.returncode == -signal.SIGKILL
    restarted = sharing()
    restarted.http.post("/queue/resume")
    done = ended(restarted, tasks)
    assert {task["status"] for task in done} == {"SUCCEEDED"}
    assert sum(task["cached"] for task in done) == 3
    assert len(list((restarted.data_dir / "results").glob("*/*"))) == 1
    assert restarted.http.post("/generate", json=request).json()["cached"]


def test_the_cache_and_its_files_outlive_a_killed_service(sharing, portrait, speech):
    service = sharing().until_ready()
    request = order(service, portrait, speech(0.5))
    ended(service, [service.http.post("/generate", json=request).json()])
    pids = family(service)
    service.stop(signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in pids), "its processes to be gone")
    restarted = sharing()
    task = restarted.http.post("/generate", json=request).json()
    assert (task["status"], task["cached"]) == ("SUCCEEDED", True)
    assert restarted.http.get(task["links"]["output"]).status_code == 200


def test_a_twin_in_another_service_is_waited_for(sharing, portrait, speech):
    one = sharing().until_ready()
    request = order(one, portrait, speech(0.5), options={"frame_s": 0.2})
    two = sharing().until_ready()
    leader = one.http.post("/generate", json=request).json()
    follower = two.http.post("/generate", json=request).json()
    assert follower["wait_reason"] == "twin"
    assert one.until_ended(leader["id"])["status"] == "SUCCEEDED"
    task = two.until_ended(follower["id"])
    assert (task["status"], task["cached"]) == ("SUCCEEDED", True)
    assert two.http.post("/generate", json=request).json()["cached"]
    assert renders(one) == 1


def test_a_reload_that_changes_a_tier_ends_what_was_cached_of_it(sharing, portrait, speech, tmp_path):
    service = sharing().until_ready()
    request = order(service, portrait, speech(0.5))
    ended(service, [service.http.post("/generate", json=request).json()])
    configure(tmp_path / "greenroom.toml", {"one": {}}, one={"cache_class": '"second"'})
    assert service.http.post("/tiers/reload").status_code == 200
    assert service.http.post("/generate", json=request).json()["status"] == "QUEUED"
