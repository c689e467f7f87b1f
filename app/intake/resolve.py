"""The intake: a caller's word for a file becomes an `InputRef`, or a refusal that names the field."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from app.intake.blobs import Blob, BlobStore
from app.intake.fetch import Fetcher, FetchLimits
from app.intake.files import LocalFiles
from app.intake.probing import ProbeCache, Prober, Role, check_role, named, require_kind
from app.intake.refusal import InputsRefused, refuse, with_field
from app.intake.results import Awaited, Result, take
from app.media.info import MediaInfo, MediaLimits
from app.retry.taxonomy import CodedError, FailureCode
from app.store.records import InputRef, UploadRecord

_MEDIA = tuple(field.name for field in fields(MediaInfo))
ANY_SOURCE = frozenset({"image", "video"})


class Uploads(Protocol):
    """Where uploads are remembered (`app.store.interface.Store`)."""

    async def aget_uploads(self, upload_ids: Sequence[str]) -> dict[str, UploadRecord]:
        """Those of some uploads that are there and have not expired, by their ids."""


@dataclass(frozen=True, slots=True)
class Received:
    """A file that came inside the request itself; its bytes are a blob already."""

    blob: Blob
    name: str


Given = str | Received | Result | Awaited | InputRef
"""An input: an address, a file in the request, another task's video, or what another task was given."""


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What the intake takes."""

    media_roots: tuple[Path, ...] = ()
    """Folders below which `file://` is allowed. None: not at all."""
    allow_private_addresses: bool = False
    media: MediaLimits = field(default_factory=MediaLimits)
    fetch: FetchLimits = field(default_factory=FetchLimits)
    ca_file: Path | None = None
    """Authorities that are believed beside the public ones."""


class Intake:
    """Takes inputs in. One per service; `close` it before the sandbox."""

    def __init__(self, blobs: BlobStore, uploads: Uploads, prober: Prober, settings: IntakeSettings) -> None:
        self.blobs = blobs
        self._uploads = uploads
        self._max_bytes = settings.media.max_bytes
        self._probes = ProbeCache(blobs, prober, settings.media)
        self._files = LocalFiles(blobs, settings.media_roots)
        self._fetcher = Fetcher(
            blobs,
            allow_private_addresses=settings.allow_private_addresses,
            limits=settings.fetch,
            ca_file=settings.ca_file,
        )

    async def resolve(
        self, source: Given, audio: Given, *, source_kinds: frozenset[str] = ANY_SOURCE
    ) -> tuple[InputRef, InputRef]:
        """Both inputs of a task, stored and probed; of what is awaited, its place.

        Raises `InputsRefused` with one error per refused field.
        """
        named_uploads = [upload_id for given in (source, audio) if (upload_id := _upload_id(given)) is not None]
        uploads = await self._uploads.aget_uploads(named_uploads) if named_uploads else {}
        face = self._at_hand("source", source, source_kinds, uploads)
        voice = self._at_hand("audio", audio, source_kinds, uploads)
        if face is not None and voice is not None:
            return face, voice
        results = await asyncio.gather(
            self._one("source", source, source_kinds, uploads),
            self._one("audio", audio, source_kinds, uploads),
            return_exceptions=True,
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

    def _at_hand(
        self, role: Role, given: Given, source_kinds: frozenset[str], uploads: Mapping[str, UploadRecord]
    ) -> InputRef | None:
        """An upload that was probed before and suits its role, for which nothing has to be waited; None for all else.

        What is wrong with an input `_one` says, together with what is wrong with the other.
        """
        upload = uploads.get(_upload_id(given) or "")
        info = None if upload is None else self._probes.known(upload.sha256)
        if upload is None or info is None or not self.blobs.touch_again(upload.sha256):
            return None
        try:
            check_role(info, role, source_kinds)
        except CodedError:
            return None
        return _reference(given, Blob(upload.sha256, upload.bytes), upload.name, info)

    async def _one(
        self, role: Role, given: Given, source_kinds: frozenset[str], uploads: Mapping[str, UploadRecord]
    ) -> InputRef:
        try:
            if isinstance(given, Awaited):
                if role == "source":
                    require_kind("video", source_kinds)
                return given.reference()
            blob, name = await self._stored(given, uploads)
            info = await self.inspect(blob.sha256, name)
            check_role(info, role, source_kinds)
        except CodedError as error:
            raise with_field(error, role) from error
        return _reference(given, blob, name, info)

    async def _stored(
        self, given: str | Received | Result | InputRef, uploads: Mapping[str, UploadRecord]
    ) -> tuple[Blob, str]:
        match given:
            case Received():
                return given.blob, given.name
            case Result():
                return await take(self.blobs, given), given.name
            case InputRef():
                return self._kept(given), given.name
        upload_id = _upload_id(given)
        if upload_id is not None:
            return self._uploaded(upload_id, uploads)
        match _scheme(given):
            case "file:":
                return await self._files.ingest(given, max_bytes=self._max_bytes)
            case "http:" | "https:":
                return await self._fetcher.fetch(given, max_bytes=self._max_bytes)
        raise refuse(
            FailureCode.INPUT_INVALID,
            "The address has none of the known schemes.",
            "Give upload:<id>, task:<id>, https://..., http://... or file:///...",
            reason="scheme",
        )

    def _kept(self, given: InputRef) -> Blob:
        if not self.blobs.touch(given.sha256):
            text = f"The {given.name} of that task was removed."
            raise refuse(FailureCode.INPUT_NOT_FOUND, text, "Send it again.", reason="removed")
        return Blob(given.sha256, given.bytes)

    def _uploaded(self, upload_id: str, uploads: Mapping[str, UploadRecord]) -> tuple[Blob, str]:
        upload = uploads.get(upload_id)
        if upload is None or not self.blobs.touch(upload.sha256):
            raise refuse(
                FailureCode.INPUT_NOT_FOUND,
                f"There is no upload {upload_id[:64]!r}.",
                "Uploads are kept for a limited time: send the file again.",
                reason="no_such_upload",
            )
        return Blob(upload.sha256, upload.bytes), upload.name


def _reference(given: Given, blob: Blob, name: str, info: MediaInfo) -> InputRef:
    match given:
        case str():
            uri = given
        case Received():
            uri = f"multipart:{given.name}"
        case _:
            uri = given.uri
    media = {field: getattr(info, field) for field in _MEDIA}
    return InputRef(uri=uri, sha256=blob.sha256, bytes=blob.bytes, name=name, media=media)


def _scheme(given: str) -> str:
    return given[: given.find(":") + 1].lower()


def _upload_id(given: Given) -> str | None:
    """The id in `upload:<id>`, None for anything else."""
    if not isinstance(given, str) or _scheme(given) != "upload:":
        return None
    return given[len("upload:") :]
