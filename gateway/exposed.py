"""HTTP routes beyond the automatic `POST /<endpoint>`: what `expose_endpoints` adds, what `no_crud_endpoints` and `no_debug_endpoints`
hide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamflow.broker.errors import FlowError, NotFound
from streamflow.broker.settings import GatewaySettings

from .json_wire import GENERIC

CRUD = ("/index", "/search", "/update", "/delete")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Exposed:
    """One endpoint at `path` by `methods`; `details` are fields of its OpenAPI operation (summary, description, tags ...)."""

    endpoint: str
    path: str
    methods: tuple[str, ...]
    details: Mapping[str, object]


class Routes:
    """Which data requests over HTTP are served besides, or instead of, the automatic ones."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises `FlowError` for routes that contradict each other."""
        self.exposed = tuple(_exposed(name, dict(entry)) for name, entry in settings.expose_endpoints.items())
        self._hidden = frozenset((CRUD if settings.no_crud_endpoints else ()) + ((GENERIC,) if settings.no_debug_endpoints else ()))
        self._table: dict[tuple[str, str], Exposed] = {}
        for route in self.exposed:
            for method in route.methods:
                if (method, route.path) in self._table:
                    raise FlowError(f"gateway: expose_endpoints: {method} {route.path} is given to two endpoints")
                self._table[method, route.path] = route

    def find(self, method: str, path: str) -> Exposed | None:
        """The exposed endpoint that a request is for. Raises `NotFound` where the automatic route is left out."""
        exposed = self._table.get((method, path)) if self._table else None
        if exposed is None and self._hidden and self.hides(path):
            raise NotFound(f"no endpoint {path[:200]!r} over HTTP")
        return exposed

    def hides(self, path: str) -> bool:
        """Whether the automatic route of `path` is left out."""
        return "/" + path.strip("/") in self._hidden

    def methods_of(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(method for method, known in self._table if known == path))


def _exposed(endpoint: str, entry: dict[str, object]) -> Exposed:
    path = str(entry.pop("path", None) or endpoint)
    methods = entry.pop("methods", None) or ["POST"]
    if not isinstance(methods, list | tuple):
        raise FlowError(f"gateway: expose_endpoints: {endpoint}: methods: expected a list such as [PUT], got {methods!r}")
    upper = tuple(str(method).upper() for method in methods)
    wrong = next((method for method in upper if method not in _METHODS), None)
    if wrong is not None:
        raise FlowError(f"gateway: expose_endpoints: {endpoint}: methods: {wrong!r} is none of {', '.join(_METHODS)}")
    return Exposed(endpoint, "/" + path.strip("/"), upper, entry)
