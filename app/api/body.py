"""Reading request bodies under limits, and JSON strictly."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from app.api.errors import invalid_request
from app.api.problems import FieldError, ProblemCode, ProblemError

_SHOWN = 64
"""Characters of a key that is not ours."""


def declared_length(request: Request) -> int | None:
    """The Content-Length, None where there is none that can be believed."""
    raw = request.headers.get("content-length", "")
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 20 else None


async def pieces(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises REQUEST_TIMEOUT when nothing comes for `idle_s`: a stalled sender holds a file."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            text = f"Nothing arrived for {idle_s:g} s."
            raise ProblemError(ProblemCode.REQUEST_TIMEOUT, text, headers={"Connection": "close"}) from None
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


def parse_object(body: bytes, field: str | None = None) -> dict[str, Any]:
    """The JSON object in `body`. Raises REQUEST_INVALID; `field` is where it stood."""
    try:
        value = from_json(body, allow_inf_nan=False)
        # That parser is the strict one, but takes the last of two equal keys: this one is asked for nothing else.
        json.loads(body, object_pairs_hook=_no_key_twice, parse_int=len, parse_float=len)
    except ValueError as error:
        raise _not_json(field, f"This is not JSON: {str(error).rstrip('.')}.", "json") from None
    if not isinstance(value, dict):
        raise _not_json(field, "This is not a JSON object.", "not_an_object")
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) == len(pairs):
        return
    key = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)[:_SHOWN]
    text = f"The key {key!r} is there twice in one object."
    raise invalid_request([FieldError(key, ProblemCode.REQUEST_INVALID, "duplicate", text, "Send it once.")])


def _not_json(field: str | None, detail: str, reason: str) -> ProblemError:
    hint = 'Send one JSON object in UTF-8, such as {"source": "...", "audio": "..."}.'
    return invalid_request([FieldError(field, ProblemCode.REQUEST_INVALID, reason, detail, hint)])


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        ProblemCode.REQUEST_TOO_LARGE, f"The body is larger than {limit} bytes.", reason="body_bytes", limit=limit
    )
