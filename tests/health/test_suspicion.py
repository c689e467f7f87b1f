"""When a device is to blame."""

from __future__ import annotations

from app.health.suspicion import Suspicion
from app.retry.taxonomy import FailureCode as C


def test_one_bad_task_cannot_take_a_device_down():
    device = Suspicion()
    assert not any(device.broke(C.WORKER_CRASHED, "poison") for _ in range(10))


def test_two_different_tasks_make_it_suspect():
    device = Suspicion()
    assert not device.broke(C.WORKER_CRASHED, "a")
    assert device.broke(C.WORKER_STALLED, "b")


def test_a_success_between_clears_it():
    device = Suspicion()
    device.broke(C.WORKER_CRASHED, "a")
    device.served()
    assert not device.broke(C.WORKER_CRASHED, "b")


def test_a_lost_gpu_is_suspect_at_once():
    assert Suspicion().broke(C.GPU_LOST, "a")


def test_a_failure_that_is_not_the_devices_does_not_count():
    device = Suspicion()
    assert not device.broke(C.INTERNAL, "a")
    assert not device.broke(C.HOST_OOM, "b")
    assert not device.broke(C.CANCELLED, "c")


def test_quarantines_grow_until_a_success():
    device = Suspicion()
    assert [device.quarantine() for _ in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]
    device.served()
    assert device.quarantine() == 5
