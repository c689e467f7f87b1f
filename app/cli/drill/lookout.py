"""The lookout: asks during a drill, all the time, whether the service is well and how the struck task looks."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import httpx

_EVERY_S = 0.1
ANSWER_S = 5.0
"""A look at the health that takes longer counts as no answer: supervisors are less patient."""


class Lookout:
    """From `with` to its end: looks at `/health/live`, `/metrics` and one task in turn."""

    def __init__(self, url: str, task_id: str) -> None:
        self.answers: list[float | None] = []
        """Seconds until `/health/live` or `/metrics` answered; None where it did not."""
        self.glimpses: list[dict[str, Any]] = []
        """The task, as often as it was seen."""
        self._task = f"/tasks/{task_id}"
        self._http = httpx.Client(base_url=url, timeout=ANSWER_S)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(3 * ANSWER_S)
        self._http.close()

    @property
    def slowest_s(self) -> float:
        """The slowest of the answers that came."""
        return max((seconds for seconds in self.answers if seconds is not None), default=0.0)

    def _look(self) -> None:
        self._once()
        while not self._over.wait(_EVERY_S):
            self._once()

    def _once(self) -> None:
        for path in ("/health/live", "/metrics"):
            self.answers.append(self._timed(path))
        try:
            answer = self._http.get(self._task)
        except httpx.TransportError:
            return  # told by the other two
        if answer.status_code == httpx.codes.OK:
            self.glimpses.append(answer.json())

    def _timed(self, path: str) -> float | None:
        asked = time.monotonic()
        try:
            answer = self._http.get(path)
        except httpx.TransportError:
            return None
        return time.monotonic() - asked if answer.status_code == httpx.codes.OK else None
