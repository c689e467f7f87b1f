"""`file://`: only below the media roots, whatever links, dots, encodings and races try."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from app.intake.blobs import Blob, BlobStore
from app.intake.files import SETTLE_S, LocalFiles, parse_file_uri
from app.retry.taxonomy import CodedError, FailureCode

pytestmark = pytest.mark.anyio

CONTENT = b"a picture, let us say"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    root.mkdir()
    (root / "face.png").write_bytes(CONTENT)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "media-of-others").mkdir()
    (tmp_path / "media-of-others" / "face.png").write_text("theirs")
    return root


@pytest.fixture
def files(blobs: BlobStore, root: Path) -> LocalFiles:
    return LocalFiles(blobs, [root])


async def take(files: LocalFiles, path: Path | str, max_bytes: int = 1000) -> Blob:
    blob, _ = await files.ingest(f"file://{path}", max_bytes=max_bytes)
    return blob


async def refused(files: LocalFiles, path: Path | str, max_bytes: int = 1000) -> tuple[FailureCode, str]:
    with pytest.raises(CodedError) as error:
        await take(files, path, max_bytes)
    assert error.value.failure.hint
    assert "secret" not in str(error.value)
    return error.value.code, error.value.failure.detail["reason"]


@pytest.mark.parametrize("prefix", ["file://", "file://localhost", "FILE://"])
async def test_a_file_below_a_root(files: LocalFiles, blobs: BlobStore, root: Path, prefix: str) -> None:
    blob, name = await files.ingest(f"{prefix}{root}/face.png", max_bytes=1000)
    assert blobs.path(blob.sha256).read_bytes() == CONTENT
    assert (blob.bytes, name) == (len(CONTENT), "face.png")


@pytest.mark.parametrize("name", ["a b.png", 'it\'s "quoted".png', "顔.png", "100%.png", "a?b#c.png", "x\ny.png"])
@pytest.mark.parametrize("encoded", [True, False])
async def test_odd_names(files: LocalFiles, root: Path, name: str, encoded: bool) -> None:
    (root / name).write_bytes(CONTENT)
    assert (await take(files, f"{root}/{quote(name) if encoded else name}")).bytes == len(CONTENT)


async def test_a_name_that_is_not_utf8(files: LocalFiles, root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")).write_bytes(CONTENT)
    _, name = await files.ingest(f"file://{root}/%ff.png", max_bytes=1000)
    assert name == "\N{REPLACEMENT CHARACTER}.png"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/../secret.txt",
        "{root}/%2e%2e/secret.txt",
        "{root}/..%2fsecret.txt",
        "{root}/./x/../../secret.txt",
        "{root}-of-others/face.png",
        "{root}/../media-of-others/face.png",
        "//etc/passwd",
        "/proc/self/environ",
        "/dev/null",
        "/",
    ],
)
async def test_a_path_outside_the_roots(files: LocalFiles, root: Path, path: str) -> None:
    assert await refused(files, path.format(root=root)) == (FailureCode.INPUT_FORBIDDEN, "outside_roots")


async def test_outside_one_cannot_tell_what_exists(files: LocalFiles, tmp_path: Path) -> None:
    assert await refused(files, tmp_path / "secret.txt") == await refused(files, tmp_path / "no-such-file")


async def test_links_that_lead_out(files: LocalFiles, root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "secret.txt")
    (root / "folder").symlink_to(tmp_path)
    (root / "relative").symlink_to("../secret.txt")
    for path in ("link", "folder/secret.txt", "relative"):
        assert (await refused(files, root / path))[1] == "outside_roots"


async def test_links_that_stay_inside_are_fine(files: LocalFiles, root: Path) -> None:
    (root / "deep").mkdir()
    (root / "deep" / "link.png").symlink_to("../face.png")
    assert (await take(files, root / "deep" / "link.png")).bytes == len(CONTENT)


async def test_a_root_that_is_itself_a_link(blobs: BlobStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    files = LocalFiles(blobs, [tmp_path / "alias"])
    assert (await take(files, tmp_path / "alias" / "face.png")).bytes == len(CONTENT)
    assert (await take(files, root / "face.png")).bytes == len(CONTENT)


@pytest.mark.parametrize("swapped", ["file", "folder"])
async def test_a_link_that_is_put_in_the_way_after_the_check(
    files: LocalFiles, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """The race: the path is fine when it is resolved, and leads out when it is opened."""
    (root / "deep").mkdir()
    victim = root / "deep" / "secret.txt"
    victim.write_bytes(CONTENT)
    realpath = os.path.realpath

    def resolve_then_swap(path: str) -> str:
        resolved = realpath(path)
        victim.unlink()
        if swapped == "file":
            victim.symlink_to(tmp_path / "secret.txt")
        else:
            victim.parent.rmdir()
            victim.parent.symlink_to(tmp_path)
        return resolved

    monkeypatch.setattr(os.path, "realpath", resolve_then_swap)
    assert await refused(files, victim) == (FailureCode.INPUT_NOT_FOUND, "no_such_file")


async def test_a_link_loop(files: LocalFiles, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    assert (await refused(files, root / "a"))[0] is FailureCode.INPUT_NOT_FOUND


@pytest.fixture
def special(root: Path) -> Iterator[Path]:
    os.mkfifo(root / "fifo")
    (root / "folder").mkdir()
    here = Path.cwd()
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        os.chdir(here)
        yield root


async def test_what_is_no_regular_file(files: LocalFiles, special: Path) -> None:
    """A FIFO without a writer would hold a blocking open for ever."""
    for name in ("fifo", "folder", "", "."):
        assert await refused(files, f"{special}/{name}") == (FailureCode.INPUT_INVALID, "not_a_regular_file")
    assert (await refused(files, special / "socket"))[0] is FailureCode.INPUT_NOT_FOUND


async def test_what_is_not_there(files: LocalFiles, root: Path) -> None:
    for path in ("no-such-file", "face.png/x", "x" * 300, "a/" * 3000 + "x"):
        assert await refused(files, f"{root}/{path}") == (FailureCode.INPUT_NOT_FOUND, "no_such_file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_no_permission(files: LocalFiles, root: Path) -> None:
    (root / "face.png").chmod(0)
    assert await refused(files, root / "face.png") == (FailureCode.INPUT_FORBIDDEN, "permission")


async def test_too_large(files: LocalFiles, root: Path) -> None:
    assert (await refused(files, root / "face.png", len(CONTENT) - 1))[0] is FailureCode.INPUT_TOO_LARGE
    assert await take(files, root / "face.png", len(CONTENT))


async def test_without_roots_nothing_is_allowed(blobs: BlobStore, root: Path) -> None:
    assert await refused(LocalFiles(blobs, []), root / "face.png") == (FailureCode.INPUT_FORBIDDEN, "outside_roots")


@pytest.mark.parametrize(
    "uri", ["file:", "file:x", "file:face.png", "file://otherhost/x", "file://", "file:///a%00b", "file:///\ud800"]
)
def test_an_address_that_is_no_path(uri: str) -> None:
    with pytest.raises(CodedError) as error:
        parse_file_uri(uri)
    assert error.value.code is FailureCode.INPUT_INVALID


class TestRepeats:
    """One template, used for thousands of tasks, is copied once."""

    @pytest.fixture
    def copies(self, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> list[Blob]:
        made: list[Blob] = []
        copy = blobs.copy

        def counted(descriptor: int, *, max_bytes: int) -> Blob:
            made.append(copy(descriptor, max_bytes=max_bytes))
            return made[-1]

        monkeypatch.setattr(blobs, "copy", counted)
        return made

    @pytest.fixture
    def settled(self, blobs: BlobStore, root: Path) -> LocalFiles:
        """As if the files had been written a while ago."""
        at = (root / "face.png").stat().st_ctime + SETTLE_S + 1
        return LocalFiles(blobs, [root], clock=lambda: at)

    async def test_an_unchanged_file_is_known_again(self, settled: LocalFiles, root: Path, copies: list[Blob]) -> None:
        assert await take(settled, root / "face.png") == await take(settled, root / "face.png")
        assert len(copies) == 1

    async def test_a_changed_file_is_read_again(self, settled: LocalFiles, root: Path, copies: list[Blob]) -> None:
        first = await take(settled, root / "face.png")
        status = (root / "face.png").stat()
        (root / "face.png").write_bytes(CONTENT[::-1])
        os.utime(root / "face.png", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert await take(settled, root / "face.png") != first
        assert len(copies) == 2

    async def test_a_file_changed_just_now_is_not_trusted(
        self, files: LocalFiles, root: Path, copies: list[Blob]
    ) -> None:
        await take(files, root / "face.png")
        await take(files, root / "face.png")
        assert len(copies) == 2

    async def test_a_content_that_was_removed_meanwhile_is_copied_again(
        self, settled: LocalFiles, root: Path, blobs: BlobStore
    ) -> None:
        blob = await take(settled, root / "face.png")
        blobs.path(blob.sha256).unlink()
        assert await take(settled, root / "face.png") == blob
        assert blobs.path(blob.sha256).exists()

    async def test_a_file_that_changes_while_it_is_read(
        self, files: LocalFiles, root: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = blobs.copy

        def appended(descriptor: int, *, max_bytes: int) -> Blob:
            blob = copy(descriptor, max_bytes=max_bytes)
            with (root / "face.png").open("ab") as file:
                file.write(b"more")
            return blob

        monkeypatch.setattr(blobs, "copy", appended)
        assert await refused(files, root / "face.png") == (FailureCode.INPUT_INVALID, "changing")

    async def test_what_was_accepted_does_not_change_with_the_file(
        self, files: LocalFiles, root: Path, blobs: BlobStore
    ) -> None:
        blob = await take(files, root / "face.png")
        with (root / "face.png").open("r+b") as file:
            file.write(b"CHANGED")
        (root / "face.png").unlink()
        assert blobs.path(blob.sha256).read_bytes() == CONTENT
