"""The pool by itself: which process goes where, and when a device has to wait."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from app.health import gpu
from app.retry.taxonomy import Failure, FailureCode
from app.tasks.ids import new_id
from app.tiers.tiers import DEVICES
from app.worker.launch import Served
from app.worker.pool import LocalPool
from app.worker.slots import SlotPlan
from tests.worker.conftest import WAIT_S, Observed


@pytest.fixture
def ghosts():
    """The processes that, as far as NVML says, still hold memory of the device."""
    return set()


@pytest.fixture
def pool(tmp_path, ghosts):
    # The renderer needs no GPU; the name of one makes the pool ask about it.
    made = LocalPool(
        [SlotPlan("gpu-0", "cpu", "GPU-test", 1)],
        serves={DEVICES: [Served("rehearsal", "rehearsal")]},
        run_dir=tmp_path,
        owner=new_id("node"),
        start_timeout_s=60.0,
        sink=lambda slot, line: None,
        observer=Observed(),
        holds_gpu_memory=lambda device, pid: (device, pid) in ghosts,
    )
    made.start(lambda: None)
    yield made
    made.stop()


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_device_whose_memory_a_dead_process_still_holds_waits_in_quarantine(pool, ghosts):
    [slot] = pool.slots()
    until(lambda: slot.state.value == "idle")
    dead = slot.process.pid
    ghosts.add(("GPU-test", dead))
    os.kill(dead, signal.SIGKILL)
    until(lambda: slot.state.value == "quarantined")
    assert slot.process is None
    ghosts.clear()
    until(lambda: slot.state.value == "idle")
    assert slot.process.pid != dead


def test_without_a_driver_no_ghost_is_seen():
    assert gpu.holds_memory("GPU-0", os.getpid()) is False


@pytest.mark.parametrize("listed", [True, False])
def test_nvml_is_asked_for_the_processes_of_the_device(monkeypatch, listed):
    asked = []

    class Process:
        pid = 4711 if listed else 1

    monkeypatch.setattr(gpu.pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(gpu.pynvml, "nvmlShutdown", lambda: asked.append("shutdown"))
    monkeypatch.setattr(gpu.pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: asked.append(uuid) or "handle")
    monkeypatch.setattr(gpu.pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: [Process()])
    assert gpu.holds_memory("GPU-a", 4711) is listed
    assert asked == ["GPU-a", "shutdown"]


def test_a_process_that_was_thrown_away_can_still_be_looked_at(pool):
    """Views of the API read slots without a lock: a process may be disposed of between two looks."""
    [slot] = pool.slots()
    until(lambda: slot.state.value == "idle")
    process, pid = slot.process, slot.process.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: slot.process is not process)
    assert process.pid == pid
    assert not process.is_alive()


def test_an_idle_process_that_retires_is_replaced_at_once(pool):  # R3.12
    [slot] = pool.slots()
    until(lambda: slot.state.value == "idle")
    old = slot.process.pid
    assert pool.retire(old, "memory over the limit")
    until(lambda: slot.state.value == "idle" and slot.process.pid != old)
    assert slot.restarts == 1
    assert not pool.retire(old, "memory over the limit"), "it is gone already"


def test_a_busy_process_that_retires_does_its_job_first(pool):  # R3.12
    [slot] = pool.slots()
    until(lambda: slot.state.value == "idle")
    assert pool.acquire() is slot
    old = slot.process.pid
    assert pool.retire(old, "memory over the limit")
    assert pool.retire(old, "memory over the limit"), "asked twice"
    assert slot.state.value == "busy"
    assert slot.process.is_alive()
    pool.release(slot, task_id="t", failure=None)
    until(lambda: slot.state.value == "idle")
    assert slot.process.pid != old
    assert slot.retiring == ""
    assert slot.restarts == 1


def test_a_process_that_yields_too_late_is_no_restart_to_worry_about(pool):
    [slot] = pool.slots()
    until(lambda: slot.state.value == "idle")
    assert pool.acquire() is slot
    pool.release(slot, task_id="t", failure=Failure(FailureCode.CANCELLED), poisoned=FailureCode.CANCELLED)
    assert slot.restarts == 0


def test_a_device_that_is_held_says_so_until_it_is_free(pool, ghosts):  # R0.12
    [slot] = pool.slots()
    until(lambda: slot.state.value == "idle")
    dead = slot.process.pid
    ghosts.add(("GPU-test", dead))
    os.kill(dead, signal.SIGKILL)
    until(lambda: slot.device_held)
    ghosts.clear()
    until(lambda: slot.state.value == "idle")
    assert not slot.device_held


def test_spares_of_slots_that_serve_nothing_are_not_started_and_come_and_go_with_their_tiers(tmp_path):
    device = SlotPlan("cpu-0", "cpu", "", 1)
    light = SlotPlan("last-0", "cpu", None, 1, "last")
    still, rehearsal = Served("last", "still"), Served("rehearsal", "rehearsal")
    made = LocalPool(
        [light],
        serves={"last": [still]},
        run_dir=tmp_path,
        owner=new_id("node"),
        start_timeout_s=60.0,
        sink=lambda slot, line: None,
        observer=Observed(),
        spares={device: 1},
    )
    made.start(lambda: None)
    try:
        until(lambda: made.group_size("last") == (1, 1, 1))
        assert made.spare_pids() == []
        made.reconfigure([device, light], {DEVICES: [rehearsal], "last": [still]})
        until(lambda: made.group_size(DEVICES)[0] == 1 and made.spare_pids())
        [spare] = made.spare_pids()
        made.reconfigure([light], {"last": [still]})
        until(lambda: not made.spare_pids() and made.group_size(DEVICES) == (0, 0, 0))
        until(lambda: not psutil.pid_exists(spare))
        assert made.group_size("last") == (1, 1, 1)
    finally:
        made.stop()
