"""Jobs: inputs stored durably, fed into the bulk lane by the flow's own workers, one stored outcome for each.

Everything about a job is in the broker, so that it needs no client and no gateway to go on:

- its inputs, one envelope each, in the jobs stream;
- a durable consumer over them (`subjects.job_durable`): how far they were fed; paused and deleted with the job;
- its record in the flow's bucket, written once, when all inputs are stored;
- a mark in the bucket while there is something to feed, which is what feeders look for: once it is there the job is accepted;
- the outcomes in the results stream, first writer wins. All counts come from there.

A replay is a job whose consumer reads what was stored before: another job's inputs, the inputs of its failures, or the journal.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from hashlib import sha256
from typing import Any

from . import blobs, bucket, job_gaps, reader, subjects
from .bus import Bus
from .envelope import Envelope, decode, encode
from .errors import AlreadyExists, InvalidInput, NotFound, Overloaded
from .flow import Graph
from .job_records import Input as Input
from .job_records import Job as Job
from .job_records import Order as Order
from .job_records import Progress as Progress
from .job_records import Source as Source
from .job_records import State as State

_NS = 1_000_000_000
_FIELDS = frozenset(field.name for field in fields(Job))
AHEAD = 256  # inputs of a job that a feeder may hold
AHEAD_BYTES = 16 << 20
ACK_WAIT_S = 10.0  # for so long a job stands still when the worker that feeds it is killed
STORING = 256  # inputs on their way to the broker at the same time
FOREVER = "2999-01-01T00:00:00Z"
ACTIVE = "active"
MAX_TENANT = 256
FALLBACK = "/default"  # under which executors announce an endpoint that takes all others


async def submit(bus: Bus, order: Order, inputs: AsyncIterable[Input]) -> Job:
    """Store `inputs`, then accept the job; returns once both are durable.

    Under a key that was used before: the job of then, if the inputs are the same, whether it is running, done, or was interrupted while
    it was stored. Raises `AlreadyExists` when they are not, `InvalidInput` for a job without inputs, `NotFound` when the flow is not
    deployed, `Overloaded` when the broker keeps as much as it may, `TooLarge`, `Unavailable`.
    """
    flow = subjects.token(order.flow, "flow")
    order = replace(
        order, endpoint=f"/{order.endpoint.strip('/')}", rate=checked_rate(order.rate), tenant=checked_tenant(order.tenant)
    )  # fmt: skip
    await _check_endpoint(bus, await bucket.load_graph(bus, flow), order.endpoint)
    job_id = new_id(flow, order.key, order.tenant)
    known = await find(bus, flow, job_id) if order.key else None
    total, fingerprint = await _store_inputs(bus, order, job_id, inputs, is_stored=known is not None)
    if not total:
        raise InvalidInput("a job needs at least one input")
    job = Job(
        job_id, flow, order.endpoint, total, time.time(), fingerprint, order.parameters, order.target_executor, order.rate,
        origin_flow=flow, origin=job_id, tenant=order.tenant,
    )  # fmt: skip
    return await accept(bus, job, order.key)


async def _check_endpoint(bus: Bus, graph: Graph, endpoint: str) -> None:
    """Raises `NotFound` when every executor has said what it offers and none has `endpoint`: all inputs would come back as they went."""
    offered = await asyncio.gather(*(bucket.get(bus, graph.flow, f"executor.{node.name}") for node in graph.nodes if not node.external))
    names = {info["name"] for each in offered for info in each or ()}
    if any(each is None for each in offered) or len(offered) < len(graph.nodes) or names & {endpoint, FALLBACK} or not names:
        return
    raise NotFound(f"no endpoint {endpoint[:200]!r} in flow {graph.flow!r}; known: {', '.join(sorted(names)[:50])}")


def checked_rate(rate: float) -> float:
    """Raises `InvalidInput` for what is no rate."""
    if not 0 <= rate < 1e9:
        raise InvalidInput(f"rate {rate!r}: must be a number of inputs a second, 0 = as fast as the workers can")
    return rate


def checked_tenant(tenant: str) -> str:
    """Raises `InvalidInput` for what is too long, or would not show in a list."""
    if len(tenant) > MAX_TENANT or not tenant.isprintable():
        raise InvalidInput(f"tenant {tenant[:80]!r}: use at most {MAX_TENANT} printable characters")
    return tenant


def new_id(flow: str, key: str, tenant: str = "") -> str:
    """An id for a job: always the same for a `key`, never for "". Each tenant has keys of its own."""
    if not key:
        return secrets.token_hex(8)
    return subjects.digest(f"{flow}/{subjects.digest(tenant)}/{key}" if tenant else f"{flow}/{key}")[:16]


async def _store_inputs(bus: Bus, order: Order, job_id: str, inputs: AsyncIterable[Input], *, is_stored: bool) -> tuple[int, str]:
    """How many there are, and their fingerprint; `is_stored`: all of them were stored before."""
    digest = sha256(encode(Envelope("job", endpoint=order.endpoint, parameters=order.parameters, target_executor=order.target_executor)))
    room = asyncio.Semaphore(STORING)
    total = 0
    try:
        async with asyncio.TaskGroup() as group:
            async for given in inputs:
                digest.update(given.content_type.encode() + b"\0" + len(given.body).to_bytes(8, "big") + given.body)
                if not is_stored:
                    await room.acquire()
                    group.create_task(_store_input(bus, order, job_id, total, given)).add_done_callback(lambda _: room.release())
                total += 1
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return total, digest.hexdigest()


async def _store_input(bus: Bus, order: Order, job_id: str, number: int, given: Input) -> None:
    """Idempotent: an input that is there already was stored by an earlier submit under the same key, and must be the same."""
    envelope = Envelope(
        f"{job_id}-{number}", order.flow, endpoint=order.endpoint, content_type=given.content_type, accept=order.accept, lane="bulk",
        record=f"{job_id}.{number}", parameters=order.parameters, target_executor=order.target_executor, body=given.body,
    )  # fmt: skip
    if len(given.body) > bus.settings.inline_bytes:
        envelope = await blobs.check_in(bus, envelope, keep_s=bus.settings.keep_s)
    subject = subjects.job(order.flow, job_id, envelope.request_id)
    try:
        await bus.store_first_wait(subject, encode(envelope))
    except AlreadyExists:
        stored = await bus.direct_get(subjects.jobs_stream(order.flow), subject)
        if stored is not None and _content(decode(stored)) != _content(envelope):
            raise AlreadyExists(f"job key {order.key!r} of flow {order.flow!r} was used for other inputs: input {number} differs") from None


def _content(envelope: Envelope) -> tuple[object, ...]:
    claim = envelope.claim
    body = bytes(envelope.body) if claim is None else (claim.size, claim.sha256)
    return envelope.endpoint, envelope.parameters, envelope.target_executor, envelope.content_type, body


async def accept(bus: Bus, job: Job, key: str = "") -> Job:
    """Make `job`, whose inputs are stored, an accepted one. Raises `AlreadyExists` when another one has its key.

    The consumer is there before the record, so a record without one tells that everything was fed.
    """
    known = await find(bus, job.flow, job.id)
    if known is None:
        await _create_consumer(bus, job)
        is_first = await bucket.create(bus, job.flow, f"job.{job.id}", asdict(job), keep_s=bus.settings.keep_s)
        known = job if is_first else await get(bus, job.flow, job.id)
    if known.fingerprint != job.fingerprint:
        raise AlreadyExists(f"job key {key!r} of flow {job.flow!r} was used for another job, {known.id}, with {known.total} inputs")
    if await consumer(bus, known) is not None:
        await bucket.put(bus, job.flow, f"{ACTIVE}.{job.id}", asdict(known), keep_s=bus.settings.keep_s)
        bus.publish(subjects.control(job.flow, "job"), job.id.encode())
    return known


async def _create_consumer(bus: Bus, job: Job) -> None:
    """Safe to repeat: an existing one stays where it is."""
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": job.after + 1} if job.after else {"deliver_policy": "all"}
    name = subjects.job_durable(job.id)
    config = start | {
        "durable_name": name,
        "name": name,
        "filter_subject": job.filter,
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT_S * _NS),
        "max_ack_pending": AHEAD,
        "max_deliver": -1,
        "replay_policy": "instant",
        "inactive_threshold": int(2 * bus.settings.keep_s * _NS),  # one without a record, left by a submit that died, goes by then
    }
    try:
        await bus.api(f"CONSUMER.CREATE.{job.stream}.{name}.{job.filter}", {"stream_name": job.stream, "config": config, "action": ""})
    except Overloaded as error:
        raise Overloaded(f"flow {job.flow!r} has as many unfinished jobs as the broker allows (by default 1,000)") from error


async def find(bus: Bus, flow: str, job_id: str) -> Job | None:
    """The record of a job, None when there is none (never was, or it has expired)."""
    raw = await bucket.get(bus, flow, f"job.{subjects.token(job_id, 'job')}")
    return None if raw is None else _from_dict(raw)


async def get(bus: Bus, flow: str, job_id: str) -> Job:
    """`find`, raising `NotFound`."""
    job = await find(bus, flow, job_id)
    if job is None:
        raise unknown(bus, flow, job_id)
    return job


def unknown(bus: Bus, flow: str, job_id: str) -> NotFound:
    return NotFound(f"flow {flow!r} has no job {job_id!r} (jobs are kept for {bus.settings.keep_s / 86400:g} days)")


def _from_dict(raw: dict[str, Any]) -> Job:
    """What another release has written of it beside what is known here does not matter here."""
    known = {name: value for name, value in raw.items() if name in _FIELDS}
    return Job(**{**known, "source": Source(raw["source"])})


async def ids(bus: Bus, flow: str) -> list[str]:
    """Ids of all jobs of `flow` that are still kept."""
    return await bucket.keys(bus, flow, "job")


async def progress(bus: Bus, job: Job) -> Progress:
    """Where inputs are gone and all others have their outcomes, there is nothing more to wait for: such a job is done."""
    stream = subjects.results_stream(job.flow)
    done, failed, is_cancelled, feeding = await asyncio.gather(
        reader.count(bus, stream, subjects.result(job.flow, f"{job.id}.*")),
        reader.count(bus, stream, subjects.failed(job.flow, f"{job.id}.*")),
        bucket.get(bus, job.flow, f"cancelled.{job.id}"),
        consumer(bus, job),
    )
    if done >= job.total:
        return Progress(job, State.DONE, done, failed)
    if is_cancelled:
        return Progress(job, State.CANCELLED, done, failed)
    if feeding is not None and feeding.get("paused"):
        return Progress(job, State.PAUSED, done, failed)
    gone = await job_gaps.gone(bus, job) if feeding is None else 0
    if done + gone >= job.total:
        return Progress(job, State.DONE, done, failed, gone)
    return Progress(job, State.RUNNING, done, failed, gone, await job_gaps.why_waiting(bus, job.flow))


async def consumer(bus: Bus, job: Job) -> dict[str, Any] | None:
    """What feeds the job, None when all of it is fed, or it was cancelled."""
    return await bus.consumer(job.stream, subjects.job_durable(job.id))


async def pause(bus: Bus, job: Job) -> None:
    """Feed nothing more; what was fed goes on. Raises `NotFound` when all of it was fed already."""
    await _set_pause(bus, job, FOREVER)


async def resume(bus: Bus, job: Job) -> None:
    await _set_pause(bus, job, None)
    bus.publish(subjects.control(job.flow, "job"), job.id.encode())


async def _set_pause(bus: Bus, job: Job, until: str | None) -> None:
    try:
        await bus.api(f"CONSUMER.PAUSE.{job.stream}.{subjects.job_durable(job.id)}", {"pause_until": until} if until else {})
    except NotFound as error:
        raise NotFound(f"job {job.id}: all of its inputs are with the workers already, or it was cancelled") from error


async def cancel(bus: Bus, job: Job) -> None:
    """Feed nothing more, drop what waits, tell what runs. Outcomes that are stored stay."""
    await bucket.create(bus, job.flow, f"cancelled.{job.id}", time.time(), keep_s=bus.settings.keep_s)
    await finish(bus, job)
    bus.publish(subjects.control(job.flow, "cancel"), job.id.encode())


async def finish(bus: Bus, job: Job) -> None:
    """There is nothing more to feed. In this order: a mark without a consumer is cleared by the next feeder."""
    with suppress(NotFound):
        await bus.api(f"CONSUMER.DELETE.{job.stream}.{subjects.job_durable(job.id)}")
    await bucket.delete(bus, job.flow, f"{ACTIVE}.{job.id}")


async def active(bus: Bus, flow: str) -> list[Job]:
    """The jobs of `flow` that have something to feed, or be cleared."""
    records = await asyncio.gather(*(bucket.get(bus, flow, f"{ACTIVE}.{job_id}") for job_id in await bucket.keys(bus, flow, ACTIVE)))
    return [_from_dict(raw) for raw in records if raw is not None]
