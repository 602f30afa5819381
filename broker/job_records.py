"""What is known of a job, as data; `jobs.py` and `replay.py` do something with it. Loads no client of the broker (0.2 s)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from . import subjects
from .envelope import COLUMNS


class Source(StrEnum):
    """What a job reads."""

    INPUTS = "inputs"
    FAILED = "failed"
    JOURNAL = "journal"


class State(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Job:
    """The record of an accepted job. `total`: how many inputs it has.

    Of a replay: `origin_flow` and `origin` tell where the inputs are stored ("" = the journal), `failures_of` (and `failures_flow`) whose
    failures are run again, `after` and `until` the stream sequences (after, until] that it reads, `until` 0 = to the end.

    Tenants with jobs get equal shares of the executors; "" is one of them.
    """

    id: str
    flow: str
    endpoint: str = "/"
    total: int = 0
    created: float = 0.0
    fingerprint: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    target_executor: str = ""
    rate: float = 0.0
    source: Source = Source.INPUTS
    origin_flow: str = ""
    origin: str = ""
    failures_of: str = ""
    failures_flow: str = ""
    after: int = 0
    until: int = 0
    tenant: str = ""

    @property
    def stream(self) -> str:
        """The stream that its consumer reads."""
        match self.source:
            case Source.INPUTS:
                return subjects.jobs_stream(self.origin_flow)
            case Source.FAILED:
                return subjects.results_stream(self.failures_flow)
            case Source.JOURNAL:
                return subjects.journal_stream(self.origin_flow)

    @property
    def filter(self) -> str:
        match self.source:
            case Source.INPUTS:
                return subjects.job(self.origin_flow, self.origin, "*")
            case Source.FAILED:
                return subjects.failed(self.failures_flow, f"{self.failures_of}.*")
            case Source.JOURNAL:
                return subjects.journal(self.origin_flow, "*")

    def name_of(self, subject: str, sequence: int) -> str:
        """What tells an input from the others of its job: its number, or its place in the journal."""
        return str(sequence) if self.source is Source.JOURNAL else subject.rpartition(".")[2].rpartition("-")[2]

    def request_id(self, name: str) -> str:
        return f"{self.id}-{name}"

    def record(self, name: str) -> str:
        return f"{self.id}.{name}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `done` counts stored outcomes, `failed` those among them that are errors, `gone` inputs that vanished before they
    ran: a job is `DONE` when nothing else is left. `waits`: what keeps it from going on, in words."""

    job: Job
    state: State
    done: int
    failed: int
    gone: int = 0
    waits: str = ""

    @property
    def total(self) -> int:
        return self.job.total


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with the inputs of a job, and `key`, under which it is accepted only once ("" = each submit is a new job).

    `rate`: inputs a second, 0.0 = as fast as the workers can.
    """

    flow: str
    endpoint: str = "/"
    parameters: dict[str, Any] = field(default_factory=dict)
    target_executor: str = ""
    key: str = ""
    rate: float = 0.0
    accept: str = COLUMNS  # content type of the outcomes
    tenant: str = ""  # whose share of the executors it takes


@dataclass(frozen=True, slots=True)
class Input:
    """The body of one request of a job."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """What of the stored inputs: by time of storing (Unix seconds) or by their sequence in the stream, both ends included. 0 = open."""

    since: float = 0.0
    until: float = 0.0
    from_seq: int = 0
    to_seq: int = 0


EVERYTHING = Range()
