"""Alarms of a real service whose workers are killed."""

from __future__ import annotations

from typing import Any

import psutil

from tests.e2e.conftest import Service, gone, until
from tests.e2e.test_statistics import on_the_metrics_page

QUICK = {
    "GREENROOM_REHEARSALS": "1",
    "GREENROOM_TIER_RENDERER": "rehearsal",
    "GREENROOM_SLOTS": "1",
    "GREENROOM_RESOURCE_INTERVAL_S": "0.2",
}


def alarms(service: Service, kind: str, name: str) -> list[dict[str, Any]]:
    return [alarm for alarm in service.http.get("/alarms").json()[kind] if alarm["name"] == name]


def test_a_worker_that_is_killed_again_and_again_raises_an_alarm_that_resolves(serve):  # R0.12
    service = serve(GREENROOM_ALARM_RESTARTS="2", GREENROOM_ALARM_RESTART_WINDOW_S="20", **QUICK).until_ready()
    name = "workers_restarting"
    assert alarms(service, "active", name) == []
    assert on_the_metrics_page(service)["greenroom_alarms", frozenset({name, "warning"})] == 0
    for _ in range(2):
        victim = until(lambda: service.http.get("/queue").json()["slots"][0]["pid"], "a process")
        psutil.Process(victim).kill()
        until(lambda pid=victim: gone(pid) and service.http.get("/queue").json()["slots"][0]["pid"] != pid, "its end")
    [alarm] = until(lambda: alarms(service, "active", name), "the alarm")
    assert (alarm["subject"], alarm["value"], alarm["threshold"]) == ("cpu-0", 2, 2)
    assert alarm["resolved_at"] is None
    assert alarm["message"]
    assert alarm["hint"]
    fired = "greenroom_alarms_fired_total", frozenset({name})
    until(lambda: on_the_metrics_page(service).get(fired), "the alarm to be counted")
    page = on_the_metrics_page(service)
    assert page["greenroom_alarms", frozenset({name, "warning"})] == 1
    assert page[fired] == 1

    until(lambda: alarms(service, "active", name) == [], "it to resolve")
    [resolved] = alarms(service, "recent", name)
    assert resolved["resolved_at"] > resolved["since"]
    assert on_the_metrics_page(service)["greenroom_alarms", frozenset({name, "warning"})] == 0
    service.until_logged("alarm_resolved")
    told = [record["event"] for record in service.records() if record.get("alarm") == name]
    assert told == ["alarm_fired", "alarm_resolved"]


def test_a_worker_over_its_memory_limit_is_replaced_after_its_job(serve, portrait, speech):  # R3.12
    service = serve(GREENROOM_WORKER_MEMORY_LIMIT_BYTES=str(16 * 1024**2), **QUICK).until_ready()
    before = service.slot_pid()
    until(lambda: alarms(service, "active", "worker_memory_high"), "the alarm")
    until(lambda: service.slot_pid() != before, "its replacement")
    task = service.until_ended(service.post(portrait, speech(0.5))["id"])
    assert task["status"] == "SUCCEEDED"
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["succeeded"]
    assert service.until_logged("worker_retires")


def test_resources_are_told_by_the_api_and_the_metrics(serve):  # R0.12
    service = serve(**QUICK).until_ready()
    pid = service.slot_pid()
    told = until(
        lambda: (r := service.http.get("/resources").json())["workers"] and r["host"]["cpu_share"] is not None and r,
        "two readings",
    )
    [worker] = told["workers"]
    assert (worker["slot"], worker["pid"]) == ("cpu-0", pid)
    assert worker["memory"] > 10 * 1024**2
    assert 0 < told["host"]["memory_available"] <= told["host"]["memory_total"]
    assert bool(told["gpus"]) or told["gpu_note"]
    page = on_the_metrics_page(service)
    assert page["greenroom_host_memory_bytes", frozenset({"total"})] == told["host"]["memory_total"]
    assert page["greenroom_worker_memory_bytes", frozenset({"cpu-0"})] > 10 * 1024**2
    assert page["greenroom_worker_open_fds", frozenset({"cpu-0"})] > 2
    assert page["greenroom_scale_out", frozenset()] in (0, 1)
