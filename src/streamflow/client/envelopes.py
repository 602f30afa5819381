"""Answers as the broker delivers them: of jobs, over nats://, and inside a gateway. The documents stay bytes until they are asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

from streamflow.broker.envelope import Envelope

from .results import Header, Parts, Route


def parts_of(envelope: Envelope) -> Parts:
    """The answer in `envelope`, under the client's own id where it gave one."""
    return Parts(
        Header(envelope.client_id or envelope.request_id, envelope.status, envelope.endpoint, envelope.target_executor),
        bytes(envelope.body),
        envelope.content_type,
        partial(_parameters, envelope),
        partial(_routes, envelope),
    )


def _parameters(envelope: Envelope) -> dict[str, Any]:
    return {**envelope.parameters, **({"__results__": envelope.results} if envelope.results else {})}


def _routes(envelope: Envelope) -> list[Route]:
    """Without a gateway's own stop, which nobody has timed here."""
    return [Route(hop.executor, hop.started, hop.ended, hop.enqueued, hop.replica, hop.attempt) for hop in envelope.trail]
