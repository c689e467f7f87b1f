"""Conditional and partial answers (RFC 9110, sections 13 and 14) for one immutable representation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from starlette.datastructures import Headers

_RANGE = re.compile(r"\s*bytes\s*=\s*(?P<set>.+)", re.IGNORECASE)
_SPEC = re.compile(r"(?P<first>\d{0,18})-(?P<last>\d{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `stop` (exclusive) of the file."""

    start: int
    stop: int


Verdict = Literal["full", "not_modified", "precondition_failed", "unsatisfiable"] | Span


def judge(headers: Headers, *, size: int, etag: str, modified: float, is_get: bool = True) -> Verdict:
    """What to answer. `etag` is strong and quoted; `modified` in epoch seconds.

    Order as in RFC 9110, 13.2.2. Several ranges are answered in full, which the RFC allows (14.2).
    """
    if "if-match" in headers and not matches(headers["if-match"], etag, weak=False):
        return "precondition_failed"
    if "if-none-match" in headers:
        if matches(headers["if-none-match"], etag, weak=True):
            return "not_modified"
    elif "if-modified-since" in headers:
        since = _http_date(headers["if-modified-since"])
        if since is not None and int(modified) <= since:
            return "not_modified"
    if not is_get or "range" not in headers or not _range_holds(headers.get("if-range"), etag, modified):
        return "full"
    return parse_range(headers["range"], size)


def parse_range(value: str, size: int) -> Literal["full", "unsatisfiable"] | Span:
    """The one range in a Range header. What is malformed, in another unit or multiple is ignored: `full`."""
    match = _RANGE.fullmatch(value)
    specs = [s.strip() for s in match["set"].split(",")] if match else []
    spec = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if spec is None or (not spec["first"] and not spec["last"]):
        return "full"
    if not spec["first"]:
        length = int(spec["last"])
        return Span(max(size - length, 0), size) if length and size else "unsatisfiable"
    first = int(spec["first"])
    last = int(spec["last"]) if spec["last"] else size - 1
    if spec["last"] and last < first:
        return "full"
    return Span(first, min(last + 1, size)) if first < size else "unsatisfiable"


def matches(value: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or `*`, holds this one; compared weakly, or as strong tags alone."""
    tags = [tag.strip() for tag in value.split(",")]
    return "*" in tags or any((tag.removeprefix("W/") if weak else tag) == etag for tag in tags)


def _range_holds(if_range: str | None, etag: str, modified: float) -> bool:
    """Whether the partial answer would fit to what the client has: a strong tag or an exact date."""
    if if_range is None:
        return True
    value = if_range.strip()
    if value.startswith(('"', "W/")):
        return value == etag
    return _http_date(value) == int(modified)


def _http_date(value: str) -> int | None:
    try:
        return int(parsedate_to_datetime(value).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
