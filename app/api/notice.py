"""The body of a webhook: the same task resource that `GET /tasks/{id}` gives, as it was after the event."""

from __future__ import annotations

from typing import Any

from app.api.ports import LiveProgress
from app.api.resource import rfc3339, task_resource
from app.store.deliveries import Notice


def notice_body(notice: Notice) -> dict[str, Any]:
    """`type`, `timestamp` (of the event) and `data`, JSON-ready."""
    far = notice.progress
    live = None if far is None else LiveProgress(far["phase"], far["done"], far["total"])
    data = task_resource(notice.task, now=notice.at, live=live).model_dump(mode="json")
    return {"type": notice.type, "timestamp": rfc3339(notice.at), "data": data}
