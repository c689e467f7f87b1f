"""Chains in a real service: videos that become inputs, and kills between all steps of that."""

from __future__ import annotations

import signal
from contextlib import suppress

import httpx
import pytest

from tests.e2e.conftest import until
from tests.faults.conftest import assert_published_once, rehearse, until_dead

__all__ = ["rehearse"]

QUICK = {"options": {"frame_s": 0.005}}


def follow(service, **fields):
    answer = service.http.post("/generate", json=fields)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def chain_of(service, portrait, speech):
    """One task; one that has its video as source and its sound as audio; one after both."""
    first = service.post(portrait, speech(0.5), **QUICK)["id"]
    second = follow(service, source=f"task:{first}", audio=f"task:{first}", **QUICK)
    upload = service.http.post("/uploads", content=portrait.read_bytes(), params={"name": "face.png"}).json()["uri"]
    third = follow(service, source=upload, audio=f"task:{second}", after=[first], **QUICK)
    return [first, second, third]


def assert_whole(service, ids):
    for task_id in ids:
        task = service.until_ended(task_id)
        assert task["status"] == "SUCCEEDED", task["error"]
        assert_published_once(service, task)


@pytest.mark.parametrize("point", ["committed", "chained", "taken_in", "released", "released=kill:2"])
def test_a_service_killed_between_two_steps_of_a_chain_finishes_it(rehearse, portrait, speech, point):
    service = rehearse("=".join((point, "kill")) if "=" not in point else point)
    service.http.post("/queue/pause")  # until the whole chain is there
    ids = chain_of(service, portrait, speech)
    with suppress(httpx.TransportError):  # it may be dead before it has answered
        service.http.post("/queue/resume")
    until_dead(service)
    restarted = rehearse()
    restarted.http.post("/queue/resume")
    assert_whole(restarted, ids)
    for task_id in ids[1:]:
        text = restarted.http.get(f"/tasks/{task_id}/events").text
        assert text.count("event: task.released") == 1


def test_a_chain_waits_through_a_restart_and_a_pause(rehearse, portrait, speech):
    service = rehearse()
    service.http.post("/queue/pause")
    ids = chain_of(service, portrait, speech)
    service.stop(signal.SIGKILL)
    restarted = rehearse()
    shown = [restarted.task(task_id) for task_id in ids]
    assert [task["wait_reason"] for task in shown] == ["paused", "predecessor", "predecessor"]
    assert [task["waits_for"] for task in shown] == [[], ids[:1], [ids[1], ids[0]]]
    restarted.http.post("/queue/resume")
    assert_whole(restarted, ids)


def test_a_cancel_whose_service_is_killed_still_breaks_the_chain(rehearse, portrait, speech):
    service = rehearse("cancelling=kill")
    service.http.post("/queue/pause")
    ids = chain_of(service, portrait, speech)
    with pytest.raises(httpx.TransportError):
        service.http.post(f"/tasks/{ids[0]}/cancel")
    until_dead(service)
    restarted = rehearse()
    until(lambda: restarted.task(ids[2])["is_terminal"], "the chain to break")
    tasks = [restarted.task(task_id) for task_id in ids]
    assert [task["status"] for task in tasks] == ["CANCELLED", "FAILED", "FAILED"]
    assert {task["error"]["code"] for task in tasks[1:]} == {"PREDECESSOR_FAILED"}
    assert all(ids[0] in task["error"]["message"] for task in tasks[1:])


def test_a_finished_video_is_derived_and_built_upon(rehearse, portrait, speech):
    service = rehearse()
    first = service.until_ended(service.post(portrait, speech(0.5), **QUICK)["id"])
    other = {"audio": ("longer.wav", speech(1.0).read_bytes())}
    derived = service.http.post(first["links"]["derive"], files=other).json()
    ended = service.until_ended(derived["id"])
    assert (ended["status"], ended["derived_from"]) == ("SUCCEEDED", first["id"])
    assert ended["output"]["duration_s"] == pytest.approx(1.0, abs=0.1)
