"""What is given to the client's methods: inputs, and who is told how far they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from greenroom.client.models import Task

Input = Path | str | Task
"""A file to upload, an address, or a task for its video."""
OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all (0: unknown)."""
OnTask = Callable[[Task], None]
"""Called with a task's state whenever something about it has changed."""
