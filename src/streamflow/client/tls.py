"""Whom a client trusts, and who it says it is: PEM files beyond the defaults of the system."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from .errors import BadArguments


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files, "" = none: certificates to trust instead of the system's, and the client's own certificate and key."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    @classmethod
    def of(cls, ca: str | None, cert: str | None, key: str | None) -> TlsFiles:
        """Raises `BadArguments` for a file that is not there, and for a certificate without its key."""
        if bool(cert) != bool(key):
            raise BadArguments("tls_cert and tls_key: give both of them, or none")
        for name, path in (("tls_ca", ca), ("tls_cert", cert), ("tls_key", key)):
            if path and not Path(path).is_file():
                raise BadArguments(f"{name} {path!r}: no such file")
        return cls(str(ca or ""), str(cert or ""), str(key or ""))

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert)

    def context(self) -> ssl.SSLContext:
        """What HTTP and WebSocket connections are made with. Raises `BadArguments` for files that hold no certificates."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except ssl.SSLError as error:
            raise BadArguments(f"tls_ca, tls_cert, tls_key: not PEM files that fit together: {error}") from error
        return context
