"""Health and reflection of the gRPC server."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from streamflow.gateway.grpc_server import GrpcServer

from .conftest import LOCAL
from .echoing import EchoDispatcher

pytestmark = pytest.mark.feature("GW-27")

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
JINA = ("JinaRPC", "JinaSingleDataRequestRPC", "JinaSingleDocumentRequestRPC", "JinaDataRequestRPC", "JinaDiscoverEndpointsRPC")
SERVICES = {f"jina.{name}" for name in (*JINA, "JinaGatewayDryRunRPC", "JinaInfoRPC")} | {
    "streamflow.v1.Streamflow",
    "grpc.health.v1.Health",
}


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
async def test_every_service_is_serving_while_the_flow_is_ready(
    channel: grpc.aio.Channel, dispatcher: EchoDispatcher, service: str
) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await check(request)).status == SERVING
    dispatcher.connected = False
    assert (await check(request)).status == NOT_SERVING
    dispatcher.connected = True
    dispatcher.catalog._heard.clear()
    assert (await check(request)).status == NOT_SERVING


async def test_an_unknown_service_is_not_found(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="x"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watchers_see_every_change_until_the_end(grpc_server: tuple[GrpcServer, int], dispatcher: EchoDispatcher) -> None:
    server, port = grpc_server
    async with grpc.aio.insecure_channel(f"{LOCAL}:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert (await watch.read()).status == SERVING
        dispatcher.connected = False
        assert (await watch.read()).status == NOT_SERVING
        dispatcher.connected = True
        assert (await watch.read()).status == SERVING
        last = asyncio.ensure_future(watch.read())  # pending before the end: grpc.aio reads nothing more from a call that is done
        await server.stop(5)
        assert (await last).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF


async def reflect(channel: grpc.aio.Channel, **request: str) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    async for response in stub.ServerReflectionInfo([reflection_pb2.ServerReflectionRequest(**request)]):
        return response
    raise AssertionError("no response")


@pytest.mark.feature("GW-22")
async def test_reflection_lists_the_services_and_shows_docarrays_types(channel: grpc.aio.Channel) -> None:
    listed = await reflect(channel, list_services="")
    assert {service.name for service in listed.list_services_response.service} >= SERVICES
    found = await reflect(channel, file_containing_symbol="jina.JinaRPC")
    files = [FileDescriptorProto.FromString(file) for file in found.file_descriptor_response.file_descriptor_proto]
    packages = {file.package for file in files}
    assert "jina" in packages
    for symbol in ("docarray.DocProto", "grpc.health.v1.Health", "streamflow.v1.Streamflow", "google.protobuf.Struct"):
        answer = await reflect(channel, file_containing_symbol=symbol)
        assert answer.file_descriptor_response.file_descriptor_proto, symbol
