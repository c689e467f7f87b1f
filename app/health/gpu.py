"""Whether a dead process still holds memory of its GPU, asked of NVML.

A killed process can leave its memory behind while the driver cleans up, or for ever when the device is wedged. Only a
device without such a ghost gets a new process.
"""

from __future__ import annotations

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
