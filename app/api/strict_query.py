"""Query parameters that an address does not take, or that stand twice where one is read, are refused by name.

A misspelled parameter that is ignored looks like one that works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, get_origin

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.api.errors import invalid_request
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError

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


class OfRequestAlone(APIRoute):
    """A route whose function takes the request alone, under that name, and gives a response. It takes no query.

    Called as it is: to look for parameters and dependencies where there are none takes a tenth of a submission's time.
    Of the dependencies of its routers `strict_query` alone is heeded.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function, behind `strict_query`. Raises TypeError for one that wants more."""
        declared = self.dependant
        if declared.path_params or declared.query_params or declared.header_params or declared.body_params:
            raise TypeError(f"{self.path} has parameters of its own.")

        async def handle(request: Request) -> Response:
            await strict_query(request)
            response: Response = await self.endpoint(request=request)
            return response

        return handle


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
