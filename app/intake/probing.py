"""What is in a blob: asked of the sandbox once per content, remembered, and held against what a field needs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Literal, Protocol

from app.intake.blobs import BlobStore
from app.intake.refusal import refuse
from app.media.info import MediaInfo, MediaLimits
from app.media.roles import require_audio, require_source
from app.retry.taxonomy import CodedError, FailureCode

Role = Literal["source", "audio"]
CACHE_ENTRIES = 4096


class Prober(Protocol):
    """Opens untrusted media in a process of its own (`app.media.sandbox.Sandbox`)."""

    async def probe(self, path: Path, limits: MediaLimits) -> MediaInfo:
        """What the file is. Raises `CodedError`."""


class ProbeCache:
    """Probe results by content. Callers that ask for one content at the same time share one probe.

    Refusals are not remembered: a decoder that ran out of time under load may manage the next time.
    """

    def __init__(self, blobs: BlobStore, prober: Prober, limits: MediaLimits, *, entries: int = CACHE_ENTRIES) -> None:
        self._blobs = blobs
        self._prober = prober
        self._limits = limits
        self._entries = entries
        self._known: OrderedDict[str, MediaInfo] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[MediaInfo]] = {}

    def known(self, sha256: str) -> MediaInfo | None:
        """What the blob is, None unless it was probed before."""
        known = self._known.get(sha256)
        if known is not None:
            self._known.move_to_end(sha256)
        return known

    async def probe(self, sha256: str) -> MediaInfo:
        """What the blob is. Raises `CodedError` with a `reason`."""
        known = self.known(sha256)
        if known is not None:
            return known
        task = self._under_way.get(sha256)
        if task is None:
            task = asyncio.create_task(self._prober.probe(self._blobs.path(sha256), self._limits))
            self._under_way[sha256] = task
            task.add_done_callback(lambda done: self._finished(sha256, done))
        # A caller that goes away must not take the probe from the others.
        return await asyncio.shield(task)

    def _finished(self, sha256: str, task: asyncio.Task[MediaInfo]) -> None:
        del self._under_way[sha256]
        if task.cancelled() or task.exception() is not None:
            return
        self._known[sha256] = task.result()
        while len(self._known) > self._entries:
            self._known.popitem(last=False)


def check_role(info: MediaInfo, role: Role, source_kinds: frozenset[str]) -> None:
    """Raise INPUT_INVALID unless the file can be the task's source (of one of `source_kinds`) or its audio."""
    if role == "audio":
        require_audio(info)
        return
    require_source(info)
    require_kind(info.kind, source_kinds)
    if info.width <= 0 or info.height <= 0 or (info.kind == "video" and info.duration_s <= 0):
        raise refuse(FailureCode.INPUT_INVALID, "The source has no frames.", reason="no_video_frames")


def require_kind(kind: str, source_kinds: frozenset[str]) -> None:
    """Raise INPUT_INVALID unless a source may be of this kind."""
    if kind not in source_kinds:
        raise refuse(
            FailureCode.INPUT_INVALID,
            f"The renderer takes no {kind} as source, only: {', '.join(sorted(source_kinds))}.",
            "Send another source or choose another renderer.",
            reason="source_kind",
            kind=kind,
        )


def named(error: CodedError, sha256: str, name: str) -> CodedError:
    """The same error with the caller's file name in place of the blob's."""
    failure = error.failure
    return CodedError(failure.code, failure.message.replace(sha256, name), failure.hint, **failure.detail)
