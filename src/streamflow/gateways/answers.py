"""Answer envelopes as the `DataRequest` that clients see too: documents are decoded when they are asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, StreamflowError
from streamflow.client.results import DataRequest, Header, Parts, Route, element_type
from streamflow.gateway.answers import request_id


def answer_of(envelope: Envelope, return_type: Any) -> DataRequest:
    """The answer, its documents of `return_type` (a document class, `DocList[...]` of one, or None). A failed one has none."""
    doc_type, _ = element_type(return_type)
    header = Header(request_id(envelope), envelope.status, envelope.endpoint, envelope.target_executor)
    body = bytes(envelope.body) if envelope.status.code is Code.OK else b""
    return DataRequest(Parts(header, body, envelope.content_type, partial(_parameters, envelope), partial(_routes, envelope)), doc_type)


def error_in(answer: DataRequest) -> StreamflowError | None:
    """What the answer says went wrong."""
    return None if answer.ok else answer.error()


def _parameters(envelope: Envelope) -> dict[str, Any]:
    return {**envelope.parameters, "__results__": envelope.results} if envelope.results else dict(envelope.parameters)


def _routes(envelope: Envelope) -> list[Route]:
    """Without the gateway's own stop, which nobody has timed here."""
    return [Route(hop.executor, hop.started, hop.ended, hop.enqueued, hop.replica, hop.attempt) for hop in envelope.trail]
