"""Both protobuf interfaces as the test servers read and write them."""

from __future__ import annotations

from typing import Any

import msgpack
from google.protobuf.json_format import MessageToDict
from grpc import aio

from streamflow.broker.envelope import COLUMNS, PROTOBUF
from streamflow.broker.errors import Code, Status
from streamflow.gateway.proto import shallow_pb2 as jina
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.unit.client.backend import Answered, Asked, body_of, docs_of


def own_asked(request: own.Request, context: aio.ServicerContext[Any, Any], method: str) -> Asked:
    return Asked(
        request.endpoint,
        docs_of(request.body, request.content_type),
        msgpack.unpackb(request.parameters) if request.parameters else {},
        request.target_executor,
        request.request_id,
        request.deadline,
        dict(context.invocation_metadata() or ()),
        method,
    )


def own_answer(asked: Asked, answered: Answered, position: int = -1, final: bool = True) -> own.Response:
    return own.Response(
        request_id=asked.request_id,
        status=msgpack.packb(answered.status.to_wire()) if answered.status.code is not Code.OK else b"",
        parameters=msgpack.packb(asked.parameters),
        results=msgpack.packb(answered.results) if answered.results else b"",
        routes=msgpack.packb([["gateway", "", 0.0, 1.0, 4.0, 1], ["first", "rep-0", 1.5, 2.0, 3.0, 1]]),
        content_type=COLUMNS,
        body=body_of(answered.docs, COLUMNS),
        position=position,
        final=final,
    )


def jina_asked(request: jina.DataRequest, metadata: dict[str, str], method: str) -> Asked:
    header = request.header
    return Asked(
        header.exec_endpoint,
        docs_of(request.data, PROTOBUF),
        MessageToDict(request.parameters),
        header.target_executor,
        header.request_id,
        float(header.timeout),
        metadata,
        method,
    )


def jina_status(status: Status) -> jina.Status:
    if status.code is Code.OK:
        return jina.Status()
    raised = jina.Exc(name=status.exception or status.code.value, args=status.args, stacks=status.stacks, executor=status.executor)
    return jina.Status(code=1, description=status.description, exception=raised)


def jina_answer(asked: Asked, answered: Answered) -> jina.DataRequest:
    header = jina.Header(
        request_id=asked.request_id, status=jina_status(answered.status), exec_endpoint=asked.endpoint, target_executor=asked.target
    )
    answer = jina.DataRequest(header=header, data=body_of(answered.docs, PROTOBUF))
    answer.parameters.update(asked.parameters | ({"__results__": answered.results} if answered.results else {}))
    for name, start, end in (("gateway", 1, 4), ("first", 2, 3)):
        route = answer.routes.add(executor=name)
        route.start_time.FromSeconds(start)
        route.end_time.FromSeconds(end)
    return answer
