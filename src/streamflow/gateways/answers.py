"""Answer envelopes as the `DataRequest` that clients see too: documents are decoded when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, StreamflowError
from streamflow.client.envelopes import parts_of
from streamflow.client.results import DataRequest, element_type


def answer_of(envelope: Envelope, return_type: Any) -> DataRequest:
    """The answer, its documents of `return_type` (a document class, `DocList[...]` of one, or None). A failed one has none."""
    doc_type, _ = element_type(return_type)
    parts = parts_of(envelope)
    return DataRequest(parts if envelope.status.code is Code.OK else replace(parts, body=b""), doc_type)


def error_in(answer: DataRequest) -> StreamflowError | None:
    """What the answer says went wrong."""
    return None if answer.ok else answer.error()
