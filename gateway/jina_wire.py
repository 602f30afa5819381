"""Jina's protobuf messages to and from calls and envelopes: gRPC, and WebSocket's `bytes` sub-protocol.

Documents stay bytes, see `shallow.proto`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.envelope import EMPTY, PROTOBUF, Envelope
from streamflow.broker.errors import Code, InvalidInput, Status

from .answers import hops, parameters, place_of, request_id
from .dispatch import Call
from .proto import shallow_pb2 as pb
from .view import View

_ERROR = 1


def read(message_type: Any, raw: bytes) -> Any:
    """The message in `raw`. Raises `InvalidInput`."""
    try:
        return message_type.FromString(raw)
    except DecodeError as error:
        raise InvalidInput(f"not a {message_type.DESCRIPTOR.name} message: {error}") from None


def call_of(request: pb.DataRequest, view: View) -> Call:
    """The call for a DataRequest. Raises `InvalidInput`."""
    return _call(request, request.data, view)


def call_of_document(request: pb.SingleDocumentRequest, view: View) -> Call:
    """The call for a SingleDocumentRequest: its document as a list of one. Raises `InvalidInput`."""
    body = data_content([request.document]) if request.HasField("document") else b""
    return _call(request, body, view)


def call_of_list(requests: pb.DataRequestList, view: View) -> Call:
    """One call with the documents of all `requests`, otherwise like the first. Raises `InvalidInput`."""
    if not requests.requests:
        raise InvalidInput("requests: at least one is required")
    first = requests.requests[0]
    bodies = [request.data for request in requests.requests if request.data]
    body = bodies[0] if len(bodies) == 1 else data_content(doc for body in bodies for doc in docs_of(body)) if bodies else b""
    return _call(first, body, view)


def _call(request: Any, body: bytes, view: View) -> Call:
    header = request.header
    return Call(
        endpoint=view.name(header.exec_endpoint or "/"),
        body=body,
        content_type=PROTOBUF if body else EMPTY,
        accept=PROTOBUF,
        parameters=from_struct(request.parameters) if request.HasField("parameters") else {},
        client_id=header.request_id,
        target_executor=header.target_executor,
        deadline=float(header.timeout),
    )


def data_content(docs: Iterable[bytes]) -> bytes:
    """`DataContentProto` bytes holding `docs`, each a serialized `DocProto`."""
    return bytes(pb.DataContent(docs=pb.DocList(docs=docs).SerializeToString()).SerializeToString())


def docs_of(body: bytes) -> list[bytes]:
    """The serialized `DocProto`s in `DataContentProto` bytes. Raises `InvalidInput` when they came as one opaque `docs_bytes`."""
    content = read(pb.DataContent, body)
    if content.HasField("docs_bytes"):
        raise InvalidInput("data.docs_bytes: cannot be taken apart, send data.docs")
    return list(read(pb.DocList, content.docs).docs)


def data_answer(envelope: Envelope, started: float) -> bytes:
    """A serialized DataRequest for any answer envelope; `started` is the request's arrival (Unix seconds)."""
    envelope = _checked(envelope)
    answer = pb.DataRequest(data=bytes(envelope.body))
    _fill(answer, envelope, started)
    return answer.SerializeToString()


def document_answer(envelope: Envelope, started: float) -> bytes:
    """A serialized SingleDocumentRequest for one part of a streaming endpoint."""
    envelope = _checked(envelope)
    docs = docs_of(bytes(envelope.body)) if envelope.body else []
    answer = pb.SingleDocumentRequest(document=docs[0]) if docs else pb.SingleDocumentRequest()
    _fill(answer, envelope, started)
    return answer.SerializeToString()


def _checked(envelope: Envelope) -> Envelope:
    if envelope.content_type in (PROTOBUF, EMPTY) or envelope.status.code is not Code.OK:
        return envelope if envelope.content_type == PROTOBUF else envelope._replace(body=b"")
    text = f"the answer came as {envelope.content_type!r}, not as protobuf"
    return envelope._replace(status=Status(Code.INTERNAL, text), body=b"")


def _fill(answer: Any, envelope: Envelope, started: float) -> None:
    header = answer.header
    header.request_id = request_id(envelope)
    header.exec_endpoint = envelope.endpoint
    header.target_executor = envelope.target_executor
    if envelope.status.code is not Code.OK:
        header.status.CopyFrom(status_message(envelope.status))
    values = parameters(envelope)
    answer.parameters.SetInParent()
    if values:
        fill_struct(answer.parameters, values)
    for hop in hops(envelope, started):
        route = answer.routes.add(executor=hop.executor)
        _set_time(route.start_time, hop.enqueued or hop.started)
        _set_time(route.end_time, hop.ended)
    place = place_of(envelope) if envelope.status.code is not Code.OK else None
    if place:
        said = answer.routes[-1].status
        said.code = _ERROR
        said.description = f"{place['replica']}, attempt {place['attempt']}"
        said.exception.executor = place["executor"]


def _set_time(timestamp: Any, unix_s: float) -> None:
    seconds = int(unix_s)
    timestamp.seconds = seconds
    timestamp.nanos = int((unix_s - seconds) * 1e9)


def status_message(status: Status) -> pb.Status:
    """Jina's `StatusProto`: 0 or 1, a sentence, the exception."""
    if status.code is Code.OK:
        return pb.Status(description=_text(status.description))
    exception = pb.Exc(
        name=_text(status.exception or status.code.value),
        args=[_text(arg) for arg in status.args],
        stacks=[_text(line) for line in status.stacks],
        executor=_text(status.executor),
    )
    return pb.Status(code=_ERROR, description=_text(status.description or status.code.value), exception=exception)


def endpoints_message(endpoints: Mapping[str, EndpointInfo]) -> pb.Endpoints:
    """Jina's `EndpointsProto`; schemas by endpoint: `input`, `output`, `parameters`, `is_generator`, `is_singleton_doc`."""
    answer = pb.Endpoints(
        endpoints=sorted(endpoints), write_endpoints=[name for name, endpoint in sorted(endpoints.items()) if endpoint.write]
    )
    schemas = {
        name: {
            "input": endpoint.request_schema,
            "output": endpoint.response_schema,
            "parameters": endpoint.parameters_schema,
            "is_generator": endpoint.streaming,
            "is_singleton_doc": endpoint.single,
        }
        for name, endpoint in endpoints.items()
    }
    fill_struct(answer.schemas, schemas)
    return answer


def from_struct(struct: Any) -> dict[str, Any]:
    """A `google.protobuf.Struct` as a dict; numbers are floats, as Jina's executors get them."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _from_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def fill_struct(struct: Any, values: Mapping[str, Any]) -> None:
    """Put `values` into a `google.protobuf.Struct`; what it cannot hold becomes text."""
    for key, value in values.items():
        _fill_value(struct.fields[_text(str(key))], value)


def _fill_value(target: Any, value: Any) -> None:
    if value is None:
        target.null_value = 0
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = _text(value)
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        fill_struct(target.struct_value, value)
    elif isinstance(value, (list, tuple)):
        target.list_value.SetInParent()
        for item in value:
            _fill_value(target.list_value.values.add(), item)
    else:
        target.string_value = base64.b64encode(value).decode() if isinstance(value, bytes) else _text(str(value))


def _text(text: str) -> str:
    """`text` as protobuf takes it: no half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
