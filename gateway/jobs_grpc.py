"""`streamflow.v1.Jobs`: jobs over gRPC. A refusal ends the call with its gRPC status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from streamflow.broker.envelope import COLUMNS
from streamflow.broker.errors import InvalidInput
from streamflow.broker.jobs import Input, Order, Progress
from streamflow.broker.replay import Range

from .grpc_streams import Context, Handler, telling
from .jina_wire import read
from .jobs_desk import JobDesk, action_of
from .native_wire import checked_type, message_of, unpack_map
from .proto import jobs_pb2 as pb

JOBS = "streamflow.v1.Jobs"


class JobService:
    """The handlers; they take and give serialized messages."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk

    def handler(self) -> grpc.GenericRpcHandler:
        def unary(handler: Handler) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(telling(handler))

        methods = {
            "Submit": grpc.stream_unary_rpc_method_handler(telling(self.submit)),
            "Status": unary(self.status),
            "List": unary(self.newest),
            "Results": grpc.unary_stream_rpc_method_handler(telling(self.results)),
            "Control": unary(self.control),
            "Replay": unary(self.replay),
        }
        return grpc.method_handlers_generic_handler(JOBS, methods)

    async def submit(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        first = read(pb.JobInput, await anext(aiter(requests), b""))
        if not first.HasField("order"):
            raise InvalidInput("the first message must hold the order")
        return _shown(await self._desk.submit(self._order(first.order), _inputs(requests)))

    async def status(self, raw: bytes, context: Context) -> bytes:
        return _shown(await self._desk.status(read(pb.JobName, raw).id))

    async def newest(self, raw: bytes, context: Context) -> bytes:
        found = await self._desk.newest(read(pb.JobListRequest, raw).limit)
        listed: bytes = pb.JobList(jobs=[_status(progress) for progress in found]).SerializeToString()
        return listed

    async def control(self, raw: bytes, context: Context) -> bytes:
        asked = read(pb.JobControl, raw)
        return _shown(await self._desk.control(asked.id, action_of(asked.action)))

    async def replay(self, raw: bytes, context: Context) -> bytes:
        asked = read(pb.JobReplay, raw)
        within = Range(asked.since, asked.until, asked.from_seq, asked.to_seq)
        progress, made = await self._desk.replay(asked.id, asked.failed_only, within, asked.rate, asked.key, asked.tenant)
        return _shown(progress, made.gone)

    async def results(self, raw: bytes, context: Context) -> None:
        asked = read(pb.JobResultsRequest, raw)
        job = await self._desk.job(asked.id)
        async with aclosing(self._desk.results(job, asked.start, follow=not asked.only_stored)) as results:
            async for result in results:
                response = message_of(result.envelope, 0.0)
                told = pb.JobResult(number=result.number, cursor=result.cursor, endpoint=result.envelope.endpoint, response=response)
                await context.write(told.SerializeToString())

    def _order(self, asked: pb.JobOrder) -> Order:
        return Order(
            asked.flow or self._desk.flow, asked.endpoint, unpack_map(asked.parameters) if asked.parameters else {},
            asked.target_executor, asked.key, asked.rate, checked_type("accept", asked.accept) or COLUMNS,
            asked.tenant,
        )  # fmt: skip


async def _inputs(requests: AsyncIterator[bytes]) -> AsyncIterator[Input]:
    async for raw in requests:
        given = read(pb.JobInput, raw)
        yield Input(checked_type("content_type", given.content_type), given.body)


def _status(progress: Progress, gone: int = 0) -> pb.JobStatus:
    job = progress.job
    return pb.JobStatus(
        id=job.id, flow=job.flow, endpoint=job.endpoint, state=progress.state.value, total=job.total, done=progress.done,
        failed=progress.failed, created=job.created, gone=gone or progress.gone, tenant=job.tenant, waits=progress.waits,
    )  # fmt: skip


def _shown(progress: Progress, gone: int = 0) -> bytes:
    shown: bytes = _status(progress, gone).SerializeToString()
    return shown
