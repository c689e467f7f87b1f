"""Which slots a machine gets."""

from __future__ import annotations

import pytest

from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers
from app.worker import devices
from app.worker.devices import NoCudaDevice, plan_light, plan_slots


@pytest.fixture
def gpus(monkeypatch):
    def have(*names: str) -> None:
        monkeypatch.setattr(devices, "visible_cuda_devices", lambda: list(names))

    return have


@pytest.mark.parametrize(("cores", "slots"), [(1, 1), (2, 1), (8, 4)])
def test_a_machine_without_a_gpu_gets_one_slot_per_two_cores(gpus, cores, slots):
    gpus()
    plan = plan_slots("auto", None, None, cores)
    assert [one.name for one in plan] == [f"cpu-{index}" for index in range(slots)]
    assert all(one.device == "cpu" and one.cuda_visible_devices == "" for one in plan)
    assert sum(one.threads for one in plan) <= max(cores, slots)


def test_each_gpu_gets_a_slot_that_sees_it_alone(gpus):
    gpus("GPU-a", "GPU-b")
    plan = plan_slots("auto", None, None, 8)
    assert [(one.name, one.device, one.cuda_visible_devices) for one in plan] == [
        ("cuda-0", "cuda:0", "GPU-a"),
        ("cuda-1", "cuda:0", "GPU-b"),
    ]


def test_more_slots_than_gpus_share_them_evenly(gpus):
    gpus("GPU-a", "GPU-b")
    assert [one.cuda_visible_devices for one in plan_slots("cuda", 4, 2, 8)] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]


def test_cuda_asked_for_and_not_there_is_an_error_and_never_the_cpu(gpus):
    gpus()
    with pytest.raises(NoCudaDevice, match="CUDA_VISIBLE_DEVICES"):
        plan_slots("cuda", None, None, 8)


def test_the_cpu_asked_for_leaves_the_gpus_alone(gpus):
    gpus("GPU-a")
    assert plan_slots("cpu", 1, 3, 8)[0].device == "cpu"


def test_a_light_tier_has_slots_of_its_own_and_hides_no_gpu_from_the_programs_it_starts():
    tiers = Tiers(
        [
            TierSettings(name="good", renderer="warp"),
            TierSettings(name="last", renderer="still", concurrency=2),
        ]
    )
    plans = plan_light(tiers.enabled)
    assert [(plan.name, plan.group, plan.device) for plan in plans] == [
        ("last-0", "last", "cpu"),
        ("last-1", "last", "cpu"),
    ]
    assert all(plan.cuda_visible_devices is None for plan in plans)
