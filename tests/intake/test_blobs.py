"""The blob store: durable before it counts, one file per content, nothing left behind by what failed."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.intake import blobs as module
from app.intake.blobs import TOUCH_S, Blob, BlobStore, DigestMismatch
from app.intake.copying import BUFFER_BYTES
from app.retry.taxonomy import CodedError, FailureCode
from tests.intake.conftest import stored_files

pytestmark = pytest.mark.anyio

LARGE = os.urandom(BUFFER_BYTES * 2 + 12_345)


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def drained(blobs: BlobStore) -> None:
    """Wait for the work that was handed to the store's threads."""
    blobs.close()


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "small", "several buffers"])
async def test_a_content_is_kept_under_its_hash(blobs: BlobStore, content: bytes) -> None:
    blob = await blobs.put(pieces(content), max_bytes=len(LARGE))
    assert blob == Blob(hashlib.sha256(content).hexdigest(), len(content))
    path = blobs.path(blob.sha256)
    assert path.read_bytes() == content
    assert path.parent.name == blob.sha256[:2]


async def test_one_content_is_stored_once_however_often_it_comes(blobs: BlobStore, tmp_path: Path) -> None:
    first, *others = await asyncio.gather(*(blobs.put(pieces(LARGE), max_bytes=len(LARGE)) for _ in range(8)))
    assert all(other == first for other in others)
    assert stored_files(tmp_path) == [blobs.path(first.sha256)]


