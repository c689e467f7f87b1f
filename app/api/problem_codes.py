"""The codes of problems, with status, title and hint of each.

`PROBLEMS` holds a row per code of the HTTP layer; the codes of inputs and failures come from the failure taxonomy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.retry.taxonomy import FailureCode


class ProblemCode(StrEnum):
    """Codes that only the HTTP layer has."""

    REQUEST_INVALID = "REQUEST_INVALID"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    DIGEST_INVALID = "DIGEST_INVALID"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    IDEMPOTENCY_KEY_INVALID = "IDEMPOTENCY_KEY_INVALID"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    TASK_NOT_FINISHED = "TASK_NOT_FINISHED"
    TASK_HAS_NO_OUTPUT = "TASK_HAS_NO_OUTPUT"
    TASK_NOT_FAILED = "TASK_NOT_FAILED"
    TASK_NOT_IN_REVIEW = "TASK_NOT_IN_REVIEW"
    PREDECESSOR_NOT_FOUND = "PREDECESSOR_NOT_FOUND"
    PREDECESSOR_UNFINISHED = "PREDECESSOR_UNFINISHED"
    PREDECESSOR_FAILED = "PREDECESSOR_FAILED"
    INPUTS_GONE = "INPUTS_GONE"
    OUTPUT_EXPIRED = "OUTPUT_EXPIRED"
    OUTPUT_GONE = "OUTPUT_GONE"
    UPLOAD_NOT_FOUND = "UPLOAD_NOT_FOUND"
    DELIVERY_NOT_FOUND = "DELIVERY_NOT_FOUND"
    DELIVERY_NOT_REPLAYABLE = "DELIVERY_NOT_REPLAYABLE"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    RANGE_NOT_SATISFIABLE = "RANGE_NOT_SATISFIABLE"
    QUEUE_FULL = "QUEUE_FULL"
    CLIENT_QUEUE_FULL = "CLIENT_QUEUE_FULL"
    DISK_LOW = "DISK_LOW"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    CLIENT_DISCONNECTED = "CLIENT_DISCONNECTED"
    SAVE_PATH_INVALID = "SAVE_PATH_INVALID"
    SAVE_PATH_TAKEN = "SAVE_PATH_TAKEN"
    SAVE_FAILED = "SAVE_FAILED"
    TASK_FAILED = "TASK_FAILED"
    TASK_CANCELLED = "TASK_CANCELLED"
    SERVICE_STOPPING = "SERVICE_STOPPING"
    TIER_NOT_FOUND = "TIER_NOT_FOUND"
    CONFIGURATION_INVALID = "CONFIGURATION_INVALID"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    HTTP_ERROR = "HTTP_ERROR"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """What a code means: `retryable` says whether the same request may succeed later."""

    status: int
    title: str
    hint: str
    retryable: bool = False


_P = ProblemCode

PROBLEMS: dict[ProblemCode, ProblemRow] = {
    _P.REQUEST_INVALID: ProblemRow(422, "The request is not valid", "Correct the fields named in `errors`."),
    _P.REQUEST_TOO_LARGE: ProblemRow(413, "The request is too large", "Send less, or upload files separately."),
    _P.REQUEST_TIMEOUT: ProblemRow(408, "The request did not arrive in time", "Send it again.", True),
    _P.UNSUPPORTED_MEDIA_TYPE: ProblemRow(
        415, "The content type is not supported", "Send application/json or multipart/form-data."
    ),
    _P.DIGEST_INVALID: ProblemRow(
        400, "The digest header cannot be read", "Write it as sha-256=:<base64 of the 32 bytes>: (RFC 9530)."
    ),
    _P.DIGEST_MISMATCH: ProblemRow(
        400, "The content does not have the announced digest", "It was damaged on its way: send it again.", True
    ),
    _P.IDEMPOTENCY_KEY_INVALID: ProblemRow(
        400, "The idempotency key is malformed", "Use 1 to 255 visible ASCII characters, for example a UUID."
    ),
    _P.IDEMPOTENCY_KEY_REUSED: ProblemRow(
        422, "The idempotency key belongs to another request", "Use a new key for a new request."
    ),
    _P.TASK_NOT_FOUND: ProblemRow(404, "There is no such task", "Check the id."),
    _P.TASK_NOT_FINISHED: ProblemRow(
        409, "The task has not finished", "Ask again after Retry-After seconds, or GET /tasks/{id}?wait=60.", True
    ),
    _P.TASK_HAS_NO_OUTPUT: ProblemRow(404, "The task ended without a result", "GET the task: `error` says why."),
    _P.TASK_NOT_FAILED: ProblemRow(
        409, "The task has not failed", "Only a FAILED task is tried again: submit another one with POST /generate."
    ),
    _P.TASK_NOT_IN_REVIEW: ProblemRow(
        409, "The task is not in review", "GET the task: somebody may have decided already, or nobody was asked."
    ),
    _P.PREDECESSOR_NOT_FOUND: ProblemRow(
        422, "The task that is to be waited for does not exist", "Check the id: tasks are kept for a limited time."
    ),
    _P.PREDECESSOR_UNFINISHED: ProblemRow(
        409,
        "The task that is to be waited for has not finished",
        "Send it again after Retry-After seconds, or leave `if_unfinished` out: it waits then.",
        True,
    ),
    _P.PREDECESSOR_FAILED: ProblemRow(
        409,
        "The task that is to be waited for has ended without a result",
        "Make it anew (retry it if it failed, derive from it if it was cancelled), and name the new task.",
    ),
    _P.INPUTS_GONE: ProblemRow(
        410, "The inputs were removed", "They are kept for a limited time: send them again with POST /generate."
    ),
    _P.OUTPUT_EXPIRED: ProblemRow(
        410, "The result's time is up", "Results are kept for a limited time: submit it again."
    ),
    _P.OUTPUT_GONE: ProblemRow(410, "The result was removed", "Its file is not there any more: submit it again."),
    _P.UPLOAD_NOT_FOUND: ProblemRow(
        404, "There is no such upload", "Uploads are kept for a limited time: send it again."
    ),
    _P.DELIVERY_NOT_FOUND: ProblemRow(
        404, "There is no such delivery", "GET /tasks/{id}/deliveries lists those of the task."
    ),
    _P.DELIVERY_NOT_REPLAYABLE: ProblemRow(
        409, "The delivery is not sent again", "A notice of progress is worthless later: GET the task instead."
    ),
    _P.PRECONDITION_FAILED: ProblemRow(412, "The precondition does not hold", "The entity tag is another one."),
    _P.RANGE_NOT_SATISFIABLE: ProblemRow(416, "The range lies outside the file", "Content-Range tells the length."),
    _P.QUEUE_FULL: ProblemRow(429, "The queue is full", "Send it again after Retry-After seconds.", True),
    _P.CLIENT_QUEUE_FULL: ProblemRow(
        429, "This client has too many waiting tasks", "Send it again after Retry-After seconds.", True
    ),
    _P.DISK_LOW: ProblemRow(
        507,
        "The disk is nearly full",
        "Nothing new is taken in until there is room; send it again later, or have the operator make room.",
        True,
    ),
    _P.STORE_UNAVAILABLE: ProblemRow(
        503, "The database cannot be used now", "Nothing was written; send it again after Retry-After seconds.", True
    ),
    _P.CLIENT_DISCONNECTED: ProblemRow(400, "The request ended before it was complete", "Send it again.", True),
    _P.SAVE_PATH_INVALID: ProblemRow(
        422, "The video cannot be saved at this path", "Name an .mp4 file below a folder that the operator opened."
    ),
    _P.SAVE_PATH_TAKEN: ProblemRow(
        409, "Another file lies at the path", "Name another path, or remove that file: none is written over."
    ),
    _P.SAVE_FAILED: ProblemRow(
        503, "The video is made, but could not be saved", "Ask again when the folder can be written: it is kept.", True
    ),
    _P.TASK_FAILED: ProblemRow(500, "The task has failed", "GET the task: its attempts say why."),
    _P.TASK_CANCELLED: ProblemRow(409, "The task was cancelled", "Send it again if the video is still wanted."),
    _P.SERVICE_STOPPING: ProblemRow(
        503, "The service is stopping", "The task stays: send the same request again when the service is back.", True
    ),
    _P.TIER_NOT_FOUND: ProblemRow(404, "There is no such tier", "GET /tiers lists them."),
    _P.CONFIGURATION_INVALID: ProblemRow(
        409, "The configuration cannot be used", "Correct it and reload again: the tiers stay as they were."
    ),
    _P.NOT_FOUND: ProblemRow(404, "There is nothing at this address", "See /docs for the addresses of this service."),
    _P.METHOD_NOT_ALLOWED: ProblemRow(405, "The method is not allowed here", "`Allow` names the methods."),
    _P.HTTP_ERROR: ProblemRow(400, "The request cannot be served", "See /docs."),
    _P.INTERNAL: ProblemRow(
        500, "An unexpected error happened", "Send it again; if it persists, report `request_id` to the operator.", True
    ),
}  # fmt: skip

INPUT_TITLES: dict[FailureCode, str] = {
    FailureCode.INPUT_NOT_FOUND: "An input does not exist",
    FailureCode.INPUT_FORBIDDEN: "An input may not be read",
    FailureCode.INPUT_INVALID: "An input is not usable",
    FailureCode.INPUT_NO_FACE: "The source shows no face",
    FailureCode.INPUT_TOO_LARGE: "An input is too large",
    FailureCode.UPSTREAM_TIMEOUT: "An input did not arrive in time",
    FailureCode.UPSTREAM_CONNECTION: "An input's server could not be reached",
    FailureCode.UPSTREAM_5XX: "An input's server failed",
    FailureCode.UPSTREAM_BUSY: "An input's server is busy",
    FailureCode.UPSTREAM_REJECTED: "An input's server refused",
    FailureCode.UPSTREAM_AUTH: "An input's server wants credentials",
    FailureCode.DISK_FULL: "The disk is full",
}
"""Failures that a request can meet before anything is queued, and are its answer."""

SERVICE_TITLES: dict[FailureCode, str] = {
    FailureCode.DISK_ERROR: "The disk cannot be used now",
    FailureCode.MEDIA_HELPER_FAILED: "The media helper does not work now",
    FailureCode.WORKER_START_FAILED: "The media helper cannot start",
}
"""Those of them that are the service's own: a 503 with Retry-After."""


def input_status(code: FailureCode, detail: Mapping[str, Any] | None = None) -> int:
    """The HTTP status of a failure before anything is queued: 413 for bytes in the request itself, 507 for a full disk,
    422 for an input's other faults, else 503."""
    if code is FailureCode.DISK_FULL:
        return 507
    if code is FailureCode.INPUT_TOO_LARGE and (detail or {}).get("reason") == "body_bytes":
        return 413
    return 422 if code in INPUT_TITLES else 503
