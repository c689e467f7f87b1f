"""`greenroom drill` against real services: sound ones pass, and one that breaks a promise does not (R3.13)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.cli.drill import stage
from app.cli.drill.caller import Caller
from app.cli.drill.command import _require_readiness
from app.cli.drill.outside import kill_the_media_helper
from app.cli.errors import CommandError
from app.cli.service_process import ServiceProcess
from tests.cli.conftest import PROJECT, Cli, clean_environment

LIGHT = ("--quick", "--tasks", "2", "--set", "tier_renderer=rehearsal", "--set", "slots=1", "--set", "spares=0")
"""Without the models of the real renderer and without a spare: what is rehearsed needs neither."""


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def left(folder: Path) -> list[Any]:
    """Folders and processes of drills below `folder`."""
    named = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
    return [*folder.glob("greenroom-drill-*"), *named]


def test_a_sound_service_passes_and_nothing_is_left(cli: Cli, tmp_path: Path) -> None:  # R3.13
    page = tmp_path / "report.md"
    only = ("--only", "worker-killed,broken-output", "--only", "service-killed")
    done = cli("drill", *LIGHT, *only, "--json", "--report", page, "--folder", tmp_path)
    report = told(done)
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["passed"]
    names = ["worker-killed", "broken-output", "service-killed"]
    assert [row["name"] for row in report["rows"]] == names
    assert (report["accepted"], report["lost"], report["doubled"], report["left"]) == (10, [], [], [])
    struck, broken, killed = report["rows"]
    assert struck["seen"].startswith("WORKER_CRASHED, then SUCCEEDED; 2 of 2 beside it SUCCEEDED")
    assert broken["seen"].startswith("OUTPUT_INVALID, then SUCCEEDED")
    assert killed["seen"].startswith("INTERRUPTED, then SUCCEEDED; 4 of 4 tasks SUCCEEDED")
    assert all(0 < row["recovered_s"] <= row["within_s"] for row in (struck, killed))
    assert all(name in page.read_text() for name in names)
    assert left(tmp_path) == []


BROKEN = """
import sqlite3
from pathlib import Path
from app.worker import publish as publishing

whole = publishing.publish

def publish(finished, data_dir):
    artifact = whole(finished, data_dir)
    path = Path(data_dir) / artifact.path
    path.write_bytes(path.read_bytes()[:-100])
    return artifact

