"""From an execution to its outcome: decode, call the endpoint, encode. Runs in the worker's thread (sync endpoints) or on the loop (async
ones); no I/O.

The first worker of a flow reads the client's own bytes into the executor's document type, which is where they are validated; the last
one writes the client's form. A worker in between never meets either.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from typing import Any

import orjson

from streamflow.broker import codec
from streamflow.broker.codec import merge
from streamflow.broker.envelope import COLUMNS, JSON, MATRIX, Envelope
from streamflow.broker.errors import Code, Status, StreamflowError
from streamflow.broker.routing import parameters_for

from .conditions import Condition, conditioned
from .executions import ANY, Dropped, Execution, Failure, Outcome, Output
from .failures import EndpointError
from .invoke import NO_EXTRAS, CallResult, Context, Extras, Invoker
from .policy import late

log = logging.getLogger(__name__)


class Processor:
    """Turns executions into outcomes for one loaded executor. `run` and `run_async` never raise, except for cancellation.

    They make one call for each request; `batching.py` takes the same steps for many requests at once.
    """

    def __init__(self, invoker: Invoker, executor: str, replica: str, condition: Condition | None = None) -> None:
        self._condition = condition
        self._invoker = invoker
        self._executor = executor
        self._replica = replica

    def run(self, execution: Execution) -> Outcome:
        outcome = self._run(execution) if execution.stream is None else execution.stream.advance()
        execution.ended = time.time()
        return outcome

    def _run(self, execution: Execution) -> Outcome:
        try:
            early = self.start(execution)
            if early is not None:
                return early
            if execution.spec is None:
                return pass_through(execution)
            decoded, parameters = self.decode(execution)
            result = self._invoker.call(execution.spec, decoded.docs, self.own(execution, parameters), self.extras(execution))
            return self.encode(execution, decoded, parameters, result)
        except Exception as error:
            return self.failure(error, execution)

    async def run_async(self, execution: Execution) -> Outcome:
        outcome = await (self._run_async(execution) if execution.stream is None else execution.stream.run())
        execution.ended = time.time()
        return outcome

    async def _run_async(self, execution: Execution) -> Outcome:
        try:
            early = self.start(execution)
            if early is not None:
                return early
            assert execution.spec is not None
            decoded, parameters = self.decode(execution)
            result = await self._invoker.acall(execution.spec, decoded.docs, self.own(execution, parameters), self.extras(execution))
            return self.encode(execution, decoded, parameters, result)
        except Exception as error:
            return self.failure(error, execution)

    def parts(self, execution: Execution) -> Generator[Output, None, None]:
        """What a sync generator endpoint yields, one document each. Raises as it does; closing this closes it."""
        assert execution.spec is not None
        decoded, parameters = self.decode(execution)
        own, extras = self.own(execution, parameters), self.extras(execution)
        for doc in decoded.docs:
            with closing(self._invoker.stream(execution.spec, doc, own, extras)) as items:
                for item in items:
                    yield self.encode(execution, decoded, parameters, CallResult([item]))

    async def parts_async(self, execution: Execution) -> AsyncGenerator[Output, None]:
        """`parts` for async generator endpoints."""
        assert execution.spec is not None
        decoded, parameters = self.decode(execution)
        own, extras = self.own(execution, parameters), self.extras(execution)
        for doc in decoded.docs:
            async with aclosing(self._invoker.astream(execution.spec, doc, own, extras)) as items:
                async for item in items:
                    yield self.encode(execution, decoded, parameters, CallResult([item]))

    def start(self, execution: Execution) -> Outcome | None:
        """The outcome of what is not to run, None when it starts now with the documents that its executor is for. Raises `InvalidInput`.

        A branch that is only brought here to be joined is not conditioned: what the branches make together is.
        """
        execution.started = time.time()
        return self.unwanted(execution) or (self._admit(execution) if self._condition is not None and not execution.envelope.part else None)

    def _admit(self, execution: Execution) -> Outcome | None:
        assert self._condition is not None
        execution.envelope, is_called = conditioned(execution.envelope, self._condition, _merged(execution.envelope))
        return None if is_called else pass_through(execution)

    def unwanted(self, execution: Execution) -> Outcome | None:
        """The outcome of what was cancelled, or too late, while it waited."""
        if execution.cancelled:
            return Dropped()
        remaining_s = execution.envelope.remaining_s()
        if remaining_s is not None and remaining_s < 0:
            return late(execution.envelope.endpoint, self._executor, -remaining_s)
        return None

    def decode(self, execution: Execution) -> tuple[codec.Decoded, dict[str, Any]]:
        """The documents, new ones each time, and the parameters that go on to the next hop. Raises `InvalidInput`."""
        envelope, spec = execution.envelope, execution.spec
        assert spec is not None
        if envelope.content_type == MATRIX:
            return self._decode_matrix(execution)
        # Only another worker of this flow has added a hop to the trail: what it encoded was validated where it was made.
        decoded = codec.decode(
            envelope.body, envelope.content_type, spec.request_type, trusted=bool(envelope.trail), ids=envelope.request_id
        )
        parameters = {**envelope.parameters, **decoded.parameters} if decoded.parameters else envelope.parameters
        return decoded, parameters

    def _decode_matrix(self, execution: Execution) -> tuple[codec.Decoded, dict[str, Any]]:
        """Branches that met unmerged: each as a list of its own, and all of them one behind the other as `docs`."""
        spec, envelope = execution.spec, execution.envelope
        assert spec is not None
        branches = {
            part.name: codec.decode(part.body, part.content_type, spec.request_type, trusted=True, ids=envelope.request_id).docs
            for part in merge.unstack(envelope.body)
        }
        execution.branches = branches
        everything = type(next(iter(branches.values())))(doc for docs in branches.values() for doc in docs)
        return codec.Decoded(everything), envelope.parameters

    def own(self, execution: Execution, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters as this executor sees them, by the name that the request's flow has for it."""
        return parameters_for(parameters, execution.envelope.hop)

    def extras(self, execution: Execution) -> Extras:
        assert execution.spec is not None
        if not execution.spec.extras:
            return NO_EXTRAS
        envelope = execution.envelope
        matrix = list(execution.branches.values()) if execution.branches else None
        return Extras(
            matrix,
            execution.branches,
            context=Context(envelope.request_id, execution.attempt, envelope.deadline, execution.fencing_token, envelope.endpoint),
        )

    def encode(self, execution: Execution, decoded: codec.Decoded, parameters: dict[str, Any], result: CallResult) -> Output:
        """The output of `execution`. Raises `StreamflowError` naming document and field for what its form cannot hold."""
        unknown = decoded.unknown if result.in_place else None
        content_type = COLUMNS if execution.accept == ANY else execution.accept
        body = codec.encode(result.docs, content_type, extra_columns=unknown)
        results = {**execution.envelope.results, self._replica: result.results} if result.results is not None else None
        return Output(body, content_type, parameters, results, len(result.docs))

    def failure(self, error: Exception, execution: Execution) -> Failure:
        """The answer for whatever was raised on the way."""
        if isinstance(error, EndpointError):
            facts = {"request_id": execution.envelope.request_id, "subject": execution.subject, "attempt": execution.attempt}
            log.error("%s %s: %s", self._replica, execution.envelope.endpoint, error, exc_info=error.__cause__, extra=facts)
            return Failure(error.status, exit_worker=error.exits, may_retry=error.may_retry)
        if not isinstance(error, StreamflowError):
            log.exception("request %s failed in streamflow itself", execution.envelope.request_id)
            return Failure(
                Status(
                    Code.INTERNAL, f"{type(error).__name__} in executor {self._executor!r}", type(error).__name__, executor=self._executor
                )
            )
        return Failure(Status.of(error, executor=self._executor))


def pass_through(execution: Execution) -> Output:
    """The executor has no such endpoint: the documents go on as they are, byte for byte unless the client wants another form."""
    envelope = execution.envelope
    if execution.accept == ANY or (execution.accept == COLUMNS == envelope.content_type):
        return Output(envelope.body, envelope.content_type)
    if envelope.content_type == MATRIX:
        return Output(merge.merge(merge.unstack(envelope.body), execution.accept), execution.accept)
    body = codec.transcode(envelope.body, envelope.content_type, execution.accept)
    return Output(body, execution.accept, _merged(envelope))


def _merged(envelope: Envelope) -> dict[str, Any]:
    """The request's parameters; those of a JSON body are still in it when no executor has opened it."""
    if envelope.content_type != JSON or b'"parameters"' not in bytes(envelope.body):
        return envelope.parameters
    request = orjson.loads(envelope.body)
    found = request.get("parameters") if isinstance(request, dict) else None
    return {**envelope.parameters, **found} if isinstance(found, dict) else envelope.parameters
