"""What NVML knows of the GPUs: their use, and whether a dead process still holds memory of one.

A killed process can leave its memory behind while the driver cleans up, or for ever when the device is wedged. Only a
device without such a ghost gets a new process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pynvml
import structlog

log = structlog.get_logger(__name__)


def holds_memory(uuid: str, pid: int) -> bool:
    """Whether NVML still lists process `pid` on device `uuid` (`GPU-...` or an index).

    False where NVML cannot tell: without a driver, or in a container whose process ids it does not know.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    try:
        if uuid.isdigit():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(uuid))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return any(process.pid == pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except pynvml.NVMLError as error:
        log.warning("gpu_processes_not_listed", device=uuid, reason=str(error))
        return False
    finally:
        pynvml.nvmlShutdown()


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device. Sizes in bytes; None where the driver does not tell."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # for OpenAPI

    device: str
    """Its UUID, `GPU-...`."""
    index: int
    """As the driver counts."""
    name: str
    """As the maker calls it."""
    memory_total: int
    """What there is."""
    memory_used: int
    """What all processes hold."""
    busy_share: float | None
    """Share of time, 0 to 1, in which a kernel ran."""
    temperature_c: float | None
    """Degrees Celsius."""


class GpuReader:
    """Reads all devices through NVML, which is opened once and again after an error. For one thread."""

    def __init__(self) -> None:
        self._open = False

    def read(self) -> tuple[list[Gpu], str]:
        """The devices that answer, and why others do not, or why there are none; empty text where all is well."""
        try:
            if not self._open:
                pynvml.nvmlInit()
                self._open = True
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            self.close()
            return [], f"NVML does not answer: {error}"
        found, notes = [], [] if count else ["NVML shows no device"]
        for index in range(count):
            try:
                found.append(self._device(index))
            except pynvml.NVMLError as error:
                notes.append(f"device {index} does not answer: {error}")
        if notes:
            self.close()
        return found, "; ".join(notes)

    def close(self) -> None:
        """Let go of NVML. Safe to repeat."""
        if self._open:
            self._open = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _device(self, index: int) -> Gpu:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        busy = _if_told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        heat = _if_told(lambda: float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)))
        device, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        return Gpu(device, index, name, int(memory.total), int(memory.used), busy, heat)


def _if_told(ask: Callable[[], float]) -> float | None:
    """The answer, None from a device that does not support the question (MIG, passively cooled)."""
    try:
        return ask()
    except pynvml.NVMLError_NotSupported:
        return None
