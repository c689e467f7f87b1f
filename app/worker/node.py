"""Who this service process is: a node id that survives a restart, held by a lock file.

Every node has a file `nodes/<id>.lock` in the data directory. A starting service takes the first one that nobody
holds, and with it the leases that its former holder left; if all are held, it is a new node. So a restarted service
is the same node at once, and several services on one data directory are different ones.

Where machines share the directory the files lie in `nodes/<machine>/`, and no machine looks at another's: whether a
lock is held there is more than a network file system may tell, and a node's processes can be ended on its own machine
only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from app.tasks.ids import new_id

_NODES = "nodes"


class Node:
    """This service's identity while it runs. `id` owns the leases."""

    def __init__(self, data_dir: Path, machine: str = "") -> None:
        """`machine` names this one among those that share the directory; empty: it is the only one.

        Raises OSError if the data directory cannot be written.
        """
        self._folder = data_dir / _NODES / machine
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.lock")):
            if (handle := _try_lock(path)) is not None:
                self.id, self._handle = path.stem, handle
                return
        self.id = new_id("node")
        handle = _try_lock(self._folder / f"{self.id}.lock")
        assert handle is not None, "a file with a fresh name cannot be locked by another"
        self._handle = handle

    def dead(self) -> Iterator[str]:
        """The ids of this machine's other nodes whose process is gone. Each one's lock is held while its turn lasts."""
        for path in sorted(self._folder.glob("*.lock")):
            if path.stem != self.id and (handle := _try_lock(path)) is not None:
                try:
                    yield path.stem
                finally:
                    os.close(handle)

    def release(self) -> None:
        """Give the identity up for the next start. Safe to repeat."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _try_lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
