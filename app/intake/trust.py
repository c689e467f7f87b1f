"""Whose certificates are believed when this service connects to an address that a caller has named."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The public authorities, and those in `ca_file` (PEM). Takes tens of milliseconds: not in an event loop.

    No variable of the environment adds to them. Raises OSError or `ssl.SSLError` for a file that cannot be used.
    """
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
