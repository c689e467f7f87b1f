"""The lines between the service and its media helper: one JSON object per line, requests one way, answers the other."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.media.info import MediaInfo, MediaLimits
from app.retry.taxonomy import CodedError, FailureCode

READY = b'{"ready": true}\n'
"""The helper's first line, when its imports are done."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Probe `path` within `seconds` of wall time and `memory_bytes` beyond what the helper itself has mapped."""

    id: int
    path: Path
    limits: MediaLimits
    seconds: float
    memory_bytes: int

    def line(self) -> bytes:
        """This request as a line."""
        # JSON escapes the surrogates that stand for bytes which are no UTF-8: any file name passes unharmed.
        return _line({**asdict(self), "path": str(self.path)})


def cancel_line(request_id: int) -> bytes:
    """Tell the helper that nobody waits for this request any more."""
    return _line({"cancel": request_id})


def parse_request(line: bytes) -> ProbeRequest | int:
    """A request, or the id of one to cancel."""
    raw = json.loads(line)
    if "cancel" in raw:
        return int(raw["cancel"])
    return ProbeRequest(**{**raw, "path": Path(raw["path"]), "limits": MediaLimits(**raw["limits"])})


def answer_line(request_id: int, outcome: MediaInfo | CodedError) -> bytes:
    """What came of a request."""
    if isinstance(outcome, MediaInfo):
        return _line({"id": request_id, "media": asdict(outcome)})
    failure = outcome.failure
    error = {"code": failure.code, "message": failure.message, "hint": failure.hint, "detail": failure.detail}
    return _line({"id": request_id, "error": error})


def parse_answer(line: bytes) -> tuple[int, MediaInfo | CodedError]:
    """The id of the request and what came of it. Raises ValueError, KeyError or TypeError for anything else."""
    raw: dict[str, Any] = json.loads(line)
    if "media" in raw:
        return int(raw["id"]), MediaInfo(**raw["media"])
    error = raw["error"]
    return int(raw["id"]), CodedError(
        FailureCode(error["code"]), error["message"], error["hint"], **dict(error["detail"])
    )


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode("ascii") + b"\n"
