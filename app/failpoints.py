"""Failpoints: named places in the code where a rehearsal may kill or stop the process.

Off unless `GREENROOM_REHEARSALS=1` and `GREENROOM_FAILPOINTS` arms one, e.g. `published=kill` or `claimed=kill:3` (the
third time it is reached). Tests prove with them that no death between two steps loses a task.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

POINTS = frozenset(
    {
        "created", "claimed", "started", "rendered", "published", "committed", "failed", "cancelling",
        "noticing", "noticed", "twins", "twins_settled", "chained", "taken_in", "released",
    }
)  # fmt: skip
"""`created`: task committed, 202 not yet sent. `claimed`: claim committed, process not yet told. `started`: the child
renders. `rendered`: the child is done, nothing published. `published`: file in place, not committed. `committed`:
SUCCEEDED committed, cleanup not done. `failed`: attempt failed, not yet written. `cancelling`: cancel committed, its
answer not yet sent. `noticing`: a notice is taken from the outbox, not yet sent. `noticed`: it is sent, not yet written
down. `twins`: a task has ended, those that wait for it know nothing yet. `twins_settled`: they do.
`chained`: all predecessors of a task have succeeded, nothing is done about it yet. `taken_in`: their results are stored
as its inputs, the task does not know it yet. `released`: it does."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Failpoints:
    """The armed points of one process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raises ValueError for a point or an action that does not exist."""
        self._lock = threading.Lock()
        self._armed: dict[str, tuple[signal.Signals, int]] = {}
        if environ.get("GREENROOM_REHEARSALS") != "1":
            return
        for part in filter(None, environ.get("GREENROOM_FAILPOINTS", "").split(",")):
            name, _, action = part.partition("=")
            verb, _, count = action.partition(":")
            if name not in POINTS or verb not in _SIGNALS:
                raise ValueError(f"unknown failpoint {part!r}: NAME=kill|stop[:COUNT], NAME one of {sorted(POINTS)}")
            self._armed[name] = (_SIGNALS[verb], int(count or 1))

    def hit(self, name: str) -> None:
        """Pass a point; an armed one acts when it has been reached as often as it says."""
        if not self._armed:
            return
        with self._lock:
            if name not in self._armed:
                return
            number, left = self._armed[name]
            self._armed[name] = (number, left - 1)
        if left == 1:
            os.kill(os.getpid(), number)


hit = Failpoints(os.environ).hit
"""Pass a point of this process."""
