"""What a gRPC call's end means to the client: what may be tried again, and what was said on purpose."""

from __future__ import annotations

import grpc
import pytest
from grpc import aio

from streamflow.broker.errors import Cancelled, StreamflowError
from streamflow.client.address import Address
from streamflow.client.errors import ServerUnavailable
from streamflow.client.grpc_ import GrpcTransport

CASES = {
    "a server that stops": (grpc.StatusCode.CANCELLED, "CANCELLED", ServerUnavailable),
    "a channel that was closed": (grpc.StatusCode.CANCELLED, "", ServerUnavailable),
    "a request that somebody cancelled": (grpc.StatusCode.CANCELLED, "request r1 was cancelled", Cancelled),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_end_of_a_call(case: str) -> None:
    code, details, kind = CASES[case]
    transport = GrpcTransport(Address("127.0.0.1", 1), {})
    error = transport.translate(aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details))
    await transport.channel.close()
    assert isinstance(error, StreamflowError) and type(error) is kind, error
