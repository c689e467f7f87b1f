"""A chain of tiers in a real service: who serves, how often each is called, and what changes while it runs."""

from __future__ import annotations

import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Service, until

TIER = """
[[tiers]]
name = "{name}"
renderer = "rehearsal"
{more}
"""
WHOLE = {"fault": "none"}


def broken(code: str) -> dict[str, Any]:
    return {"fault": "raise", "code": code}


def configure(file: Path, tiers: dict[str, dict[str, Any]], **more: dict[str, str]) -> Path:
    """Write tiers by name, each with its default options, and further lines per tier."""
    text = ""
    for name, options in tiers.items():
        pairs = ", ".join(
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in options.items()
        )
        lines = [f"default_options = {{ {pairs} }}", *(f"{k} = {v}" for k, v in more.get(name, {}).items())]
        text += TIER.format(name=name, more="\n".join(lines))
    file.write_text(text)
    return file


@pytest.fixture
def chain(serve, tmp_path, portrait, speech):
    """Starts a service with the given tiers."""

    def start(tiers: dict[str, dict[str, Any]], **more: dict[str, str]) -> Service:
        file = configure(tmp_path / "greenroom.toml", tiers, **more)
        return serve("--config", str(file), GREENROOM_REHEARSALS="1", GREENROOM_BACKOFF_CAP_S="0.01").until_ready()

    return start


def tiers_of(task: dict[str, Any]) -> list[str]:
    return [attempt["tier"] for attempt in task["attempts"]]


def tier(service: Service, name: str) -> dict[str, Any]:
    return next(t for t in service.http.get("/tiers").json()["tiers"] if t["name"] == name)


def test_broken_tiers_one_to_three_and_the_fourth_serves_marked(chain, portrait, speech):  # R2.1 R2.2 R2.4 R2.8
    service = chain(
        {
            "one": broken("UPSTREAM_TIMEOUT"),
            "two": broken("UPSTREAM_5XX"),
            "three": broken("OUTPUT_INVALID"),
            "last": WHOLE,
        },
        last={"degraded": "true"},
    )
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert (task["status"], task["served_by"], task["degraded"]) == ("SUCCEEDED", "last", True)
    assert tiers_of(task) == ["one", "two", "three", "last"]
    assert task["attempts"][0]["followed_by"] == "UPSTREAM_TIMEOUT on one: on to two"
    assert task["attempts"][3]["why"]["reason"] == "last is first in line"
    refused = service.until_ended(service.post(portrait, speech(0.5), fallback="equal")["id"])
    assert (refused["status"], refused["served_by"]) == ("FAILED", None)
    assert "last" not in tiers_of(refused)


def test_the_callers_own_mistake_never_falls_over(chain, portrait, speech):  # R2.1
    service = chain({"one": broken("INPUT_NO_FACE"), "two": WHOLE})
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert (task["status"], task["error"]["code"], tiers_of(task)) == ("FAILED", "INPUT_NO_FACE", ["one"])


def test_a_crash_is_tried_again_where_it_was_before_the_next_tier(chain, portrait, speech):  # R2.5
    service = chain({"one": {"fault": "kill"}, "two": WHOLE})
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert (task["status"], tiers_of(task)) == ("SUCCEEDED", ["one", "one", "two"])


def test_a_tier_past_its_time_limit_is_left_for_the_next(chain, portrait, speech):  # R2.1
    service = chain({"slow": {"frame_s": 5.0}, "quick": WHOLE}, slow={"time_limit_s": "0.5"})
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert (task["served_by"], task["attempts"][0]["error"]["code"]) == ("quick", "RENDER_TIMEOUT")


