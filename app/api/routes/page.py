"""The page for people at `/`: static files of the package, read once, sent with entity tags and a strict policy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from app.api.problem_codes import ProblemCode
from app.api.problems import ProblemError

INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # blob: shows a file that was picked before it is sent
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may do: talk to the service that it came from, run its own scripts, and nothing else."""
_HEADERS = {
    # Names carry no version, so that a page and its modules always fit: every load asks, and is told 304.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page."""

    content: bytes
    media_type: str
    tag: str
    """Its strong entity tag, quotes included."""


def read_assets() -> dict[str, Asset]:
    """The files of the page, by name."""
    found = {}
    for file in files("app").joinpath("page").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in MEDIA_TYPES:
            content = file.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[file.name] = Asset(content, MEDIA_TYPES[suffix], tag)
    return found


def router() -> APIRouter:
    """The routes. They take any query: links to pages often bring one."""
    routes = APIRouter(include_in_schema=False)
    assets = read_assets()

    @routes.head("/")
    @routes.get("/")
    async def index(request: Request) -> Response:
        return _answer(request, assets[INDEX])

    @routes.head("/page/{name}")
    @routes.get("/page/{name}")
    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise ProblemError(ProblemCode.NOT_FOUND)
        return _answer(request, assets[name])

    return routes


def _answer(request: Request, asset: Asset) -> Response:
    headers = _HEADERS | {"ETag": asset.tag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if asset.tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
