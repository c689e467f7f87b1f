"""Light slots in a real service: their videos are judged, by one process that all of them share and that may fail."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.render.contract import RenderJob
from app.render.warp.options import WarpOptions
from app.render.warp.renderer import WarpRenderer
from tests.e2e.conftest import Service, gone, until
from tests.render.scenes import Reports

SECONDS = 3.0
MIB = 1024**2
OWN_MIB, RESIDENT_MIB = 60, 100
"""Memory of a light slot's process: what one more of them costs, and with the libraries' pages that all share."""
COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory, portrait: Path, speech: Callable[[float], Path]) -> Path:
    """What a renderer that one waits for would make of portrait and speech."""
    folder = tmp_path_factory.mktemp("talking")
    renderer = WarpRenderer()
    renderer.load("cpu")
    job = RenderJob(portrait, speech(SECONDS), folder, WarpOptions(seed=1).model_dump(mode="json"))
    return renderer.render(job, Reports()).path


@pytest.fixture
def lit(serve: Callable[..., Service], tmp_path: Path, talking: Path) -> Callable[..., Service]:
    """Starts services with one tier of programs that make the talking video."""

    def start(slots: int = 1, **environment: str) -> Service:
        argv = [sys.executable, "-S", "-c", COPY, str(talking), "{output}", "{source}", "{audio}"]
        file = tmp_path / "greenroom.toml"
        file.write_text(
            f'[[tiers]]\nname = "programs"\nrenderer = "command"\nargv = {json.dumps(argv)}\nconcurrency = {slots}\n'
        )
        environment = {"GREENROOM_CACHE": "false", "GREENROOM_BACKOFF_CAP_S": "0.01"} | environment
        service = serve("--config", str(file), **environment).until_ready()
        until(lambda: [s["state"] for s in judges(service)["slots"]] == ["idle"], "the judge")
        until(lambda: all(s["state"] == "idle" for s in queue(service)["slots"]), "the slots")
        return service

    return start


def queue(service: Service) -> dict[str, Any]:
    return dict(service.http.get("/queue").json())


def judges(service: Service) -> dict[str, Any]:
    return dict(queue(service)["judges"])


def judge_pid(service: Service) -> int:
    return int(judges(service)["slots"][0]["pid"])


def metric(service: Service, line: str) -> float:
    [value] = [row.split()[-1] for row in service.http.get("/metrics").text.splitlines() if row.startswith(line + " ")]
    return float(value)


def maps_torch(pid: int) -> bool:
    return any("libtorch" in entry.path for entry in psutil.Process(pid).memory_maps())


def test_twelve_light_slots_without_torch_share_one_judge(lit, portrait, speech):  # R2.8 R3.3
    service = lit(slots=12)
    before = judge_pid(service)
    posted = [service.post(portrait, speech(SECONDS))["id"] for _ in range(12)]
    until(lambda: judges(service)["waiting"] > 0, "a line before the judge")
    for task_id in posted:
        task = service.until_ended(task_id)
        assert (task["status"], task["served_by"]) == ("SUCCEEDED", "programs"), task["error"]
        assert task["quality"]["confidence"] >= 0.6
        assert {"lips_follow", "sound", "face"} <= set(task["quality"]["scores"])
        assert len(task["attempts"]) == 1
    light = [psutil.Process(slot["pid"]) for slot in queue(service)["slots"]]
    assert len(light) == 12
    assert not any(maps_torch(process.pid) for process in light)
    held = [process.memory_full_info() for process in light]
    assert max(memory.uss for memory in held) < OWN_MIB * MIB, held
    assert max(memory.rss for memory in held) < RESIDENT_MIB * MIB, held
    assert judge_pid(service) == before
    assert maps_torch(before)
    assert metric(service, 'greenroom_judgement_duration_seconds_count{outcome="judged"}') == 12
    assert metric(service, "greenroom_judge_wait_seconds_count") == 12
    assert metric(service, 'greenroom_worker_memory_bytes{slot="judge-0"}') > 100 * MIB
    service.stop()
    assert gone(before)


def held_up(service: Service, portrait: Path, sound: Path) -> tuple[str, int]:
    """A task in the middle of its judgement, for sure: the judge is stopped. Its id, and the judge's pid."""
    pid = judge_pid(service)
    os.kill(pid, signal.SIGSTOP)
    task_id = service.post(portrait, sound)["id"]
    until(lambda: judges(service)["judging"] == 1, "the judgement")
    return task_id, pid