publishing.publish = publish
database = Path(sys.orig_argv[sys.orig_argv.index("--data-dir") + 1]) / "greenroom.db"
if database.exists():
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM tasks WHERE status = 'QUEUED'")
"""
"""A service that cuts what it publishes short, and forgets at a restart what had not begun."""


def test_a_service_that_breaks_its_promises_fails(cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    # Read at the start of every interpreter; the service alone is changed, not the drill.
    (site / "sitecustomize.py").write_text(f"import sys\nif 'serve' in sys.orig_argv:\n    exec({BROKEN!r})\n")
    env = {"PYTHONPATH": f"{site}{os.pathsep}{PROJECT}"}
    done = cli("drill", *LIGHT, "--only", "no-face,service-killed", "--json", "--folder", tmp_path, env=env)
    report = told(done)
    assert done.returncode == 1
    assert not report["passed"]
    cut, forgotten = report["rows"]
    assert any(wrong.startswith("a task beside it: its file has") for wrong in cut["wrong"]), cut
    assert any("does not know task_" in wrong for wrong in forgotten["wrong"]), forgotten
    assert len(report["lost"]) >= 1
    [kept] = tmp_path.glob("greenroom-drill-*")  # the evidence
    assert "serving" in (kept / "service.log").read_text()
    assert str(kept) in done.stderr


def test_a_service_that_never_starts_leaves_its_log(cli: Cli, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    fatal = "import os, sys\nif 'serve' in sys.orig_argv:\n    print('no such device', flush=True)\n    os._exit(3)\n"
    (site / "sitecustomize.py").write_text(fatal)
    env = {"PYTHONPATH": f"{site}{os.pathsep}{PROJECT}"}
    done = cli("drill", *LIGHT, "--only", "no-face", "--folder", tmp_path, env=env)
    assert done.returncode == 1
    assert "error SERVICE_FAILED: The service ended with 3 before it was up." in done.stderr
    [kept] = tmp_path.glob("greenroom-drill-*")
    assert "no such device" in (kept / "service.log").read_text()
    assert f"The folder of the service, with its log: {kept}" in done.stderr


def test_a_service_that_dies_before_it_is_ready_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Dying(ServiceProcess):
        def wait_live(self) -> None:
            self._process.kill()
            self._process.wait()

    monkeypatch.setattr(stage, "ServiceProcess", Dying)
    with pytest.raises(CommandError, match=r"ended before it was ready\. The end of its log:"):
        stage.Stage(tmp_path, [], ready_within_s=60.0).start()


def test_a_drill_whose_victim_is_not_there_says_so() -> None:
    own = SimpleNamespace(services=[SimpleNamespace(family=list)])
    seen = kill_the_media_helper(SimpleNamespace(stage=own, caller=None, terms=None))  # type: ignore[arg-type]
    assert seen.wrong == ["the service has no process that opens media"]


def test_doubled_tasks_are_looked_for_among_those_since_the_drill_began() -> None:
    asked: list[dict[str, Any]] = []
    with Caller("http://127.0.0.1:9") as caller:
        known: list[dict[str, Any]] = []

        def request(_method: str, _path: str, *, json: dict[str, Any], **_: Any) -> dict[str, str]:
            known.extend({"id": task_id, "metadata": json["metadata"]} for task_id in ("task_1", "task_double"))
            known.append({"id": "task_of_another", "metadata": {"drill": "another"}})
            return {"id": "task_1"}

        def tasks(**filters: Any) -> list[dict[str, Any]]:
            asked.append(filters)
            return known

        caller.client = SimpleNamespace(  # type: ignore[assignment]
            upload=lambda path: {"uri": f"upload:{path.name}", "created_at": "2026-01-31T12:00:00Z"},
            request=request, tasks=tasks, close=lambda: None,
        )  # fmt: skip
        caller.hand_in({})
        assert caller.strangers() == ["task_double"]
    assert asked == [{"limit": 200, "created_after": "2026-01-31T12:00:00Z"}]


def test_on_a_service_in_use_only_rehearsals_are_struck(cli: Cli, service: ServiceProcess) -> None:
    before = service.family()[0].pid
    only = ("--only", "false-finish,no-face,service-killed")
    done = cli("drill", "--url", service.url, "--tasks", "1", *only)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("passed")] == ["false-finish", "no-face"]
    assert "4 tasks accepted, 0 lost, 0 doubled." in lines
    assert lines[-1].startswith("Left out, since it strikes the service itself")
    assert lines[-1].endswith(": service-killed.")
    assert service.family()[0].pid == before


def test_a_service_without_rehearsals_or_with_a_held_queue_is_left_alone() -> None:
    tiers, queue = [{"name": "warp", "renderer": "warp"}], {"paused": True, "draining": False}
    caller = SimpleNamespace(url="http://service", client=SimpleNamespace(tiers=lambda: tiers, queue=lambda: queue))
    with pytest.raises(CommandError, match="offers no rehearsals") as caught:
        _require_readiness(caller)  # type: ignore[arg-type]
    assert "GREENROOM_REHEARSALS=1" in caught.value.hint
    tiers.append({"name": "trouble", "renderer": "rehearsal"})
    with pytest.raises(CommandError, match="it is held") as caught:
        _require_readiness(caller)  # type: ignore[arg-type]
    assert "/queue/resume" in caught.value.hint
    queue["paused"] = False
    _require_readiness(caller)  # type: ignore[arg-type]


def test_drills_are_listed_and_unknown_ones_refused(cli: Cli) -> None:
    done = cli("drill", "--list")
    assert done.returncode == 0
    assert "worker-frozen" in done.stdout
    assert "must follow: WORKER_UNRESPONSIVE, then SUCCEEDED (about 23 s)" in done.stdout
    done = cli("drill", "--only", "earthquake")
    assert done.returncode == 2
    assert "--only 'earthquake' is none of worker-killed, " in done.stderr
    done = cli("drill", "--url", "::::", "--only", "no-face")
    assert done.returncode == 2
    assert "--url '::::' is no address" in done.stderr


def test_a_drill_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "drill", *LIGHT, "--only", "worker-exits,hang-in-python"]
    with subprocess.Popen(
        [*command, "--folder", str(tmp_path)],
        cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert "worker-exits" in said[1]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(90) == 130, rest
    assert "Interrupted: what is not above was not played." in rest
    assert "whether each ended once was not looked at" in rest
    assert left(tmp_path) == []


def test_the_command_needs_no_framework() -> None:
    script = "import app.cli.drill.command, app.cli.drill.playing, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert not {"torch", "numpy", "av", "cv2", "PIL", "sqlalchemy", "fastapi"} & set(done.stdout.split())
