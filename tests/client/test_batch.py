"""The batch: so many in flight, killed and started again, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greenroom.client import AsyncClient
from greenroom.client.batch import run_batch
from greenroom.client.journal import Journal
from greenroom.client.manifest import ManifestError, Row, read_manifest
from greenroom.client.report import Report
from tests.e2e.conftest import *  # noqa: F403
from tests.e2e.conftest import Service, until


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def run(service: Service, manifest: Path, out: Path, **settings: Any) -> Report:
    async def inside() -> Report:
        async with AsyncClient(str(service.http.base_url)) as client:
            return await run_batch(client, read_manifest(manifest), out, **settings)

    return asyncio.run(inside())


def task_count(service: Service) -> int:
    return sum(service.http.get("/queue").json()["by_status"].values())


def test_columns_become_fields_and_options(tmp_path: Path, portrait: Path) -> None:
    (tmp_path / "face.png").write_bytes(portrait.read_bytes())
    manifest = write(
        tmp_path / "m.csv",
        "name,source,audio,priority,options.strength,metadata.who,renderer\n"
        "first,face.png,upload:x,7,0.5,Zoë,\n"
        ",https://host/a.mp4,upload:y,,,,warp\n",
    )
    first, second = read_manifest(manifest)
    assert (first.name, second.name) == ("first", "000003")
    assert first.request == {
        "source": str(tmp_path / "face.png"), "audio": "upload:x", "priority": 7, "options": {"strength": 0.5},
        "metadata": {"who": "Zoë"},
    }  # fmt: skip
    assert second.request == {"source": "https://host/a.mp4", "audio": "upload:y", "renderer": "warp"}


def test_members_go_into_the_object_of_their_column_wherever_it_stands(tmp_path: Path) -> None:
    text = 'source,audio,options.strength,options\nupload:a,upload:b,0.5,"{""blinks"": false, ""strength"": 1}"\n'
    [row] = read_manifest(write(tmp_path / "m.csv", text))
    assert row.request["options"] == {"blinks": False, "strength": 0.5}


def test_what_is_written_after_a_torn_line_is_found_again(tmp_path: Path) -> None:
    path, row = tmp_path / "journal.jsonl", Row(1, "first", {"source": "a.png", "audio": "b.wav"})

    async def address(given: str) -> str:
        return f"upload:{given}"

    path.write_text('{"row":"0123","key":"batch-')  # killed here
    first = Journal(path)
    made = asyncio.run(first.request(row, address))
    first.close()
    again = Journal(path)
    assert asyncio.run(again.request(row, address)) == made, "the same key: no second task"
    again.close()
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.csv", "name,source,audio\nZoë,upload:a,upload:a\n".encode("cp1252"), "is not UTF-8 text (byte 20)"),
        ("m.jsonl", b'{"source": "\xff"}', "is not UTF-8 text"),
        ("m.csv", b"name;source;audio\na;upload:a;upload:a\n", "line 1: its columns are separated by semicolons"),
        ("m.csv", b"source,audio\n" + b"x" * 200_000 + b",upload:a\n", "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_no_manifest_is_told_as_such(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=re.escape(told)):
        read_manifest(tmp_path / name)


def test_a_line_of_json_ends_where_the_line_ends(tmp_path: Path) -> None:
    entry = {"source": "upload:a", "audio": "upload:b", "metadata": {"title": "one\u2028two\u0085three"}}
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(entry, ensure_ascii=False).encode() + b"\r\n\r\n")
    (row,) = read_manifest(path)
    assert row.request == entry


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.csv", "source,audio\nupload:a,\n", "line 2: `audio` is missing"),
        ("m.csv", "source,audio,options,options.x\nupload:a,upload:b,[1],2\n", "line 2: `options` is no object"),
        ("m.csv", "source,audio\nnothing.png,upload:a\n", "line 2: `source`: there is no file"),
        ("m.csv", "name,source,audio\na/b,upload:a,upload:a\n", "line 2: the name 'a/b' is not fit"),
        ("m.csv", "name,source,audio\na,upload:a,upload:a\na,upload:a,upload:a\n", "stands in line 2 already"),
        ("m.csv", "source,audio\nupload:a,upload:b,upload:c\n", "line 2: more values than columns"),
        ("m.csv", "source,audio,priority\nupload:a,upload:b,high\n", "`priority` is not JSON"),
        ("m.csv", "source,audio\n", "has no rows"),
        ("m.jsonl", '{"source": "upload:a"\n', "line 1: not JSON"),
        ("m.jsonl", "[]\n", "line 1: not an object"),
    ],
)
def test_a_mistake_in_a_manifest_is_named_with_its_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(ManifestError) as error:
        read_manifest(write(tmp_path / name, text))
    assert told in str(error.value)


@pytest.fixture
def manifest(tmp_path: Path, portrait: Path, speech: Any) -> Path:
    """Ten rows for the rehearsal: nine serve, one fails."""
    rows = [
        {
            "name": f"video {number}",
            "source": str(portrait),
            "audio": str(speech(0.5)),
            "renderer": "rehearsal",
            "options": {"frame_s": 0.02, "fps": 10 + number}
            | ({"fault": "raise", "code": "INPUT_NO_FACE"} if number == 4 else {}),
        }
        for number in range(10)
    ]
    return write(tmp_path / "manifest.jsonl", "\n".join(map(json.dumps, rows)))


def test_a_batch_that_is_killed_goes_on_and_does_nothing_twice(serve: Any, tmp_path: Path, manifest: Path) -> None:
    service = serve(GREENROOM_REHEARSALS="1").until_ready()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "app", "batch", str(manifest), "-o", str(out), "-n", "3"]
    command += ["--url", str(service.http.base_url)]
    for videos in (1, 4):
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: len(list(out.glob("*.mp4"))) >= videos or killed.poll() is not None, "some videos")  # noqa: B023
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "9 of 10 succeeded, 1 failed" in done.stdout
    assert "line 5 (video 4): INPUT_NO_FACE" in done.stderr
    assert task_count(service) == 10
    assert len(list(out.glob("*.mp4"))) == 9
    report = json.loads((out / "report.json").read_text())
    assert report["counts"] == {"succeeded": 9, "failed": 1, "waiting": 0, "running": 0, "sending": 0}
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "9 of 10 succeeded" in again.stdout
    assert task_count(service) == 10
    (out / "video 3.mp4").unlink()
    report = run(service, manifest, out, retry_failed=True)
    assert (report.count("succeeded"), report.count("failed")) == (9, 1)
    assert (out / "video 3.mp4").is_file()
    assert task_count(service) == 11


def test_rows_that_failed_because_the_service_was_away_are_run_by_the_next_start(
    serve: Any, tmp_path: Path, manifest: Path
) -> None:
    out = tmp_path / "out"

    async def without_service() -> Report:
        async with AsyncClient("http://127.0.0.1:9", attempts=1) as client:
            return await run_batch(client, read_manifest(manifest), out)

    away = asyncio.run(without_service())
    assert away.count("failed") == 10
    assert away.outcomes[0].error is not None
    assert away.outcomes[0].error["code"] == "ServiceUnreachable"
    service = serve(GREENROOM_REHEARSALS="1").until_ready()
    assert run(service, manifest, out).count("succeeded") == 9
