"""Failpoints do nothing unless a rehearsal arms them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from app.failpoints import Failpoints

SCRIPT = "from app.failpoints import hit; hit('published'); print('once'); hit('published'); print('twice')"


def run(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-u", "-c", SCRIPT], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_without_rehearsals_an_armed_point_does_nothing():
    assert run(GREENROOM_FAILPOINTS="published=kill").stdout == "once\ntwice\n"


def test_an_armed_point_acts_when_it_is_reached_as_often_as_it_says():
    died = run(GREENROOM_REHEARSALS="1", GREENROOM_FAILPOINTS="published=kill:2,claimed=kill")
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "once\n")


@pytest.mark.parametrize("spec", ["nowhere=kill", "published=explode"])
def test_a_typing_error_is_told(spec):
    with pytest.raises(ValueError, match="unknown failpoint"):
        Failpoints({"GREENROOM_REHEARSALS": "1", "GREENROOM_FAILPOINTS": spec})
