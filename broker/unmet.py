"""Which parts will never come when a request goes no further at one hop, so that others would wait for them where they meet, and the blanks
that are put there instead. Pure."""

from __future__ import annotations

from . import routing, subjects
from .envelope import EMPTY, Envelope
from .errors import Code, Status
from .flow import Graph
from .hops import Message, message_for, steps_after
from .routing import Kind, Step, Steps

_ENDED = Status(Code.CANCELLED, "another part of the request will not come")


def unmet(graph: Graph, steps: Steps, endpoint: str, target_executor: str = "") -> Steps:
    """The parts, as steps to their places, that others may wait for in vain when `steps` are not taken, nor what would follow from them.

    Where all parts of a place would have come this way nobody waits, so it is not among them.
    """
    lost: dict[tuple[Kind, str], dict[str, Step]] = {}
    todo = list(steps)
    while todo:
        step = todo.pop()
        if step.meets:
            missing = lost.setdefault((step.kind, step.executor), {})
            missing[step.part] = step
            if len(missing) > 1:
                continue
        todo += _behind(graph, step, endpoint, target_executor)
    return tuple(step for missing in lost.values() for step in missing.values() if len(missing) < len(step.expected))


def _behind(graph: Graph, step: Step, endpoint: str, target_executor: str) -> Steps:
    """What follows from `step` when it is taken and, where it is a part, the others have come."""
    if step.kind is Kind.ANSWER:
        return ()
    if step.kind is Kind.JOIN:
        return routing.after_join(graph, step.executor, endpoint, target_executor)
    return routing.next_steps(graph, step.executor, endpoint, target_executor)


def unmet_by(graph: Graph, envelope: Envelope, queue_subject: str) -> Steps:
    """`unmet` when `envelope`, which waits on `queue_subject`, ends there. Raises `InvalidInput`, `NotFound` where the flow has no such
    thing."""
    return unmet(graph, steps_after(graph, envelope, subjects.shard_of(queue_subject)), envelope.endpoint, envelope.target_executor)


def waiting(envelope: Envelope, step: Step, name: str = "*") -> tuple[str, str]:
    """Stream and subject of the parts (of `name`: of that one) which wait where `step` would have brought its own."""
    subject = subjects.part(envelope.flow, step.executor, envelope.ticket, meeting(step.kind), name)
    return subjects.part_stream(envelope.flow, step.executor), subject


def meeting(kind: Kind) -> str:
    """How subjects name the way in which parts meet: branches before an executor or the answer, shards behind one."""
    return "gather" if kind is Kind.GATHER else "join"


def blank(envelope: Envelope) -> Envelope:
    """What stands for a part of the request that will not come. Whoever finds one among the others goes no further."""
    nothing: dict[str, object] = {}
    return envelope._replace(
        body=b"", content_type=EMPTY, claim=None, status=_ENDED, parameters=nothing, results=nothing, trail=(), extra=nothing, pieces=()
    )


def blanks(graph: Graph, envelope: Envelope, refused: Steps) -> list[Message]:
    """Orders to workers, which may store parts, to bring blanks for what the `refused` steps would have led to.

    Raises `TooLarge`, `InvalidInput`.
    """
    lost = unmet(graph, refused, envelope.endpoint, envelope.target_executor)
    return [message_for(graph, blank(envelope), step) for step in lost]
