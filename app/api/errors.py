"""The one place where exceptions become answers. Nothing that a caller sends may end in a 500 or a stack trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, Problem, ProblemError
from app.intake.refusal import InputsRefused
from app.retry.taxonomy import CodedError
from app.store.errors import IdempotencyConflict, NoSuchPredecessor, PredecessorFailed, StoreUnavailable

_log = structlog.get_logger("greenroom.http")

STORE_RETRY_AFTER_S = 1
_REASONS = {"extra_forbidden": "unknown_field"}
_MESSAGES = {
    "extra_forbidden": "There is no such field.",
    "missing": "The field is required.",
}


def field_errors(
    errors: Sequence[Mapping[str, Any]], *, prefix: tuple[str, ...] = (), skip: int = 0
) -> list[FieldError]:
    """Pydantic's errors as ours. `skip` leading parts of each location are dropped, `prefix` is put before the rest."""
    found = []
    for error in errors:
        location = [*prefix, *(str(part) for part in tuple(error["loc"])[skip:])]
        kind = str(error["type"])
        found.append(
            FieldError(
                field=".".join(location) or None,
                code=ProblemCode.REQUEST_INVALID,
                reason=_REASONS.get(kind, kind),
                detail=_MESSAGES.get(kind) or f"{str(error['msg']).removeprefix('Value error, ').rstrip('.')}.",
            )
        )
    return found


def invalid_request(errors: Sequence[FieldError]) -> ProblemError:
    """The 422 for one or more wrong fields."""
    first = errors[0]
    named = f"{first.field}: {first.detail}" if first.field else first.detail
    return ProblemError(
        ProblemCode.REQUEST_INVALID, named, field=first.field, reason=first.reason, hint=first.hint, errors=errors
    )


def problem_of(error: Exception) -> Problem | None:
    """The answer to a known kind of exception, None for an unknown one."""
    match error:
        case ProblemError():
            return error.problem
        case InputsRefused():
            return Problem.of_inputs(error.errors)
        case CodedError():
            return Problem.of_inputs([error])
        case RequestValidationError():
            # The first part of a location says where the field is: query, path, header.
            return invalid_request(field_errors(error.errors(), skip=1)).problem
        case ValidationError():
            return invalid_request(field_errors(error.errors(include_input=False, include_url=False))).problem
        case IdempotencyConflict():
            return Problem.of(ProblemCode.IDEMPOTENCY_KEY_REUSED, field="Idempotency-Key", task_id=error.task_id)
        case NoSuchPredecessor():
            return Problem.of(ProblemCode.PREDECESSOR_NOT_FOUND, str(error), task_id=error.task_id)
        case PredecessorFailed():
            task = error.task
            return Problem.of(
                ProblemCode.PREDECESSOR_FAILED,
                str(error),
                task_id=task.id,
                state=task.status.value,
                error_code=(task.error or {}).get("code"),
            )
        case StoreUnavailable():
            return Problem.of(ProblemCode.STORE_UNAVAILABLE, headers={"Retry-After": str(STORE_RETRY_AFTER_S)})
        case ClientDisconnect():
            return Problem.of(ProblemCode.CLIENT_DISCONNECTED)
        case HTTPException():
            return _of_http(error)
    return None


def _of_http(error: HTTPException) -> Problem:
    headers = error.headers or {}
    if error.status_code == 404:
        return Problem.of(ProblemCode.NOT_FOUND, headers=headers)
    if error.status_code == 405:
        return Problem.of(ProblemCode.METHOD_NOT_ALLOWED, headers=headers)
    return Problem.of(ProblemCode.HTTP_ERROR, str(error.detail), status=error.status_code, headers=headers)


def unexpected(error: Exception) -> Problem:
    """The 500 for what nobody foresaw. The log has the trace, the answer has the request's id."""
    _log.error("request_failed", exc_info=error, error_type=type(error).__name__)
    return Problem.of(ProblemCode.INTERNAL)


def answer(request: Request, error: Exception) -> Response:
    """The response to any exception of a route."""
    problem = problem_of(error) or unexpected(error)
    if problem.code == ProblemCode.METHOD_NOT_ALLOWED:
        problem.headers["Allow"] = ", ".join(request.app.state.methods.at(request.url.path))
    return problem.response(instance=request.url.path, request_id=request_id_of(request.scope))


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id that the middleware gave this request."""
    return str(scope.get("state", {}).get("request_id", ""))


def install(app: FastAPI) -> None:
    """Make `app` answer every exception with a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(request, error)

    kinds: list[type[Exception]] = [
        ProblemError, InputsRefused, CodedError, RequestValidationError, ValidationError, IdempotencyConflict,
        NoSuchPredecessor, PredecessorFailed, StoreUnavailable, ClientDisconnect, HTTPException,
    ]  # fmt: skip
    add: Callable[[type[Exception], Any], None] = app.add_exception_handler
    for kind in kinds:
        add(kind, handle)
