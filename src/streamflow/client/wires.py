"""The two gRPC interfaces that a gateway may speak: requests to messages, messages to answers.

`OwnWire` is `streamflow.v1.Streamflow`, documents as columns. `JinaWire` is what jina 3.34 serves; the same messages travel over WebSocket.
One object for one post(): what all its requests share is encoded once.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import msgpack

from streamflow.broker.envelope import COLUMNS, EMPTY, PROTOBUF
from streamflow.broker.errors import OK, Status
from streamflow.gateway.proto import shallow_pb2 as jina
from streamflow.gateway.proto import streamflow_pb2 as own

from .errors import named_status
from .plain import plain
from .results import DataRequest, Header, Parts, Route
from .transport import Ask, Outgoing


class Wire(ABC):
    """Method paths and the translations both ways; `Any` stands for the wire's own message classes."""

    content_type: ClassVar[str]  # of documents
    call: ClassVar[str]
    most: ClassVar[int] = 1  # requests in one message of `call`
    unary: ClassVar[str]
    parts: ClassVar[str]

    @abstractmethod
    def pack(self, request: Outgoing) -> Any: ...

    @abstractmethod
    def pack_single(self, request: Outgoing) -> Any:
        """The message that asks a streaming endpoint with the one document of `request`."""

    @abstractmethod
    def read(self, message: bytes) -> DataRequest: ...

    def bundle(self, requests: list[Outgoing]) -> Any:
        """Several requests, at most `most`, as one message."""
        return self.pack(requests[0])

    def read_bundle(self, message: bytes) -> list[DataRequest]:
        """The answers in one message of `call`."""
        return [self.read(message)]

    @abstractmethod
    def read_part(self, message: bytes) -> DataRequest:
        """The answer in one message of a streaming endpoint."""


class OwnWire(Wire):
    content_type = COLUMNS
    call = "/streamflow.v1.Streamflow/Exchange"
    most = 64
    unary = "/streamflow.v1.Streamflow/Unary"
    parts = "/streamflow.v1.Streamflow/Stream"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._parameters: bytes = msgpack.packb(plain(ask.parameters), use_bin_type=True) if ask.parameters else b""

    def pack(self, request: Outgoing) -> own.Request:
        return own.Request(**self._fields(request))

    def pack_single(self, request: Outgoing) -> own.Request:
        return self.pack(request)

    def read(self, message: bytes) -> DataRequest:
        return self._answer(own.Response.FromString(message))

    def read_part(self, message: bytes) -> DataRequest:
        return self._answer(own.Response.FromString(message))

    def bundle(self, requests: list[Outgoing]) -> own.Requests:
        message = own.Requests()
        for request in requests:
            message.requests.add(**self._fields(request))  # in place: finished ones would be copied, documents and all
        return message

    def read_bundle(self, message: bytes) -> list[DataRequest]:
        return [self._answer(answer) for answer in own.Responses.FromString(message).responses]

    def _fields(self, request: Outgoing) -> dict[str, Any]:
        ask, body = self._ask, request.encoded(COLUMNS)
        return {
            "request_id": request.request_id,
            "endpoint": ask.endpoint,
            "target_executor": ask.target_executor,
            "parameters": self._parameters,
            "deadline": time.time() + ask.timeout_s if ask.timeout_s else 0.0,
            "content_type": COLUMNS if body else EMPTY,
            "accept": COLUMNS,
            "body": body,
            "trace": ask.trace,
        }

    def _answer(self, message: own.Response) -> DataRequest:
        return DataRequest(own_parts(message, self._ask.endpoint, self._ask.target_executor), self._ask.doc_type)


def own_parts(message: own.Response, endpoint: str, target_executor: str = "") -> Parts:
    """An answer of `streamflow.v1`."""
    status = Status.from_wire(msgpack.unpackb(message.status)) if message.status else OK
    return Parts(
        Header(message.request_id, status, endpoint, target_executor),
        message.body,
        message.content_type,
        partial(_own_parameters, message.parameters, message.results),
        partial(_own_routes, message.routes),
        len(message.parameters) + len(message.results) + len(message.routes),
    )


