"""Loading modules without the collector of cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """While modules load, hold the collector; afterwards have it pass over all that is there.

    Modules make a million objects that stay, and the collector walks over them again and again as they come: a sixth
    of what it costs to start a service or a slot with torch.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
