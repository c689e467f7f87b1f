"""What callers send. Every field of the contract is here from the first day; unknown ones are refused by name."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.notify.signing import BadSecret, key_of
from app.tasks.notices import DEFAULT_NOTICES, NOTICES
from app.tasks.rank import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN
from app.tasks.status import Status

MAX_DEADLINE_S = 30 * 86_400.0
"""Thirty days: a longer deadline is a mistake of units."""
MAX_DEPTH = 20
_KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"


def _timestamp(value: object) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError("date_time", "Give a date and time as text, for example 2026-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(value)
        aware = moment.tzinfo is not None
        moment.astimezone(UTC)  # the year 9999 ends earlier there than in the west: answers are in UTC
    except (ValueError, OverflowError):
        raise PydanticCustomError("date_time", "This is not a date and time such as 2026-01-31T12:00:00Z") from None
    if not aware:
        raise PydanticCustomError("time_zone", "The time has no zone: end it with Z or an offset such as +02:00")
    return moment


def _whole(value: object) -> object:
    """3.0 is an integer in JSON Schema, and some languages write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json_object(value: object) -> object:
    if _depth(value) > MAX_DEPTH:
        raise PydanticCustomError("too_deep", "The value is nested more than {limit} deep", {"limit": MAX_DEPTH})
    return value


def _depth(value: object) -> int:
    """Nesting depth. Raises for numbers that JSON cannot write (1e999 is read as infinity)."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "A number is too large")
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


Moment = Annotated[datetime, BeforeValidator(_timestamp), WithJsonSchema({"type": "string", "format": "date-time"})]
"""An RFC 3339 time with a zone."""
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object)]
Uri = Annotated[str, Field(min_length=1, max_length=8192)]
TaskId = Annotated[str, Field(min_length=1, max_length=128)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _known_notice(value: str) -> str:
    if value not in NOTICES:
        raise PydanticCustomError("unknown_event", "There is no such event; there are {known}", {"known": _NOTICES})
    return value


def _usable_secret(value: str) -> str:
    try:
        key_of(value)
    except BadSecret as error:
        raise PydanticCustomError("secret", str(error).rstrip(".")) from None
    return value


_NOTICES = ", ".join(NOTICES)


class CallbackRequest(_Body):
    """Where to send webhooks: Standard Webhooks, see docs/webhooks.md."""

    url: Annotated[str, Field(min_length=1, max_length=2048, description="https://... or http://...")]
    events: list[Annotated[str, AfterValidator(_known_notice)]] = Field(
        default_factory=list,
        max_length=32,
        description=f"Any of {_NOTICES}. Left out or empty: {', '.join(DEFAULT_NOTICES)}.",
    )
    secret: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_usable_secret)] | None = Field(
        None,
        description="What to sign with: `whsec_` and base64, or any text, whose bytes are the key. Left out: the "
        "service's own. It is never shown again.",
    )


class _Order(_Body):
    """What an order for a video can say."""

    source: Uri | None = Field(
        None,
        description="The face: `upload:<id>`, `https://...`, `http://...`, `file:///...`, or `task:<id>`: the video of "
        "that task, which may be unfinished.",
    )
    audio: Uri | None = Field(
        None, description="The speech: as `source`. A video with sound will do, so that of a task, too."
    )
    renderer: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="Name of a tier or renderer; left out, the service chooses."
    )
    fallback: Literal["none", "equal", "any"] | None = Field(
        None,
        description="What may serve the task if its first tier cannot: `none`, `equal` (no degraded tier), `any`. By "
        "default `any`, and `none` where `renderer` is named.",
    )
    not_before: Moment | None = Field(None, description="Do not start before this moment.")
    after: Annotated[list[TaskId], Field(max_length=100)] = Field(
        default_factory=list, description="Tasks to wait for: it starts once all of them have SUCCEEDED."
    )
    if_unfinished: Literal["wait", "refuse"] = Field(
        "wait",
        description="Where a task that is named here (`task:<id>`, `after`) has not finished: `wait` for it, or "
        "`refuse` this one with a 409.",
    )
    start_deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = Field(
        None, description="Fail if not started this many seconds after the submission (after `not_before` if later)."
    )
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = Field(
        None, description="Fail if not finished this many seconds after the submission (after `not_before` if later)."
    )
    cache: bool | None = Field(
        None,
        description="False: render, whatever is cached. By default the result of an equal task is served where there "
        "is one, and one that is on its way is waited for.",
    )
    callback: CallbackRequest | None = Field(None, description="Where to send webhooks as the task goes on.")
    request_id: Annotated[str, Field(pattern=_KEY_PATTERN)] | None = Field(
        None, description="Idempotency key, for callers that cannot set the `Idempotency-Key` header."
    )


class GenerateRequest(_Order):
    """The body of `POST /generate`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"source": "upload:upl_01jk", "audio": "https://example.com/speech.mp3", "metadata": {"order": 7}},
                {"source": "task:task_01jk", "audio": "upload:upl_01jm", "after": ["task_01jh"]},
                {"source": "task:task_01jk", "audio": "upload:upl_01jm", "if_unfinished": "refuse"},
            ]
        }
    )

    options: JsonObject = Field(default_factory=dict, description="Options of the renderer, checked by its own model.")
    priority: Annotated[int, Field(ge=PRIORITY_MIN, le=PRIORITY_MAX), BeforeValidator(_whole)] = Field(
        PRIORITY_DEFAULT, description="9 goes first. Lower ones age, so that none starves."
    )
    metadata: JsonObject = Field(default_factory=dict, description="Yours: kept and given back, never read.")


class DeriveRequest(_Order):
    """The body of `POST /tasks/{id}/derive`: what is to be different. What is left out is as in the task."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"audio": "upload:upl_01jm"},
                {"options": {"crop": "face", "strength": None}, "priority": 9},
                {"renderer": "wav2lip", "callback": None},
            ]
        }
    )

    options: JsonObject | None = Field(
        None, description="Merged with those of the task (JSON Merge Patch): null takes one away, and all of them."
    )
    priority: Annotated[int, Field(ge=PRIORITY_MIN, le=PRIORITY_MAX), BeforeValidator(_whole)] | None = Field(
        None, description="9 goes first. Left out or null: that of the task."
    )
    metadata: JsonObject | None = Field(None, description="Merged with that of the task, as `options`.")


class TaskQuery(BaseModel):
    """The query of `GET /tasks`."""

    model_config = ConfigDict(extra="forbid")

    status: list[Status] = Field([], description="Any of these; may be repeated.")
    renderer: Annotated[str, Field(max_length=64)] | None = Field(None, description="Tasks that named this one.")
    retry_of: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="Tasks that try this one again."
    )
    derived_from: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="Tasks that were made from this one with changes."
    )
    waits_for: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None,
        description="Tasks that wait for this one: for its video, for its end, or as an equal one for its result.",
    )
    created_after: Moment | None = Field(None, description="Tasks that were accepted later than this.")
    created_before: Moment | None = Field(None, description="Tasks that were accepted earlier than this.")
    cursor: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(None, description="From `links.next`.")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(50, description="Tasks of a page.")


def json_bytes(value: object) -> int:
    """Length of `value` as compact UTF-8 JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
