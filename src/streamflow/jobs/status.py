"""What a client is told about a job: how far it is, and its results."""

from __future__ import annotations

from dataclasses import dataclass

from docarray.base_doc import AnyDoc
from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker.errors import DeadlineExceeded
from streamflow.broker.job_records import Progress, State
from streamflow.client.results import DataRequest, Parts

__all__ = ["JobResponse", "JobStatus", "JobTimeout", "State"]


class JobTimeout(DeadlineExceeded, TimeoutError):
    """`wait(timeout=)` gave up; the job goes on."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is: of `total` stored requests `done` have a recorded outcome, and `failed` of those are errors.

    `created`: Unix seconds. `gone`: inputs that vanished before they ran (expired, purged), without which the job is done; as the answer
    to a replay, inputs that it would have run. `waits`: what keeps the job from going on, in words.
    """

    id: str
    flow: str
    endpoint: str = "/"
    state: State = State.RUNNING
    total: int = 0
    done: int = 0
    failed: int = 0
    created: float = 0.0
    gone: int = 0
    tenant: str = ""
    waits: str = ""

    @classmethod
    def of(cls, progress: Progress, gone: int = 0) -> JobStatus:
        job = progress.job
        counts = job.total, progress.done, progress.failed
        return cls(job.id, job.flow, job.endpoint, progress.state, *counts, job.created, gone or progress.gone, job.tenant, progress.waits)

    @property
    def is_over(self) -> bool:
        return self.state in (State.DONE, State.CANCELLED)


class JobResponse(DataRequest):
    """One result: what `post(return_responses=True)` gives for such a request.

    `number`: of the stored request, from 0 in the order of the inputs; its documents are those from `number * request_size` on. Also the
    last part of `request_id`, "<job>-<number>". `cursor`: `results(start=cursor)` goes on behind this one.
    """

    def __init__(self, parts: Parts, doc_type: type[BaseDocWithoutId] = AnyDoc, *, number: int, cursor: int) -> None:
        super().__init__(parts, doc_type)
        self.number = number
        self.cursor = cursor
