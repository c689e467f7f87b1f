"""The manifest of a batch: a CSV or JSONL file, a line for each video."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"^(https?://|file://|upload:|task:)", re.IGNORECASE)
_NAME = re.compile(r"[\w][\w .-]{0,99}")
_JSON_COLUMNS = frozenset(
    {"options", "metadata", "callback", "after", "priority", "deadline_s", "start_deadline_s", "cache"}
)


class ManifestError(ValueError):
    """The manifest cannot be used; the message names the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest. `request` are the fields of `POST /generate` with `source` and `audio` as written."""

    number: int
    name: str
    """The video's file name without its ending."""
    request: Mapping[str, Any]


def read_manifest(path: Path) -> list[Row]:
    """The rows of a CSV file with a header, or of a JSONL file with an object per line.

    `source` and `audio` are required: files (relative to the manifest) or addresses. `name` names the video; without
    it, the row's number. In a CSV, `options.strength` is an option and `metadata.x` a member of the metadata. Raises
    `ManifestError`, OSError.
    """
    rows: list[Row] = []
    names: dict[str, int] = {}
    for number, fields in _readable(path):
        request = dict(fields)
        name = str(request.pop("name", "") or f"{number:06d}")
        if not _NAME.fullmatch(name):
            raise ManifestError(f"{path}, line {number}: the name {name!r} is not fit for a file.")
        if name in names:
            raise ManifestError(f"{path}, line {number}: the name {name!r} stands in line {names[name]} already.")
        names[name] = number
        for required in ("source", "audio"):
            given = request.get(required)
            if not isinstance(given, str) or not given:
                raise ManifestError(f"{path}, line {number}: `{required}` is missing.")
            if not ADDRESS.match(given):
                file = (path.parent / given).resolve()
                if not file.is_file():
                    raise ManifestError(f"{path}, line {number}: `{required}`: there is no file {str(file)!r}.")
                request[required] = str(file)
        rows.append(Row(number, name, request))
    if not rows:
        raise ManifestError(f"{path} has no rows.")
    return rows


def _readable(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    """As `_lines`. Raises `ManifestError` for what is no text, or no table."""
    try:
        yield from _lines(path)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text (byte {error.start}): save it as such.") from None
    except csv.Error as error:
        raise ManifestError(f"{path} cannot be read as CSV: {error}.") from None


def _lines(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        # Not `splitlines`: a text within JSON may hold separators that it takes for the end of a line.
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
            if line.strip():
                try:
                    entry = json.loads(line)
                except ValueError as error:
                    raise ManifestError(f"{path}, line {number}: not JSON: {error}") from None
                if not isinstance(entry, dict):
                    raise ManifestError(f"{path}, line {number}: not an object.")
                yield number, entry
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is not None and len(reader.fieldnames) == 1 and ";" in reader.fieldnames[0]:
            raise ManifestError(f"{path}, line 1: its columns are separated by semicolons; separate them by commas.")
        for entry in reader:
            if None in entry:
                raise ManifestError(f"{path}, line {reader.line_num}: more values than columns.")
            yield reader.line_num, _from_columns(entry, path, reader.line_num)


def _from_columns(columns: Mapping[str, str | None], path: Path, number: int) -> dict[str, Any]:
    """CSV values as fields: `options.x` goes into `options`; numbers and JSON are read where the field is such."""
    fields: dict[str, Any] = {}
    members: dict[str, dict[str, Any]] = {}
    for column, text in columns.items():
        if not text:
            continue
        name, dot, member = column.strip().partition(".")
        if dot:
            members.setdefault(name, {})[member] = _value(text)
        elif name in _JSON_COLUMNS:
            try:
                fields[name] = json.loads(text)
            except ValueError:
                raise ManifestError(f"{path}, line {number}: `{name}` is not JSON: {text!r}") from None
        else:
            fields[name] = text
    for name, of_name in members.items():
        whole = fields.get(name, {})
        if not isinstance(whole, dict):
            raise ManifestError(f"{path}, line {number}: `{name}` is no object, so that nothing can go into it.")
        fields[name] = whole | of_name
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
