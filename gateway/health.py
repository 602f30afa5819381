"""`grpc.health.v1.Health`: SERVING while the broker is connected and every executor has a ready replica.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Asked at the moment of the call, so nothing can be out of date.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

from streamflow.broker.errors import Code

from .proto.registry import POOL
from .view import View

HEALTH = "grpc.health.v1.Health"
_POLL_S = 0.5
_FILES = ("jina.proto", "streamflow.proto", "jobs.proto")


class Health:
    """The servicer; "" and every service of this server share one status."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._services = {"", HEALTH} | {name for file in _FILES for name in services_of(file)}

    def handler(self) -> grpc.GenericRpcHandler:
        request: dict[str, Any] = {
            "request_deserializer": pb.HealthCheckRequest.FromString,
            "response_serializer": pb.HealthCheckResponse.SerializeToString,
        }
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, **request),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **request),
        }
        return grpc.method_handlers_generic_handler(HEALTH, methods)

    async def check(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:200]!r}")
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def watch(self, request: Any, context: grpc.aio.ServicerContext) -> None:
        told = None
        while True:
            last = self._view.draining.is_set()  # asked before the status: draining may begin while one is written
            status = self._status(request.service)
            if status != told:
                told = status
                await context.write(pb.HealthCheckResponse(status=status))
            if last:
                return
            await asyncio.sleep(_POLL_S)

    def _status(self, service: str) -> int:
        if service not in self._services:
            return int(pb.HealthCheckResponse.SERVICE_UNKNOWN)
        ready = self._view.readiness().code is Code.OK
        return int(pb.HealthCheckResponse.SERVING if ready else pb.HealthCheckResponse.NOT_SERVING)


def services_of(file: str) -> list[str]:
    return [service.full_name for service in POOL.FindFileByName(file).services_by_name.values()]
