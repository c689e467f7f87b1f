"""The pool by itself: which process goes where, and when a device has to wait."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from app.health import gpu
from app.retry.taxonomy import Failure, FailureCode
from app.tasks.ids import new_id
from app.tiers.tiers import DEVICES
from app.worker import strays
from app.worker.launch import Served
from app.worker.pool import LocalPool
from app.worker.slot_process import SlotProcess
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


@pytest.fixture
def pool_of(tmp_path):
    """Makes started pools of two slots with what is given; stops them at the end."""
    made = []

    def make(**given):
        terms = {
            "serves": {DEVICES: [Served("rehearsal", "rehearsal")]},
            "run_dir": tmp_path,
            "owner": new_id("node"),
            "start_timeout_s": 60.0,
            "sink": lambda slot, line: None,
            "observer": Observed(),
        }
        made.append(LocalPool([SlotPlan(f"gpu-{n}", "cpu", f"GPU-{n}", 1) for n in range(2)], **(terms | given)))
        made[-1].start(lambda: None)
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_an_unforeseen_error_about_one_slot_ends_neither_the_supervisor_nor_the_other_slot(pool_of):
    asked = []

    def broken_once(device, pid):
        asked.append((device, pid))
        if len(asked) == 1:
            raise LookupError("a driver with a surprise")
        return False

    pool = pool_of(holds_gpu_memory=broken_once)
    first, second = pool.slots()
    until(lambda: first.state.value == second.state.value == "idle")
    dead = first.process.pid
    os.kill(dead, signal.SIGKILL)
    until(lambda: asked)
    until(lambda: first.state.value == "idle" and first.process.pid != dead)
    assert second.state.value == "idle"
    assert second.process.is_alive()
    assert asked == [("GPU-0", dead), ("GPU-0", dead)]


def test_a_slot_that_cannot_be_looked_after_says_why(pool_of):
    def broken(device, pid):
        raise LookupError("a driver with a surprise")

    pool = pool_of(holds_gpu_memory=broken)
    slot = pool.slots()[0]
    until(lambda: slot.state.value == "idle")
    os.kill(slot.process.pid, signal.SIGKILL)
    until(lambda: slot.last_failure is not None)
    assert "a driver with a surprise" in slot.last_failure.message


def test_a_driver_that_hangs_holds_up_nobody_but_its_own_slot(pool_of):
    asked, go_on = threading.Event(), threading.Event()

    def hangs(device, pid):
        asked.set()
        assert go_on.wait(WAIT_S)
        return False

    pool = pool_of(holds_gpu_memory=hangs)
    first, second = pool.slots()
    until(lambda: first.state.value == second.state.value == "idle")
    os.kill(first.process.pid, signal.SIGKILL)
    assert asked.wait(WAIT_S)
    try:
        with ThreadPoolExecutor(1) as caller:
            taken = caller.submit(lambda: (pool.any_idle(), pool.slots(), pool.acquire()))
            assert taken.result(timeout=10)[2] is second
            pool.release(second, task_id="t", failure=None)
    finally:
        go_on.set()


def test_a_process_that_does_not_die_holds_up_nobody(pool_of, monkeypatch):
    dying, go_on, kill = threading.Event(), threading.Event(), SlotProcess.kill

    def slowly(process):
        dying.set()
        assert go_on.wait(WAIT_S)
        return kill(process)

    pool = pool_of()
    first, second = pool.slots()
    until(lambda: first.state.value == second.state.value == "idle")
    monkeypatch.setattr(SlotProcess, "kill", slowly)
    assert pool.retire(first.process.pid, "memory over the limit")
    assert dying.wait(WAIT_S)
    try:
        with ThreadPoolExecutor(1) as caller:
            assert caller.submit(lambda: (pool.any_idle(), pool.acquire())).result(timeout=10)[1] is second
            pool.release(second, task_id="t", failure=None)
    finally:
        go_on.set()


def test_a_start_for_which_there_is_no_thread_leaves_nothing_and_is_tried_again(pool_of, monkeypatch):
    refused, start = [], threading.Thread.start

    def exhausted(thread):
        if thread.name.startswith("output-") and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    before = psutil.Process().num_fds()
    monkeypatch.setattr(threading.Thread, "start", exhausted)
    pool = pool_of()
    first, second = pool.slots()
    until(lambda: len(refused) == 2)
    until(lambda: first.last_failure is not None and second.last_failure is not None)
    assert "can't start new thread" in first.last_failure.message
    assert psutil.Process().children() == []
    assert psutil.Process().num_fds() <= before + 2, "the pool's own bell"
    until(lambda: first.state.value == second.state.value == "idle")


def test_a_reload_after_the_end_writes_into_nobodys_file(pool_of, tmp_path):
    pool = pool_of()
    pool.stop()
    handles = [os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT) for _ in range(16)]
    pool.reconfigure([], {})
    assert (tmp_path / "mine").read_bytes() == b""
    for handle in handles:
        os.close(handle)


def test_a_line_that_cannot_be_passed_on_does_not_stop_the_process_that_wrote_it(pool_of):
    """With nobody to read on, its next line would fail, or wait for ever."""
    lines = []

    def broken(slot, line):
        lines.append(line)
        if len(lines) == 1:
            raise TypeError("a line with a surprise")

    pool = pool_of(sink=broken, module="tests.worker.talker")
    until(lambda: all(slot.state.value == "idle" for slot in pool.slots()))
    until(lambda: len(lines) >= 2000)


def test_a_process_that_cannot_read_a_command_ends_and_says_so(pool_of):
    """Deaf, it would hear neither of a job nor of a cancel any more."""
    lines = []
    pool = pool_of(sink=lambda slot, line: lines.append(line))
    slot = pool.slots()[0]
    until(lambda: slot.state.value == "idle")
    deaf = slot.process
    deaf._commands.send_bytes(b"rubbish")
    until(lambda: slot.process is not deaf)
    until(lambda: any("cannot be read" in line for line in lines))


def test_without_a_descriptor_to_look_for_strays_with_a_slot_gets_its_next_process(pool_of, monkeypatch):
    def exhausted(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    pool = pool_of()
    slot = pool.slots()[0]
    until(lambda: slot.state.value == "idle")
    dead = slot.process
    with monkeypatch.context() as patched:
        patched.setattr(strays, "end_marked", exhausted)
        os.kill(dead.pid, signal.SIGKILL)
        until(lambda: slot.state.value == "idle" and slot.process is not dead)
