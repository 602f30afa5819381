"""The seam between a job's handle and the ways to reach it: broker, gRPC, HTTP. Each protocol file provides one of these."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker.job_records import EVERYTHING, Input, Order, Range

from .status import JobResponse, JobStatus


@dataclass(frozen=True, slots=True)
class Again:
    """What is to be replayed: stored inputs of `flow`, of `job` or with "" those in its journal."""

    flow: str
    job: str = ""
    failed_only: bool = False
    within: Range = EVERYTHING
    rate: float = 0.0
    to_flow: str = ""
    key: str = ""
    tenant: str = ""


class Watched:
    """Inputs on their way through a library that tells nobody what reading them raised: `failure` does."""

    def __init__(self, inputs: AsyncIterator[Input]) -> None:
        self._inputs = inputs
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Input]:
        try:
            async for given in self._inputs:
                yield given
        except Exception as error:
            self.failure = error
            raise


class Backend(Protocol):
    """`flow` may be "" where a gateway stands for one. All methods raise a `StreamflowError`: `NotFound` for an unknown job,
    `ServerUnavailable` when nobody answers."""

    content_type: str  # form that inputs must have

    async def submit(self, order: Order, inputs: AsyncIterator[Input]) -> JobStatus:
        """Returns when everything is stored and the job is accepted."""
        ...

    async def replay(self, again: Again) -> JobStatus: ...

    async def status(self, flow: str, job_id: str) -> JobStatus: ...

    async def control(self, flow: str, job_id: str, action: str) -> JobStatus:
        """`action`: pause, resume or cancel."""
        ...

    async def newest(self, flow: str, limit: int) -> list[JobStatus]: ...

    def results(
        self, flow: str, job_id: str, start: int, follow: bool, doc_type: type[BaseDocWithoutId]
    ) -> AsyncGenerator[JobResponse, None]:
        """Results behind cursor `start`; with `follow` until the job is over. Fails with `Unavailable` where going on from the last
        cursor may help."""
        ...
