"""What a ComfyUI server answers, told apart. Source: the project's server and its documented routes and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.retry.taxonomy import CodedError, FailureCode

_VIDEO = (".mp4", ".webm", ".mkv", ".mov", ".m4v")
_GPU_MEMORY = re.compile(r"OutOfMemoryError|out of memory|Allocation on device|ALLOC_FAILED", re.IGNORECASE)
_GPU_LOST = re.compile(r"CUDA error|device-side assert|cudnn", re.IGNORECASE)
_MISSING = re.compile(r"FileNotFoundError|not found|No such file|value_not_in_list|ModuleNotFoundError", re.IGNORECASE)
_SHOWN = 600


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a prompt has made, as `/view` takes it."""

    filename: str
    subfolder: str
    type: str

    def query(self) -> dict[str, str]:
        """The parameters of `/view`."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


def uploaded(answer: Mapping[str, Any]) -> str:
    """The name under which nodes find an upload: the server may have renamed it or put it into a subfolder."""
    name, folder = answer.get("name"), answer.get("subfolder") or ""
    if not isinstance(name, str) or not name or not isinstance(folder, str):
        raise unexpected("/upload/image", answer)
    return f"{folder}/{name}" if folder else name


def prompt_id(answer: Mapping[str, Any]) -> str:
    """The id under which the server has queued a prompt."""
    made = answer.get("prompt_id")
    if not isinstance(made, str) or not made:
        raise unexpected("/prompt", answer)
    return made


def check_taken(answer: Mapping[str, Any]) -> None:
    """Raise UPSTREAM_REJECTED where a prompt was queued without the outputs whose nodes have errors."""
    if errors := answer.get("node_errors"):
        raise rejected(errors)


def rejected(node_errors: Any, words: str = "") -> CodedError:
    """The error for a workflow that the server does not take, with what it says of each node."""
    parts = [words] if words else []
    for node, told in node_errors.items() if isinstance(node_errors, Mapping) else ():
        told = told if isinstance(told, Mapping) else {}
        name = f"node {node} ({told.get('class_type', '?')})"
        parts += [f"{name}: {_said(error)}" for error in told.get("errors") or [{}]]
    text = "; ".join(parts)[:_SHOWN] or "without a reason"
    return CodedError(
        FailureCode.UPSTREAM_REJECTED,
        f"The ComfyUI server does not take the workflow: {text}",
        "Check that its nodes, models and file names exist on that server.",
        reason="workflow",
    )


def rejection_of(body: bytes) -> CodedError | None:
    """The error for the body of a refused `/prompt`; None if that does not tell of a workflow."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    if not isinstance(told, Mapping) or "error" not in told:
        return None
    return rejected(told.get("node_errors"), _said(told["error"]))


def _said(error: Any) -> str:
    if not isinstance(error, Mapping):
        return str(error)
    return ": ".join(str(error[key]) for key in ("message", "details") if error.get(key)) or "no reason"


def check(record: Mapping[str, Any]) -> None:
    """Raise the failure that a finished prompt's history record tells, if it tells one.

    Its status says "error" for failed and interrupted prompts alike: only the messages tell.
    """
    status = record.get("status")
    if not isinstance(status, Mapping):
        return  # servers of old keep none; then the outputs tell
    messages = {
        str(entry[0]): entry[1] if isinstance(entry[1], Mapping) else {}
        for entry in status.get("messages") or []
        if isinstance(entry, Sequence) and len(entry) == 2
    }
    if (broken := messages.get("execution_error")) is not None:
        raise _execution_error(broken)
    if "execution_interrupted" in messages:
        message = "The prompt was interrupted on the ComfyUI server, by somebody else."
        raise CodedError(FailureCode.UPSTREAM_5XX, message, reason="interrupted")
    if status.get("status_str") == "error" or status.get("completed") is False:
        message = "The ComfyUI server says that the prompt failed, and not why."
        raise CodedError(FailureCode.UPSTREAM_5XX, message, reason="failed")


def _execution_error(told: Mapping[str, Any]) -> CodedError:
    kind, words = str(told.get("exception_type") or ""), " ".join(str(told.get("exception_message") or "").split())
    text = f"{kind}: {words}"
    if _GPU_MEMORY.search(text):
        code = FailureCode.GPU_OOM
    elif _GPU_LOST.search(text):
        code = FailureCode.UPSTREAM_5XX
    elif _MISSING.search(text):
        code = FailureCode.UPSTREAM_REJECTED
    else:
        code = FailureCode.UPSTREAM_5XX
    node = f"node {told.get('node_id', '?')} ({told.get('node_type', '?')})"
    return CodedError(
        code,
        f"The ComfyUI server failed at {node}: {kind or 'an error'}: {words or 'without a word'}"[:_SHOWN],
        reason="execution_error",
        node=str(told.get("node_type", "")),
    )


def output_of(record: Mapping[str, Any], node: str | None) -> OutputFile:
    """The video among a record's outputs (of `node`, if given). SaveVideo lists it under `images`, others elsewhere.

    Raises CodedError OUTPUT_INVALID where there is none, or more than one and no `node` to choose.
    """
    outputs = record.get("outputs")
    found = []
    for name, lists in outputs.items() if isinstance(outputs, Mapping) else ():
        if node is not None and name != node:
            continue
        for files in lists.values() if isinstance(lists, Mapping) else ():
            found += [file for file in map(_file, files if isinstance(files, list) else []) if file is not None]
    kept = [file for file in found if file.type == "output"] or found
    if len(set(kept)) == 1:
        return kept[0]
    what = "no video" if not kept else f"{len(kept)} videos"
    hint = "End the workflow in one SaveVideo node, or name it as `output_node` of the tier."
    raise CodedError(FailureCode.OUTPUT_INVALID, f"The workflow made {what}.", hint, reason="no_result", check="exists")


def _file(value: Any) -> OutputFile | None:
    if not isinstance(value, Mapping):
        return None
    name, folder, kind = value.get("filename"), value.get("subfolder") or "", value.get("type") or "output"
    if not isinstance(name, str) or not name.lower().endswith(_VIDEO):
        return None
    return OutputFile(name, str(folder), str(kind))


def place(queue: Mapping[str, Any], prompt: str) -> str:
    """Where a prompt stands in `/queue`: `running`, `pending`, or empty where it is in neither."""
    for key, name in (("queue_running", "running"), ("queue_pending", "pending")):
        entries = queue.get(key)
        if not isinstance(entries, list):
            raise unexpected("/queue", queue)
        if any(isinstance(entry, list) and len(entry) > 1 and entry[1] == prompt for entry in entries):
            return name
    return ""


def unexpected(path: str, answer: Mapping[str, Any]) -> CodedError:
    """The error for an answer that is not the protocol's."""
    text = str(dict(answer))[:300]
    message = f"The ComfyUI server answered {path} with something else than its protocol: {text}"
    return CodedError(FailureCode.UPSTREAM_5XX, message, reason="unexpected")
