"""Client side of the services under test, by their names on the wire."""

from __future__ import annotations

from typing import Any

import grpc

from streamflow.gateway.proto import shallow_pb2 as pb
from streamflow.gateway.proto import streamflow_pb2 as own


def single(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        "/jina.JinaSingleDataRequestRPC/process_single_data",
        request_serializer=pb.DataRequest.SerializeToString,
        response_deserializer=pb.DataRequest.FromString,
    )


def stream(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(
        "/jina.JinaRPC/Call",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=pb.DataRequest.FromString,
    )


def empty(channel: grpc.aio.Channel, method: str, answer: Any) -> Any:
    return channel.unary_unary(method, response_deserializer=answer.FromString)


def native(channel: grpc.aio.Channel, method: str) -> Any:
    kinds = {"Unary": channel.unary_unary, "Stream": channel.unary_stream, "Call": channel.stream_stream}
    return kinds[method](
        f"/streamflow.v1.Streamflow/{method}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=own.Response.FromString,
    )


def request(request_id: str, endpoint: str = "/echo", **fields: Any) -> Any:
    return pb.DataRequest(header={"request_id": request_id, "exec_endpoint": endpoint}, **fields)
