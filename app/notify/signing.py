"""Secrets and signatures of Standard Webhooks (https://www.standardwebhooks.com, version 1.0.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

PREFIX = "whsec_"
_KEY_BYTES = 32
"""The specification asks for 24 to 64."""


class BadSecret(ValueError):
    """A secret that begins with `whsec_` and is not base64 after it."""


def key_of(secret: str) -> bytes:
    """The bytes to sign with: what is behind `whsec_`, base64-decoded, or the text itself. Raises `BadSecret`."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise BadSecret("After whsec_ the secret has to be base64, with its padding.")
    return key


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: one `v1` signature (HMAC-SHA256) per key, in the order of the keys."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    made = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return " ".join(f"v1,{one}" for one in made)


def own_secret(path: Path) -> str:
    """The secret kept in the file `path`, made if there is none. Only the service's user may read it. Raises OSError.

    Of several services that start at once on one data directory all get the same.
    """
    if not path.exists():
        made = PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            pass  # Another service was first: its secret counts.
        finally:
            part.unlink()
    return path.read_text().strip()
