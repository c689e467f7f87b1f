"""Playing drills one after the other: each gets its verdict, whatever happens to the others."""

from __future__ import annotations

import time

import httpx

from app.cli.drill.inside import INSIDE
from app.cli.drill.outside import OUTSIDE
from app.cli.drill.report import Row
from app.cli.drill.scene import Drill, Scene, Seen
from app.cli.drill.webhooks import WEBHOOKS
from app.cli.errors import CommandError
from greenroom.client import GreenroomError

DRILLS: dict[str, Drill] = {drill.name: drill for drill in (*INSIDE, *WEBHOOKS, *OUTSIDE)}
"""All drills, in the order in which they are played."""

TROUBLE = (CommandError, GreenroomError, httpx.HTTPError, OSError)
"""What a service that misbehaves can do to who speaks to it."""


def play(drill: Drill, scene: Scene) -> Row:
    """Play one drill. A service that it leaves dead is started again for the next one, and that is told."""
    began = time.monotonic()
    try:
        seen = drill.play(scene)
    except TROUBLE as error:
        seen = Seen("it could not be played to its end", wrong=[_words(error)])
    try:
        seen.wrong += scene.restore() + scene.wrong_after()
    except TROUBLE as error:
        seen.wrong.append(f"afterwards: {_words(error)}")
    return Row(
        drill.name,
        drill.done,
        drill.expected(scene.terms),
        seen.what,
        seen.recovered_s,
        seen.until,
        seen.within_s,
        round(time.monotonic() - began, 3),
        tuple(seen.wrong),
    )


def _words(error: Exception) -> str:
    return str(error) or repr(error)
