"""What a drill is made of: the scene that it plays on, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.cli.drill.caller import Caller
from app.cli.drill.stage import Stage, all_slots_ready, is_ready, until
from app.cli.drill.terms import Terms
from app.cli.errors import CommandError

PLAIN: dict[str, Any] = {"frame_s": 0.02}
"""Options of a rehearsal in which nothing goes wrong."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a drill plays: the service as a caller sees it, and its processes where they are the drill's own."""

    caller: Caller
    terms: Terms
    beside: int
    """Rehearsals without a fault that run beside the one that is struck, and must not feel anything."""
    own: Stage | None = None

    @property
    def stage(self) -> Stage:
        """The stage, for drills that need one."""
        if self.own is None:
            raise CommandError("DRILL_NEEDS_STAGE", "This drill needs a service of its own.")
        return self.own

    def hand_in_beside(self, **options: Any) -> list[str]:
        """Submit the rehearsals without a fault."""
        return [self.caller.hand_in(PLAIN | options) for _ in range(self.beside)]

    def restore(self) -> list[str]:
        """See to it that one service runs, at its address, and takes tasks; what had gone wrong with it if not."""
        wrong = self.own.restore() if self.own is not None else []
        if self.own is not None:
            self.caller.client.request("POST", "/queue/resume")
        return wrong

    def wrong_after(self) -> list[str]:
        """What is not as before once a drill is over: the service is ready, and nothing is left."""
        if not until(lambda: is_ready(self.caller.url), self.terms.patience_s()):
            return ["the service is not ready any more"]
        if self.own is None:
            return []
        wrong = []
        if not until(lambda: all_slots_ready(self.caller.url), self.terms.patience_s()):
            wrong.append("a slot has not come back")
        return wrong + self.own.left()

    def wrong_files(self, task: dict[str, Any]) -> list[str]:
        """Whether a task has exactly the files that it should have; nothing where they cannot be seen."""
        if self.own is None:
            return []
        found, wanted = self.own.results(task["id"]), int(task["status"] == "SUCCEEDED")
        return [] if len(found) == wanted else [f"it has {len(found)} published files, not {wanted}"]


@dataclass(slots=True)
class Seen:
    """What was seen of a drill. It has passed if nothing is `wrong`."""

    what: str = ""
    recovered_s: float | None = None
    """From the fault until work went on; until when exactly, `until` says."""
    until: str = ""
    within_s: float | None = None
    """The most that the settings allow."""
    wrong: list[str] = field(default_factory=list)

    def recovered(self, seconds: float, within_s: float, until: str) -> None:
        """Note how long it took, and that it took too long if it did."""
        self.recovered_s, self.within_s, self.until = seconds, within_s, until
        if seconds > within_s:
            self.wrong.append(f"it took {seconds:.1f} s to recover; the settings allow {within_s:.1f} s")


@dataclass(frozen=True, slots=True)
class Drill:
    """One failure on purpose: what is done, what must follow, and how to see whether it did."""

    name: str
    done: str
    expected: Callable[[Terms], str]
    play: Callable[[Scene], Seen]
    about_s: Callable[[Terms], float]
    inside: bool = True
    """The failure stays inside rehearsals of the drill's own: a service in use comes to no harm."""
