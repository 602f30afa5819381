"""Which parts will never come when a request goes no further at one hop, so that others would wait for them where they meet, and the blanks
that are put there instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import routing, subjects
from .envelope import EMPTY, Envelope
from .errors import Code, Status
from .flow import Graph
from .hops import Message, message_for, steps_after
from .routing import Kind, Step, Steps

_ENDED = Status(Code.CANCELLED, "another part of the request will not come")


_Place = tuple[Kind, str]


@dataclass(slots=True)
class _Lost:
    """Parts that do not come to one place, and the last places that they would have come by."""

    parts: dict[str, Step] = field(default_factory=dict)
    came_by: set[_Place | None] = field(default_factory=set)


def unmet(graph: Graph, steps: Steps, endpoint: str, target_executor: str = "") -> Steps:
    """The parts, as steps to their places, that others may wait for in vain when `steps` are not taken, nor what would follow from them.

    Where all parts of a place would have come this way alone nobody waits, so it is not among them.
    """
    lost: dict[_Place, _Lost] = {}
    todo: list[tuple[Step, _Place | None]] = [(step, None) for step in steps]
    while todo:
        step, came_by = todo.pop()
        if step.meets:
            place = (step.kind, step.executor)
            is_known = place in lost
            missing = lost.setdefault(place, _Lost())
            missing.parts[step.part] = step
            missing.came_by.add(came_by)
            if is_known:
                continue
            came_by = place
        todo += ((each, came_by) for each in _behind(graph, step, endpoint, target_executor))
    return tuple(step for place, missing in lost.items() if _is_awaited(lost, place) for step in missing.parts.values())


def _is_awaited(lost: Mapping[_Place, _Lost], place: _Place) -> bool:
    """Whether somebody else brings a part to `place`: a part that would have come, or a blank, since what comes by a place where somebody
    else does may be lost for that one's sake, too."""
    missing = lost[place]
    is_whole = all(len(missing.parts) == len(step.expected) for step in missing.parts.values())
    return not is_whole or any(_is_awaited(lost, each) for each in missing.came_by if each is not None)


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
