"""The envelopes that leave a worker, made of an execution and what came of it. Pure: nothing is sent here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from streamflow.broker.dead_letters import DEAD
from streamflow.broker.envelope import COLUMNS, Envelope, Hop
from streamflow.broker.errors import OK, Status, StreamflowError
from streamflow.broker.hops import steps_after
from streamflow.broker.routing import Kind, Step

from .executions import ANY, Execution, Output
from .flows import Flows


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is: executor name in the flow, and the replica's name in results and trails ("encoder/rep-0")."""

    flow: str
    executor: str
    replica: str
    instance: str
    shard: int | None = None  # None = the executor is not sharded


class Outgoing:
    """Makes the envelopes of one worker, and knows where they go."""

    def __init__(self, identity: Identity, flows: Flows) -> None:
        self._me = identity
        self._flows = flows

    def steps(self, envelope: Envelope) -> tuple[Step, ...]:
        """Where the output for `envelope` goes (`hops.steps_after`)."""
        return steps_after(self._flows.graph(envelope.flow_version), envelope, self._me.shard)

    def form(self, envelope: Envelope) -> str:
        """What the next reader of the output for `envelope` wants: the client's own form when this is the last hop, else columns."""
        try:
            steps = self.steps(envelope)
        except StreamflowError:
            return COLUMNS
        if len(steps) != 1 or steps[0].meets:
            return COLUMNS
        return envelope.accept if steps[0].kind is Kind.ANSWER else ANY

    def opened(self, execution: Execution, output: Output) -> Envelope:
        """The envelope that carries `output` on."""
        envelope = execution.envelope
        return envelope._replace(
            body=output.body,
            content_type=output.content_type,
            parameters=envelope.parameters if output.parameters is None else output.parameters,
            results=envelope.results if output.results is None else output.results,
            trail=self._trail(execution),
            claim=None,
            status=OK,
            retried=0,
            pieces=(len(output.body),) if envelope.stream and output.documents == 1 else (),
            **_place(execution),
        )

    def closed(self, execution: Execution, status: Status) -> Envelope:
        """The answer that says `status`; the documents stay behind. It is the last part where it stands in a stream."""
        place = {**_place(execution), "final": True}
        return execution.envelope._replace(
            body=b"", content_type="", hop="", status=status, trail=self._trail(execution), claim=None, retried=0, **place
        )

    def again(self, execution: Execution) -> Envelope:
        """The request as it came, for one more attempt at this executor."""
        return execution.envelope._replace(body=b"" if execution.envelope.claim else execution.envelope.body, retried=execution.attempt)

    def dead(self, execution: Execution, status: Status) -> Envelope:
        """The request as it came, with the reason why it is given up, and in `extra` what `broker/dead_letters.py` reads."""
        epitaph = {
            "executor": self._me.executor, "worker": f"{self._me.replica} {self._me.instance}", "attempts": execution.attempt,
            "time": time.time(), "subject": execution.subject,
        }  # fmt: skip
        return execution.envelope._replace(
            status=status, trail=self._trail(execution), claim=None, extra={**execution.envelope.extra, DEAD: epitaph}
        )

    def _trail(self, execution: Execution) -> tuple[Hop, ...]:
        hop = Hop(
            self._me.executor,
            self._me.replica,
            execution.delivery.stored,
            execution.started,
            execution.ended or time.time(),
            execution.attempt,
        )
        return (*execution.envelope.trail, hop)


def _place(execution: Execution) -> dict[str, Any]:
    """Position and attempt of what goes out: those of the stream that `execution` opened, or of the one that it is a part of."""
    stream, envelope = execution.stream, execution.envelope
    if stream is not None:
        position = stream.position if stream.failed_at is None else stream.failed_at
        return {"position": position, "source": stream.source, "attempt": execution.attempt}
    return {} if envelope.position >= 0 else {"attempt": execution.attempt}
