"""The shared-memory block of a slot."""

from __future__ import annotations

from pathlib import Path

from app.render.contract import Phase
from app.worker.shared import ProgressBlock


def test_what_the_child_writes_the_service_reads():
    service = ProgressBlock()
    child = ProgressBlock(service.name)
    child.begin(3)
    child.beat(4711)
    before = service.read()
    child.move(Phase.RENDER, 16, 400)
    after = service.read()
    assert (after.phase, after.done, after.total, after.attempt, after.pid) == (Phase.RENDER, 16, 400, 3, 4711)
    assert after.moves == before.moves + 1
    assert after.beats == before.beats == 1
    child.close()
    service.close()


def test_closing_the_owner_removes_the_block():
    block = ProgressBlock()
    path = Path("/dev/shm") / block.name
    assert path.exists()
    block.close()
    block.close()
    assert not path.exists()
