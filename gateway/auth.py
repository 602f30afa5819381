"""Who may call this gateway: bearer tokens, JSON Web Tokens, client certificates, or everybody. Decided here for all protocols.

Without an `auth_file` or `ssl_ca` callers of this machine are let in, and those of others only when `allow_anonymous` says so: a port that
is open to the network is closed to strangers until somebody decides otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from streamflow.broker.errors import FlowError, PermissionDenied, Unauthenticated
from streamflow.broker.settings import GatewaySettings

from .auth_file import AuthFile, read_auth_file
from .principals import ANYONE, Principal

log = logging.getLogger(__name__)

CLOSED = (
    "beyond this machine nobody is let in: set auth_file (--auth-file FILE; `streamflow auth token` makes an entry), a client CA (ssl_ca), "
    "or allow_anonymous (--allow-anonymous) for everybody"
)


class TokenCheck(Protocol):
    def principal(self, token: str) -> Principal:
        """Whose `token` it is. Raises `Unauthenticated`."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one gateway. `certificates` None: every client certificate of the CA is good, under its own name."""

    tokens: Mapping[str, Principal]
    issuers: tuple[TokenCheck, ...] = ()
    certificates: Mapping[str, Principal] | None = None
    tenants: frozenset[str] | None = None
    anonymous: Principal | None = None
    default: Principal = ANYONE
    lets_local: bool = False  # callers on this machine need not say who they are
    files: tuple[Path, ...] = ()  # that these rules were read from

    def admit(self, authorization: str, names: Sequence[str] = ()) -> Principal:
        """Who sent these: the value of an `Authorization` header, and the names in a client certificate that TLS has checked.

        Raises `Unauthenticated` (not said, or not proved), `PermissionDenied` (known, but not here).
        """
        if self.lets_local:
            raise Unauthenticated(CLOSED)
        if authorization:
            principal = self._by_token(authorization)
        elif names:
            principal = self._by_certificate(names)
        elif self.anonymous is not None:
            return self.anonymous
        else:
            raise Unauthenticated("a bearer token is needed (Authorization: Bearer ...)")
        if self.tenants is not None and principal.tenant not in self.tenants:
            raise PermissionDenied(f"{principal.name!r} is of tenant {principal.tenant!r}, which does not use this gateway")
        return principal

    def _by_token(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("the Authorization header is not of the form: Bearer <token>")
        token = token.strip()
        # By digest: how long the look-up takes says nothing about the token.
        known = self.tokens.get(sha256(token.encode("utf-8", "surrogateescape")).hexdigest())
        if known is not None:
            return known
        reasons = []
        for issuer in self.issuers if token.count(".") == 2 else ():
            try:
                return issuer.principal(token)
            except Unauthenticated as error:
                reasons.append(str(error))
        raise Unauthenticated(reasons[0] if len(reasons) == 1 else "the token is not known here")

    def _by_certificate(self, names: Sequence[str]) -> Principal:
        if self.certificates is None:
            return Principal(names[0], self.default.tenant, self.default.limits)
        for name in names:
            if name in self.certificates:
                return self.certificates[name]
        raise PermissionDenied(f"the client certificate of {names[0]!r} is not among those of this gateway")


def access_of(settings: GatewaySettings) -> Access | None:
    """The rules that `settings` ask for; None when everybody is let in. Raises `FlowError` naming the file and what is wrong with it."""
    if settings.ssl_ca and not (settings.ssl_certfile and settings.ssl_keyfile):
        raise FlowError("gateway: ssl_ca asks clients for certificates, which needs TLS: set ssl_certfile and ssl_keyfile too")
    file = read_auth_file(settings.auth_file) if settings.auth_file else None
    if file is None and not settings.ssl_ca:
        return Access({}, lets_local=True) if is_closed(settings) else None
    rules = file or AuthFile()
    limits = rules.limits.made()
    listed = rules.certificates
    anyone = Principal(ANYONE.name, limits=limits)
    return Access(
        {entry.sha256: rules.principal(entry) for entry in rules.tokens},
        _issuers(rules, Path(settings.auth_file or "").parent),
        None if listed is None else {entry.subject: rules.principal(entry) for entry in listed},
        None if rules.tenants is None else frozenset(rules.tenants),
        anyone if settings.allow_anonymous else None,
        anyone,
        files=_files(settings, rules),
    )


def is_closed(settings: GatewaySettings) -> bool:
    """Whether the gateway can be reached from other machines, and nothing says who of them may."""
    if settings.auth_file or settings.ssl_ca or settings.allow_anonymous:
        return False
    return any(not is_local(listen.host) for listen in settings.listen)


def warn_if_closed(settings: GatewaySettings) -> None:
    """Say at the start what will surprise later."""
    if is_closed(settings):
        hosts = ", ".join(dict.fromkeys(f"{listen.host}:{listen.port}" for listen in settings.listen if not is_local(listen.host)))
        log.warning("the gateway listens on %s, but %s", hosts, CLOSED)


@lru_cache(maxsize=1024)
def is_local(host: str) -> bool:
    """Whether an address is this machine's loopback; a Unix socket ("") is."""
    try:
        address = ip_address(host)
    except ValueError:
        return host in ("", "localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _files(settings: GatewaySettings, rules: AuthFile) -> tuple[Path, ...]:
    if not settings.auth_file:
        return ()
    path = Path(settings.auth_file)
    return (path, *(path.parent / (entry.key_file or entry.jwks_file or "") for entry in rules.jwt))


def _issuers(rules: AuthFile, folder: Path) -> tuple[TokenCheck, ...]:
    if not rules.jwt:
        return ()
    try:
        from .auth_jwt import JwtCheck  # jwt and cryptography: an extra, and 30 ms
    except ImportError as error:
        raise FlowError('gateway: auth_file: jwt needs more packages: pip install "streamflow[auth]"') from error
    return tuple(JwtCheck(entry, folder, rules.limits.made()) for entry in rules.jwt)