def test_a_judge_that_is_killed_in_the_middle_is_replaced_and_the_task_is_served(lit, portrait, speech):
    service = lit()
    task_id, pid = held_up(service, portrait, speech(SECONDS))
    os.kill(pid, signal.SIGKILL)
    task = service.until_ended(task_id)
    assert (task["status"], len(task["attempts"])) == ("SUCCEEDED", 1), task["attempts"]
    assert judge_pid(service) != pid
    assert gone(pid)
    assert metric(service, 'greenroom_judgement_duration_seconds_count{outcome="failed"}') == 1
    assert metric(service, 'greenroom_worker_restarts_total{slot="judge-0"}') == 1
    assert service.http.get("/tiers").json()["tiers"][0]["breaker"]["openings"] == 0


def test_a_judge_that_stops_answering_is_noticed_and_replaced(lit, portrait, speech):
    # The heart beats once a second: checks may not come more often.
    service = lit(GREENROOM_HEALTH_INTERVAL_S="1.5", GREENROOM_LEASE_S="10")
    task_id, pid = held_up(service, portrait, speech(SECONDS))
    task = service.until_ended(task_id)
    assert (task["status"], len(task["attempts"])) == ("SUCCEEDED", 1), task["attempts"]
    assert gone(pid)
    assert metric(service, 'greenroom_health_verdicts_total{code="WORKER_UNRESPONSIVE",slot="judge-0"}') == 1
    told = service.until_logged("judge_failed")
    assert "no heartbeat" in told[0]["how"]


def test_a_cancel_and_a_deadline_end_the_wait_for_a_judge(lit, portrait, speech):
    service = lit(slots=3)
    first, pid = held_up(service, portrait, speech(SECONDS))
    second = service.post(portrait, speech(SECONDS))["id"]
    third = service.post(portrait, speech(SECONDS), deadline_s=5)["id"]
    until(lambda: judges(service)["waiting"] == 2, "a line before the judge")
    assert service.http.post(f"/tasks/{second}/cancel").status_code in (200, 202)
    assert service.until_ended(second)["status"] == "CANCELLED"
    assert service.until_ended(third)["error"]["code"] == "DEADLINE_EXCEEDED"
    assert service.task(first)["status"] == "RUNNING"
    os.kill(pid, signal.SIGCONT)
    assert service.until_ended(first)["status"] == "SUCCEEDED"
    assert judge_pid(service) == pid


def test_where_no_judge_can_start_tasks_fail_for_that_and_wait_from_then_on(lit, portrait, speech):
    service = lit(slots=1, GREENROOM_MAX_RETRIES="0")
    task_id, _ = held_up(service, portrait, speech(SECONDS))

    def killed_until_ended() -> dict[str, Any] | None:
        pid = judge_pid(service) if judges(service)["slots"][0]["pid"] else None
        if pid is not None and not gone(pid):
            os.kill(pid, signal.SIGKILL)
        task = service.task(task_id)
        return task if task["is_terminal"] else None

    task = until(killed_until_ended, "the end of the task")
    assert task["error"]["code"] == "JUDGE_FAILED"
    assert task["error"]["hint"]
    if "can start" in task["error"]["message"]:
        [tier] = service.http.get("/tiers").json()["tiers"]
        assert "nobody can judge" in json.dumps(tier)
    # Nobody kills it any more: the next start is a good one, and the tier is back.
    assert service.until_ended(service.post(portrait, speech(SECONDS))["id"])["status"] == "SUCCEEDED"


def test_a_killed_service_takes_its_judge_along(lit):
    service = lit()
    pid = judge_pid(service)
    service.stop(signal.SIGKILL)
    until(lambda: gone(pid), "the judge to be gone")
