"""multipart/form-data that goes straight to disk: files become blobs while they arrive, limits hold while they arrive.

Starlette's own form parser spools whole files before anybody can look at them; this one feeds each piece to the blob
store and stops reading at the first byte over a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.api.body import pieces
from app.api.errors import invalid_request
from app.api.problem_codes import ProblemCode
from app.api.problems import FieldError, ProblemError
from app.intake.blobs import Blob, BlobStore, BlobWriter
from app.intake.names import display_name
from app.intake.resolve import Received
from app.retry.taxonomy import CodedError, FailureCode

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 16
_MAX_NAME_BYTES = 256


@dataclass(slots=True)
class Form:
    """What came in: files by part name (blobs already) and texts by part name."""

    files: dict[str, Received] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Bytes of one file and one text, seconds without a byte. Parts in `always_text` may have a file name."""

    max_file_bytes: int
    max_text_bytes: int
    idle_s: float
    always_text: frozenset[str] = frozenset()


def boundary_of(content_type: str) -> bytes | None:
    """The boundary, None unless this is multipart/form-data. Raises for a multipart without one."""
    kind, parameters = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        return None
    boundary = parameters.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise _malformed("The Content-Type header names no boundary.")
    return boundary


async def read_form(request: Request, boundary: bytes, blobs: BlobStore, limits: FormLimits) -> Form:
    """Read the whole body. Raises `ProblemError` for malformed or too large bodies, `CodedError` DISK_FULL."""
    reader = _FormReader(blobs, limits)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for chunk in pieces(request, limits.idle_s):
            parser.write(chunk)
            await reader.drain()
        parser.finalize()
    except FormParserError as error:
        raise _malformed(f"The body is not well-formed multipart: {str(error).rstrip('.')}.") from None
    finally:
        reader.abort()
    if not reader.complete:
        raise _malformed("The body ends before its last boundary.")
    return reader.form


class _Part:
    """The part that is being read: a file with a writer, or a text."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.name = ""
        self.file_name: str | None = None
        self.text = bytearray()
        self.writer: BlobWriter | None = None


class _FormReader:
    """Collects the parser's synchronous callbacks as steps, and takes those steps asynchronously between chunks."""

    def __init__(self, blobs: BlobStore, limits: FormLimits) -> None:
        self.form = Form()
        self.complete = False
        self._blobs = blobs
        self._limits = limits
        self._steps: list[tuple[str, bytes]] = []
        self._part: _Part | None = None
        self._parts = 0
        self._header = b""
        self._value = b""

    def callbacks(self) -> MultipartCallbacks:
        """What the parser calls."""

        def data(step: str) -> Callable[[bytes, int, int], None]:
            return lambda buffer, start, end: self._steps.append((step, buffer[start:end]))

        def mark(step: str) -> Callable[[], None]:
            return lambda: self._steps.append((step, b""))

        return {
            "on_part_begin": mark("begin"),
            "on_header_field": data("header"),
            "on_header_value": data("value"),
            "on_header_end": mark("header_end"),
            "on_headers_finished": mark("headers"),
            "on_part_data": data("data"),
            "on_part_end": mark("end"),
            "on_end": mark("complete"),
        }

    async def drain(self) -> None:
        """Take the steps that the last chunk brought."""
        steps, self._steps = self._steps, []
        for step, data in steps:
            match step:
                case "begin":
                    self._begin()
                case "header":
                    self._header += data
                case "value":
                    self._value += data
                case "header_end":
                    self._current.headers[self._header.lower()] = self._value
                    self._header = self._value = b""
                case "headers":
                    self._name_part()
                case "data":
                    await self._take(data)
                case "end":
                    await self._end()
                case "complete":
                    self.complete = True

    def abort(self) -> None:
        """Drop a file that is not complete."""
        if self._part is not None and self._part.writer is not None:
            self._part.writer.abort()

    @property
    def _current(self) -> _Part:
        assert self._part is not None
        return self._part

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _malformed(f"The body has more than {MAX_PARTS} parts.")
        self._part = _Part()

    def _name_part(self) -> None:
        part = self._current
        kind, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if kind.lower() != b"form-data" or name is None or len(name) > _MAX_NAME_BYTES:
            raise _malformed("A part has no Content-Disposition: form-data with a name.")
        part.name = name.decode(errors="replace")
        if part.name in self.form.files or part.name in self.form.texts:
            raise _field_problem(part.name, "duplicate", "The part is there twice.")
        file_name = options.get(b"filename")
        typed = not part.headers.get(b"content-type", b"text/plain").strip().lower().startswith(b"text/plain")
        if part.name not in self._limits.always_text and (file_name is not None or typed):
            # Browsers write a quote in a file name as %22.
            part.file_name = display_name((file_name or b"").decode(errors="replace").replace("%22", '"'), part.name)
            part.writer = self._blobs.writer(self._limits.max_file_bytes)

    async def _take(self, data: bytes) -> None:
        part = self._current
        if part.writer is not None:
            try:
                await part.writer.write(data)
            except CodedError as error:
                raise part_too_large(error, part.name) from None
            return
        part.text += data
        if len(part.text) > self._limits.max_text_bytes:
            raise ProblemError(
                ProblemCode.REQUEST_TOO_LARGE,
                f"The part {part.name!r} is larger than {self._limits.max_text_bytes} bytes.",
                field=part.name,
                reason="part_bytes",
            )

    async def _end(self) -> None:
        part = self._current
        if part.writer is not None:
            blob: Blob = await part.writer.commit()
            self.form.files[part.name] = Received(blob, part.file_name or part.name)
        else:
            self.form.texts[part.name] = bytes(part.text)
        self._part = None


def part_too_large(error: CodedError, field: str | None) -> CodedError:
    """An error of the blob store, said of bytes in the request itself: INPUT_TOO_LARGE is a 413 there."""
    if error.code is not FailureCode.INPUT_TOO_LARGE:
        return error
    failure = error.failure
    detail = {**failure.detail, "reason": "body_bytes", **({"field": field} if field else {})}
    return CodedError(failure.code, failure.message, failure.hint, **detail)


def _malformed(detail: str) -> ProblemError:
    hint = "Let an HTTP library make the form and its Content-Type header, boundary included, as `curl -F` does."
    return invalid_request([FieldError(None, ProblemCode.REQUEST_INVALID, "multipart", detail, hint)])


def _field_problem(name: str, reason: str, detail: str) -> ProblemError:
    return invalid_request([FieldError(name, ProblemCode.REQUEST_INVALID, reason, detail)])
