"""Certificates for servers of tests, made with the openssl program."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


def openssl() -> str:
    """The program; the test is skipped where it is missing."""
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("no openssl to make a certificate with")
    return found


def self_signed(folder: Path, *names: str) -> tuple[Path, Path]:
    """Certificate and key of a server that is its own authority, for `names` (as `DNS:localhost`)."""
    folder.mkdir(exist_ok=True)
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [openssl(), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=test", "-addext", f"subjectAltName={','.join(names)}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def server_side(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server presents the certificate with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
