"""A video into a file, on from where the last try broke off."""

from __future__ import annotations

import hashlib
from pathlib import Path

from greenroom.client.arguments import OnBytes
from greenroom.client.connection import Connection


async def fetch(
    connection: Connection, url: str, sha256: str, total: int, part: Path, on_bytes: OnBytes | None
) -> None:
    """Bring what is missing of `part`, a file of `total` bytes. Raises `ApiError`, httpx's errors, OSError."""
    done = part.stat().st_size if part.exists() else 0
    if done >= total > 0:
        return
    headers = {"accept": "*/*"} | ({"range": f"bytes={done}-", "if-range": f'"{sha256}"'} if done else {})
    async with connection.stream(url, headers=headers) as response:
        resumed = response.status_code == 206
        done = done if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            async for (
                chunk
            ) in response.aiter_bytes():  # as it comes: a chunk that is being filled is lost with its connection
                file.write(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done, total)


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
