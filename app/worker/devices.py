"""Which devices the slots get, found through NVML: the service never imports torch."""

from __future__ import annotations

import os
from typing import Literal

import pynvml
import structlog

from app.worker.pool import SlotPlan

log = structlog.get_logger(__name__)


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
