"""Dead letters: requests that an executor gave up on, kept whole with the reason; looked at, put back into their queue, or removed.

A letter is written by the worker that gave up (`workers/settle.py`) and lies in the flow of that executor. Its id is its place in the
stream. Putting it back undoes the outcome that was recorded for it, so that the new one can take its place
(docs/decisions/0021-kept-answers.md).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from . import blobs, bucket, codec, reader, store_room, subjects
from .bus import Bus
from .envelope import EMPTY, JSON, Envelope, decode, encode
from .errors import OK, Code, InvalidInput, NotFound, Status
from .unmet import unmet_by, waiting

DEAD = "dead"  # in an envelope's `extra`: who gave up on it, when, after how many attempts, and where it was
AGAIN = "again"  # stands for the job in the outcomes of requests that were put back and belong to none
UNDECODABLE = "undecodable"  # the request id of bytes that are no envelope begins so
TURN_S = 60.0  # who puts a letter back has so long before another one may


class Retried(StrEnum):
    """What became of a letter that was to be put back."""

    QUEUED = "queued"
    SUCCEEDED = "succeeded before"  # another attempt has a good result by now: only the letter is removed
    GONE = "gone"  # put back or removed by somebody else
    TAKEN = "taken"  # somebody else is at it


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One request that `executor` gave up on. `id`: place in the stream; `time`: when it was given up, Unix seconds."""

    id: int
    flow: str
    executor: str
    envelope: Envelope
    worker: str = ""
    attempts: int = 1
    time: float = 0.0
    subject: str = ""  # of the queue that it was in

    @classmethod
    def of(cls, flow: str, sequence: int, subject: str, payload: bytes) -> Self:
        envelope = decode(payload)
        epitaph: dict[str, Any] = envelope.extra.get(DEAD) or {}
        return cls(
            sequence, flow, subject.split(".")[3], envelope, str(epitaph.get("worker", "")), int(epitaph.get("attempts", 1)),
            float(epitaph.get("time", 0.0)), str(epitaph.get("subject", "")),
        )  # fmt: skip

    @property
    def request_id(self) -> str:
        return self.envelope.request_id

    @property
    def job(self) -> str:
        """Id of the job that it belongs to, "" for a request of a client."""
        return "" if self.envelope.job == AGAIN else self.envelope.job

    @property
    def status(self) -> Status:
        """Why, with the traceback when the executor raised."""
        return self.envelope.status

    def to_dict(self) -> dict[str, Any]:
        """All but the documents, as plain values. Sizes in bytes, times in Unix seconds."""
        envelope, status = self.envelope, self.envelope.status
        size = envelope.claim.size if envelope.claim else len(envelope.body)
        return {
            "id": self.id, "flow": self.flow, "executor": self.executor, "request_id": self.request_id, "client_id": envelope.client_id,
            "job": self.job, "endpoint": envelope.endpoint, "lane": envelope.lane, "code": status.code.value, "error": status.description,
            "exception": status.exception, "traceback": "".join(status.stacks), "attempts": self.attempts, "worker": self.worker,
            "time": self.time, "enqueued": envelope.trail[-1].enqueued if envelope.trail else 0.0, "content_type": envelope.content_type,
            "bytes": size, "parameters": envelope.parameters,
        }  # fmt: skip


async def letters(bus: Bus, flow: str, *, executor: str = "", job: str = "") -> AsyncGenerator[DeadLetter, None]:
    """The dead letters of `flow`, oldest first; of one executor, of one job. Raises `NotFound` (no such flow), `Unavailable`."""
    flow = subjects.token(flow, "flow")
    chosen = subjects.dead(flow, subjects.token(executor, "executor") if executor else "*", "*")
    async with aclosing(reader.read(bus, subjects.dead_stream(flow), chosen)) as messages:
        async for message in messages:
            letter = DeadLetter.of(flow, message.sequence, message.subject, message.payload)
            if not job or letter.job == job:
                yield letter


async def dropped(bus: Bus, flow: str) -> str:
    """Where the oldest letters had to give way to new ones, that in words, else "". Raises `NotFound`, `Unavailable`."""
    info = await bus.api(f"STREAM.INFO.{subjects.dead_stream(subjects.token(flow, 'flow'))}")
    first = info["state"]["first_seq"]
    if first <= 1 or not store_room.is_full(info):
        return ""
    return (
        f"the store of dead letters is full ({store_room.usage(info)}) and drops the oldest: those before {first} are gone; "
        "put back or remove some, or raise STREAMFLOW_MAX_QUEUE_BYTES, of which it has the half"
    )


async def find(bus: Bus, flow: str, letter_id: int) -> DeadLetter:
    """One letter. Raises `NotFound`."""
    flow = subjects.token(flow, "flow")
    try:
        answer = await bus.api(f"STREAM.MSG.GET.{subjects.dead_stream(flow)}", {"seq": letter_id})
    except NotFound as error:
        raise NotFound(f"flow {flow!r} has no dead letter {letter_id}: it was put back, removed, or is older than they are kept") from error
    return DeadLetter.of(flow, letter_id, answer["message"]["subject"], bus.payload_of(answer))


