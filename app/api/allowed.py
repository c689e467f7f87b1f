"""The methods of an address, of all its routes together: the framework's own `Allow` names those of one route."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Route


class Methods:
    """Which methods there are where."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """`routes` with their paths in full."""
        self._routes = [
            (route.path_regex, frozenset(route.methods or ())) for route in routes if isinstance(route, Route)
        ]

    def at(self, path: str) -> list[str]:
        """The methods of the routes that `path` matches, in order of the alphabet."""
        return sorted({method for regex, methods in self._routes if regex.match(path) for method in methods})
