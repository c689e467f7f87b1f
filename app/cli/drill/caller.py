"""What a caller does in a drill: hands in rehearsals, waits for their ends, and fetches what became of them."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.cli.drill import verify
from app.render.canary import canary_job
from greenroom.client import ApiError, Client

_LOOK_S = 10.0
_PAGE = 200
_COUNTED = {"greenroom_retries_total": ("retried", "code"), "greenroom_tasks_finished_total": ("ended", "status")}
URGENT = 9
"""The priority of a task that is to fail: what else waits on a service in use does not hide how fast it recovers."""
CLIENT_ID = "greenroom-drill"


class Caller:
    """A caller of one service. What it hands in is remembered, so that nothing can get lost unseen."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Client(url, client_id=CLIENT_ID)
        self.http = httpx.Client(base_url=url, timeout=30.0)
        self.accepted: dict[str, tuple[str, dict[str, Any]]] = {}
        """Every task that the service has accepted: the key and the body of the request that made it."""
        self._mark = uuid.uuid4().hex
        self._inputs: dict[str, str] = {}
        self._since: str | None = None
        """When it began, by the service's clock: a service in use may have a million older tasks."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.http.close()

    def hand_in(self, options: Mapping[str, Any], **fields: Any) -> str:
        """Submit a rehearsal; its task. Raises `GreenroomError`."""
        self._inputs = self._inputs or self.upload()
        marks = {"metadata": {"drill": self._mark}, "renderer": "rehearsal"}
        body = self._inputs | marks | {"options": dict(options)} | fields
        key = f"drill-{uuid.uuid4().hex}"
        task_id = self._submit(key, body)
        self.accepted[task_id] = (key, body)
        return task_id

    def hand_in_again(self, task_id: str) -> str:
        """Send the request of a task once more under its key; the task that the service has for it."""
        return self._submit(*self.accepted[task_id])

    def request_of(self, task_id: str) -> dict[str, Any]:
        """The body of the request that made a task."""
        return dict(self.accepted[task_id][1])

    def at(self, url: str) -> Caller:
        """The same caller at another address of the service."""
        other = Caller(url)
        other.accepted, other._mark = self.accepted, self._mark
        return other

    def _submit(self, key: str, body: Mapping[str, Any]) -> str:
        answer = self.client.request("POST", "/generate", json=dict(body), headers={"idempotency-key": key})
        return str(answer["id"])

    def upload(self) -> dict[str, str]:
        """Hand in a face and a voice; their addresses."""
        small = canary_job(Path(), {})
        files = {"source": small.source, "audio": small.audio}
        made = {name: self.client.upload(path) for name, path in files.items()}
        self._since = self._since or made["source"]["created_at"]
        return {name: upload["uri"] for name, upload in made.items()}

    def task(self, task_id: str, wait_s: float = 0.0) -> dict[str, Any]:
        """A task now, or once it has ended, after `wait_s` at the latest."""
        return cast(dict[str, Any], self.client.task(task_id, wait_s=wait_s))

    def until_ended(self, task_id: str, patience_s: float) -> dict[str, Any]:
        """The task once it has ended or waits for a person. One that does neither in time is cancelled, and given
        back as it was then."""
        give_up_at = time.monotonic() + patience_s
        while (left := give_up_at - time.monotonic()) > 0:
            task = self.task(task_id, wait_s=max(min(left, _LOOK_S), 0.1))
            if task["is_terminal"] or task["status"] == "REVIEW":
                return task
        self.client.cancel(task_id)
        return task

    def until_rendering(self, task_id: str, patience_s: float, attempt: int = 1) -> dict[str, Any] | None:
        """The task once this attempt has made a frame; None if that takes too long: it is cancelled then."""
        give_up_at = time.monotonic() + patience_s
        while time.monotonic() < give_up_at:
            task = self.task(task_id)
            if task["is_terminal"]:
                return None
            rendering = task["progress"]["phase"] == "render" and task["progress"]["done"] > 0
            if len(task["attempts"]) >= attempt and rendering:
                return task
            time.sleep(0.02)
        self.client.cancel(task_id)
        return None

    def wrong_about(self, task: dict[str, Any]) -> list[str]:
        """What is wrong with an ended task, however it ended: its record, its events, its file, and that it stays."""
        if not task["is_terminal"]:
            return [f"it has not ended: {task['status']}, {task['wait_reason'] or 'running'}"]
        wrong = verify.wrong_record(task)
        wrong += verify.wrong_events(task["status"], [event["type"] for event in self.client.events(task["id"])])
        if task["output"] is not None:
            wrong += verify.wrong_bytes(task, self._bytes(task))
        if self.task(task["id"]) != task:
            wrong.append("it reads differently the second time, although it has ended")
        return wrong

    def _bytes(self, task: dict[str, Any]) -> bytes:
        answer = self.http.get(task["output"]["url"])
        return answer.content if answer.status_code == httpx.codes.OK else b""

    def knows(self, task_id: str) -> bool:
        """Whether the service knows a task."""
        return self._found(task_id) is not None

    def lost(self) -> list[str]:
        """Accepted tasks that the service does not know any more, or that have not ended."""
        found = {task_id: self._found(task_id) for task_id in self.accepted}
        return [task_id for task_id, task in found.items() if task is None or not task["is_terminal"]]

    def _found(self, task_id: str) -> dict[str, Any] | None:
        try:
            return self.task(task_id)
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            return None

    def strangers(self) -> list[str]:
        """Tasks of this drill that the service has although nobody handed them in: doubled ones."""
        since = self.client.tasks(limit=_PAGE, created_after=self._since)
        marked = (task for task in since if task["metadata"].get("drill") == self._mark)
        return [task["id"] for task in marked if task["id"] not in self.accepted]

    def counters(self) -> Counter[tuple[str, str]]:
        """What the service has counted since its start: `(retried, code)` and `(ended, status)`."""
        found: Counter[tuple[str, str]] = Counter()
        page = self.http.get("/metrics").raise_for_status().text
        for family in text_string_to_metric_families(page):
            for name, labels, value, *_ in family.samples:
                if name in _COUNTED:
                    kind, label = _COUNTED[name]
                    found[kind, labels[label]] += int(value)
        return found
