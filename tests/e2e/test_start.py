"""What the service says when it cannot start, and what it leaves of others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

from tests.e2e.conftest import Service


def start(tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_renderer_that_does_not_exist_is_refused_at_the_start(tmp_path):
    ended = start(tmp_path, GREENROOM_TIER_RENDERER="wrap")
    assert ended.returncode == 1
    assert re.search(r"greenroom cannot start: tier_renderer is 'wrap'; there are: .*\bwarp\b", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_an_empty_variable_leaves_the_number_of_slots_to_the_machine(tmp_path):
    service = Service(tmp_path / "data", GREENROOM_SLOTS="", GREENROOM_SPARES="")
    try:
        assert service.http.get("/queue").json()["slots"]
    finally:
        service.http.close()
        assert service.stop() == 0


def test_the_second_service_on_a_directory_leaves_the_first_ones_file(tmp_path):
    quick = {"GREENROOM_TIER_RENDERER": "rehearsal", "GREENROOM_REHEARSALS": "1"}
    first = Service(tmp_path / "data", **quick)
    second = Service(tmp_path / "data", **quick)
    try:
        assert json.loads((tmp_path / "data" / "service.json").read_text())["pid"] == second.process.pid
        assert first.stop() == 0
        assert json.loads((tmp_path / "data" / "service.json").read_text())["pid"] == second.process.pid
    finally:
        for service in (first, second):
            service.http.close()
            if service.process.poll() is None:
                service.stop(signal.SIGKILL)
