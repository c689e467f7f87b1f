"""Where in a trace something happens, as W3C Trace Context says it (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace. `trace_id` is 32 lower-case hex digits, `span_id` 16; neither is all zeros."""

    trace_id: str
    span_id: str
    sampled: bool = True
    """Whether the trace is recorded: decided once where it begins, and the same from there on."""

    @property
    def traceparent(self) -> str:
        """The header that hands the context on."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    def at(self, span_id: str) -> TraceContext:
        """Another span of the same trace."""
        return replace(self, span_id=span_id)


def parse(traceparent: str | None) -> TraceContext | None:
    """The context in a `traceparent` header, None where there is none or it is malformed."""
    match = _TRACEPARENT.fullmatch((traceparent or "").strip())
    if match and match[1] != "ff" and not (match[1] == "00" and match[5]) and set(match[2]) != {"0"} != set(match[3]):
        return TraceContext(match[2], match[3], bool(int(match[4], 16) & _SAMPLED))
    return None


def span_id(*of: object) -> str:
    """The id of the span that is about `of`: whoever tells of the same thing names the same span."""
    return hashlib.blake2b("/".join(map(str, of)).encode(), digest_size=8).hexdigest()
