"""`submit`, `tasks`, `task` and `cancel` against a real service, and the demo from start to stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.errors import CommandError
from app.cli.progress import progress_view
from app.cli.service_process import ServiceProcess
from app.cli.submit import _finish
from app.cli.watch import running_service
from app.media.info import MediaLimits
from app.media.sandbox import probe_sync
from tests.cli.conftest import PORTRAIT, PROJECT, SPEECH, Cli, clean_environment


@pytest.fixture
def paused(service: ServiceProcess) -> Any:
    """The service claims nothing, so that tasks stay where they are."""
    httpx.post(f"{service.url}/queue/pause").raise_for_status()
    yield service
    httpx.post(f"{service.url}/queue/resume").raise_for_status()


def test_submit_uploads_waits_and_downloads(
    cli: Cli, service: ServiceProcess, short_speech: Path, tmp_path: Path
) -> None:
    done = cli("submit", PORTRAIT, short_speech, "--url", service.url, "-o", "out.mp4", "--json")
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)
    assert task["status"] == "SUCCEEDED"
    assert task["output"]["bytes"] == (tmp_path / "out.mp4").stat().st_size
    assert probe_sync(tmp_path / "out.mp4", MediaLimits()).duration_s == pytest.approx(1.0, abs=0.1)
    for phase in ("upload", "download"):
        assert phase in done.stderr


def test_the_service_is_found_by_its_data_directory(
    cli: Cli, paused: ServiceProcess, short_speech: Path, tmp_path: Path
) -> None:
    config = tmp_path / "greenroom.toml"
    config.write_text(f"data_dir = {json.dumps(str(paused.data_dir))}\n")
    done = cli("submit", PORTRAIT, short_speech, "--priority", "9")
    assert done.returncode == 0, done.stderr
    task = json.loads(cli("task", done.stdout.strip()).stdout)
    assert (task["id"], task["status"]) == (done.stdout.strip(), "QUEUED")
    assert cli("cancel", task["id"]).returncode == 0


def test_the_same_key_makes_one_task_which_is_listed_and_cancelled(
    cli: Cli, paused: ServiceProcess, short_speech: Path
) -> None:
    at = ("--url", paused.url)
    uploads = [
        httpx.post(f"{paused.url}/uploads", params={"name": path.name}, content=path.read_bytes()).json()["uri"]
        for path in (PORTRAIT, short_speech)
    ]
    first, second = (cli("submit", *uploads, *at, "--idempotency-key", "one").stdout.strip() for _ in range(2))
    assert first == second != ""
    rows = [line.split("\t") for line in cli("tasks", *at, "--status", "queued").stdout.splitlines()]
    assert [row[1] for row in rows if row[0] == first] == ["QUEUED"]
    listed = json.loads(cli("tasks", *at, "--status", "QUEUED", "--limit", "1", "--json").stdout)
    assert [task["id"] for task in listed] == [first]
    assert cli("cancel", first, *at).stdout == f"{first} is cancelled\n"
    assert cli("cancel", first, *at).stdout == f"{first} had ended already\n"


def test_a_task_follows_another_and_is_derived_from(cli: Cli, paused: ServiceProcess, short_speech: Path) -> None:
    at = ("--url", paused.url)
    first = cli("submit", PORTRAIT, short_speech, *at).stdout.strip()
    done = cli("submit", f"task:{first}", short_speech, "--after", first, "--json", *at)
    assert done.returncode == 0, done.stderr
    second = json.loads(done.stdout)
    assert (second["wait_reason"], second["waits_for"]) == ("predecessor", [first])
    listed = cli("tasks", *at).stdout
    assert f"waits for {first}" in listed
    refused = cli("submit", f"task:{first}", short_speech, "--refuse-unfinished", *at)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "PREDECESSOR_UNFINISHED" in refused.stderr
    done = cli("derive", first, "--audio", short_speech, "--option", "crop=face", "--priority", "9", "--json", *at)
    assert done.returncode == 0, done.stderr
    derived = json.loads(done.stdout)
    assert derived["derived_from"] == first
    assert cli("derive", "none", *at).returncode == 1
    for task_id in (derived["id"], second["id"], first):
        cli("cancel", task_id, *at)


def test_what_the_service_refuses_is_told_in_its_words(cli: Cli, service: ServiceProcess, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF of nothing")
    done = cli("submit", PORTRAIT, "broken.wav", "--url", service.url)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].startswith("error INPUT_INVALID: audio: ")
    assert "Traceback" not in done.stderr
    for arguments in (["task", "task_none"], ["cancel", "task_none"]):
        done = cli(*arguments, "--url", service.url)
        assert done.returncode == 1
        assert "task_none" in done.stderr
    done = cli("submit", PORTRAIT, SPEECH, "--option", "colour=red", "--url", service.url)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].count("options.colour: ") == 1


def test_a_status_that_there_is_not_is_told_with_those_that_there_are(cli: Cli) -> None:
    done = cli("tasks", "--status", "queued", "--status", "nope", "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error OPTION_INVALID: --status 'nope' is none of QUEUED, ")


def test_an_input_that_is_not_there_is_told_before_anything_is_sent(cli: Cli) -> None:
    done = cli("submit", "none.png", SPEECH, "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("error INPUT_NOT_FOUND: source: ")


@pytest.mark.parametrize(("output", "word"), [("/nonexist/x.mp4", "'/nonexist'"), (".", "is a folder")])
def test_an_output_that_cannot_be_written_is_told_before_anything_is_sent(cli: Cli, output: str, word: str) -> None:
    done = cli("submit", PORTRAIT, SPEECH, "--url", "http://127.0.0.1:1", "-o", output)
    assert done.returncode == 2
    assert done.stderr.startswith("error OUTPUT_INVALID: output: ")
    assert word in done.stderr


class _Service:
    """A client whose task has succeeded or failed, and whose download fails."""

    url = "http://service"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def task(self, _task_id: str, wait_s: float = 0.0) -> Any:
        raise self._error

    def download(self, *_arguments: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("state", "error", "code"),
    [
        (
            {"status": "QUEUED", "is_terminal": False},
            CommandError("UPSTREAM_CONNECTION", "gone"),
            "UPSTREAM_CONNECTION",
        ),
        ({"status": "SUCCEEDED", "is_terminal": True}, CommandError("UPSTREAM_TIMEOUT", "slow"), "UPSTREAM_TIMEOUT"),
        ({"status": "SUCCEEDED", "is_terminal": True}, OSError(28, "No space left on device"), "OUTPUT_INVALID"),
        ({"status": "FAILED", "is_terminal": True}, CommandError("", ""), "FAILED"),
    ],
)
def test_what_fails_after_the_submission_names_the_task(
    state: dict[str, Any], error: Exception, code: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task = {"id": "task_7", "output": {"url": "/tasks/task_7/output"}} | state
    with progress_view(sys.stderr) as view, pytest.raises(CommandError) as caught:
        _finish(_Service(error), task, tmp_path / "out.mp4", view)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert "`greenroom task task_7` shows it" in capsys.readouterr().err


def test_the_demo_makes_a_video_and_stops_its_service(tmp_path: Path, short_speech: Path) -> None:
    command = [sys.executable, "-m", "app", "demo", "--audio", str(short_speech)]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checksum verified" in done.stdout
    assert str(tmp_path / "demo.mp4") in done.stdout
    assert done.stdout.splitlines()[-1] == "The service has stopped (exit code 0)."
    assert probe_sync(tmp_path / "demo.mp4", MediaLimits()).kind == "video"
    url = next(word for word in done.stdout.split() if word.startswith("http://"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_takes_its_service_along(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "demo"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(90) == 130, first + rest
    assert rest.splitlines()[-1] == "The service has stopped (exit code 0)."
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_dies_at_its_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the data directory should be")
    service = ServiceProcess(tmp_path)
    with pytest.raises(CommandError, match="before it was up") as caught:
        service.wait_live()
    assert "data" in str(caught.value)
    assert service.stop() != 0


def test_the_file_of_a_killed_service_does_not_count(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": ended.pid}))
    assert running_service(tmp_path) is None


def test_serve_prints_no_trace_for_an_address_that_is_taken(cli: Cli, service: ServiceProcess, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    done = cli("serve", "--port", port, "--data-dir", tmp_path / "other")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "ddress already in use" in done.stdout + done.stderr


def test_the_samples_are_there() -> None:
    assert (PROJECT / "samples" / "README.md").is_file()
    assert PORTRAIT.is_file()
    assert SPEECH.is_file()
