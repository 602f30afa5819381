"""Groups of subjects that a permission may name, for one position in a flow. `permissions.py` says which role has which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from . import subjects
from .flow import GATEWAY, Graph, Node
from .reach import PING
from .topology import LANES

API = "$JS.API"


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a flow: the flow, and for a worker the node that it stands for there and the executor that it is."""

    graph: Graph
    node: str = ""
    executor: str = ""  # "<flow>.<executor>" of its own work queue

    @property
    def flow(self) -> str:
        return self.graph.flow


Rule = Callable[[Place], Iterable[str]]


# Subjects that messages of ours travel on.


def _work_of(flow: str, executor: str) -> Iterator[str]:
    yield from (subjects.below(flow, executor, kind) for kind in (*LANES, "all"))


def queues(place: Place) -> Iterator[str]:
    """Work of every executor, external ones under the name they are served by; the journal is another way into them."""
    for node in place.graph.nodes:
        yield from _work_of(*address_of(place.graph, node))
    yield subjects.below(place.flow, "in")


def queues_behind(place: Place) -> Iterator[str]:
    """Work of what may follow, and parts that meet there, at the executor itself (its shards) or in the answer."""
    for node in place.graph.nodes:
        if node.name in _behind(place.graph, place.node):
            yield from _work_of(*address_of(place.graph, node))
    yield from (subjects.below(place.flow, meeting, "part") for meeting in _meetings(place))


def requeue(place: Place) -> Iterator[str]:
    """Where a dead letter goes back to, besides the queues: another attempt that belongs to one shard."""
    for node in place.graph.nodes:
        yield subjects.below(*address_of(place.graph, node), "again")


def own_subjects(place: Place) -> Iterator[str]:
    """The executor's own queue: retries, shards, parts, write log."""
    yield subjects.below(place.executor)


def own_gathering(place: Place) -> Iterator[str]:
    """Between the executor's shards: parts, and word of what became of them."""
    yield from (subjects.below(place.executor, kind) for kind in ("gather", "gathered"))


def bodies(place: Place) -> Iterator[str]:
    yield subjects.below(place.flow, "blob")
    yield subjects.below(place.flow, "kept")


def jobs(place: Place) -> Iterator[str]:
    yield subjects.below(place.flow, "job")


def results(place: Place) -> Iterator[str]:
    yield subjects.below(place.flow, "result")
    yield subjects.below(place.flow, "failed")


def answers(place: Place) -> Iterator[str]:
    yield subjects.below("reply", place.flow)


def dead_letters(place: Place) -> Iterator[str]:
    flow, executor = place.executor.split(".")
    yield subjects.below(flow, "dead", executor)


def stream_reports(place: Place) -> Iterator[str]:
    """To workers that stream: how far the reader is."""
    yield from (subjects.below("credit", subjects.credit_place(*address_of(place.graph, node))) for node in place.graph.nodes)


def own_stream_reports(place: Place) -> Iterator[str]:
    yield subjects.below("credit", subjects.credit_place(*place.executor.split(".")))


def control(*verbs: str) -> Rule:
    return lambda place: (subjects.control(place.flow, verb) for verb in verbs)


def definition(place: Place) -> Iterator[str]:
    yield subjects.bucket_key(place.flow, "graph.*")
    yield subjects.bucket_key(place.flow, "current")


def own_records(place: Place) -> Iterator[str]:
    """In the bucket: the executor's schemas, marks of what it is trying again, whose turn it is to take a snapshot, how far orders are."""
    flow, executor = place.executor.split(".")
    yield subjects.bucket_key(flow, f"executor.{executor}")
    yield subjects.bucket_key(flow, f"started.{executor}.*")
    yield subjects.bucket_key(flow, f"snapshot.{executor}.*")


def records(place: Place) -> Iterator[str]:
    yield subjects.bucket_key(place.flow, ">")


