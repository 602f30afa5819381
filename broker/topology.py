"""The streams and durable consumers that a flow needs, as data, and `provision`, the only code that creates them.

Only the deployer (`Flow`, `streamflow flow`, `streamflow gateway --uses`) provisions; workers bind and check, because creating a
consumer with other settings silently changes it for everybody. What is created here has plain JSON form, as the JetStream API takes it
(ADR-1, ADR-31, ADR-8).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from . import bucket, subjects
from .bus import Bus
from .errors import NotFound, Overloaded, StreamflowError
from .flow import Graph, Journal, Node
from .lifetimes import DEAD_LETTER_AGE_S, longest_kept_s, longest_under_way_s
from .settings import BrokerSettings

_NS = 1_000_000_000
DEDUPLICATION_S = 120
PROVISION_S = 20.0  # a cluster that has just started elects leaders before it answers
LANES = ("now", "bulk")
_QUEUES = (subjects.work_stream, subjects.fan_out_stream, subjects.retry_stream)
PROMISE = "streamflow.durability"  # in a stream's metadata: what its deployer asked for; `streamflow doctor` holds the broker to it


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer shared by all replicas of an executor."""

    stream: str
    name: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    name: str
    config: dict[str, Any]
    consumers: tuple[Consumer, ...] = ()


def streams_of(graph: Graph, settings: BrokerSettings) -> tuple[Stream, ...]:
    """Everything `graph` needs on the broker."""
    shared = (_bucket(graph.flow, settings), _blobs(graph.flow, settings), _dead(graph.flow, settings), *_jobs(graph, settings))
    journal = (_journal(graph.flow, graph.journal, settings),) if graph.journal else ()
    own = [node for node in graph.nodes if not node.external]
    work = tuple(_work(graph.flow, node, settings) for node in own)
    sharded = tuple(_fan_out(graph.flow, node, settings) for node in own if node.shards > 1)
    retried = tuple(_retries(graph.flow, node, settings) for node in own if node.retry_on)
    logged = tuple(stream for node in own if node.stateful for stream in _logs(graph.flow, node, settings))
    parts = tuple(_parts(graph.flow, place, settings) for place in graph.meeting_places)
    return shared + journal + work + sharded + retried + logged + parts


def _stream(name: str, subject: str | list[str], settings: BrokerSettings, **config: Any) -> dict[str, Any]:
    base = {
        "name": name,
        "subjects": [subject] if isinstance(subject, str) else subject,
        "storage": "memory" if settings.durability == "memory" else "file",
        "num_replicas": settings.stream_replicas,
        "retention": "limits",
        "discard": "new",
        "allow_direct": True,
        "max_consumers": -1,
        "metadata": {PROMISE: settings.durability},
    }
    return base | config


def _work(flow: str, node: Node, settings: BrokerSettings) -> Stream:
    """A work queue: a message leaves it when it is acked; a full one refuses, which becomes 429."""
    name = subjects.work_stream(flow, node.name)
    config = _stream(
        name,
        [subjects.work_filter(flow, node.name, lane) for lane in LANES],
        settings,
        retention="workqueue",
        max_bytes=settings.max_queue_bytes,
        max_msgs=settings.max_queue_messages,
        duplicate_window=DEDUPLICATION_S * _NS,
    )
    ack_wait_s = node.ack_wait_s or settings.ack_wait_s
    lanes = (_consumer(name, subjects.work_durable(lane), subjects.work_filter(flow, node.name, lane), ack_wait_s) for lane in LANES)
    return Stream(name, config, tuple(lanes))


def _fan_out(flow: str, node: Node, settings: BrokerSettings) -> Stream:
    """One publish, every shard's consumer gets it; gone when all have acked. Its consumers exist before anybody may publish: an interest
    stream acknowledges and drops what nobody is there for."""
    name = subjects.fan_out_stream(flow, node.name)
    subject = subjects.fan_out(flow, node.name, "*")
    config = _stream(
        name,
        subject,
        settings,
        retention="interest",
        max_bytes=settings.max_queue_bytes,
        max_msgs=settings.max_queue_messages,
        duplicate_window=DEDUPLICATION_S * _NS,
    )
    ack_wait_s = node.ack_wait_s or settings.ack_wait_s
    shards = (_consumer(name, subjects.shard_durable(shard), subject, ack_wait_s) for shard in range(node.shards))
    return Stream(name, config, tuple(shards))


