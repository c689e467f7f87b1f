"""From a caller's word to a checked input: probes shared and remembered, roles checked, errors tied to fields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from app.intake.blobs import TOUCH_S, Blob, BlobStore
from app.intake.probing import ProbeCache
from app.intake.refusal import InputsRefused, refuse
from app.intake.resolve import Intake, IntakeSettings, Received
from app.media.info import MediaInfo, MediaLimits
from app.retry.taxonomy import CodedError, FailureCode
from app.store.records import UploadRecord

pytestmark = pytest.mark.anyio

IMAGE = MediaInfo("image", "png", 3, width=64, height=48)
VIDEO = MediaInfo("video", "mp4", 3, duration_s=1.0, width=64, height=48, fps=25.0, video_codec="h264")
SPEECH = MediaInfo("audio", "wav", 3, duration_s=1.0, audio_codec="pcm_s16le", audio_duration_s=1.0)


class StandInProber:
    """Knows files by their content; holds answers back until told."""

    def __init__(self, known: dict[bytes, MediaInfo | CodedError]) -> None:
        self.known = known
        self.calls = 0
        self.release = asyncio.Event()
        self.release.set()

    async def probe(self, path: Path, limits: MediaLimits) -> MediaInfo:
        self.calls += 1
        await self.release.wait()
        answer = self.known[path.read_bytes()]
        if isinstance(answer, CodedError):
            raise answer
        return answer


class SomeUploads:
    """A store that remembers what a test tells it."""

    def __init__(self) -> None:
        self.records: dict[str, UploadRecord] = {}

    async def aget_uploads(self, upload_ids: Sequence[str]) -> dict[str, UploadRecord]:
        return {upload_id: self.records[upload_id] for upload_id in upload_ids if upload_id in self.records}


async def put(blobs: BlobStore, content: bytes) -> Blob:
    async def once() -> AsyncIterator[bytes]:
        yield content

    return await blobs.put(once(), max_bytes=1000)


def bad(name: str) -> CodedError:
    return refuse(FailureCode.INPUT_INVALID, f"{name} is truncated.", reason="truncated")


class TestProbeCache:
    async def test_a_content_is_probed_once(self, blobs: BlobStore) -> None:
        prober = StandInProber({b"face": IMAGE})
        cache = ProbeCache(blobs, prober, MediaLimits())
        blob = await put(blobs, b"face")
        assert [await cache.probe(blob.sha256) for _ in range(3)] == [IMAGE] * 3
        assert prober.calls == 1

    async def test_fifty_at_once_share_one_probe_and_one_may_leave(self, blobs: BlobStore) -> None:
        prober = StandInProber({b"face": IMAGE})
        prober.release.clear()
        cache = ProbeCache(blobs, prober, MediaLimits())
        blob = await put(blobs, b"face")
        asking = [asyncio.create_task(cache.probe(blob.sha256)) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()
        prober.release.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [IMAGE] * 49
        assert prober.calls == 1

    async def test_a_refusal_is_shared_by_those_who_wait_but_not_remembered(self, blobs: BlobStore) -> None:
        prober = StandInProber({b"face": bad("x")})
        cache = ProbeCache(blobs, prober, MediaLimits())
        blob = await put(blobs, b"face")
        results = await asyncio.gather(*(cache.probe(blob.sha256) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(r, CodedError) for r in results)
        assert prober.calls == 1
        prober.known[b"face"] = IMAGE
        assert await cache.probe(blob.sha256) == IMAGE

    async def test_it_is_bounded_and_forgets_what_was_not_asked_for_longest(self, blobs: BlobStore) -> None:
        contents = [b"a", b"b", b"c"]
        prober = StandInProber(dict.fromkeys(contents, IMAGE))
        cache = ProbeCache(blobs, prober, MediaLimits(), entries=2)
        a, b, c = [(await put(blobs, content)).sha256 for content in contents]
        for sha256 in (a, b, a, c):
            await cache.probe(sha256)
        assert prober.calls == 3
        await cache.probe(a)
        assert prober.calls == 3
        await cache.probe(b)
        assert prober.calls == 4


class TestResolve:
    @pytest.fixture
    def prober(self) -> StandInProber:
        return StandInProber({b"face": IMAGE, b"clip": VIDEO, b"voice": SPEECH})

    @pytest.fixture
    def intake(self, blobs: BlobStore, prober: StandInProber) -> Intake:
        return Intake(blobs, SomeUploads(), prober, IntakeSettings())

    async def received(self, blobs: BlobStore, content: bytes, name: str) -> Received:
        return Received(await put(blobs, content), name)

    async def test_what_a_task_gets(self, intake: Intake, blobs: BlobStore) -> None:
        source, audio = await intake.resolve(
            await self.received(blobs, b"face", "my face.png"), await self.received(blobs, b"voice", "v.wav")
        )
        assert (source.uri, source.name, source.bytes) == ("multipart:my face.png", "my face.png", 4)
        assert source.media["kind"] == "image"
        assert audio.media["audio_codec"] == "pcm_s16le"

    async def test_a_kind_that_the_renderer_does_not_take(self, intake: Intake, blobs: BlobStore) -> None:
        clip, voice = await self.received(blobs, b"clip", "c.mp4"), await self.received(blobs, b"voice", "v.wav")
        with pytest.raises(InputsRefused) as error:
            await intake.resolve(clip, voice, source_kinds=frozenset({"image"}))
        (refused,) = error.value.errors
        assert (refused.failure.detail["field"], refused.failure.detail["reason"]) == ("source", "source_kind")

    async def test_every_refused_field_is_told_under_the_callers_names(
        self, intake: Intake, blobs: BlobStore, prober: StandInProber
    ) -> None:
        broken = await self.received(blobs, b"face", "my face.png")
        prober.known[b"face"] = bad(broken.blob.sha256)
        with pytest.raises(InputsRefused) as error:
            await intake.resolve(broken, "upload:none")
        assert [e.failure.detail["field"] for e in error.value.errors] == ["source", "audio"]
        assert str(error.value.errors[0]) == "my face.png is truncated."

    async def test_an_upload_whose_file_is_gone_is_not_there(self, tmp_path: Path, prober: StandInProber) -> None:
        now = 0.0
        blobs = BlobStore(tmp_path / "blobs", clock=lambda: now)
        blob = await put(blobs, b"face")
        uploads = SomeUploads()
        uploads.records["u"] = UploadRecord("u", blob.sha256, 4, "face.png", 0.0, 1e12)
        intake = Intake(blobs, uploads, prober, IntakeSettings())
        voice = await self.received(blobs, b"voice", "v.wav")
        assert (await intake.resolve("upload:u", voice))[0].name == "face.png"
        blobs.path(blob.sha256).unlink()
        now += TOUCH_S
        with pytest.raises(InputsRefused) as error:
            await intake.resolve("upload:u", voice)
        assert error.value.errors[0].code is FailureCode.INPUT_NOT_FOUND

    async def test_an_upload_in_the_wrong_role_is_refused_however_often_it_was_used(
        self, blobs: BlobStore, prober: StandInProber
    ) -> None:
        uploads = SomeUploads()
        for name, content in {"face": b"face", "voice": b"voice"}.items():
            blob = await put(blobs, content)
            uploads.records[name] = UploadRecord(name, blob.sha256, blob.bytes, f"{name}.bin", 0.0, 1e12)
        intake = Intake(blobs, uploads, prober, IntakeSettings())
        first = await intake.resolve("upload:face", "upload:voice")
        assert await intake.resolve("upload:face", "upload:voice") == first
        with pytest.raises(InputsRefused) as error:
            await intake.resolve("upload:voice", "upload:face")
        assert [e.failure.detail["field"] for e in error.value.errors] == ["source", "audio"]

    async def test_what_nobody_foresaw_is_not_taken_for_a_refusal(
        self, intake: Intake, blobs: BlobStore, prober: StandInProber
    ) -> None:
        prober.known.clear()
        with pytest.raises(KeyError):
            await intake.resolve(
                await self.received(blobs, b"face", "f.png"), await self.received(blobs, b"voice", "v.wav")
            )

    async def test_closing_is_safe(self, intake: Intake) -> None:
        await intake.close()
        await intake.close()
