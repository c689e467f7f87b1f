"""What an operator says of the server behind a tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("must not hold credentials; give them as `token`")
    if parts.query or parts.fragment:
        raise ValueError("must end with its path")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base)]
"""Where a server's own paths begin; without a slash at the end."""


class RemoteSettings(BaseModel):
    """Settings that every renderer with a server behind it has. A mistake is told when the configuration is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: BaseUrl
    token: str | None = Field(None, repr=False)
    """Sent as `Authorization: Bearer`, for servers behind a proxy that asks for it."""
    connect_s: Seconds = 2.0
    """Until the connection stands, name look-up and TLS included."""
    header_s: Seconds = 3.0
    """From the request's last byte to the head of the answer."""
    read_s: Seconds = 10.0
    """Between two pieces of an answer, or of a request that is being sent."""
    call_s: Seconds = 15.0
    """A whole call, its retries and their pauses included. The length of a render is not a call's."""
    transfer_s: Seconds = 300.0
    """Sending an input or fetching a result, as a whole."""
    poll_s: Seconds = 1.0
    """Between two looks at a running render."""
    unreachable_s: Seconds = 30.0
    """How long a server that renders may leave our looks unanswered."""
    silence_s: Seconds = 600.0
    """How long a render may show no change at all."""
    lost_s: Seconds = 60.0
    """How long the server may not know a render before it counts as lost."""
    max_answer_bytes: Annotated[int, Field(gt=0)] = 16 * 1024**2
    max_result_bytes: Annotated[int, Field(gt=0)] = 2 * 1024**3


def why_absent(settings: Mapping[str, Any]) -> str:
    """Why a renderer that needs a server cannot be offered with these settings; empty if it can. Asks no server."""
    return "" if settings.get("url") else "no server is configured (`url` of its tier)"
