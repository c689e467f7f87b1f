"""One trace of a task from the caller's request to the last notice, in a real service and a real collector (R3.10)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Service, until
from tests.faults.conftest import REHEARSALS
from tests.media.makers import write_video
from tests.notify.endpoint import listening
from tests.telemetry.collector import Collector, Got, collecting

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "GREENROOM_ALLOW_PRIVATE_ADDRESSES": "1"}
FAILS_ONCE = {"fault": "raise", "exception": "ValueError", "message": "a bad day", "times": 1}

Serve = Callable[..., Service]
Speech = Callable[[float], Path]


def to(collector: Collector) -> dict[str, str]:
    return REHEARSALS | SOON | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


def task_id_of(span: Got) -> object:
    return span.attributes.get("greenroom.task.id")


def test_one_trace_of_a_task_with_two_attempts(serve: Serve, portrait: Path, speech: Speech) -> None:
    with collecting() as collector, listening() as endpoint:
        service = serve(**to(collector), GREENROOM_LOG_LEVEL="debug")
        service.http.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
        callback = {"url": endpoint.url, "events": ["task.retry_wait", "task.succeeded"]}
        task_id = service.post(portrait, speech(0.5), options=FAILS_ONCE, callback=callback)["id"]
        service.http.headers["traceparent"] = "00-" + "e" * 32 + "-00f067aa0ba902b7-01"
        task = service.until_ended(task_id)
        until(lambda: len(collector.named("webhook")) == 2, "both deliveries")
        assert service.stop() == 0
        lines = [record for record in service.records() if record.get("task_id") == task_id]
        told = {"attempt_started", "retry_scheduled", "cleanup_step", "notice_delivered"}
        assert told <= {line["event"] for line in lines}
        assert {line["trace_id"] for line in lines} == {TRACE}
        ours = collector.where(lambda span: span.trace_id == TRACE)
    assert task["trace_id"] == TRACE
    assert {span.resource["service.name"] for span in ours} == {"greenroom"}

    [request] = [span for span in ours if span.kind == "server"]
    assert (request.name, request.parent_id) == ("POST /generate", CALLER)
    assert request.attributes["http.response.status_code"] == 202

    [whole] = collector.named("task")
    assert (whole.parent_id, whole.failed) == (request.span_id, False)
    assert whole.attributes["greenroom.task.id"] == task_id
    assert whole.attributes["greenroom.attempts"] == 2

    first, second = collector.named("attempt")
    assert {first.parent_id, second.parent_id} == {whole.span_id}
    error = task["attempts"][0]["error"]
    assert (first.failed, first.attributes["error.type"]) == (True, error["code"])
    assert "a bad day" in first.message
    assert first.attributes["greenroom.backoff_ms"] == task["attempts"][0]["backoff_ms"]
    assert (second.failed, second.attributes["greenroom.outcome"]) == (False, "succeeded")

    waits = collector.named("queue")
    assert [wait.attributes["greenroom.after"] for wait in waits] == ["QUEUED", "RETRY_WAIT"]
    assert {wait.parent_id for wait in waits} == {whole.span_id}
    assert whole.began <= waits[0].began <= waits[0].ended <= first.began
    assert first.ended <= waits[1].began <= waits[1].ended <= second.began <= second.ended <= whole.ended

    phases = {"load", "fetch", "analyse", "render", "encode"}
    for attempt, names in ((first, ["load", "fetch", "analyse", "render"]), (second, [*phases])):
        under = [span for span in ours if span.parent_id == attempt.span_id]
        assert {span.name for span in under} == set(names)
        assert all(attempt.began <= span.began <= span.ended <= attempt.ended + 0.5 for span in under)

    told = collector.named("webhook")
    assert [span.kind for span in told] == ["client", "client"]
    assert {span.parent_id for span in told} == {whole.span_id}
    assert endpoint.traces == [f"00-{TRACE}-{span.span_id}-01" for span in told]
    assert all(span.attributes["http.response.status_code"] == 204 for span in told)
    assert {span.name for span in ours} == {"POST /generate", "task", "queue", "attempt", "webhook", *phases}
    assert len({span.span_id for span in ours}) == len(ours)
    assert not [span for span in collector.spans if "/health" in span.name or "/metrics" in span.name]


COMMAND = """
[[tiers]]
name = "program"
renderer = "command"
argv = {argv}
"""


def test_a_program_is_told_its_attempt_and_its_lines_say_whose_they_are(
    serve: Serve, portrait: Path, speech: Speech, tmp_path: Path
) -> None:
    told, video = tmp_path / "told", write_video(tmp_path / "made.mp4", frames=13)
    script = (
        "import os, shutil, sys; open(sys.argv[1], 'w').write(os.environ['TRACEPARENT']); shutil.copy(*sys.argv[2:4])"
    )
    file = tmp_path / "tiers.toml"
    argv = [sys.executable, "-S", "-c", script, str(told), str(video), "{output}", "{source}", "{audio}"]
    file.write_text(COMMAND.format(argv=json.dumps(argv)))
    with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "GREENROOM_CONFIDENCE_THRESHOLD": "0"}
        service = serve("--config", str(file), **SOON, **settings)
        service.http.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
        task = service.until_ended(service.post(portrait, speech(0.5))["id"])
        assert task["status"] == "SUCCEEDED", task
        assert service.stop() == 0
    [attempt] = collector.named("attempt")
    assert told.read_text() == f"00-{TRACE}-{attempt.span_id}-01"
    [line] = [record for record in service.records() if record["event"] == "program_ended"]
    assert (line["trace_id"], line["task_id"], line["attempt"]) == (TRACE, task["id"], 1)


def test_an_attempt_that_died_with_its_service_is_in_the_trace_too(
    serve: Serve, portrait: Path, speech: Speech
) -> None:
    with collecting() as collector:
        service = serve(**to(collector))
        service.http.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
        task_id = service.post(portrait, speech(0.5), options={"frame_s": 0.3, "batch": 1})["id"]
        service.until_rendering(task_id)
        service.stop(signal.SIGKILL)
        again = serve(**to(collector))
        task = again.until_ended(task_id)
        until(lambda: collector.named("task"), "the end of the trace")
        assert again.stop() == 0
        first, second = collector.named("attempt")
    [whole] = collector.named("task")
    assert {first.trace_id, second.trace_id, whole.trace_id} == {TRACE}
    assert {first.parent_id, second.parent_id} == {whole.span_id}
    assert (first.failed, first.attributes["error.type"]) == (True, "INTERRUPTED")
    assert not second.failed
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["interrupted", "succeeded"]


def test_a_worker_that_dies_still_tells_how_far_it_was(serve: Serve, portrait: Path, speech: Speech) -> None:
    with collecting() as collector:
        service = serve(**to(collector))
        task = service.until_ended(service.post(portrait, speech(0.5), options={"fault": "kill", "times": 1})["id"])
        until(lambda: collector.named("task"), "the end of the trace")
        assert service.stop() == 0
    assert task["status"] == "SUCCEEDED"
    first = collector.named("attempt")[0]
    assert first.attributes["error.type"] == "WORKER_CRASHED"
    phases = [span for span in collector.spans if span.parent_id == first.span_id]
    assert [span.name for span in sorted(phases, key=lambda span: span.began)] == ["load", "fetch", "analyse", "render"]


def test_a_caller_that_records_nothing_is_heeded(serve: Serve, portrait: Path, speech: Speech) -> None:
    with collecting() as collector, listening() as endpoint:
        service = serve(**to(collector))
        callback = {"url": endpoint.url, "events": ["task.succeeded"]}
        service.http.headers["traceparent"] = f"00-{TRACE}-{CALLER}-00"
        silent = service.post(portrait, speech(0.5), callback=callback)["id"]
        service.until_ended(silent)
        until(lambda: endpoint.traces, "the notice")
        del service.http.headers["traceparent"]
        told = service.post(portrait, speech(0.5))["id"]
        service.until_ended(told)
        until(lambda: collector.named("task"), "the trace of the other task")
        assert service.stop() == 0
    assert [task_id_of(span) for span in collector.named("task")] == [told]
    assert TRACE not in {span.trace_id for span in collector.spans}
    [trace] = endpoint.traces
    assert trace is not None
    assert trace.startswith(f"00-{TRACE}-")
    assert trace.endswith("-00")


@pytest.mark.parametrize("fault", ["refuses", "hangs", "answers 500"])
def test_a_collector_that_fails_costs_a_line_in_the_log_and_no_time(
    serve: Serve, portrait: Path, speech: Speech, fault: str
) -> None:
    with collecting() as collector:
        url = collector.url
        if fault == "refuses":
            url = "http://127.0.0.1:9"
        elif fault == "hangs":
            collector.hold.clear()
        else:
            collector.status = 500
        limits = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "16",
        }
        service = serve(**(to(collector) | limits | {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}))
        for _ in range(3):
            assert service.until_ended(service.post(portrait, speech(0.5))["id"])["status"] == "SUCCEEDED"
        for _ in range(50):
            assert service.http.get("/queue").status_code == 200

        def complaints() -> list[dict[str, object]]:
            return [record for record in service.records() if record["event"] == "spans_not_exported"]

        until(complaints, "the word that spans are lost")
        if fault == "answers 500":
            collector.status = 200

            def resumed() -> bool:
                service.http.get("/queue")
                return any(record["event"] == "tracing_resumed" for record in service.records())

            until(resumed, "the word that it works again")
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 30, "a stop waits for no collector"
        [complaint] = complaints()
        assert url.removeprefix("http://") in str(complaint["collector"])
        assert complaint["reason"]
        assert not [record for record in service.records() if "ransient error" in str(record["event"])]


ENDPOINT = "http://127.0.0.1:9"
BUILD = """
import sys
from pathlib import Path
from app.config_sources import load_settings
from app.service.service import Service
loaded = load_settings({"data_dir": Path(sys.argv[1]), "device": "cpu", "slots": 1})
Service(loaded.settings, lambda: loaded.settings).close()
print(*sorted(m for m in sys.modules if m.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "requests"))))
"""


def build(folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_an_endpoint_nothing_of_it_is_imported(tmp_path: Path) -> None:
    assert build(tmp_path) == ""
    assert build(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT, GREENROOM_OTLP_ENDPOINT="") == ""
    assert "opentelemetry.sdk.trace.export" in build(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT).split()


def cannot_start(folder: Path, before: str = "pass", **environment: str) -> str:
    """What a service that cannot start says."""
    code = f"import sys; {before}; sys.argv[0] = 'greenroom'; from app.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", "0", "--data-dir", str(folder / "data")],
        env={**os.environ, "GREENROOM_OTLP_ENDPOINT": ENDPOINT, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "greenroom cannot start: " in done.stderr
    return done.stderr


def test_an_endpoint_without_the_packages_is_a_start_that_says_what_to_install(tmp_path: Path) -> None:
    said = cannot_start(tmp_path, "sys.modules['opentelemetry.exporter'] = None")
    assert "install greenroom[otlp]" in said


def test_a_protocol_that_is_not_spoken_is_refused(tmp_path: Path) -> None:
    said = cannot_start(tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL asks for grpc; spans are sent as http/protobuf alone" in said
