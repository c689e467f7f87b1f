"""Reading request bodies under limits, and JSON strictly."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from app.api.errors import invalid_request
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.IGNORECASE)
_SHOWN = 64
"""Characters of a key that is not ours."""
_SHOWN_PATH = 512
"""Characters of a path of such keys; its end tells more than its beginning."""


def declared_length(request: Request) -> int | None:
    """The Content-Length, None where there is none that can be believed."""
    raw = request.headers.get("content-length", "")
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 20 else None


async def pieces(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises REQUEST_TIMEOUT when nothing comes for `idle_s`: a stalled sender holds a file.

    Raises `ClientDisconnect` when the sender goes away, UNSUPPORTED_MEDIA_TYPE for a body that is compressed.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        text, hint = f"The body is sent as {coding[:_SHOWN]!r}.", "Send it as it is, without Content-Encoding."
        headers = {"Accept-Encoding": "identity"}
        raise ProblemError(
            ProblemCode.UNSUPPORTED_MEDIA_TYPE, text, field="Content-Encoding", hint=hint, headers=headers
        )
    more = True
    while more:
        try:
            async with asyncio.timeout(idle_s):
                message = await request.receive()
        except TimeoutError:
            text = f"Nothing arrived for {idle_s:g} s."
            raise ProblemError(ProblemCode.REQUEST_TIMEOUT, text, headers={"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            yield piece


async def read_limited(request: Request, limit: int, idle_s: float) -> bytes:
    """The whole body. Raises REQUEST_TOO_LARGE at the first sign that it passes `limit` bytes, REQUEST_TIMEOUT."""
    if (declared_length(request) or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in pieces(request, idle_s):
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def read_object(request: Request, limit: int, idle_s: float, *, required: bool = True) -> dict[str, Any]:
    """The body as a JSON object; where none is `required`, no body is an empty one.

    Raises UNSUPPORTED_MEDIA_TYPE, REQUEST_TOO_LARGE, REQUEST_TIMEOUT, REQUEST_INVALID.
    """
    content_type = request.headers.get("content-type", "application/json")
    if not _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise ProblemError(ProblemCode.UNSUPPORTED_MEDIA_TYPE, field="Content-Type")
    body = await read_limited(request, limit, idle_s)
    return parse_object(body) if body or required else {}


def parse_object(body: bytes, field: str | None = None) -> dict[str, Any]:
    """The JSON object in `body`. Raises REQUEST_INVALID; `field` is where it stood."""
    try:
        value = from_json(body, allow_inf_nan=False)
        # That parser is the strict one, but takes the last of two equal keys: this one is asked for nothing else.
        json.loads(body, object_pairs_hook=_no_key_twice, parse_int=len, parse_float=len)
    except _KeyTwice:
        raise _duplicate(body) from None
    except ValueError as error:
        raise _not_json(field, f"This is not JSON: {str(error).rstrip('.')}.", "json") from None
    if not isinstance(value, dict):
        raise _not_json(field, "This is not a JSON object.", "not_an_object")
    return value


class _KeyTwice(Exception):
    """An object has a key twice."""


def _no_key_twice(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _KeyTwice


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys as they were written."""


def _duplicate(body: bytes) -> ProblemError:
    path = _path_to_duplicate(json.loads(body, object_pairs_hook=_Pairs, parse_int=len, parse_float=len)) or ()
    field = ".".join(path)[-_SHOWN_PATH:]
    text = f"The key {path[-1]!r} is there twice in one object." if path else "A key is there twice in one object."
    return invalid_request([FieldError(field or None, ProblemCode.REQUEST_INVALID, "duplicate", text, "Send it once.")])


def _path_to_duplicate(value: Any) -> tuple[str, ...] | None:
    """Where the first key is that its object has twice. The depth is bounded: the strict parser has read it before."""
    if isinstance(value, _Pairs):
        key = next((key for key, times in Counter(key for key, _ in value).items() if times > 1), None)
        if key is not None:
            return (key[:_SHOWN],)
    parts = value if isinstance(value, _Pairs) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        below = _path_to_duplicate(part)
        if below is not None:
            return (str(name)[:_SHOWN], *below)
    return None


def _not_json(field: str | None, detail: str, reason: str) -> ProblemError:
    hint = "Send one JSON object in UTF-8; /docs has an example for this address."
    return invalid_request([FieldError(field, ProblemCode.REQUEST_INVALID, reason, detail, hint)])


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        ProblemCode.REQUEST_TOO_LARGE, f"The body is larger than {limit} bytes.", reason="body_bytes", limit=limit
    )
