"""Batches that shrink: where a device's memory does not hold one, the render goes on with half of it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from app.retry.classifier import is_out_of_memory


class Batch:
    """How many frames of a render go through its device together. Only ever gets smaller; one object per render."""

    def __init__(self, size: int, scale: float = 1.0) -> None:
        """`size` frames are meant to fit; `scale` (`RenderJob.batch_scale`) is the share of it to begin with."""
        self.size = max(1, int(size * scale))

    def over(self, count: int, work: Callable[[slice], None]) -> None:
        """Call `work` with one part after the other of `count` frames, none longer than `size`.

        When `work` runs out of memory, `size` becomes half of that part and the part begins again; what was done
        before is kept. So `work` must leave no trace of a part that it does not finish. Raises the last error once a
        single frame does not fit, and every other error as it comes.
        """
        done = 0
        while done < count:
            part = slice(done, min(done + self.size, count))
            length = part.stop - part.start
            try:
                work(part)
            except Exception as error:
                if length == 1 or not is_out_of_memory(error):
                    raise
            else:
                done = part.stop
                continue
            # Not before the error is forgotten: its traceback holds the tensors of the part that failed.
            free_device_memory()
            self.size = length // 2


def free_device_memory() -> None:
    """Give what torch's allocator keeps for later back to the CUDA device, if this process uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
