"""Videos at paths that callers name: below the roots, whole or not at all, never over another file."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.api.drop_in.placing import CannotPlace, Places

VIDEO = bytes(range(256)) * 5000
Put = Callable[[Path | str], None]
SUM = hashlib.sha256(VIDEO).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "made").write_bytes(VIDEO)
    return tmp_path / "out"


@pytest.fixture
def places(root: Path) -> Places:
    return Places([root])


@pytest.fixture
def put(places: Places, tmp_path: Path) -> Put:
    return lambda path: places.put(tmp_path / "made", places.target(str(path)), len(VIDEO), SUM)


def refused(put: Put, path: Path | str) -> str:
    with pytest.raises(CannotPlace) as caught:
        put(path)
    assert str(caught.value)
    assert caught.value.hint
    return caught.value.reason


def left(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


@pytest.fixture(params=["nameless", "no nameless files", "no links", "not linux"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system at hand, and stand-ins for poorer ones."""

    def fails(real: Any, number: int, when: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            if when(*args):
                raise OSError(number, os.strerror(number))
            return real(*args, **named)

        return call

    if request.param == "no nameless files":
        tmpfile = os.O_TMPFILE
        broken = fails(os.open, errno.EOPNOTSUPP, lambda _p, flags=0, *_: flags & tmpfile == tmpfile)
        monkeypatch.setattr("app.api.drop_in.placing.os.open", broken)
    elif request.param == "no links":
        monkeypatch.setattr("app.api.drop_in.placing.os.link", fails(os.link, errno.EPERM, lambda *_: True))
    elif request.param == "not linux":
        monkeypatch.setattr("app.api.drop_in.placing._NAMELESS", None)


def test_a_video_is_put_whole_and_nothing_else_stays(file_system, put, root):
    put(root / "deep" / "a.mp4")
    assert (root / "deep" / "a.mp4").read_bytes() == VIDEO
    assert left(root) == {"deep/a.mp4"}


def test_another_file_is_never_written_over_and_the_same_one_is_left_alone(file_system, put, root):
    (root / "a.mp4").write_bytes(b"theirs")
    assert refused(put, root / "a.mp4") == "exists"
    assert (root / "a.mp4").read_bytes() == b"theirs"
    put(root / "b.mp4")
    before = (root / "b.mp4").stat()
    put(root / "b.mp4")
    assert (root / "b.mp4").stat().st_ino == before.st_ino
    assert left(root) == {"a.mp4", "b.mp4"}


def test_a_full_disk_leaves_nothing_behind(file_system, put, root, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("app.api.drop_in.placing.shutil.copyfileobj", full)
    assert refused(put, root / "a.mp4") == "no_space"
    assert left(root) == set()


def test_the_videos_own_permissions_follow_the_services_mask(file_system, put, root):
    before = os.umask(0o027)
    try:
        put(root / "a.mp4")
    finally:
        os.umask(before)
    assert (root / "a.mp4").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a.mp4", "relative"),
        ("", "relative"),
        ("{root}/a", "suffix"),
        ("{root}/a.mp4/", "suffix"),
        ("{root}", "suffix"),
        ("/", "suffix"),
        ("/a.mp4", "outside_roots"),
        ("{root}/../a.mp4", "outside_roots"),
        ("{root}/../elsewhere/a.mp4", "outside_roots"),
        ("{root}/deep/../../elsewhere/a.mp4", "outside_roots"),
        ("{root}-more/a.mp4", "outside_roots"),
        ("/nowhere/at/all/a.mp4", "outside_roots"),
        ("{root}/nothing/a.mp4", "no_folder"),
        ("{root}/nothing/../a.mp4/b.mp4", "no_folder"),
        ("{root}/\0.mp4", "name"),
        ("{root}/\ud800.mp4", "name"),
        ("{root}/" + "x" * 252 + ".mp4", "name"),
        ("{root}/" + "d/" * 3000 + "a.mp4", "no_folder"),
    ],
)
def test_paths_that_are_refused(put, root, path, reason):
    assert refused(put, path.format(root=root)) == reason
    assert left(root.parent) == {"made"}


def test_links_are_resolved_before_the_roots_count(put, root, tmp_path):
    (root / "inside").symlink_to(root / "deep")
    (root / "outside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "entry").symlink_to(root)
    put(root / "inside" / "a.mp4")
    put(tmp_path / "entry" / "b.mp4")
    assert refused(put, root / "outside" / "c.mp4") == "outside_roots"
    assert left(tmp_path / "elsewhere") == set()
    assert {"deep/a.mp4", "b.mp4"} <= left(root)


@pytest.mark.parametrize("kind", ["link out", "dangling link", "folder", "fifo", "socket"])
def test_what_is_no_regular_file_is_never_replaced_or_followed(file_system, put, root, tmp_path, kind):
    path = root / "a.mp4"
    (tmp_path / "elsewhere" / "theirs").write_bytes(VIDEO)
    match kind:
        case "link out":
            path.symlink_to(tmp_path / "elsewhere" / "theirs")
        case "dangling link":
            path.symlink_to(tmp_path / "elsewhere" / "new")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            here = socket.socket(socket.AF_UNIX)
            here.bind(os.path.relpath(path))
            here.close()
    assert refused(put, path) == "exists"
    assert left(tmp_path / "elsewhere") == {"theirs"}


def test_a_folder_that_becomes_a_link_after_the_check_leads_nowhere(places, root, tmp_path):
    target = places.target(str(root / "deep" / "a.mp4"))
    (root / "deep").rmdir()
    (root / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotPlace) as caught:
        places.put(tmp_path / "made", target, len(VIDEO), SUM)
    assert caught.value.reason == "no_folder"
    assert left(tmp_path / "elsewhere") == set()


def test_a_result_that_is_gone_is_told_as_such(places, root, tmp_path):
    with pytest.raises(CannotPlace) as caught:
        places.put(tmp_path / "never made", places.target(str(root / "a.mp4")), len(VIDEO), SUM)
    assert caught.value.reason == "unreadable"
    assert left(root) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_before_anything_is_made(places, root):
    (root / "deep").chmod(0o500)
    with pytest.raises(CannotPlace) as caught:
        places.target(str(root / "deep" / "a.mp4"))
    assert caught.value.reason == "permission"
