"""A submission is answered at once, whatever renders."""

from __future__ import annotations

import statistics
import time
from typing import Any

from tests.e2e.conftest import until

REHEARSAL = {"GREENROOM_REHEARSALS": "1", "GREENROOM_TIER_RENDERER": "rehearsal"}


def test_a_submission_is_answered_at_once_while_every_slot_renders_slowly(
    serve: Any, portrait: Any, speech: Any
) -> None:
    """R1.1: half of the answers within 200 ms; single ones may meet a busy machine."""
    service = serve(**REHEARSAL)
    slow = {"frame_s": 60.0}
    first = service.post(portrait, speech(0.5), options=slow)["id"]
    until(lambda: service.task(first)["status"] == "RUNNING", "it to run")
    source, audio = (
        service.http.post("/uploads", content=path.read_bytes(), params={"name": path.name}).json()["uri"]
        for path in (portrait, speech(0.5))
    )
    took = []
    for _ in range(21):
        began = time.perf_counter()
        answer = service.http.post("/generate", json={"source": source, "audio": audio, "options": slow})
        took.append(time.perf_counter() - began)
        assert (answer.status_code, answer.json()["status"]) == (202, "QUEUED")
    assert statistics.median(took) < 0.2, took
    assert service.task(first)["status"] == "RUNNING"


def test_a_render_that_says_it_is_done_and_is_not_shows_as_running(serve: Any, portrait: Any, speech: Any) -> None:
    """R1.4: the renderer reports all frames and hangs before its file is whole."""
    service = serve(**REHEARSAL)
    task_id = service.post(portrait, speech(0.5), options={"fault": "stall", "phase": "encode"})["id"]

    def all_done() -> Any:
        task = service.task(task_id)
        progress = task["progress"]
        return progress["phase"] == "encode" and progress["done"] == progress["total"] > 0 and task

    task = until(all_done, "all its frames")
    assert (task["status"], task["is_terminal"], task["output"]) == ("RUNNING", False, None)
    assert task["progress"]["fraction"] < 1
    assert service.http.get(f"/tasks/{task_id}/output").status_code == 409
    assert service.http.get("/queue").json()["by_status"]["SUCCEEDED"] == 0
    service.http.post(f"/tasks/{task_id}/cancel")
    assert service.until_ended(task_id)["status"] == "CANCELLED"
