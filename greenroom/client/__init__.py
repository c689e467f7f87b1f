"""A client of the Greenroom service, for threads (`Client`) and for asyncio (`AsyncClient`).

    from pathlib import Path
    from greenroom.client import Client

    with Client("http://127.0.0.1:8000") as client:
        task = client.generate(Path("portrait.png"), Path("speech.wav"))
        task = client.wait(task)
        client.download(task, Path("talking.mp4"))

It imports neither torch nor the service. What is transient (no answer, 408, 425, 429, 5xx but 501 and 505) is tried
again with growing pauses, `Retry-After` honoured; a submission carries an idempotency key of its own, so that a repeat
never makes a second task.
"""

from greenroom.client.aio import AsyncClient
from greenroom.client.errors import (
    ApiError,
    ChecksumMismatch,
    GreenroomError,
    ServiceUnreachable,
    TaskNotSucceeded,
    WaitTimeout,
)
from greenroom.client.models import Event, Task, Upload
from greenroom.client.sync import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "ChecksumMismatch",
    "Client",
    "Event",
    "GreenroomError",
    "ServiceUnreachable",
    "Task",
    "TaskNotSucceeded",
    "Upload",
    "WaitTimeout",
]
