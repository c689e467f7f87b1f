"""The intake: a caller's word for a file becomes an `InputRef`, or a refusal that names the field."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from app.intake.blobs import Blob, BlobStore
from app.intake.fetch import Fetcher, FetchLimits
from app.intake.files import LocalFiles
from app.intake.probing import ProbeCache, Prober, Role, check_role, named
from app.intake.refusal import InputsRefused, refuse, with_field
from app.media.info import MediaInfo, MediaLimits
from app.retry.taxonomy import CodedError, FailureCode
from app.store.records import InputRef, UploadRecord

SCHEMES = ("upload:", "file:", "http:", "https:")
ANY_SOURCE = frozenset({"image", "video"})


class Uploads(Protocol):
    """Where uploads are remembered (`app.store.interface.Store`)."""

    async def aget_upload(self, upload_id: str) -> UploadRecord | None:
        """An upload that has not expired."""


@dataclass(frozen=True, slots=True)
class Received:
    """A file that came inside the request itself; its bytes are a blob already."""

    blob: Blob
    name: str


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What the intake takes."""

    media_roots: tuple[Path, ...] = ()
    """Folders below which `file://` is allowed. None: not at all."""
    allow_private_addresses: bool = False
    media: MediaLimits = field(default_factory=MediaLimits)
    fetch: FetchLimits = field(default_factory=FetchLimits)


class Intake:
    """Takes inputs in. One per service; `close` it before the sandbox."""

    def __init__(self, blobs: BlobStore, uploads: Uploads, prober: Prober, settings: IntakeSettings) -> None:
        self.blobs = blobs
        self._uploads = uploads
        self._max_bytes = settings.media.max_bytes
        self._probes = ProbeCache(blobs, prober, settings.media)
        self._files = LocalFiles(blobs, settings.media_roots)
        self._fetcher = Fetcher(blobs, allow_private_addresses=settings.allow_private_addresses, limits=settings.fetch)

    async def resolve(
        self, source: str | Received, audio: str | Received, *, source_kinds: frozenset[str] = ANY_SOURCE
    ) -> tuple[InputRef, InputRef]:
        """Both inputs of a task, stored and probed. Raises `InputsRefused` with one error per refused field."""
        results = await asyncio.gather(
            self._one("source", source, source_kinds), self._one("audio", audio, source_kinds), return_exceptions=True
        )
        errors: Sequence[BaseException] = [r for r in results if isinstance(r, BaseException)]
        coded = [e for e in errors if isinstance(e, CodedError)]
        for error in errors:
            if not isinstance(error, CodedError):
                raise error
        if coded:
            raise InputsRefused(coded)
        first, second = results
        assert isinstance(first, InputRef)
        assert isinstance(second, InputRef)
        return first, second

    async def inspect(self, sha256: str, name: str) -> MediaInfo:
        """What a stored content is. Raises `CodedError`, whose message speaks of `name`."""
        try:
            return await self._probes.probe(sha256)
        except CodedError as error:
            raise named(error, sha256, name) from error

    async def close(self) -> None:
        """Close connections and stop the threads."""
        await self._fetcher.close()
        await asyncio.to_thread(self.blobs.close)

    async def _one(self, role: Role, given: str | Received, source_kinds: frozenset[str]) -> InputRef:
        try:
            uri = f"multipart:{given.name}" if isinstance(given, Received) else given
            blob, name = await self._stored(given)
            info = await self.inspect(blob.sha256, name)
            check_role(info, role, source_kinds)
        except CodedError as error:
            raise with_field(error, role) from error
        return InputRef(uri=uri, sha256=blob.sha256, bytes=blob.bytes, name=name, media=asdict(info))

    async def _stored(self, given: str | Received) -> tuple[Blob, str]:
        if isinstance(given, Received):
            return given.blob, given.name
        scheme = given[: given.find(":") + 1].lower()
        match scheme:
            case "upload:":
                return await self._uploaded(given[len(scheme) :])
            case "file:":
                return await self._files.ingest(given, max_bytes=self._max_bytes)
            case "http:" | "https:":
                return await self._fetcher.fetch(given, max_bytes=self._max_bytes)
        raise refuse(
            FailureCode.INPUT_INVALID,
            "The address has none of the known schemes.",
            "Give upload:<id>, https://..., http://... or file:///...",
            reason="scheme",
        )

    async def _uploaded(self, upload_id: str) -> tuple[Blob, str]:
        upload = await self._uploads.aget_upload(upload_id)
        if upload is None or not self.blobs.touch(upload.sha256):
            raise refuse(
                FailureCode.INPUT_NOT_FOUND,
                f"There is no upload {upload_id[:64]!r}.",
                "Uploads are kept for a limited time: send the file again.",
                reason="no_such_upload",
            )
        return Blob(upload.sha256, upload.bytes), upload.name