def test_one_deadline_bounds_all_attempts_on_all_tiers(chain, portrait, speech):  # R0.6
    late = broken("UPSTREAM_TIMEOUT") | {"frame_s": 0.1, "frame": 11}  # more than a second each, eight times in all
    never = {"breaker": "{ failures = 1000, window = 1000, rate = 1.0 }"}
    service = chain({"one": late, "two": late}, one=never, two=never)
    deadline_s = 6.0
    task = service.until_ended(service.post(portrait, speech(0.5), deadline_s=deadline_s)["id"])
    assert (task["status"], task["error"]["code"]) == ("FAILED", "DEADLINE_EXCEEDED"), task["attempts"]
    assert tiers_of(task)[:2] == ["one", "two"]
    begin, end = (datetime.fromisoformat(task[name]) for name in ("created_at", "finished_at"))
    assert deadline_s - 0.5 <= (end - begin).total_seconds() < deadline_s + 10, "what is over it is a kill and a commit"


def test_three_failures_open_the_breaker_no_task_goes_there_and_it_survives_a_restart(  # R3.4
    chain, serve, portrait, speech, tmp_path
):
    service = chain({"bad": broken("UPSTREAM_5XX"), "good": WHOLE}, bad={"breaker": "{ failures = 3, open_s = 3600 }"})
    for _ in range(3):
        service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert tier(service, "bad")["breaker"]["state"] == "open"
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert tiers_of(task) == ["good"]
    assert task["attempts"][0]["why"]["reason"] == "good serves, since the breaker of bad is open"
    page = service.http.get("/metrics").text
    assert 'greenroom_breaker_state{tier="bad"} 2.0' in page
    assert 'greenroom_failovers_total{code="UPSTREAM_5XX",tier="bad"} 3.0' in page
    service.stop(signal.SIGKILL)
    again = serve("--config", str(tmp_path / "greenroom.toml"), GREENROOM_REHEARSALS="1").until_ready()
    assert tier(again, "bad")["breaker"]["state"] == "open"
    assert tiers_of(again.until_ended(again.post(portrait, speech(0.5))["id"])) == ["good"]
    closed = again.http.put("/tiers/bad/breaker", json={"state": "closed"})
    assert (closed.status_code, closed.json()["breaker"]["state"]) == (200, "closed")
    assert tiers_of(again.until_ended(again.post(portrait, speech(0.5))["id"])) == ["bad", "good"]


def test_with_every_breaker_open_a_task_waits_and_says_so(chain, portrait, speech):
    service = chain({"only": WHOLE})
    assert service.http.put("/tiers/only/breaker", json={"state": "open"}).status_code == 200
    task_id = service.post(portrait, speech(0.5))["id"]
    assert service.task(task_id)["wait_reason"] == "breaker_open"
    service.http.put("/tiers/only/breaker", json={"state": "closed"})
    assert service.until_ended(task_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("by_signal", [False, True])
def test_tiers_change_without_losing_a_task(chain, portrait, speech, tmp_path, by_signal):  # R2.9
    service = chain({"old": {"frame_s": 0.3}})
    running, waiting = (service.post(portrait, speech(0.5))["id"] for _ in range(2))
    service.until_rendering(running)
    configure(tmp_path / "greenroom.toml", {"new": WHOLE})
    if by_signal:
        service.process.send_signal(signal.SIGHUP)
        until(lambda: [t["name"] for t in service.http.get("/tiers").json()["tiers"]] == ["new"], "the reload")
    else:
        answer = service.http.post("/tiers/reload")
        assert (answer.status_code, [t["name"] for t in answer.json()["tiers"]]) == (200, ["new"])
    assert service.until_ended(running)["served_by"] == "old"
    assert service.until_ended(waiting)["served_by"] == "new"


def test_a_broken_configuration_changes_nothing(chain, portrait, speech, tmp_path):
    service = chain({"one": WHOLE})
    (tmp_path / "greenroom.toml").write_text('[[tiers]]\nname = "two"\nrenderer = "magic"\n')
    answer = service.http.post("/tiers/reload")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFIGURATION_INVALID")
    assert "line 1" in answer.json()["detail"]
    assert service.until_ended(service.post(portrait, speech(0.5))["id"])["served_by"] == "one"
