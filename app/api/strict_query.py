"""Query parameters that an address does not take, or that stand twice where one is read, are refused by name.

A misspelled parameter that is ignored looks like one that works.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, get_origin

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.api.errors import invalid_request
from app.api.problems import FieldError, ProblemCode

_SHOWN = 64
"""Characters of a name that is not ours."""


async def strict_query(request: Request) -> None:
    """A dependency of whole routers. Raises REQUEST_INVALID with an entry for every wrong parameter."""
    if not request.scope["query_string"]:
        return
    takes = _parameters(request.scope["route"])
    errors = []
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in takes:
            text = f"There is no such query parameter here: {name[:_SHOWN]!r}."
            hint = f"This address takes: {', '.join(takes)}." if takes else "This address takes no query parameters."
            errors.append(FieldError(name[:_SHOWN], ProblemCode.REQUEST_INVALID, "unknown_parameter", text, hint))
        elif times > 1 and not takes[name]:
            text, hint = f"The query parameter is there {times} times.", "Send it once."
            errors.append(FieldError(name, ProblemCode.REQUEST_INVALID, "repeated_parameter", text, hint))
    if errors:
        raise invalid_request(errors)


def _parameters(route: APIRoute) -> dict[str, bool]:
    """The query parameters that a route declares, one by one or as a model, and whether each may be repeated."""
    found: dict[str, Any] = {}
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {name: inner.annotation for name, inner in kind.model_fields.items()}
        else:
            found[field.alias] = kind
    return {name: get_origin(kind) is list for name, kind in found.items()}
