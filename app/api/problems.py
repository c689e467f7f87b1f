"""Problem details (RFC 9457): the one shape in which this API says no.

Its codes are those of `app.api.problem_codes` and of the failure taxonomy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from app.api.problem_codes import INPUT_TITLES, PROBLEMS, SERVICE_TITLES, ProblemCode, input_status
from app.retry.taxonomy import CodedError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with one field. `reason` is a stable word for programs."""

    field: str | None
    code: str
    reason: str | None
    detail: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """The entry in `errors`."""
        return {"field": self.field, "code": self.code, "reason": self.reason, "detail": self.detail, "hint": self.hint}


class ProblemError(Exception):
    """Raised by routes to answer with a problem. Only `code` is required; the row fills in the rest."""

    def __init__(
        self,
        code: ProblemCode,
        detail: str = "",
        *,
        field: str | None = None,
        reason: str | None = None,
        hint: str = "",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        self.problem = Problem.of(
            code, detail, field=field, reason=reason, hint=hint, errors=errors, headers=headers, **extra
        )
        super().__init__(self.problem.detail)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, ready to be answered."""

    status: int
    code: str
    title: str
    detail: str
    hint: str
    retryable: bool
    field: str | None = None
    reason: str | None = None
    errors: tuple[FieldError, ...] = ()
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        code: ProblemCode,
        detail: str = "",
        *,
        field: str | None = None,
        reason: str | None = None,
        hint: str = "",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
        **extra: Any,
    ) -> Problem:
        """The problem of an HTTP code."""
        row = PROBLEMS[code]
        return cls(
            status=status or row.status,
            code=code,
            title=row.title,
            detail=detail or f"{row.title}.",
            hint=hint or row.hint,
            retryable=row.retryable,
            field=field,
            reason=reason,
            errors=tuple(errors),
            headers=dict(headers or {}),
            extra=extra,
        )

    @classmethod
    def of_inputs(cls, refused: Sequence[CodedError]) -> Problem:
        """The problem of one or more refused inputs; the first gives code and status, all stand in `errors`."""
        first = refused[0].failure
        errors = [
            FieldError(e.failure.detail.get("field"), e.code, e.failure.detail.get("reason"), str(e), e.failure.hint)
            for e in refused
        ]
        facts = {k: v for k, v in first.detail.items() if k not in {"field", "reason", "status"} and _is_plain(v)}
        return cls(
            status=input_status(first.code, first.detail),
            code=first.code,
            title=(INPUT_TITLES | SERVICE_TITLES).get(first.code, "The service cannot take this now"),
            detail=str(refused[0]),
            hint=first.hint,
            retryable=all(e.failure.policy.retryable for e in refused),
            field=errors[0].field,
            reason=errors[0].reason,
            errors=tuple(errors),
            headers={} if first.code in INPUT_TITLES else {"Retry-After": "5"},
            extra={"facts": facts} if facts else {},
        )

    def body(self, *, instance: str, request_id: str) -> dict[str, Any]:
        """What the answer holds. `instance` is the path of the request."""
        body: dict[str, Any] = {
            "type": f"/docs#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "field": self.field,
            "reason": self.reason,
            "hint": self.hint,
            "retryable": self.retryable,
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [error.as_json() for error in self.errors]
        return body | self.extra

    def response(self, *, instance: str, request_id: str) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body(instance=instance, request_id=request_id), self.status, self.headers, MEDIA_TYPE)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
