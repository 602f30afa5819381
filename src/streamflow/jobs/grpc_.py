"""Jobs over gRPC: `streamflow.v1.Jobs` of a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any

import msgpack
from docarray.base_doc.doc import BaseDocWithoutId
from grpc import aio

from streamflow.broker.envelope import COLUMNS
from streamflow.broker.errors import InvalidInput, StreamflowError
from streamflow.broker.job_records import Input, Order, State
from streamflow.client.transport import Metadata
from streamflow.client.wires import own_parts
from streamflow.gateway.proto import jobs_pb2 as pb

from .backend import Again, Watched
from .status import JobResponse, JobStatus

_SERVICE = "/streamflow.v1.Jobs"


class GrpcJobs:
    """See `backend.Backend`. `translate` makes our error of a call's."""

    content_type = COLUMNS

    def __init__(self, channel: aio.Channel, metadata: Metadata, translate: Callable[[aio.AioRpcError], StreamflowError]) -> None:
        self._channel = channel
        self._metadata = metadata
        self._translate = translate

    async def submit(self, order: Order, inputs: AsyncIterator[Input]) -> JobStatus:
        method = self._channel.stream_unary(f"{_SERVICE}/Submit", _serialized, pb.JobStatus.FromString)
        watched = Watched(inputs)
        try:
            return _status(await method(_messages(order, watched), metadata=self._metadata))
        except aio.AioRpcError as error:
            raise watched.failure or self._translate(error) from error
        except asyncio.CancelledError as error:
            raise watched.failure or error from None

    async def replay(self, again: Again) -> JobStatus:
        if again.to_flow and again.to_flow != again.flow:
            raise InvalidInput("to_flow: a gateway replays into the flow that it serves; use Client('nats://...') for another one")
        within = again.within
        asked = pb.JobReplay(
            id=again.job, failed_only=again.failed_only, since=within.since, until=within.until, from_seq=within.from_seq,
            to_seq=within.to_seq, rate=again.rate, key=again.key, tenant=again.tenant,
        )  # fmt: skip
        return _status(await self._ask("Replay", asked, pb.JobStatus))

    async def status(self, flow: str, job_id: str) -> JobStatus:
        return _status(await self._ask("Status", pb.JobName(id=job_id), pb.JobStatus))

    async def control(self, flow: str, job_id: str, action: str) -> JobStatus:
        return _status(await self._ask("Control", pb.JobControl(id=job_id, action=action), pb.JobStatus))

    async def newest(self, flow: str, limit: int) -> list[JobStatus]:
        found = await self._ask("List", pb.JobListRequest(limit=limit), pb.JobList)
        return [_status(status) for status in found.jobs]

    async def results(
        self, flow: str, job_id: str, start: int, follow: bool, doc_type: type[BaseDocWithoutId]
    ) -> AsyncGenerator[JobResponse, None]:
        method = self._channel.unary_stream(f"{_SERVICE}/Results", _serialized, pb.JobResult.FromString)
        call = method(pb.JobResultsRequest(id=job_id, start=start, only_stored=not follow), metadata=self._metadata)
        try:
            async for result in call:
                parts = own_parts(result.response, result.endpoint)
                yield JobResponse(parts, doc_type, number=result.number, cursor=result.cursor)
        except aio.AioRpcError as error:
            raise self._translate(error) from error
        finally:
            call.cancel()

    async def _ask(self, name: str, message: Any, answer: Any) -> Any:
        method = self._channel.unary_unary(f"{_SERVICE}/{name}", _serialized, answer.FromString)
        try:
            return await method(message, metadata=self._metadata)
        except aio.AioRpcError as error:
            raise self._translate(error) from error


async def _messages(order: Order, inputs: AsyncIterable[Input]) -> AsyncIterator[pb.JobInput]:
    parameters = msgpack.packb(order.parameters, use_bin_type=True) if order.parameters else b""
    yield pb.JobInput(
        order=pb.JobOrder(
            flow=order.flow, endpoint=order.endpoint, target_executor=order.target_executor, parameters=parameters, key=order.key,
            rate=order.rate, tenant=order.tenant,
        )
    )  # fmt: skip
    async for given in inputs:
        yield pb.JobInput(content_type=given.content_type, body=given.body)


def _serialized(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _status(told: pb.JobStatus) -> JobStatus:
    return JobStatus(
        told.id, told.flow, told.endpoint, State(told.state), told.total, told.done, told.failed, told.created, told.gone, told.tenant,
        told.waits,
    )  # fmt: skip
