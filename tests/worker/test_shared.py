"""The shared-memory block of a slot."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from app.render.contract import Phase
from app.worker.shared import ProgressBlock


def test_what_the_child_writes_the_service_reads():
    service = ProgressBlock()
    child = ProgressBlock(os.dup(service._handle))
    child.begin(3)
    child.beat(4711, 123 * 1024**2)
    before = service.read()
    child.move(Phase.RENDER, 16, 400)
    after = service.read()
    assert (after.phase, after.done, after.total, after.attempt, after.pid) == (Phase.RENDER, 16, 400, 3, 4711)
    assert after.moves == before.moves + 1
    assert after.beats == before.beats == 1
    assert after.peak_memory == 123 * 1024**2
    child.close()
    service.close()


def test_a_closed_block_is_gone_and_never_had_a_name():
    named, before = set(Path("/dev/shm").glob("psm_*")), psutil.Process().num_fds()
    block = ProgressBlock()
    assert psutil.Process().num_fds() > before
    assert set(Path("/dev/shm").glob("psm_*")) <= named
    block.close()
    block.close()
    assert psutil.Process().num_fds() == before
    with pytest.raises(ValueError, match="released"):
        block.read()
