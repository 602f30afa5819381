"""Who calls, and how much one caller may take. Found out once per request or connection, then known to all that works on it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one caller over all protocols; 0 = none. `burst`: requests at once before the rate counts, 0 = one second's worth."""

    requests_per_s: float = 0.0
    burst: int = 0
    in_flight: int = 0
    max_request_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller. Limits are counted for name and tenant together."""

    name: str
    tenant: str = ""
    limits: Limits = Limits()


ANYONE = Principal("anonymous")
# Of the request, stream or socket that the running task belongs to; tasks that it starts inherit it.
CURRENT: ContextVar[Principal] = ContextVar("principal", default=ANYONE)
