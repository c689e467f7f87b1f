"""The shared-memory block of a slot."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from app.render.contract import Phase
from app.worker.shared import STEPS, ProgressBlock


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


def test_the_phases_of_an_attempt_stand_there_with_their_times_and_outlive_the_child():
    service = ProgressBlock()
    child = ProgressBlock(os.dup(service._handle))
    child.begin(1)
    child.move(Phase.RENDER, 1, 2)
    child.begin(2)
    before = time.time()
    for phase in (Phase.FETCH, Phase.FETCH, Phase.RENDER, Phase.RENDER, Phase.FETCH, Phase.ENCODE):
        child.move(phase, 1, 2)
    child.close()
    steps = service.steps()
    assert [phase for phase, _at in steps] == [Phase.LOAD, Phase.FETCH, Phase.RENDER, Phase.FETCH, Phase.ENCODE]
    times = [at for _phase, at in steps]
    assert times == sorted(times)
    assert before - 1 < times[0] <= times[-1] <= time.time()
    service.close()


def test_of_a_renderer_that_goes_to_and_fro_the_first_phases_are_kept():
    block = ProgressBlock()
    block.begin(1)
    for _ in range(STEPS):
        block.move(Phase.FETCH, 0, 0)
        block.move(Phase.RENDER, 0, 0)
    assert len(block.steps()) == STEPS
    assert block.read().phase is Phase.RENDER
    block.close()


def test_the_service_sees_since_when_the_child_is_in_its_phase():
    block = ProgressBlock()
    began = time.monotonic()
    block.begin(1)
    loading = block.read().since
    block.move(Phase.RENDER, 0, 400)
    rendering = block.read().since
    block.move(Phase.RENDER, 16, 400)
    assert began <= loading <= rendering <= time.monotonic()
    assert block.read().since == rendering
    block.begin(2)
    assert block.read().since >= rendering
    block.close()


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


@pytest.mark.parametrize(("said", "kept"), [(-1, 0), (10**30, 2**63 - 1)])
def test_a_number_that_no_work_has_ends_no_attempt(said: int, kept: int):
    """A program's output may say any number."""
    block = ProgressBlock()
    block.move(Phase.RENDER, said, said)
    assert (block.read().done, block.read().total) == (kept, kept)
    block.close()
