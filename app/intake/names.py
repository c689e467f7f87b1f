"""File names for people: shown, offered for download, never used as a path."""

from __future__ import annotations

import re
import unicodedata
from email.message import Message
from urllib.parse import unquote

MAX_NAME = 200
_SEPARATORS = re.compile(r"[/\\]")
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^\s;,\"]*)", re.IGNORECASE)


def display_name(raw: str, default: str = "unnamed") -> str:
    """The last component of `raw`, without control characters and lone surrogates, at most 200 characters long."""
    last = _SEPARATORS.split(raw)[-1]
    shown = "".join(
        c for c in unicodedata.normalize("NFC", last) if unicodedata.category(c) not in {"Cc", "Cs", "Zl", "Zp"}
    )
    shown = shown.strip()
    if len(shown) > MAX_NAME:
        stem, dot, suffix = shown.rpartition(".")
        keep = MAX_NAME - len(suffix) - 1
        shown = f"{stem[:keep]}.{suffix}" if dot and stem and 0 < len(suffix) <= 10 else shown[:MAX_NAME]
    return shown if shown.strip(". ") else default


def name_from_disposition(header: str) -> str | None:
    """The file name in a Content-Disposition header (`filename*` preferred, RFC 6266), None if there is none."""
    extended = _EXTENDED.search(header)
    message = Message()
    try:
        message["Content-Disposition"] = header
        raw = unquote(extended[2], extended[1], "strict") if extended else message.get_filename()
    except (ValueError, LookupError, TypeError):
        return None
    return display_name(_as_utf8(raw), "") or None if raw else None


def name_from_path(path: str, default: str) -> str:
    """The last segment of a URL's path, percent-decoded."""
    return display_name(unquote(path.rstrip("/")), default)


def _as_utf8(raw: str) -> str:
    """Header bytes are Latin-1 by the letter and UTF-8 in practice."""
    try:
        return raw.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return raw
