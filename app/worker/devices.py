"""Which devices the slots get, found through NVML: the service never imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal

import psutil
import pynvml
import structlog

from app.tiers.tiers import Tier
from app.worker.slots import SlotPlan

log = structlog.get_logger(__name__)


_SPARE_ROOM_BYTES = 2 * 1024**3
"""Free memory per process from which a spare is affordable: about three times what a CPU slot takes at 720p."""


class NoCudaDevice(Exception):
    """CUDA was asked for by the configuration, and there is no device."""


def visible_cuda_devices() -> list[str]:
    """The CUDA devices that a process of ours may use, as `CUDA_VISIBLE_DEVICES` names them (UUIDs if it is not set).

    Empty where there is no NVIDIA driver. Whether torch can use a device shows when its slot starts.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no_nvml", reason=str(error))
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        log.warning("cuda_devices_not_listed", reason=str(error))
        return []
    finally:
        pynvml.nvmlShutdown()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or not uuids:
        return uuids
    return [part.strip() for part in named.split(",") if part.strip() and part.strip() != "-1"]


def plan_spares(plans: Sequence[SlotPlan], spares: int | None) -> dict[SlotPlan, int]:
    """How many loaded processes stand by per kind of slot.

    `spares` is the number for each; None decides: one for the CPU slots where memory allows, none for GPUs, where a
    spare takes memory of the device that the operator must have planned for.
    """
    kinds = {plan.kind: plan for plan in reversed(plans)}
    if spares is not None:
        return dict.fromkeys(kinds.values(), spares)
    room = psutil.virtual_memory().available
    if room < _SPARE_ROOM_BYTES * (len(plans) + 1):
        return {}
    return {plan: 1 for plan in kinds.values() if plan.device == "cpu"}


def plan_light(tiers: Iterable[Tier]) -> list[SlotPlan]:
    """The slots of tiers that only wait for another server or program: as many as each may have tasks at once.

    CUDA devices are not hidden from them: they have no use for one themselves, but a program that they start may.
    """
    return [
        SlotPlan(f"{tier.name}-{index}", "cpu", None, 1, tier.group)
        for tier in tiers
        if tier.capabilities.light
        for index in range(tier.settings.concurrency or 1)
    ]


def plan_slots(
    device: Literal["auto", "cuda", "cpu"], slots: int | None, threads: int | None, cores: int | None = None
) -> list[SlotPlan]:
    """The slots of this machine: `slots` in all if given, else one per CUDA device or one per two CPU cores.

    Raises `NoCudaDevice` when CUDA was asked for and is not there: no silent fall back to the CPU.
    """
    usable = cores or len(os.sched_getaffinity(0))
    gpus = visible_cuda_devices() if device != "cpu" else []
    if device == "cuda" and not gpus:
        raise NoCudaDevice(
            'The configuration asks for CUDA (`device = "cuda"`), but torch finds no usable CUDA device. '
            'Check the driver, CUDA_VISIBLE_DEVICES and that torch is a CUDA build, or set `device = "cpu"`.'
        )
    count = slots or len(gpus) or max(1, usable // 2)
    each = threads or max(1, usable // count)
    if gpus:
        return [SlotPlan(f"cuda-{index}", "cuda:0", gpus[index % len(gpus)], each) for index in range(count)]
    return [SlotPlan(f"cpu-{index}", "cpu", "", each) for index in range(count)]