def kept_requests(place: Place) -> Iterator[str]:
    """Notes in the bucket of which requests were accepted under an id, and answers that no worker gives."""
    yield subjects.bucket_key(place.flow, "accepted.*")
    yield subjects.result(place.flow, f"{subjects.ONLINE}.*")
    yield subjects.failed(place.flow, f"{subjects.ONLINE}.*")


def kept_answers(place: Place) -> Iterator[str]:
    """Answers as workers store them, for gateways that wait for one."""
    yield subjects.result(place.flow, f"{subjects.ONLINE}.*")


def reach(_place: Place) -> Iterator[str]:
    """Which servers of the cluster are there (broker/reach.py)."""
    yield PING


# The JetStream API, stream by stream.


def _read(*streams: str) -> Iterator[str]:
    """Single messages, by subject (ADR-31) or, where streams have replicas, from the leader."""
    for stream in streams:
        yield from (f"{API}.DIRECT.GET.{stream}", f"{API}.DIRECT.GET.{stream}.>", f"{API}.STREAM.MSG.GET.{stream}")


def _follow(*streams: str) -> Iterator[str]:
    """All messages in order, by a consumer that ends with its reader."""
    for stream in streams:
        yield from (f"{API}.CONSUMER.CREATE.{stream}", f"{API}.CONSUMER.MSG.NEXT.{stream}.*", f"{API}.CONSUMER.DELETE.{stream}.*")
        yield f"{API}.STREAM.INFO.{stream}"


def _pull(*streams: str) -> Iterator[str]:
    for stream in streams:
        yield from (f"{API}.CONSUMER.MSG.NEXT.{stream}.*", f"$JS.ACK.{stream}.>", f"{API}.CONSUMER.INFO.{stream}.*")


def read_definition(place: Place) -> Iterator[str]:
    yield from _read(subjects.bucket_stream(place.flow))
    yield f"{API}.STREAM.INFO.{subjects.bucket_stream(place.flow)}"


def read_bodies(place: Place) -> Iterator[str]:
    return _read(subjects.blob_stream(place.flow), subjects.kept_stream(place.flow))


def read_results(place: Place) -> Iterator[str]:
    return _read(subjects.results_stream(place.flow))


def follow_results(place: Place) -> Iterator[str]:
    return _follow(subjects.results_stream(place.flow))


def run_jobs(place: Place) -> Iterator[str]:
    """Accept jobs, replays included, pause and end them: their consumers, and their records in the bucket."""
    for stream in _job_streams(place):
        yield from (*_read(stream), *_follow(stream))
        yield from (f"{API}.CONSUMER.{verb}.{stream}.>" for verb in ("CREATE", "INFO", "PAUSE"))
    yield from (subjects.bucket_key(place.flow, f"{kind}.*") for kind in ("job", "active", "cancelled"))


def feed_jobs(place: Place) -> Iterator[str]:
    """Copy inputs of jobs to the first executors, which any worker of the flow may be asked to do (workers/feeder.py)."""
    for node in place.graph.nodes:
        yield from (subjects.below(*address_of(place.graph, node), kind) for kind in ("bulk", "all"))
    for node in place.graph.nodes:
        yield from (f"{API}.CONSUMER.INFO.{stream}.*" for stream in _streams_of_node(place.flow, node))
    for stream in _job_streams(place):
        yield from (*_read(stream), *_pull(stream), f"{API}.CONSUMER.DELETE.{stream}.*")
    yield from (subjects.bucket_key(place.flow, key) for key in ("lease.feeder", "active.*"))


def _job_streams(place: Place) -> tuple[str, ...]:
    """What a job, or a replay, reads: stored inputs, failures, the journal."""
    return subjects.jobs_stream(place.flow), subjects.results_stream(place.flow), subjects.journal_stream(place.flow)


