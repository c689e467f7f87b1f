"""From what a caller names to a checked file: every input of a task becomes a blob, is probed, and cannot vanish."""
