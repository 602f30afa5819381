"""The answer of a flow in which no executor has anything to do: the documents as they came (FL-01, EX-06)."""

from __future__ import annotations

from typing import Any

import orjson

from streamflow.broker.envelope import EMPTY, JSON, Envelope
from streamflow.broker.errors import InvalidInput, Status


def echo(envelope: Envelope) -> Envelope:
    """`envelope` turned into its own answer. Only JSON has to be taken apart, since its request and answer forms differ."""
    if envelope.content_type in (EMPTY, envelope.accept) and envelope.content_type != JSON:
        return envelope._replace(reply="")
    if envelope.content_type != JSON or envelope.accept != JSON:
        error = InvalidInput(f"no executor is there to turn {envelope.content_type!r} into {envelope.accept!r}")
        return envelope._replace(body=b"", content_type=EMPTY, status=Status.of(error))
    try:
        documents, parameters = _take_apart(orjson.loads(envelope.body))
    except (orjson.JSONDecodeError, InvalidInput) as error:
        return envelope._replace(body=b"", content_type=EMPTY, status=Status.of(InvalidInput(f"body: {error}")))
    return envelope._replace(body=orjson.dumps(documents), parameters={**envelope.parameters, **parameters})


def _take_apart(request: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(request, list):
        return request, {}
    if not isinstance(request, dict):
        raise InvalidInput("expected an object with `data`, or a list of documents")
    data, parameters = request.get("data") or [], request.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInput("parameters: expected an object")
    return data if isinstance(data, list) else [data], parameters
