"""The result cache as submissions use it: the keys that a request can be answered by, and a look at the files behind.

Where a task is given a cached result, its file is looked at in the very transaction: that it is there, and is the one
whose checksum this process has found right. One of which that is not known is examined first; a bad one is forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from app.store.interface import Store
from app.store.records import Artifact, CachedResult, InputRef
from app.tiers.cache_key import Contents
from app.tiers.tiers import Tiers

log = structlog.get_logger(__name__)

_REMEMBERED = 10_000
"""Files of which it is known that their checksum was right."""

_Facts = tuple[int, int, int]
"""Length, time of change and number of a file: it is the same one while these are the same."""


class ResultCache:
    """For one event loop; `trusts` may be called from any thread."""

    def __init__(self, store: Store, data_dir: Path, *, max_bytes: int) -> None:
        """`max_bytes` is for whoever asks how full it is."""
        self.max_bytes = max_bytes
        self._store = store
        self._data_dir = data_dir
        self._verified: OrderedDict[str, _Facts] = OrderedDict()
        self._lock = threading.Lock()
        self._one_at_a_time = asyncio.Lock()

    def keys(
        self, tiers: Tiers, route: Sequence[str], options: Mapping[str, Any], source: InputRef, audio: InputRef
    ) -> tuple[str, ...]:
        """The keys by which the store may answer."""
        try:
            return tiers.cache_keys(route, options, Contents(source.sha256, audio.sha256))
        except (KeyError, ValidationError):
            return ()  # The tiers have changed since the route was made: the dispatcher gives the task another.

    async def usable_keys(
        self, tiers: Tiers, route: Sequence[str], options: Mapping[str, Any], source: InputRef, audio: InputRef
    ) -> tuple[str, ...]:
        """As `keys`, with the result that the store would give examined beforehand: for writes that ask nobody."""
        keys = self.keys(tiers, route, options, source, audio)
        while keys and (found := await self._store.acached(keys)) is not None and not self.trusts(found):
            await self.examine(found)
        return keys

    def trusts(self, result: CachedResult) -> bool:
        """Whether the file of `result` is there and known to be good. Takes microseconds."""
        path = result.output.path
        with self._lock:
            known = self._verified.get(path)
            if known is not None:
                self._verified.move_to_end(path)
        return known is not None and known == _facts(self._data_dir / path)

    async def examine(self, result: CachedResult) -> None:
        """Read the file of `result` whole: from now on it is trusted, or it is forgotten."""
        if not await self._is_good(result.output):
            log.warning("cached_result_dropped", path=result.output.path)
            await self._store.adrop_cached(result)

    async def _is_good(self, output: Artifact) -> bool:
        path = self._data_dir / output.path
        facts = _facts(path)
        if facts is None or facts[0] != output.bytes:
            return False
        async with self._one_at_a_time:  # of many that ask for one file, the first reads it
            if self._verified.get(output.path) == facts:
                return True
            if await asyncio.to_thread(_sha256, path) != output.sha256:
                return False
            with self._lock:
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
