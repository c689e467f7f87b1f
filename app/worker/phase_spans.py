"""The phases of an attempt as spans: what a process did when, as it stood in shared memory."""

from __future__ import annotations

from collections.abc import Sequence

from app.render.contract import Phase
from app.store.records import Claim
from app.telemetry.tracing import Span, Tracing, attempt_span


def record_phases(
    tracing: Tracing, claim: Claim, steps: Sequence[tuple[Phase, float]], *, began_at: float, ended_at: float
) -> None:
    """Record the `steps` of an attempt, each with the moment at which it began (all times in epoch seconds).

    The attempt's own span is made of its event.
    """
    task, n = claim.task, claim.attempt
    # A process that died before it began shows the steps of the attempt before.
    own = [(phase, at) for phase, at in steps if at >= began_at]
    ends = [*(at for _phase, at in own[1:]), ended_at]
    if task.trace is None:
        return
    for index, ((phase, began), ended) in enumerate(zip(own, ends, strict=False)):
        context = tracing.below(task.trace, task.id, "attempt", n, index)
        about: dict[str, str | int] = {
            "greenroom.task.id": task.id,
            "greenroom.attempt": n,
            "greenroom.tier": claim.tier,
        }
        parent = attempt_span(task.id, n)
        tracing.record(Span(context, parent, phase.value, "internal", began, ended, about))
