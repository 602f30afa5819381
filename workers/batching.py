"""One call for many requests: decodes each, calls the endpoint on all their documents, and gives each its own documents back.

Between `waiting.py`, which says who shares a batch, and `batch_runner.py`, which says where it runs. When a call fails, the batch is halved
until the request at fault stands alone; the others succeed. So an endpoint may see a document again: always a fresh one, and at most log2
of the number of requests in the batch times more.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from math import ceil, inf
from typing import Any, NamedTuple

from docarray import DocList

from .endpoints import EndpointSpec
from .executions import Execution, Outcome
from .failures import EndpointError, failed, misused
from .invoke import Context, Extras, Invoker
from .merging import join_results, merge, parameters_key, split_result
from .process import Processor
from .returns import CallResult
from .waiting import Member, Piece

MAX_AHEAD = 2048  # requests held so that full batches can form
MAX_AHEAD_UNKNOWN = 256  # the same while nobody knows how large the requests are

Ended = list[tuple[Execution, Outcome]]


class Call(NamedTuple):
    """One call of the endpoint, for all of `pieces`."""

    pieces: list[Piece]
    spec: EndpointSpec
    docs: Any
    parameters: dict[str, Any]
    extras: Extras


class Batcher:
    """Turns executions into members of batches, and batches into outcomes, for the batching endpoints of one executor.

    `ahead` may be read from any thread: requests to hold, so that a full batch waits while another one runs.
    """

    def __init__(self, processor: Processor, invoker: Invoker) -> None:
        self._processor = processor
        self._invoker = invoker
        self._alone: set[str] = set()  # endpoints that gave a dict: their requests do not share calls
        self._ahead = {spec.name: first_ahead(spec) for spec in invoker.endpoints.values() if spec.batching}
        self._mean_size: dict[str, float] = {}  # of a request, by endpoint

    @property
    def ahead(self) -> int:
        return max(self._ahead.values(), default=0)

    def admit(self, execution: Execution, arrived: float) -> Member | Outcome:
        """`execution` as a member of a batch, or its outcome when it is not to run. Never raises."""
        try:
            early = self._processor.start(execution)
            if early is not None:
                execution.ended = execution.started
                return early
            assert execution.spec is not None
            decoded, parameters = self._processor.decode(execution)
            own = self._processor.own(execution, parameters)
            member = Member(
                execution,
                execution.spec,
                self._key(execution, own),
                arrived,
                decoded,
                parameters,
                own,
                self._sizes(execution.spec, decoded.docs),
            )
            self._learn(member)
            return member
        except Exception as error:
            execution.ended = time.time()
            return self._processor.failure(error, execution)

    def run(self, pieces: list[Piece]) -> Iterator[Ended]:
        """Call a sync endpoint for `pieces`, as often as needed; yields requests as they end. Never raises."""
        run = Run(self._processor, self._alone, pieces)
        try:
            while (call := run.next()) is not None:
                try:
                    run.succeeded(call, self._invoker.call(call.spec, call.docs, call.parameters, call.extras))
                except Exception as error:
                    run.failed(call, error)
                yield run.ended()
        except Exception as error:
            run.broken(error)
        yield run.ended()

    async def arun(self, pieces: list[Piece]) -> AsyncGenerator[Ended, None]:
        """`run` for an async endpoint; raises only when it is cancelled."""
        run = Run(self._processor, self._alone, pieces)
        try:
            while (call := run.next()) is not None:
                try:
                    run.succeeded(call, await self._invoker.acall(call.spec, call.docs, call.parameters, call.extras))
                except Exception as error:
                    run.failed(call, error)
                yield run.ended()
        except Exception as error:
            run.broken(error)
        yield run.ended()

    def _key(self, execution: Execution, own: dict[str, Any]) -> tuple[object, ...]:
        """A request that workers died on stands alone, and so does one whose branches met unmerged. One that comes again shares calls only
        with its like, lest it takes new neighbours along."""
        assert execution.spec is not None
        alone = execution.alone or execution.spec.name in self._alone or bool(execution.branches)
        return (execution.spec.name, execution.delivery.attempt > 1, object() if alone else parameters_key(own))

    def _sizes(self, spec: EndpointSpec, docs: DocList[Any]) -> Sequence[float]:
        options = spec.batching
        if options is None or not options.use_custom_metric or options.custom_metric is None:
            return [1] * len(docs)
        try:
            sizes = [float(options.custom_metric(type(docs).construct([doc]))) for doc in docs]
        except Exception as error:
            raise failed(error, spec.executor) from error
        wrong = [size for size in sizes if not 0 <= size < inf]
        if wrong:
            raise misused(f"{spec.executor}.{spec.method} ({spec.name}): custom_metric gave {wrong[0]!r} for a document", spec.executor)
        return sizes

    def _learn(self, member: Member) -> None:
        name, size = member.spec.name, sum(member.sizes)
        mean = self._mean_size.get(name, size)
        self._mean_size[name] = mean = mean + 0.05 * (size - mean)
        self._ahead[name] = min(MAX_AHEAD, ceil(2 * member.options.preferred_batch_size / max(mean, 0.01)))


def first_ahead(spec: EndpointSpec) -> int:
    """Requests to hold for `spec` before any request has shown its size: two batches of requests with one document."""
    options = spec.batching
    return min(2 * options.preferred_batch_size, MAX_AHEAD_UNKNOWN if options.use_custom_metric else MAX_AHEAD) if options else 0


class Run:
    """One batch until all of it has ended: the calls still to make, and what came of those made. Makes no call itself."""

    def __init__(self, processor: Processor, alone: set[str], pieces: list[Piece]) -> None:
        self._processor = processor
        self._alone = alone
        self._all = pieces
        self._todo = [pieces]
        self._ended: Ended = []

    def next(self) -> Call | None:
        """The next call, without the requests that nobody waits for any more; None when the batch is through."""
        while self._todo:
            pieces = [piece for piece in self._todo.pop() if self._is_wanted(piece.member)]
            if pieces:
                first = pieces[0].member
                return Call(pieces, first.spec, merge([piece.docs for piece in pieces]), first.own, self._extras(pieces))
        return None

    def succeeded(self, call: Call, result: CallResult) -> None:
        """Raises `EndpointError` for a wrong number of documents, which is to be handed to `failed` like any other error."""
        if result.results is not None and len(call.pieces) > 1:
            self._alone.add(call.spec.name)  # a dict tells about all documents of its call: nobody is to read about others' in it
            self._again(*([piece] for piece in call.pieces))
            return
        results = split_result(call.spec, result, [piece.count for piece in call.pieces])
        for piece, part in zip(call.pieces, results, strict=True):
            self._add(piece, part)

    def failed(self, call: Call, error: Exception) -> None:
        """Run the halves again, unless the request stands alone, all would fail alike, or the executor wants its process to end."""
        half = len(call.pieces) // 2
        if half and isinstance(error, EndpointError) and not error.exits:
            self._again(call.pieces[:half], call.pieces[half:])
            return
        for piece in call.pieces:
            self._close(piece.member, self._processor.failure(error, piece.member.execution))

    def broken(self, error: Exception) -> None:
        """Something of ours failed: nobody is left without an answer."""
        for piece in self._all:
            if not piece.member.closed:
                self._close(piece.member, self._processor.failure(error, piece.member.execution))

    def ended(self) -> Ended:
        """The requests that ended since the last time."""
        ended, self._ended = self._ended, []
        return ended

    def _is_wanted(self, member: Member) -> bool:
        if member.closed:
            return False
        early = self._processor.unwanted(member.execution)
        if early is not None:
            self._close(member, early)
        elif not member.started:
            member.started = True
            member.execution.started = time.time()
        return early is None

    def _again(self, *parts: list[Piece]) -> None:
        """Call for each of `parts`, with documents that the last call cannot have changed."""
        for part in parts:
            for piece in part:
                piece.member.renew(self._processor.decode(piece.member.execution)[0])
        self._todo.extend(reversed(parts))

    def _add(self, piece: Piece, result: CallResult) -> None:
        member = piece.member
        member.results.append((piece.start, result))
        member.finished += piece.count
        if member.finished < len(member.sizes):
            return
        try:
            whole = join_results(member.spec, [result for _, result in sorted(member.results, key=lambda item: item[0])])
            self._close(member, self._processor.encode(member.execution, member.decoded, member.parameters, whole))
        except Exception as error:  # of this request alone: a document that the client's form cannot hold
            self._close(member, self._processor.failure(error, member.execution))

    def _close(self, member: Member, outcome: Outcome) -> None:
        member.closed = True
        member.execution.ended = time.time()
        self._ended.append((member.execution, outcome))

    def _extras(self, pieces: list[Piece]) -> Extras:
        if len(pieces) == 1 or not pieces[0].member.spec.extras:
            return self._processor.extras(pieces[0].member.execution)
        return Extras(context=shared_context(piece.member.execution for piece in pieces))


def shared_context(executions: Iterable[Execution]) -> Context:
    """What holds for all requests of a call: no one's request id, the earliest deadline, the most cautious fencing token."""
    listed = list(executions)
    deadlines = [execution.envelope.deadline for execution in listed if execution.envelope.deadline]
    return Context(
        endpoint=listed[0].envelope.endpoint,
        attempt=max(execution.attempt for execution in listed),
        deadline=min(deadlines, default=0.0),
        fencing_token=min(execution.fencing_token for execution in listed),
    )
