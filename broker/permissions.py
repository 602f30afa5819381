"""Which role may publish and subscribe to what, in one table (`TABLE`): the broker's side of security, as NATS users and permissions.

`streamflow auth generate` writes it as a nats-server configuration; docs/security.md shows it subject by subject and
tests/integration/broker/test_permissions.py tries every one of them on a real broker. Only allow-lists: what no rule names is denied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .flow import Graph
from .rights import (
    Place,
    Rule,
    address_of,
    answers,
    bodies,
    control,
    dead_letters,
    definition,
    feed_jobs,
    find_requests,
    follow_results,
    jobs,
    kept_answers,
    kept_requests,
    meet,
    operate,
    own_gathering,
    own_records,
    own_stream_reports,
    own_subjects,
    provision,
    pull_own,
    queues,
    queues_behind,
    reach,
    read_bodies,
    read_definition,
    read_results,
    records,
    requeue,
    results,
    run_jobs,
    stream_reports,
)  # fmt: skip


class Role(StrEnum):
    """What a connection is for. Everybody but a worker has one user per flow, workers one per executor."""

    GATEWAY = "gateway"
    WORKER = "worker"
    PROVISIONER = "provisioner"  # who deploys the flow: streams, consumers, definition
    OPERATOR = "operator"  # looks into queues, moves and removes what is in them
    CLIENT = "client"  # hands in jobs and reads their results, without a gateway
    READER = "reader"  # reads results


@dataclass(frozen=True, slots=True)
class User:
    """One user of the broker."""

    role: Role
    flow: str
    executor: str = ""

    @property
    def name(self) -> str:
        """ "shop/worker-encoder": also the place of its seed in the folder of credentials."""
        return f"{self.flow}/{self.role}-{self.executor}" if self.executor else f"{self.flow}/{self.role}"


@dataclass(frozen=True, slots=True)
class Allowed:
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


# role -> what it may publish, what it may subscribe to besides its own inboxes
TABLE: dict[Role, tuple[tuple[Rule, ...], tuple[Rule, ...]]] = {
    Role.GATEWAY: (
        (
            queues, jobs, bodies, kept_requests, stream_reports, control("hello", "cancel", "job", "state"), read_definition,
            read_bodies, read_results, find_requests, run_jobs,
        ),
        (answers, kept_answers, control("announce", "graph")),
    ),
    Role.WORKER: (
        (
            own_subjects, queues_behind, bodies, results, answers, dead_letters, own_records, control("announce", "hello"),
            read_definition, read_bodies, read_results, pull_own, meet, feed_jobs,
        ),
        (own_gathering, own_stream_reports, control("announce", "hello", "cancel", "drain", "reload", "graph", "job", "state")),
    ),
    Role.PROVISIONER: ((definition, control("graph"), read_definition, provision), ()),
    Role.OPERATOR: (
        (queues, requeue, jobs, bodies, results, answers, records, control("hello", "cancel", "drain", "reload", "job"), operate, run_jobs),
        (control("announce", "graph"),),
    ),
    Role.CLIENT: (
        (jobs, bodies, control("hello", "cancel", "job"), read_definition, read_bodies, read_results, run_jobs),
        (control("announce"),),
    ),
    Role.READER: ((read_definition, read_bodies, read_results, follow_results), ()),
}  # fmt: skip


def users_of(graph: Graph) -> tuple[User, ...]:
    """Everybody that a flow needs; the workers of an external executor belong to the flow that starts them."""
    own = [node.name for node in graph.nodes if not node.external]
    return (*(User(role, graph.flow) for role in Role if role is not Role.WORKER), *(User(Role.WORKER, graph.flow, name) for name in own))


def allowed(user: User, graphs: Sequence[Graph], inbox_prefix: str) -> Allowed:
    """What `user` may do, in its own flow and, for a worker, in those of `graphs` that use its executor as an external one."""
    home = next(graph for graph in graphs if graph.flow == user.flow)
    publish, subscribe = (reach, *TABLE[user.role][0]), TABLE[user.role][1]
    places = [Place(home, user.executor, f"{user.flow}.{user.executor}")]
    if user.role is Role.WORKER:
        places += [
            Place(graph, node.name, places[0].executor)
            for graph in graphs
            for node in graph.nodes
            if node.external and ".".join(address_of(graph, node)) == places[0].executor
        ]
    return Allowed(
        tuple(dict.fromkeys(subject for place in places for rule in publish for subject in rule(place))),
        (f"{inbox_prefix}.>", *dict.fromkeys(subject for place in places for rule in subscribe for subject in rule(place))),
    )
