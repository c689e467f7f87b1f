"""The same numbers wherever one asks for them."""

from __future__ import annotations

import statistics
from collections import Counter
from datetime import datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Service, until

FAULTS: list[dict[str, Any]] = [
    {},
    {"frame_s": 0.01},
    {"fault": "raise", "code": "INPUT_NO_FACE"},
    {"fault": "kill", "times": 1},
    {"fault": "exit", "times": 2},
    {"fault": "raise", "code": "UPSTREAM_AUTH"},
    {},
]
REHEARSAL = {"GREENROOM_REHEARSALS": "1", "GREENROOM_TIER_RENDERER": "rehearsal", "GREENROOM_BACKOFF_CAP_S": "0.01"}


def on_the_metrics_page(service: Service) -> dict[tuple[str, frozenset[str]], float]:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(service.http.get("/metrics").text)
        for sample in family.samples
    }


def in_the_store(service: Service) -> tuple[Counter[str], Counter[str], float]:
    listed = service.http.get("/tasks", params={"limit": 200}).json()["tasks"]
    tasks = [service.task(task["id"]) for task in listed]
    attempts = [attempt for task in tasks for attempt in task["attempts"]]
    spent = sum(moment(a["ended_at"]) - moment(a["started_at"]) for a in attempts)
    return Counter(a["outcome"] for a in attempts), Counter(task["status"] for task in tasks), spent


def succeeded_attempts(service: Service) -> list[float]:
    """Seconds of each."""
    listed = service.http.get("/tasks", params={"limit": 200}).json()["tasks"]
    attempts = [attempt for task in listed for attempt in service.task(task["id"])["attempts"]]
    return [moment(a["ended_at"]) - moment(a["started_at"]) for a in attempts if a["outcome"] == "succeeded"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_the_api_the_metrics_and_the_store_tell_the_same_numbers_also_after_a_restart(
    serve, portrait, speech
):  # R0.12, R2.6
    service = serve(**REHEARSAL)
    ids = [service.post(portrait, speech(0.5), options=options)["id"] for options in FAULTS]
    service.http.post("/queue/pause")
    late = service.post(portrait, speech(0.5))["id"]
    service.http.post(f"/tasks/{late}/cancel")
    service.http.post("/queue/resume")
    for task_id in ids:
        service.until_ended(task_id)

    outcomes, statuses, spent = in_the_store(service)
    assert outcomes["failed"] == 5
    assert statuses == {"SUCCEEDED": 5, "FAILED": 2, "CANCELLED": 1}
    until(lambda: service.http.get("/stats").json()["windows"]["start"]["all"]["attempts"] == outcomes, "all events")

    def all_counted() -> bool:
        finished = "greenroom_tasks_finished_total"
        page = on_the_metrics_page(service)
        return sum(page.get((finished, frozenset({status})), 0) for status in statuses) == statuses.total()

    until(all_counted, "all events on the page of metrics")
    told = service.http.get("/stats").json()["windows"]
    page = on_the_metrics_page(service)
    for window in ("1h", "start"):
        figures = told[window]["all"]
        assert (figures["attempts"], figures["tasks"]) == (outcomes, statuses)
        assert figures["success_rate"] == outcomes["succeeded"] / (outcomes["succeeded"] + outcomes["failed"])
        assert figures["slot_s"] == pytest.approx(spent, abs=0.002 * outcomes.total())
        assert told[window]["tiers"]["rehearsal"]["attempts"] == outcomes
    for outcome, count in outcomes.items():
        assert page["greenroom_attempt_duration_seconds_count", frozenset({outcome, "rehearsal"})] == count
    for status, count in statuses.items():
        assert page["greenroom_tasks_finished_total", frozenset({status})] == count
    assert page["greenroom_compute_seconds_total", frozenset({"rehearsal", "slot"})] == told["start"]["all"]["slot_s"]
    assert page["greenroom_retries_total", frozenset({"WORKER_CRASHED", "rehearsal"})] == 3

    tiers = service.http.get("/tiers").json()["tiers"]  # R2.6
    measured = next(tier for tier in tiers if tier["name"] == "rehearsal")["measured"]
    # The caller's own mistake, a source without a face, says nothing of the tier.
    assert (measured["attempts"], measured["success"]) == (9, pytest.approx(5 / 9))
    served = succeeded_attempts(service)
    assert measured["latency_s"] == pytest.approx(statistics.median(served), abs=0.5)
    of_served = frozenset({"rehearsal", "succeeded"})
    assert page["greenroom_attempt_duration_seconds_sum", of_served] == pytest.approx(sum(served), abs=0.01)

    assert service.stop() == 0
    restarted = serve(**REHEARSAL)
    again = restarted.http.get("/stats").json()["windows"]
    kept = ("attempts", "tasks", "failures", "success_rate", "attempt_s")
    assert [again["1h"]["all"][name] for name in kept] == [told["1h"]["all"][name] for name in kept]
    assert again["start"]["all"]["attempts"] == {}