def _retries(flow: str, node: Node, settings: BrokerSettings) -> Stream:
    """Requests that wait for their next attempt at an executor (docs/decisions/0016-retries-reload-restarts.md).

    A stream of its own, because one with schedules may neither refuse when it is full nor source from another (ADR-51). What is in it
    was accepted before, so it has no limits of its own.
    """
    name = subjects.retry_stream(flow, node.name)
    mine = [subjects.retry(flow, node.name, "*", "*"), subjects.again(flow, node.name, "*", "*")]
    config = _stream(
        name, mine, settings, retention="workqueue", discard="old", allow_msg_schedules=True, duplicate_window=DEDUPLICATION_S * _NS
    )
    owners = (subjects.ANYBODY, *(node.shard_names if node.shards > 1 else ()))
    ack_wait_s = node.ack_wait_s or settings.ack_wait_s
    again = (_consumer(name, subjects.retry_durable(each), subjects.again(flow, node.name, each, "*"), ack_wait_s) for each in owners)
    return Stream(name, config, tuple(again))


def _logs(flow: str, node: Node, settings: BrokerSettings) -> Iterator[Stream]:
    """For each shard the writes of a stateful executor, and the snapshots behind which they are removed; a full log refuses writes
    (docs/decisions/0017-stateful-executors.md)."""
    for shard in range(node.shards):
        writes = [subjects.write_log(flow, node.name, shard, kind, "*") for kind in ("write", "piece", "restore")]
        pieces = [subjects.snapshot(flow, node.name, shard, *each) for each in (("manifest", "*"), ("piece", "*.*"))]
        log_config = {"allow_atomic": True, "max_bytes": settings.max_log_bytes, "duplicate_window": DEDUPLICATION_S * _NS}
        for name, mine, config in (
            (subjects.write_log_stream(flow, node.name, shard), writes, log_config),
            (subjects.snapshot_stream(flow, node.name, shard), pieces, {}),
        ):
            yield Stream(name, _stream(name, mine, settings, **config))


def _parts(flow: str, place: str, settings: BrokerSettings) -> Stream:
    """Parts wait here for each other and are purged when they have met (docs/decisions/0007-joins.md)."""
    name = subjects.part_stream(flow, place)
    subject = subjects.part(flow, place, "*", "*", "*")
    limits = _aged(longest_under_way_s(settings)) | {"max_bytes": settings.max_queue_bytes}
    return Stream(name, _stream(name, subject, settings, allow_msg_ttl=True, **limits))


def _aged(age_s: float) -> dict[str, Any]:
    """A stream whose messages live so long at most; its window of message ids may not be longer."""
    age = int(age_s * _NS)
    return {"max_age": age, "duplicate_window": min(DEDUPLICATION_S * _NS, age)}


def _consumer(stream: str, durable: str, subject: str, ack_wait_s: float) -> Consumer:
    """No `max_deliver`: a message past it would stay in a work queue for ever, unseen. The worker counts deliveries and quarantines."""
    config = {
        "durable_name": durable,
        "name": durable,
        "filter_subject": subject,
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * _NS),
        "max_ack_pending": 20_000,
        "max_deliver": -1,
        "deliver_policy": "all",
        "replay_policy": "instant",
    }
    return Consumer(stream, durable, config)


def _bucket(flow: str, settings: BrokerSettings) -> Stream:
    name = subjects.bucket_stream(flow)
    config = _stream(name, subjects.bucket_key(flow, ">"), settings, max_msgs_per_subject=1, allow_rollup_hdrs=True, allow_msg_ttl=True)
    return Stream(name, config)


