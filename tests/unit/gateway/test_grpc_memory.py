"""What gRPC calls leave behind in a gateway."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import grpc
import pytest

from streamflow.gateway import grpc_server as module
from streamflow.gateway.grpc_server import GrpcServer
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.waiting import eventually

from .grpc_calls import native


@pytest.fixture
def collected_seldom(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a gateway with few calls: none of them brings the collector to run."""
    monkeypatch.setattr(module, "COLLECT_S", 0.05)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> int:
    return sum(type(found).__name__ == "_HandlerCallDetails" for found in gc.get_objects())


@pytest.mark.usefixtures("collected_seldom")
async def test_what_calls_leave_in_cycles_is_gone_soon(grpc_server: tuple[GrpcServer, int], channel: grpc.aio.Channel) -> None:
    before = left()
    for _ in range(100):
        await native(channel, "Unary")(own.Request())
    await eventually(lambda: left() <= before, what="the calls have left nothing")
    await grpc_server[0].stop(0.5)
    assert all(task.cancelling() for task in asyncio.all_tasks() if task.get_name() == "collect")
