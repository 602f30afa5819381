"""A step as a message: where it is published, under which id, and what. The same for a gateway that accepts a request, a feeder that takes
it from a job, and a worker that passes it on; and which steps these are.
"""

from __future__ import annotations

from typing import NamedTuple

from . import subjects
from .envelope import Envelope, encode
from .errors import InvalidInput
from .flow import GATEWAY, Graph
from .routing import Kind, Step, next_steps


class Message(NamedTuple):
    """One publish: where, under which message id, what."""

    subject: str
    message_id: str
    payload: bytes


def first_messages(graph: Graph, envelope: Envelope, steps: tuple[Step, ...]) -> list[Message]:
    """A message for each of `steps` (`routing.first_steps`) that is a hop. Raises `TooLarge`, `InvalidInput`."""
    return [message_for(graph, envelope, step) for step in hops_of(steps)]


def hops_of(steps: tuple[Step, ...]) -> list[Step]:
    """All but a whole ANSWER, which there is among first steps when nothing has to be done for it."""
    return [step for step in steps if step.kind is not Kind.ANSWER or step.meets]


def steps_after(graph: Graph, envelope: Envelope, shard: int | None = None) -> tuple[Step, ...]:
    """Where the output for `envelope`, of a worker that holds `shard`, goes; what came as a part only has to be brought to its place.

    Raises `InvalidInput`, `NotFound` for what the flow does not have.
    """
    if not envelope.part:
        return next_steps(graph, envelope.hop, envelope.endpoint, envelope.target_executor, shard=shard)
    if envelope.hop not in graph.meeting_places or envelope.part not in envelope.expected:
        raise InvalidInput(f"nothing meets at {envelope.hop!r}")
    kind = Kind.ANSWER if envelope.hop == GATEWAY else Kind.JOIN
    return (Step(kind, envelope.hop, envelope.part, envelope.expected, not (envelope.reply or envelope.record)),)


def journal_copy(envelope: Envelope) -> Message:
    """The whole request for the flow's journal, without what belongs to its client: who waits, until when, under which id.

    Raises `TooLarge`, `InvalidInput`.
    """
    whole = envelope._replace(hop="", run="", reply="", record="", keep_s=0.0, deadline=0.0, stream=False, extra={})
    subject = subjects.journal(envelope.flow, envelope.request_id)
    return Message(subject, subjects.message_id(envelope.request_id, "journal"), encode(whole))


def message_for(graph: Graph, envelope: Envelope, step: Step) -> Message:
    """`envelope` on its way to `step`; a copy for a floating executor answers nobody. Raises `TooLarge`, `InvalidInput`."""
    target = envelope._replace(hop=step.executor, part=step.part, expected=step.expected)
    if step.floating:
        target = target._replace(reply="", record="")
    message_id = subjects.message_id(envelope.ticket, step.executor, step.part, envelope.run)
    return Message(_subject(graph, envelope, step), message_id, encode(target))


def _subject(graph: Graph, envelope: Envelope, step: Step) -> str:
    """A part goes to the workers of the place where it meets the others, who can open documents."""
    if step.meets and step.kind is not Kind.ALL:
        return subjects.work(envelope.flow, graph.host_of(step.executor), envelope.lane, envelope.request_id)
    node = graph.node(step.executor)
    flow, executor = node.external_flow or envelope.flow, node.external_executor or node.name
    if step.kind is Kind.ALL:
        return subjects.fan_out(flow, executor, envelope.request_id)
    return subjects.work(flow, executor, envelope.lane, envelope.request_id)
