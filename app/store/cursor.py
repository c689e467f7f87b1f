"""Cursors of a listing: opaque, safe in a URL, stable while tasks are added."""

from __future__ import annotations

import base64
import json
import math


def encode_cursor(created_at: float, task_id: str) -> str:
    """The cursor that continues after this task."""
    return base64.urlsafe_b64encode(json.dumps([created_at, task_id]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[float, str]:
    """(created_at, task id) of a cursor. Raises ValueError for one that is not ours."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        content = None
    match content:
        case [float(created_at), str(task_id)] if math.isfinite(created_at) and _is_text(task_id):
            return created_at, task_id
    raise ValueError("This cursor is not one of ours.")


def _is_text(task_id: str) -> bool:
    """Whether a database can be asked for it: JSON can hold half a character."""
    try:
        task_id.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_number(number: int) -> str:
    """The cursor that continues below this number."""
    return base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")


def decode_number(cursor: str) -> int:
    """The number of a cursor. Raises ValueError for one that is not ours."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    if not text.isdigit() or len(text) > 18:
        raise ValueError("This cursor is not one of ours.")
    return int(text)
