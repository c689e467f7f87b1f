"""Identifiers: sortable by time, unguessable, safe in URLs and file names."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no letters that are read as digits."""


class Tokens:
    """Random hex. Entropy is fetched for many at once: each call into the system gives other threads the turn.

    Belongs to one thread.
    """

    def __init__(self) -> None:
        self._ready = ""

    def take(self, digits: int) -> str:
        """So many hex digits, at most 64."""
        if len(self._ready) < digits:
            self._ready = secrets.token_hex(1024)
        taken, self._ready = self._ready[:digits], self._ready[digits:]
        return taken


def _base32(value: int, length: int) -> str:
    out = []
    for _ in range(length):
        value, rest = divmod(value, 32)
        out.append(_ALPHABET[rest])
    return "".join(reversed(out))


def new_id(prefix: str, now: float | None = None) -> str:
    """A new id `<prefix>_<26 characters>`: 48 bits of milliseconds, then 80 random bits, as in a ULID."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    return f"{prefix}_{_base32(milliseconds, 10)}{_base32(secrets.randbits(80), 16)}"
