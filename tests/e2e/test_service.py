"""The whole service over a real socket, with the real renderer."""

from __future__ import annotations

import hashlib
import io
import signal
from pathlib import Path
from typing import Any

import av
import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import gone, until


def test_a_photo_and_a_voice_become_a_talking_video(serve, portrait, speech):
    service = serve()
    task = service.post(portrait, speech(1.5), metadata={"für": "Zoë"})
    assert task["status"] == "QUEUED"
    ended = service.until_ended(task["id"])
    assert ended["status"] == "SUCCEEDED", ended["error"]
    assert ended["served_by"] == "warp"
    assert ended["metadata"] == {"für": "Zoë"}
    answer = service.http.get(ended["links"]["output"])
    assert answer.headers["content-type"] == "video/mp4"
    assert hashlib.sha256(answer.content).hexdigest() == ended["output"]["sha256"]
    assert answer.headers["etag"] == f'"{ended["output"]["sha256"]}"'
    with av.open(io.BytesIO(answer.content)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert abs(len(frames) - 1.5 * 25) <= 1
    with av.open(io.BytesIO(answer.content)) as video:
        sound = sum(frame.samples / frame.sample_rate for frame in video.decode(audio=0))
    assert abs(sound - 1.5) <= 0.1  # AAC packets
    assert (frames[5].astype(int) - frames[20]).any(), "the picture moves"
    part = service.http.get(ended["links"]["output"], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    # What a terminal task says never changes.
    assert service.task(task["id"]) == ended
    assert service.stop() == 0


def test_neither_torch_nor_a_codec_is_loaded_into_the_api_process(serve, portrait, speech):
    service = serve()
    service.until_ended(service.post(portrait, speech(0.5))["id"])
    maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    for library in ("libtorch", "cv2", "libavcodec", "_imaging", "numpy"):
        assert library not in maps, library
    assert "libtorch" in Path(f"/proc/{service.slot_pid()}/maps").read_text()


def test_a_worker_killed_in_the_middle_of_a_render_costs_one_retry_and_no_task(serve, portrait, speech):
    service = serve(GREENROOM_BACKOFF_CAP_S="0.01")
    task_id = service.post(portrait, speech(8))["id"]
    service.until_rendering(task_id)
    victim = service.slot_pid()
    psutil.Process(victim).kill()
    ended = service.until_ended(task_id)
    assert ended["status"] == "SUCCEEDED"
    first, second = ended["attempts"]
    assert first["error"]["code"] == "WORKER_CRASHED"
    assert "SIGKILL" in first["error"]["message"]
    assert (first["outcome"], second["outcome"]) == ("failed", "succeeded")
    assert service.slot_pid() != victim


def test_a_killed_service_leaves_no_process_and_its_restart_runs_the_interrupted_and_the_queued(
    serve, portrait, speech
):
    service = serve()
    running, queued = (service.post(portrait, speech(seconds))["id"] for seconds in (8, 0.5))
    service.until_rendering(running)
    family = [child.pid for child in psutil.Process(service.process.pid).children(recursive=True)]
    assert service.stop(signal.SIGKILL) == -9
    until(lambda: all(gone(pid) for pid in family), "its processes to be gone")
    restarted = serve()
    for task_id in (running, queued):
        assert restarted.until_ended(task_id)["status"] == "SUCCEEDED"
    attempts = restarted.task(running)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted", "succeeded"]
    until(lambda: not list((restarted.data_dir / "attempts").glob("*/*")), "what the attempts left to be swept")
    assert len(list((restarted.data_dir / "results").glob("*/*"))) == 2


def test_sigterm_puts_a_long_render_back_into_the_queue_and_exits_with_0(serve, portrait, speech):
    service = serve(GREENROOM_SHUTDOWN_GRACE_S="0.1")
    task_id = service.post(portrait, speech(20))["id"]
    service.until_rendering(task_id)
    assert service.stop(signal.SIGTERM) == 0
    assert not (service.data_dir / "service.json").exists()
    restarted = serve()
    ended = restarted.until_ended(task_id)
    assert [attempt["outcome"] for attempt in ended["attempts"]] == ["interrupted", "succeeded"]


def test_sigterm_lets_a_short_render_finish(serve, portrait, speech):
    service = serve()
    service.until_ready()
    task_id = service.post(portrait, speech(2))["id"]
    service.until_rendering(task_id)
    assert service.stop(signal.SIGTERM) == 0
    assert service.until_logged("attempt_succeeded", task_id)


def test_cancel_stops_a_running_render(serve, portrait, speech):
    service = serve()
    task_id = service.post(portrait, speech(60))["id"]
    service.until_rendering(task_id)
    worker = service.slot_pid()
    assert service.http.post(f"/tasks/{task_id}/cancel").status_code == 202
    assert service.until_ended(task_id)["status"] == "CANCELLED"
    assert service.http.post(f"/tasks/{task_id}/cancel").status_code == 200
    until(lambda: service.http.get("/queue").json()["slots"][0]["state"] == "idle", "the slot to be free")
    assert service.slot_pid() == worker, "a render that yields keeps its process"
    until(lambda: not list((service.data_dir / "attempts").glob("*/*")), "its directory to be gone")


def test_a_pause_a_low_disk_and_retention_are_as_the_settings_say_after_a_restart(serve, portrait, speech):
    """R0.13, R3.12."""
    service = serve(GREENROOM_CACHE="false")
    kept = service.until_ended(service.post(portrait, speech(0.5))["id"])
    waiting = service.post(portrait, speech(0.5), not_before="2100-01-01T00:00:00Z", cache=False)["id"]
    assert service.http.post("/queue/pause").json()["paused"] is True
    paused = service.post(portrait, speech(0.5), cache=False)
    assert service.task(paused["id"])["wait_reason"] == "paused"
    assert service.stop() == 0
    restarted = serve(
        GREENROOM_CACHE="false", GREENROOM_RESULT_TTL_S="0.001", GREENROOM_DISK_LOW_BYTES=str(2**62)
    ).until_ready()
    assert restarted.http.get("/queue").json()["paused"] is True
    assert restarted.task(paused["id"])["wait_reason"] == "paused"
    refused = restarted.http.post("/uploads", content=b"x")
    assert (refused.status_code, refused.json()["code"]) == (507, "DISK_LOW")
    assert restarted.http.get("/health/ready").json()["checks"]["disk"].startswith("low: ")
    until(lambda: restarted.http.get(kept["links"]["output"]).status_code == 410, "the result to expire")
    assert restarted.http.get(kept["links"]["output"]).json()["code"] == "OUTPUT_EXPIRED"
    until(lambda: not list((restarted.data_dir / "results").glob("*/*")), "its file to go")
    assert restarted.task(kept["id"]) == kept
    assert restarted.task(waiting)["wait_reason"] == "scheduled"
    restarted.http.post("/queue/resume")
    assert restarted.until_ended(paused["id"])["status"] == "SUCCEEDED"


def test_metrics_and_logs_tell_what_happened(serve, portrait, speech):
    service = serve()
    task_id = service.post(portrait, speech(1))["id"]
    service.until_ended(task_id)
    # Callers hear of an end before it is counted and the slot is idle.
    counted = "greenroom_attempt_duration_seconds_count", ("outcome", "succeeded"), ("tier", "warp")
    idle = "greenroom_slots", ("state", "idle")

    def settled() -> dict[tuple[Any, ...], float] | None:
        page = service.http.get("/metrics")
        found = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page.text)
            for sample in family.samples
        }
        return found if found.get(counted) and found[idle] else None

    found = until(settled, "the attempt to be counted", service.account)
    assert (found[counted], found[idle]) == (1, 1)
    assert found["greenroom_tasks_finished_total", ("status", "SUCCEEDED")] == 1
    assert found["greenroom_frames_rendered_total", ("tier", "warp")] == 25
    assert found["greenroom_queue_depth", ("kind", "runnable")] == 0
    assert ("greenroom_queue_oldest_age_seconds",) in found
    assert any(key[0] == "greenroom_attempt_phase_duration_seconds_count" for key in found)
    route = ("route", "/generate")
    assert any(key[0] == "greenroom_http_request_duration_seconds_count" and route in key for key in found)
    [done] = service.until_logged("attempt_succeeded")
    assert (done["task_id"], done["attempt"], done["slot"]) == (task_id, 1, "cpu-0")


def test_a_service_that_cannot_have_its_port_says_so(serve, tmp_path):
    import subprocess
    import sys

    service = serve()
    port = httpx.URL(service.http.base_url).port
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--data-dir", str(tmp_path / "other")]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "address already in use" in second.stderr.lower()
    assert "Traceback" not in second.stderr


def test_the_log_of_a_failure_carries_all_that_a_search_begins_with(serve, portrait, speech):  # R0.2
    service = serve(GREENROOM_REHEARSALS="1", GREENROOM_TIER_RENDERER="rehearsal")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    service.http.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
    task_id = service.post(portrait, speech(0.5), options={"fault": "raise", "code": "INPUT_NO_FACE"})["id"]
    service.until_ended(task_id)
    [failed] = service.until_logged("attempt_ended")
    assert (failed["task_id"], failed["attempt"], failed["slot"]) == (task_id, 1, "cpu-0")
    assert (failed["tier"], failed["trace_id"], failed["code"]) == ("rehearsal", trace, "INPUT_NO_FACE")
    assert failed["elapsed_s"] > 0
    for key in ("source_path", "audio_path"):
        assert Path(failed[key]).is_file()
    assert failed["output_path"].endswith(f"{task_id}-1")
