"""What stands before every HTTP app of a gateway, the built-in one and those of users: CORS, compression and who may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from streamflow.broker.settings import GatewaySettings

from .auth_http import guarded
from .compression import Compressed

App = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI 3
_SHOWN = ("x-request-id", "retry-after")  # answer headers that a page of another origin may read


def edged(app: App, settings: GatewaySettings) -> App:
    """`app` behind what `settings` ask for. Preflight requests (CORS) need no token, and refusals can be read by the page."""
    app = guarded(app, settings)
    if settings.compression != "none":
        app = Compressed(app, settings.compression)
    if settings.cors:
        origins = settings.allowed_origins or ["*"]
        app = CORSMiddleware(app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=_SHOWN)
    return app