async def whole(bus: Bus, letter: DeadLetter) -> Envelope:
    """The request with its body in place, also when that is large. Raises `NotFound` when it has expired."""
    return letter.envelope if letter.envelope.claim is None else await blobs.check_out(bus, letter.envelope)


def documents(envelope: Envelope) -> Any:
    """The body as plain values, None where there is none. Raises `InvalidInput` for what cannot be told as JSON."""
    if envelope.content_type == EMPTY:
        return None
    body = envelope.body if envelope.content_type == JSON else codec.transcode(envelope.body, envelope.content_type, JSON)
    return json.loads(bytes(body))


async def retry(bus: Bus, letter: DeadLetter) -> Retried:
    """Put the request back into its executor's queue, once, and remove the letter.

    Its outcome takes the place of the recorded failure, in the results of its job or under its client's request id; nobody waits for it
    any more. Raises `InvalidInput` for bytes that never were a request and for a branch whose others are gone, `Overloaded`, `Unavailable`.
    """
    if letter.request_id.startswith(UNDECODABLE):
        raise InvalidInput(f"dead letter {letter.id}: these bytes are no request; they can only be removed")
    if not await _exists(bus, letter):
        return Retried.GONE
    if missing := await _missing_part(bus, letter):
        if await _exists(bus, letter):
            raise InvalidInput(missing)
        return Retried.GONE
    turn = f"retrying.{letter.id}"
    if not await bucket.create(bus, letter.flow, turn, secrets.token_hex(4), keep_s=TURN_S):
        return Retried.TAKEN if await _exists(bus, letter) else Retried.GONE
    request = await _renewed(bus, _request(letter))
    if not await _forget_failure(bus, request):
        await remove(bus, letter)
        return Retried.SUCCEEDED
    await bus.store_wait(_queue_of(letter), encode(request), f"{AGAIN}/{letter.executor}/{letter.id}")
    await remove(bus, letter)
    return Retried.QUEUED


async def _renewed(bus: Bus, request: Envelope) -> Envelope:
    """With a large body of its own, since that of the letter goes when the letter would have."""
    if request.claim is None:
        return request
    return await blobs.check_in(bus, await blobs.check_out(bus, request), keep_s=bus.settings.keep_s)


def _queue_of(letter: DeadLetter) -> str:
    return letter.subject or subjects.work(letter.flow, letter.executor, letter.envelope.lane, letter.request_id)


async def _missing_part(bus: Bus, letter: DeadLetter) -> str:
    """Where the request is a branch, or a shard, and parts that it has to meet are not there, so that it would never end: that in words.

    An exception in a job removes them; those of a quarantined request wait, for as long as parts are kept.
    """
    envelope = letter.envelope
    if letter.flow != envelope.flow:
        return ""  # an external executor's: the definition is in another flow, which may be none of the operator's business
    graph = await bucket.load_graph(bus, envelope.flow, envelope.flow_version)
    lost = unmet_by(graph, envelope, _queue_of(letter))
    for step in lost:
        mine = {each.part for each in lost if (each.kind, each.executor) == (step.kind, step.executor)}
        for name in sorted(set(step.expected) - mine):
            found = await bus.direct_get(*waiting(envelope, step, name))
            if found is None or decode(found).status.code is not Code.OK:
                advice = f"replay the failures of job {letter.job} instead" if letter.job else "send the request again instead"
                return f"dead letter {letter.id}: part {name!r}, which it would meet at {step.executor!r}, is gone; {advice}"
    return ""


def _request(letter: DeadLetter) -> Envelope:
    """The request as it was in the queue, as another run, for nobody that waits."""
    envelope = letter.envelope
    extra = {key: value for key, value in envelope.extra.items() if key != DEAD}
    record = envelope.record or f"{AGAIN}.{letter.id}"  # who sent it did not ask for that, so no client's id finds it
    return envelope._replace(
        run=f"{envelope.run}{AGAIN}{letter.id}", reply="", record=record, deadline=0.0, stream=envelope.stream and envelope.position >= 0,
        retried=0, status=OK, trail=envelope.trail[:-1], extra=extra,
    )  # fmt: skip


async def _forget_failure(bus: Bus, request: Envelope) -> bool:
    """Remove the recorded failure; False when what is recorded is a success. By their sequences, lest a newer outcome is removed."""
    stream = subjects.results_stream(request.flow)
    outcome, mark = await bus.last_messages(
        stream, (subjects.result(request.flow, request.record), subjects.failed(request.flow, request.record))
    )
    if outcome is not None and decode(outcome[1]).status.code is Code.OK:
        return False
    found = [sequence for sequence, _ in filter(None, (outcome, mark))]
    await asyncio.gather(*(_delete(bus, stream, sequence) for sequence in found))
    return True


async def remove(bus: Bus, letter: DeadLetter) -> bool:
    """Delete the letter; whether it was there."""
    return await _delete(bus, subjects.dead_stream(letter.flow), letter.id)


async def _delete(bus: Bus, stream: str, sequence: int) -> bool:
    with suppress(NotFound):
        await bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        return True
    return False


async def _exists(bus: Bus, letter: DeadLetter) -> bool:
    with suppress(NotFound):
        await find(bus, letter.flow, letter.id)
        return True
    return False