async def test_the_limit_holds_while_bytes_arrive_and_nothing_stays(blobs: BlobStore, tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 65_536
            yield b"x" * 65_536

    with pytest.raises(CodedError) as error:
        await blobs.put(endless(), max_bytes=3_000_000)
    assert error.value.code is FailureCode.INPUT_TOO_LARGE
    assert taken <= 3_000_000 + 65_536
    drained(blobs)
    assert stored_files(tmp_path) == []


async def test_exactly_the_limit_is_allowed(blobs: BlobStore) -> None:
    assert (await blobs.put(pieces(b"x" * 100), max_bytes=100)).bytes == 100


async def test_a_sender_that_breaks_off_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await blobs.put(broken(), max_bytes=len(LARGE))
    drained(blobs)
    assert stored_files(tmp_path) == []


async def test_cancelling_in_the_middle_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield LARGE
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.put(slow(), max_bytes=len(LARGE)))
    await asyncio.wait_for(started.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    drained(blobs)
    assert stored_files(tmp_path) == []


async def test_a_wrong_digest_is_refused_before_the_content_counts(blobs: BlobStore, tmp_path: Path) -> None:
    async with blobs.writer(100) as writer:
        await writer.write(b"abc")
        with pytest.raises(DigestMismatch):
            await writer.commit(expected_sha256="0" * 64)
    drained(blobs)
    assert stored_files(tmp_path) == []


async def test_a_full_disk_is_disk_full(blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_all", no_space)
    with pytest.raises(CodedError) as error:
        await blobs.put(pieces(b"abc"), max_bytes=100)
    assert error.value.code is FailureCode.DISK_FULL
    drained(blobs)
    assert stored_files(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
async def test_a_failing_disk_is_a_disk_error(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "write_all", broken)
    with pytest.raises(CodedError) as error:
        await blobs.put(pieces(b"abc"), max_bytes=100)
    assert error.value.code is FailureCode.DISK_ERROR
    assert os.strerror(number) in str(error.value)
    drained(blobs)
    assert stored_files(tmp_path) == []


async def test_file_then_directory_are_synced_and_only_then_does_it_count(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    await blobs.put(pieces(b"abc"), max_bytes=100)
    # The first directory is the root, which has got a new folder.
    assert steps == ["file", "directory", "rename", "directory"]


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "A" * 64, "g" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_path_is_only_made_of_a_hash(blobs: BlobStore, bad: str) -> None:
    with pytest.raises(ValueError):
        blobs.path(bad)


async def test_a_damaged_file_is_replaced_by_the_next_upload(blobs: BlobStore) -> None:
    blob = await blobs.put(pieces(b"whole"), max_bytes=100)
    blobs.path(blob.sha256).write_bytes(b"who")
    await blobs.put(pieces(b"whole"), max_bytes=100)
    assert blobs.path(blob.sha256).read_bytes() == b"whole"


class TestSweep:
    async def _blob(self, blobs: BlobStore, content: bytes, age_s: float) -> Blob:
        blob = await blobs.put(pieces(content), max_bytes=100)
        path = blobs.path(blob.sha256)
        at = path.stat().st_mtime - age_s
        os.utime(path, (at, at))
        return blob

    async def test_one_that_cannot_be_removed_keeps_no_other(
        self, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stuck, free = [await self._blob(blobs, content, 7200) for content in (b"stuck", b"free")]
        unlink = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path == blobs.path(stuck.sha256):
                raise PermissionError("Operation not permitted")
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", refuse)
        assert blobs.sweep(lambda _: set(), grace_s=3600) == [free]
        assert blobs.path(stuck.sha256).exists()

    async def test_old_and_unused_goes_all_else_stays(self, blobs: BlobStore) -> None:
        used = await self._blob(blobs, b"used", 7200)
        fresh = await self._blob(blobs, b"fresh", 10)
        unused = await self._blob(blobs, b"unused", 7200)
        assert blobs.sweep(lambda _: {used.sha256}, grace_s=3600) == [unused]
        assert blobs.path(used.sha256).exists()
        assert blobs.path(fresh.sha256).exists()
        assert not blobs.path(unused.sha256).exists()

    @pytest.mark.parametrize("how", ["touch", "put again"])
    async def test_what_is_used_again_is_young_again(self, blobs: BlobStore, how: str) -> None:
        blob = await self._blob(blobs, b"content", 7200)
        if how == "touch":
            assert blobs.touch(blob.sha256)
        else:
            await blobs.put(pieces(b"content"), max_bytes=100)
        assert blobs.sweep(lambda _: set(), grace_s=3600) == []

    async def test_a_content_touched_between_question_and_deletion_stays(self, blobs: BlobStore) -> None:
        blob = await self._blob(blobs, b"content", 7200)

        def in_use(_: object) -> set[str]:
            blobs.touch(blob.sha256)
            return set()

        assert blobs.sweep(in_use, grace_s=3600) == []
        assert blobs.path(blob.sha256).exists()

    def test_old_temporary_files_go(self, blobs: BlobStore) -> None:
        file, path = blobs.open_temporary()
        file.close()
        blobs.sweep(lambda _: set(), grace_s=3600)
        assert path.exists()
        os.utime(path, (0, 0))
        blobs.sweep(lambda _: set(), grace_s=3600)
        assert not path.exists()

    async def test_a_content_that_is_used_often_is_marked_now_and_then(self, tmp_path: Path) -> None:
        now = 0.0
        blobs = BlobStore(tmp_path / "often", clock=lambda: now)
        blob = await self._blob(blobs, b"content", 7200)
        assert blobs.touch(blob.sha256)
        os.utime(blobs.path(blob.sha256), (0, 0))
        assert blobs.touch_again(blob.sha256)
        assert blobs.path(blob.sha256).stat().st_mtime == 0
        now += TOUCH_S
        assert blobs.touch_again(blob.sha256)
        assert blobs.path(blob.sha256).stat().st_mtime > 0
        blobs.close()

    async def test_what_a_sweep_has_removed_is_not_there(self, blobs: BlobStore) -> None:
        blob = await self._blob(blobs, b"content", 7200)
        assert blobs.touch(blob.sha256)
        os.utime(blobs.path(blob.sha256), (0, 0))
        assert blobs.sweep(lambda _: set(), grace_s=3600) == [blob]
        assert not blobs.touch_again(blob.sha256)

    def test_touching_what_is_not_there(self, blobs: BlobStore) -> None:
        assert not blobs.touch("0" * 64)


class TestCopy:
    @pytest.mark.parametrize("in_kernel", [True, False])
    def test_a_copy_is_the_file(
        self, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
    ) -> None:
        if not in_kernel:

            def other_file_system(*_: object) -> int:
                raise OSError(errno.EXDEV, "Invalid cross-device link")

            monkeypatch.setattr(os, "copy_file_range", other_file_system)
        source = tmp_path / "source"
        source.write_bytes(LARGE)
        with source.open("rb") as file:
            blob = blobs.copy(file.fileno(), max_bytes=len(LARGE))
        assert blob.sha256 == hashlib.sha256(LARGE).hexdigest()
        assert blobs.path(blob.sha256).read_bytes() == LARGE

    def test_a_copy_stops_at_the_limit(self, blobs: BlobStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(LARGE)
        with source.open("rb") as file, pytest.raises(CodedError):
            blobs.copy(file.fileno(), max_bytes=len(LARGE) - 1)
        assert stored_files(tmp_path / "blobs") == []