def _own_parameters(parameters: bytes, results: bytes) -> dict[str, Any]:
    unpacked: dict[str, Any] = msgpack.unpackb(parameters, strict_map_key=False) if parameters else {}
    return unpacked | {"__results__": msgpack.unpackb(results, strict_map_key=False)} if results else unpacked


def _own_routes(routes: bytes) -> list[Route]:
    hops = msgpack.unpackb(routes) if routes else []
    return [Route(name, start, end, enqueued, replica, attempt) for name, replica, enqueued, start, end, attempt, *_ in hops]


class JinaWire(Wire):
    content_type = PROTOBUF
    call = "/jina.JinaRPC/Call"
    unary = "/jina.JinaSingleDataRequestRPC/process_single_data"
    parts = "/jina.JinaSingleDocumentRequestRPC/stream_doc"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._parameters: Any = None
        if ask.parameters:
            # The Struct class of the proto package's own descriptor pool is not the one of google.protobuf.struct_pb2.
            self._parameters = jina.DataRequest().parameters
            self._parameters.update(plain(ask.parameters))

    def pack(self, request: Outgoing) -> jina.DataRequest:
        return jina.DataRequest(header=self._header(request), parameters=self._parameters, data=request.encoded(PROTOBUF))

    def pack_single(self, request: Outgoing) -> jina.SingleDocumentRequest:
        content = jina.DataContent.FromString(request.encoded(PROTOBUF))
        document = jina.DocList.FromString(content.docs).docs[0]
        return jina.SingleDocumentRequest(header=self._header(request), parameters=self._parameters, document=document)

    def read(self, message: bytes) -> DataRequest:
        answer = jina.DataRequest.FromString(message)
        return self._answer(answer, answer.data)

    def read_part(self, message: bytes) -> DataRequest:
        answer = jina.SingleDocumentRequest.FromString(message)
        content = jina.DataContent(docs=jina.DocList(docs=[answer.document]).SerializeToString())
        return self._answer(answer, content.SerializeToString() if answer.document else b"")

    def _header(self, request: Outgoing) -> jina.Header:
        ask = self._ask
        # Whole seconds only: rounded up, never giving up early.
        deadline = math.ceil(time.time() + ask.timeout_s) if ask.timeout_s else None
        target = ask.target_executor or None
        return jina.Header(request_id=request.request_id, exec_endpoint=ask.endpoint, target_executor=target, timeout=deadline)

    def _answer(self, message: Any, body: bytes) -> DataRequest:
        header = message.header
        status = status_of(header.status) if header.HasField("status") else OK
        # A part of `message` would keep all of it, the documents a second time.
        rest = jina.DataRequest(parameters=message.parameters, routes=message.routes)
        parts = Parts(
            Header(header.request_id, status, header.exec_endpoint, header.target_executor),
            body,
            PROTOBUF,
            partial(_jina_parameters, rest.parameters),
            partial(_jina_routes, rest.routes),
            rest.ByteSize(),
        )
        return DataRequest(parts, self._ask.doc_type)


def _jina_parameters(parameters: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict  # 2 MB, and few ask for parameters

    return MessageToDict(parameters)


def _jina_routes(routes: Any) -> list[Route]:
    return [Route(route.executor, _seconds(route.start_time), _seconds(route.end_time), 0.0, *_told(route)) for route in routes]


def _told(route: Any) -> tuple[str, int]:
    """Replica and attempt: our gateway says them of the stop at which a request failed ("encoder/rep-0, attempt 1")."""
    replica, found, attempt = route.status.description.rpartition(", attempt ")
    return (replica, int(attempt)) if found and attempt.isdecimal() else ("", 1)


def _seconds(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)


def status_of(message: jina.Status) -> Status:
    """The status in a jina StatusProto. It knows two codes only; what our own gateway means more exactly stands in the exception's name."""
    if not message.code:
        return OK
    error = message.exception
    return named_status(error.name, message.description, tuple(error.args), tuple(error.stacks), error.executor)
