"""The tasks that a new one names: what they are now, and which requests cannot be taken because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.api.answering import outlook_of
from app.api.ports import ApiDependencies
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.api.resource import rfc3339
from app.api.why_waiting import Holds
from app.intake.resolve import Given
from app.intake.results import result_of
from app.store.records import TaskRecord
from app.tasks.chain import Standing, standing, task_named, unique

MAX_ID = 128
"""No id of ours is longer; a longer one is not looked up."""


@dataclass(frozen=True, slots=True)
class Predecessors:
    """The tasks that a new one names."""

    after: tuple[str, ...] = ()
    """All of them, each once."""
    found: Mapping[str, TaskRecord] = field(default_factory=dict)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Those that have not succeeded yet."""
        return tuple(i for i in self.after if standing(self.found[i].status) is Standing.UNFINISHED)

    def given(self, named: Given, deps: ApiDependencies) -> Given:
        """An input; for `task:<id>` that task's video, or its place while there is none."""
        task_id = task_named(named) if isinstance(named, str) else None
        return named if task_id is None else result_of(self.found[task_id], deps.settings.data_dir)


async def look_up(
    inputs: Mapping[str, Given], after: Sequence[str], deps: ApiDependencies, *, refuse_unfinished: bool = False
) -> Predecessors:
    """The predecessors of a new task. `inputs` are `source` and `audio`; `after` are ids.

    Raises PREDECESSOR_NOT_FOUND, PREDECESSOR_FAILED, OUTPUT_EXPIRED where the result of one is an input, and with
    `refuse_unfinished` PREDECESSOR_UNFINISHED; all that is wrong is in `errors`.
    """
    named = {name: task_named(given) for name, given in inputs.items() if isinstance(given, str)}
    fields = {name: task_id for name, task_id in named.items() if task_id is not None}
    ids = unique((*fields.values(), *after))
    if not (fields or ids):
        return Predecessors()
    found = await deps.store.aget_some([task_id for task_id in ids if len(task_id) <= MAX_ID])
    fields |= {f"after.{n}": task_id for n, task_id in enumerate(after)}
    problems = [
        (error, found.get(task_id))
        for name, task_id in fields.items()
        if (error := _judged(name, task_id, found.get(task_id), refuse_unfinished)) is not None
    ]
    if problems:
        raise _refused(problems, deps)
    return Predecessors(ids, found)


def _judged(name: str, task_id: str, task: TaskRecord | None, refuse_unfinished: bool) -> FieldError | None:
    """What is wrong with naming this task here."""
    if task is None:
        return FieldError(
            name, ProblemCode.PREDECESSOR_NOT_FOUND, "no_such_task", f"There is no task {task_id[:64]!r}."
        )
    match standing(task.status):
        case Standing.FAILED:
            code = (task.error or {}).get("code")
            text = f"Task {task.id} is {task.status}{f' ({code})' if code and code != task.status else ''}."
            return FieldError(name, ProblemCode.PREDECESSOR_FAILED, "predecessor_failed", text)
        case Standing.UNFINISHED if refuse_unfinished:
            text = f"Task {task.id} is {task.status}."
            return FieldError(name, ProblemCode.PREDECESSOR_UNFINISHED, "predecessor_unfinished", text)
        case Standing.SUCCEEDED if task.result_removed_at is not None and not name.startswith("after."):
            text = f"The result of task {task.id} was kept until {rfc3339(task.result_removed_at)}."
            return FieldError(name, ProblemCode.OUTPUT_EXPIRED, "result_removed", text)
    return None


def _refused(problems: Sequence[tuple[FieldError, TaskRecord | None]], deps: ApiDependencies) -> ProblemError:
    """The answer: its code is that of the first field which waiting does not mend, if there is one."""
    first, task = next((one for one in problems if one[0].code != ProblemCode.PREDECESSOR_UNFINISHED), problems[0])
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if task is not None:
        extra = {"task_id": task.id, "state": task.status.value}
        if task.error:
            extra["error_code"] = task.error.get("code")
    if first.code == ProblemCode.PREDECESSOR_UNFINISHED:
        seconds = max(_seconds(one, deps) for _, one in problems if one is not None)
        extra["retry_after_s"] = seconds
        headers["Retry-After"] = str(seconds)
    return ProblemError(
        ProblemCode(first.code),
        f"{first.field}: {first.detail}",
        field=first.field,
        reason=first.reason,
        errors=[error for error, _ in problems],
        headers=headers,
        **extra,
    )


def _seconds(task: TaskRecord, deps: ApiDependencies) -> int:
    return outlook_of(task, deps, holds=Holds(of_route=deps.tiers.hold)).again_s
