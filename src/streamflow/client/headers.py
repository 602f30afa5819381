"""What a client says to a gateway beside its messages: names of HTTP headers, which are also names of gRPC metadata."""

from __future__ import annotations

from .transport import Ask, Metadata

CONSISTENCY = "x-streamflow-consistency"  # latest: of a stateful executor
KEEP = "x-streamflow-keep"  # seconds for which the answer can be fetched again
REQUEST_ID = "x-request-id"
TIMEOUT_MS = "x-streamflow-timeout-ms"


def timeout_of(ask: Ask) -> Metadata:
    """How long the gateway may take, where the protocol has no time limit of its own."""
    return ((TIMEOUT_MS, str(ask.timeout_s * 1000)),) if ask.timeout_s else ()