def find_requests(place: Place) -> Iterator[str]:
    """Where an open request is: at which executor, which parts of it wait for others."""
    for node in place.graph.nodes:
        if not node.external:
            yield from _read(*_streams_of_node(place.flow, node))
    yield from (f"{API}.STREAM.INFO.{subjects.part_stream(place.flow, meeting)}" for meeting in place.graph.meeting_places)


def pull_own(place: Place) -> Iterator[str]:
    """The executor's own work; its write log and snapshots, which it also trims."""
    flow, executor = place.executor.split(".")
    if place.flow == flow:
        yield from _pull(*_streams_of_node(flow, place.graph.node(executor)))
        kept = _state_streams(flow, place.graph.node(executor))
        yield from (*_read(*kept), *_follow(*kept), *(f"{API}.STREAM.PURGE.{stream}" for stream in kept))


def meet(place: Place) -> Iterator[str]:
    """Parts of a request that meet behind this place: look for the others, clear them when they have met."""
    streams = [subjects.part_stream(place.flow, meeting) for meeting in _meetings(place)]
    yield from (*_read(*streams), *(f"{API}.STREAM.PURGE.{stream}" for stream in streams))


def provision(place: Place) -> Iterator[str]:
    for stream in _streams(place.graph):
        yield from (f"{API}.STREAM.{verb}.{stream}" for verb in ("INFO", "CREATE", "UPDATE"))
        yield from (f"{API}.CONSUMER.CREATE.{stream}.>", f"{API}.CONSUMER.INFO.{stream}.*")


def operate(place: Place) -> Iterator[str]:
    """Look, move and remove; streams, their settings and the queues' consumers stay."""
    yield f"{API}.STREAM.LIST"
    for stream in _streams(place.graph):
        yield from (f"{API}.STREAM.{verb}.{stream}" for verb in ("INFO", "MSG.DELETE", "PURGE"))
        yield from (f"{API}.CONSUMER.{verb}.{stream}" for verb in ("NAMES", "LIST"))
        yield from (f"{API}.CONSUMER.{verb}.{stream}.*" for verb in ("INFO", "PAUSE"))
        yield from _read(stream)
    yield from _follow(subjects.dead_stream(place.flow), *_job_streams(place))


def address_of(graph: Graph, node: Node) -> tuple[str, str]:
    """Flow and executor under which a node's workers are reached."""
    return (node.external_flow or graph.flow, node.external_executor or node.name)


def _behind(graph: Graph, name: str) -> set[str]:
    """Executors that may come after `name`: clients may have any of those in between passed over (`target_executor`)."""
    found: set[str] = set()
    for node in graph.topological():
        if name in node.needs or found.intersection(node.needs):
            found.add(node.name)
    return found


def _meetings(place: Place) -> list[str]:
    near = _behind(place.graph, place.node) | {place.node, GATEWAY}
    return [meeting for meeting in place.graph.meeting_places if meeting in near]


def _streams_of_node(flow: str, node: Node) -> list[str]:
    made = (subjects.work_stream, subjects.fan_out_stream, subjects.retry_stream)
    return [name(flow, node.name) for name in made]


def _state_streams(flow: str, node: Node) -> list[str]:
    """Of a stateful executor; none of others."""
    made = (subjects.write_log_stream, subjects.snapshot_stream) if node.stateful else ()
    return [name(flow, node.name, shard) for name in made for shard in range(node.shards)]


def _streams(graph: Graph) -> list[str]:
    flow, own = graph.flow, [node for node in graph.nodes if not node.external]
    shared = (
        subjects.bucket_stream, subjects.blob_stream, subjects.kept_stream, subjects.dead_stream, subjects.jobs_stream,
        subjects.results_stream, subjects.journal_stream,
    )  # fmt: skip
    return [
        *(name(flow) for name in shared),
        *(stream for node in own for stream in _streams_of_node(flow, node)),
        *(stream for node in own for stream in _state_streams(flow, node)),
        *(subjects.part_stream(flow, meeting) for meeting in graph.meeting_places),
    ]
