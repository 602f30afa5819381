"""Who calls, and how much one caller may take. Found out once per request or connection, then known to all that works on it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from streamflow.broker.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one caller over all protocols; 0 = none.

    `burst`: requests at once before the rate counts, 0 = one second's worth. `jobs`: of its tenant, that have not been fed to the workers.
    """

    requests_per_s: float = 0.0
    burst: int = 0
    in_flight: int = 0
    max_request_bytes: int = 0
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller. Limits are counted for name and tenant together."""

    name: str
    tenant: str = ""
    limits: Limits = Limits()

    @property
    def share(self) -> str:
        """The tenant whose share of the executors it takes; a caller without one is one by its name."""
        return self.tenant or self.name


ANYONE = Principal("anonymous")
# Of the request, stream or socket that the running task belongs to; tasks that it starts inherit it.
CURRENT: ContextVar[Principal] = ContextVar("principal", default=ANYONE)
# The same, asked again for each request of a connection: the rules may have changed since it began. Raises what `Access.admit` raises.
AGAIN: ContextVar[Callable[[], Principal]] = ContextVar("again", default=CURRENT.get)


def may_see(tenant: str) -> bool:
    """Whether the caller may know of what belongs to `tenant`: its own, or where nobody has to say who he is everything."""
    principal = CURRENT.get()
    return principal is ANYONE or tenant == principal.share


def tenant_for(asked: str) -> str:
    """The tenant whose share the caller's jobs take: its own, or where nobody has to say who he is the one that is `asked` for.

    Raises `PermissionDenied` for who asks for another one's share.
    """
    principal = CURRENT.get()
    if principal is ANYONE:
        return asked
    if asked not in ("", principal.share):
        raise PermissionDenied(f"tenant {asked[:80]!r}: the jobs of {principal.name!r} are those of {principal.share!r}")
    return principal.share
