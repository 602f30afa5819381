"""`submit`, `replay`, `job` and `jobs`: what a client, synchronous or not, offers about jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Generic, TypeVar

from streamflow.broker.job_records import Order, Range
from streamflow.broker.json_lines import Faults
from streamflow.client.address import Address
from streamflow.client.errors import BadArguments
from streamflow.client.inputs import InCaller
from streamflow.client.plain import parameters_of, plain
from streamflow.client.plan import Pairs, Parameters

from .backend import Again, Backend
from .handle import AsyncJob
from .inputs import bodies
from .status import JobStatus

One = TypeVar("One")  # a handle, or what is awaited for one
Many = TypeVar("Many")  # a list of states, or what is awaited for one
Handle = TypeVar("Handle")
Moment = float | datetime  # Unix seconds, or a date
Work = Callable[[InCaller | None], Coroutine[Any, Any, AsyncJob]]


class JobCalls(ABC, Generic[One, Many, Handle]):
    """For the clients. Over `nats://` a job needs nobody but the broker and the flow's workers; over gRPC and HTTP a gateway hands it on.

    `flow` may be left out where the address names one: nats://host:4222/flow, or a gateway, which serves one flow.
    """

    address: Address

    def submit(
        self,
        on: str,
        inputs: Any = None,
        *,
        flow: str | None = None,
        key: str | None = None,
        request_size: int = 100,
        parameters: Parameters = None,
        target_executor: str | None = None,
        rate: float = 0.0,
        tenant: str | None = None,
        strict: bool = False,
        metadata: Pairs = None,
    ) -> One:
        """Store `inputs` as requests of `request_size` documents for endpoint `on`; the job, once the broker has all of them.

        `inputs`: what `post` takes, or the path of a file (.jsonl, .csv, .parquet), or a pattern such as 'images/*.png'. Lines of a file
        that cannot be read are left out and listed in the job's `skipped`; with `strict` the first one is an error. However many inputs
        there are, few are held in memory.

        `key`: under the same one the same inputs are accepted once, whoever submits them how often, also when an earlier attempt broke
        off; other inputs raise `AlreadyExists`. Documents that hold documents must give these their ids. `rate`: requests a second.
        `tenant`: whose share of the executors it takes (tenants with jobs get equal ones); a gateway that asks who calls knows it.

        Raises `NotFound` (flow, endpoint), `InvalidInput`, `Overloaded` when the broker keeps as much as it may, `ServerUnavailable`.
        """
        order = Order(
            self._flow(flow), on, plain(parameters_of(parameters)), target_executor or "", key or "", rate, tenant=tenant or "",
        )  # fmt: skip
        faults = Faults(strict=strict)

        async def submitted(in_caller: InCaller | None) -> AsyncJob:
            backend = self._backend(metadata)()
            given = bodies(inputs, request_size, backend.content_type, order.key, faults, in_caller)
            status = await backend.submit(order, given)
            return AsyncJob(self._backend(metadata), status.id, status.flow, skipped=faults)

        return self._one(submitted)

    def replay(
        self,
        *,
        flow: str | None = None,
        job: str | None = None,
        failed_only: bool = False,
        since: Moment = 0.0,
        until: Moment = 0.0,
        from_seq: int = 0,
        to_seq: int = 0,
        rate: float = 0.0,
        to_flow: str | None = None,
        key: str | None = None,
        tenant: str | None = None,
        metadata: Pairs = None,
    ) -> One:
        """Run stored inputs again, as a job of its own: those of `job`, or without one the requests in the flow's journal.

        All of them, the failed ones, those stored from `since` to `until`, or by their sequence in the stream; at most `rate` requests a
        second. The results of then stay. `to_flow`: in another flow on the same broker (over `nats://`). The new job's `gone` says how many
        inputs have expired. Raises `NotFound` when there is no such job, or nothing of it is left.
        """
        within = Range(_seconds(since), _seconds(until), from_seq, to_seq)
        again = Again(self._flow(flow), job or "", failed_only, within, rate, to_flow or "", key or "", tenant or "")

        async def replayed(_: InCaller | None) -> AsyncJob:
            status = await self._backend(metadata)().replay(again)
            return AsyncJob(self._backend(metadata), status.id, status.flow, gone=status.gone)

        return self._one(replayed)

    def job(self, job_id: str, *, flow: str | None = None, metadata: Pairs = None) -> Handle:
        """A handle on a job by its id, which is not looked up before something is asked of it."""
        return self._handle(AsyncJob(self._backend(metadata), job_id, self._flow(flow)))

    def jobs(self, *, flow: str | None = None, limit: int = 100, metadata: Pairs = None) -> Many:
        """How far the `limit` newest jobs of the flow are, newest first."""
        name = self._flow(flow)

        async def listed() -> list[JobStatus]:
            return await self._backend(metadata)().newest(name, limit)

        return self._many(listed)

    def _flow(self, given: str | None) -> str:
        """Raises `BadArguments` when a broker is asked without saying for which flow."""
        if given and self.address.flow and given != self.address.flow:
            raise BadArguments(f"flow {self.address.flow!r} in the address and flow={given!r}: give one of them")
        name = given or self.address.flow
        if not name and self.address.broker_url:
            raise BadArguments(f"flow: required, a broker may serve several: flow='shop', or {self.address}/shop as the address")
        return name

    @abstractmethod
    def _backend(self, metadata: Pairs) -> Callable[[], Backend]:
        """Gives the connection of the running event loop."""

    @abstractmethod
    def _one(self, work: Work) -> One: ...

    @abstractmethod
    def _many(self, work: Callable[[], Coroutine[Any, Any, list[JobStatus]]]) -> Many: ...

    @abstractmethod
    def _handle(self, job: AsyncJob) -> Handle: ...


def _seconds(moment: Moment) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else moment
