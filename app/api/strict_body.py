"""Addresses that take no body: what one says there is refused by name, as anything else that would be ignored."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request

from app.api.body import declared_length, parse_object, read_limited
from app.api.errors import invalid_request
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError

NO_BODY = (408, 413, 415, 422)
"""What else an address answers that takes no body."""
_SHOWN = 64
"""Characters of a name that is not ours."""


def without_body(deps: ApiDependencies) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """A dependency. Raises REQUEST_INVALID for a body that says something; `{}` says nothing."""

    async def check(request: Request) -> None:
        if not declared_length(request) and "transfer-encoding" not in request.headers:
            return
        body = await read_limited(request, deps.settings.max_json_bytes, deps.settings.body_idle_s)
        if not body.strip():
            return
        try:
            names: list[str | None] = [name[:_SHOWN] for name in parse_object(body)]
        except ProblemError:
            names = [None]
        if names:
            code, text, hint = ProblemCode.REQUEST_INVALID, "This address takes no body.", "Leave it out."
            raise invalid_request([FieldError(name, code, "unexpected_body", text, hint) for name in names])

    return check
