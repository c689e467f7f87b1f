"""Reading Server-Sent Events (WHATWG HTML, section 9.2), as far as the service uses them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from greenroom.client.models import Event


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[Event | None]:
    """Events from the lines of a stream; None for a comment, which says that the connection lives."""
    kind, data, number = "message", "", None
    async for line in lines:
        if line.startswith(":"):
            yield None
        elif line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data += value
            elif name == "id" and value.isdecimal():
                number = int(value)
        elif data:
            yield Event(id=number, type=kind, data=json.loads(data))
            kind, data, number = "message", "", None
