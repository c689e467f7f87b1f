"""The examples of the description: one for every parameter, body and JSON answer; and what names in paths name.

Those of tasks and notices are made by the code that makes the answers, so that they cannot fall behind it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.api.drop_in.duix import DuixAnswer
from app.api.drop_in.human import HumanAnswer, HumanData
from app.api.problem_codes import ProblemCode
from app.api.problems import Problem
from app.api.resource import rfc3339, task_resource
from app.api.routes.deliveries import DeliveryLinks, DeliveryPage, Replayed, TaskDeliveries, delivery_resource
from app.api.routes.observing import (
    AlarmResource,
    AlarmsResource,
    ResourcesResource,
    ScaleOutResource,
    StatisticsResource,
    WindowResource,
)
from app.api.routes.operations import Liveness, ReadinessAnswer
from app.api.routes.queue import DiskResource, JudgesResource, QueueResource, SlotResource
from app.api.routes.tasks import CancelAnswer, PageLinks, TaskPage
from app.api.routes.tiers import BreakerResource, MeasuredResource, TierList, TierResource
from app.api.routes.uploads import UploadResource
from app.health.alarms import Severity
from app.store.deliveries import Delivery, Try
from app.store.records import Artifact, AttemptRecord, InputRef, TaskRecord
from app.tasks.status import Status
from app.telemetry.statistics import Statistics, Window

_AT = 1_769_860_800.0
_TASK, _UPLOAD = "task_01jk8x6q4b9y3v7m2c5d8e0f1g", "upl_01jk8x5zt6w2r9n4k7p1s3v5x8"
_CODE = "7f9c24e8-3b12-4f6a-9d0e-5c8b1a2f3e4d"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

PARAMETERS: dict[str, Any] = {
    "after": 4711,
    "code": _CODE,
    "created_after": "2026-01-31T00:00:00Z",
    "created_before": "2026-02-01T00:00:00+01:00",
    "cursor": "NDcxMQ",
    "derived_from": _TASK,
    "delivery_id": f"{_TASK}_4711",
    "limit": 50,
    "name": "warp",
    "renderer": "warp",
    "retry_of": _TASK,
    "review": False,
    "state": "dead",
    "status": ["QUEUED", "RUNNING"],
    "task_id": _TASK,
    "type": ["task.succeeded", "task.failed"],
    "upload_id": _UPLOAD,
    "wait": 10,
    "waits_for": _TASK,
}
"""By name, for parameters that name none of their own."""

NAMES = {
    "code": "The task, by the name that its submission gave it.",
    "delivery_id": "The notice: its `webhook-id`.",
    "name": "The tier.",
    "task_id": "The task.",
    "upload_id": "The upload.",
}
"""What parameters in paths, and the one of a foreign server, name."""

_GENERATE = {
    "source": f"upload:{_UPLOAD}",
    "audio": "https://example.com/speech.mp3",
    "priority": 7,
    "deadline_s": 600,
    "callback": {"url": "https://example.com/hook", "events": ["task.succeeded", "task.failed"]},
    "metadata": {"order": 4711},
}
BODIES: dict[str, Any] = {
    "/generate": _GENERATE,
    "/tasks/{task_id}/derive": {"audio": f"upload:{_UPLOAD}", "options": {"crop": "face"}},
    "/tasks/{task_id}/approve": {"who": "Anna", "reason": "The lips are fine."},
    "/tasks/{task_id}/reject": {"who": "Anna", "reason": "The lips stand still."},
    "/tasks/{task_id}/rerender": {"who": "Anna", "reason": "Once more, with rests.", "options": {"quality": "high"}},
    "/tiers/{name}/breaker": {"state": "open"},
    "/easy/submit": {
        "code": _CODE,
        "audio_url": "speech.wav",
        "video_url": "template.mp4",
        "chaofen": 0,
        "watermark_switch": 0,
        "pn": 1,
    },
    "/human/generate": {
        "audio_path": "/srv/assets/speech.wav",
        "video_path": "/srv/assets/template.mp4",
        "save_path": "/srv/assets/made/a.mp4",
    },
}
"""JSON bodies by path."""


def answers() -> dict[str, Any]:
    """What an answer looks like, by the name of its model."""
    task = task_resource(_task(), now=_AT + 10)
    listed = task_resource(_task(), now=_AT + 10, with_attempts=False)
    notice = delivery_resource(
        Delivery(4711, _TASK, "task.succeeded", _AT + 9, "delivered", None, _AT + 10, (Try(_AT + 10, 0.21, 200),))
    )
    tier = _tier()
    made: list[BaseModel] = [
        task,
        TaskPage(tasks=[listed], links=PageLinks(next=None)),
        CancelAnswer(id=_TASK, outcome="already_terminal", task=listed),
        TaskDeliveries(deliveries=[notice]),
        DeliveryPage(deliveries=[notice], links=DeliveryLinks(next=None)),
        Replayed(replayed=[notice.id]),
        UploadResource(
            id=_UPLOAD,
            uri=f"upload:{_UPLOAD}",
            sha256=_SHA256,
            bytes=181_340,
            name="face.png",
            created_at=rfc3339(_AT),
            expires_at=rfc3339(_AT + 7 * 86_400),
            media={"kind": "image", "format": "png", "bytes": 181_340, "width": 1024, "height": 1024},
            media_problem=None,
        ),
        _queue(),
        tier,
        TierList(tiers=[tier]),
        Liveness(status="live"),
        ReadinessAnswer(status="ready", checks={"database": "ok", "slots": {"cpu0": "idle"}}),
        *_observed(),
        DuixAnswer(
            code=10000,
            success=True,
            msg="",
            data={"code": _CODE, "status": 1, "progress": 40, "result": "", "msg": "RUNNING (render)"},
        ),
        HumanAnswer(data=HumanData(save_path="/srv/assets/made/a.mp4", task_id=_TASK)),
    ]
    return {type(model).__name__: model.model_dump(mode="json") for model in made} | {"ProblemDetails": _problem()}


def install(description: dict[str, Any]) -> None:
    """Put examples and names into an OpenAPI description, wherever it has none."""
    schemas = description["components"]["schemas"]
    for name, example in answers().items():
        if name in schemas:
            schemas[name].setdefault("examples", [example])
    for path, item in description["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if not {"example", "examples"} & parameter.keys() and parameter["name"] in PARAMETERS:
                    parameter["example"] = PARAMETERS[parameter["name"]]
                if parameter["name"] in NAMES:
                    parameter.setdefault("description", NAMES[parameter["name"]])
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None and path in BODIES:
                body.setdefault("example", BODIES[path])


def _task() -> TaskRecord:
    return TaskRecord(
        id=_TASK,
        status=Status.SUCCEEDED,
        priority=7,
        source=InputRef(f"upload:{_UPLOAD}", _SHA256, 181_340, "face.png"),
        audio=InputRef("https://example.com/speech.mp3", _SHA256, 96_044, "speech.mp3"),
        renderer=None,
        fallback="any",
        route=("warp",),
        options={},
        metadata={"order": 4711},
        client="shop",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        created_at=_AT,
        enqueued_at=_AT,
        not_before=None,
        start_deadline_at=None,
        deadline_at=_AT + 600,
        started_at=_AT + 1,
        finished_at=_AT + 9,
        attempt=1,
        retries=0,
        retry_at=None,
        retry_reason=None,
        cancel_requested_at=None,
        error=None,
        output=Artifact(f"results/{_TASK}/1.mp4", _SHA256, 1_482_113, 6.4, 1024, 1024, 25.0, 160),
        served_by="warp",
        degraded=False,
        quality={"confidence": 0.97},
        lease_owner=None,
        lease_expires_at=None,
        last_event_id=4711,
        attempts=(AttemptRecord(1, "warp", "cpu0", "cpu", _AT + 1, _AT + 9, "succeeded"),),
    )


def _queue() -> QueueResource:
    return QueueResource(
        by_status={status.value: 0 for status in Status} | {"QUEUED": 3, "RUNNING": 1},
        runnable=2,
        scheduled=1,
        joined=0,
        chained=0,
        oldest_runnable_age_s=4.2,
        wait_s=11.8,
        paused=False,
        draining=False,
        limit=100_000,
        limit_deferred=None,
        limit_per_client=None,
        disk=DiskResource(low=False, free_bytes=81_000_000_000, limit=1_073_741_824),
        cache=None,
        slots=[
            SlotResource(
                name="cpu0", state="busy", device="cpu", task_id=_TASK, attempt=1, pid=4242, since=rfc3339(_AT + 1)
            )
        ],
        judges=JudgesResource(waiting=0, judging=0, slots=[]),
    )


def _tier() -> TierResource:
    return TierResource(
        name="warp",
        renderer="warp",
        enabled=True,
        degraded=False,
        only_by_name=False,
        down=None,
        breaker=BreakerResource(state="closed", until=None, openings=0),
        slots=1,
        free=0,
        running=1,
        measured=MeasuredResource(attempts=20, success=1.0, latency_s=7.9),
    )


def _observed() -> list[BaseModel]:
    figures = Statistics().of(None, Window.MINUTE)
    return [
        StatisticsResource(
            since=rfc3339(_AT), windows={window: WindowResource(all=figures, tiers={}) for window in Window}
        ),
        AlarmsResource(
            active=[
                AlarmResource(
                    name="queue_old",
                    severity=Severity.WARNING,
                    subject="",
                    since=rfc3339(_AT),
                    resolved_at=None,
                    value=712.0,
                    threshold=600.0,
                    message="A task has waited for 712 s.",
                    hint="Add slots, or another service.",
                )
            ],
            recent=[],
            scale_out=ScaleOutResource(wanted=True, reasons=["queue_old"]),
        ),
        ResourcesResource(at=None, host=None, workers=[], gpus=[], gpu_note="not read yet"),
    ]


def _problem() -> dict[str, Any]:
    problem = Problem.of(ProblemCode.TASK_NOT_FOUND, f"There is no task {_TASK!r}.")
    return problem.body(instance=f"/tasks/{_TASK}", request_id="5d1c4b6f0a9e8237")
