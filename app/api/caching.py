"""The result cache as submissions use it: the keys that a request can be answered by, and a look at the files behind.

Before a task is written, the file that it would be given is looked at: that it is there with its length each time, its
checksum when this process serves it for the first time or it has changed since. A result that fails is forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from app.store.interface import Store
from app.store.records import Artifact, InputRef
from app.tiers.cache_key import Contents
from app.tiers.tiers import Tiers

log = structlog.get_logger(__name__)

_REMEMBERED = 10_000
"""Files of which it is known that their checksum was right."""

_Facts = tuple[int, int, int]
"""Length, time of change and number of a file: it is the same one while these are the same."""


class ResultCache:
    """For one event loop."""

    def __init__(self, store: Store, data_dir: Path, *, max_bytes: int) -> None:
        """`max_bytes` is for whoever asks how full it is."""
        self.max_bytes = max_bytes
        self._store = store
        self._data_dir = data_dir
        self._verified: OrderedDict[str, _Facts] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def usable_keys(
        self,
        tiers: Tiers,
        route: Sequence[str],
        options: Mapping[str, Any],
        source: InputRef,
        audio: InputRef,
    ) -> tuple[str, ...]:
        """The keys by which the store may answer, once every result that it would give has been looked at."""
        try:
            keys = tiers.cache_keys(route, options, Contents(source.sha256, audio.sha256))
        except (KeyError, ValidationError):
            return ()  # The tiers have changed since the route was made: the dispatcher gives the task another.
        if not keys:
            return ()
        while (found := await self._store.acached(keys)) is not None and not await self._is_good(found.output):
            log.warning("cached_result_dropped", path=found.output.path)
            await self._store.adrop_cached(found)
        return keys

    async def _is_good(self, output: Artifact) -> bool:
        path = self._data_dir / output.path
        facts = _facts(path)
        if facts is None or facts[0] != output.bytes:
            return False
        if self._verified.get(output.path) == facts:
            self._verified.move_to_end(output.path)
            return True
        async with self._one_at_a_time:
            if self._verified.get(output.path) != facts:
                if await asyncio.to_thread(_sha256, path) != output.sha256:
                    return False
                self._verified[output.path] = facts
                while len(self._verified) > _REMEMBERED:
                    self._verified.popitem(last=False)
        return True


def _facts(path: Path) -> _Facts | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