def _blobs(flow: str, settings: BrokerSettings) -> Stream:
    name = subjects.blob_stream(flow)
    erasable = {"allow_rollup_hdrs": True, "allow_msg_ttl": True}  # see `Bus.erase`
    limits = _aged(longest_under_way_s(settings)) | {"max_bytes": 2 * settings.max_queue_bytes}
    return Stream(name, _stream(name, subjects.blob(flow, "*", "*"), settings, **erasable, **limits))


def _dead(flow: str, settings: BrokerSettings) -> Stream:
    name = subjects.dead_stream(flow)
    config = _stream(
        name,
        subjects.dead(flow, "*", "*"),
        settings,
        max_age=int(DEAD_LETTER_AGE_S * _NS),
        max_bytes=settings.max_queue_bytes // 2,
        discard="old",
    )
    return Stream(name, config)


def _jobs(graph: Graph, settings: BrokerSettings) -> Iterator[Stream]:
    """Inputs of jobs, stored outcomes, and the large bodies of both. Kept for a time, then gone; a full one refuses."""
    flow = graph.flow
    for name, mine, age_s in (
        (subjects.jobs_stream(flow), [subjects.job(flow, "*", "*")], settings.keep_s),
        (subjects.results_stream(flow), [subjects.result(flow, "*.*"), subjects.failed(flow, "*.*")], settings.keep_s),
        (subjects.kept_stream(flow), [subjects.kept(flow, "*", "*")], longest_kept_s(graph, settings)),
    ):
        limits = _aged(age_s) | {"max_bytes": settings.max_job_bytes}
        yield Stream(name, _stream(name, mine, settings, allow_msg_ttl=True, **limits))


def _journal(flow: str, journal: Journal, settings: BrokerSettings) -> Stream:
    """Copies of online requests, the newest; never a reason to refuse one."""
    limits = _aged(journal.keep_s) | {"max_bytes": journal.max_bytes}
    name = subjects.journal_stream(flow)
    return Stream(name, _stream(name, subjects.journal(flow, "*"), settings, discard="old", **limits))


def queues_of(graph: Graph, settings: BrokerSettings, only: Collection[str] | None = None) -> list[str]:
    """Names of the streams that are empty once nothing is left to do for the executors of `graph` (for `only` some of them)."""
    chosen = [node for node in graph.nodes if not node.external and (only is None or node.name in only)]
    mine = {stream(graph.flow, node.name) for node in chosen for stream in _QUEUES}
    return [stream.name for stream in streams_of(graph, settings) if stream.name in mine]


async def provision(bus: Bus, graph: Graph, settings: BrokerSettings, *, current: bool = True) -> None:
    """Create or adjust what `graph` needs, then store its definition; with `current` requests go by it from now on.

    Safe to repeat and from several deployers at once.
    """
    for stream in streams_of(graph, settings):
        await _ensure_stream(bus, stream)
        for consumer in stream.consumers:
            body = {"stream_name": consumer.stream, "config": consumer.config, "action": ""}
            where = f"{consumer.stream}.{consumer.name}.{consumer.config['filter_subject']}"
            await bus.api(f"CONSUMER.CREATE.{where}", body, PROVISION_S)
    await bucket.publish_graph(bus, graph, current=current)


async def _ensure_stream(bus: Bus, stream: Stream) -> None:
    try:
        await bus.api(f"STREAM.INFO.{stream.name}")
        verb = "UPDATE"
    except NotFound:
        verb = "CREATE"
    try:
        await bus.api(f"STREAM.{verb}.{stream.name}", stream.config, PROVISION_S)
    except StreamflowError as error:
        hint = (
            ": every stream reserves its bytes; lower STREAMFLOW_MAX_QUEUE_BYTES and STREAMFLOW_MAX_JOB_BYTES, or give the broker more disk"
        )
        raise type(error)(f"stream {stream.name} cannot be provisioned: {error}{hint if isinstance(error, Overloaded) else ''}") from error
