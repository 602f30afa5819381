"""Flow definition: executors and their edges as immutable data. Pure: no I/O, no documents.

A `Graph` is built by the Python builders and the YAML reader, checked once by `validate`, stored in the flow's key-value bucket as
`to_dict`, and read by every role. Where a request goes next is computed from it by `routing.py`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from hashlib import sha256
from typing import Any

from .conditions import compile_condition
from .errors import FlowError, InvalidInput, NotFound
from .subjects import token

GATEWAY = "gateway"  # entry of a flow in `needs`, and the place where its leaves meet
RESERVED = frozenset(
    {GATEWAY, "dead", "job", "jobs", "in", "journal", "result", "results", "ctl", "blob", "blobs", "kept", "failed", "reply"}
)
_NO_FLOWS = ("reply", "credit")  # stand where a flow's name does, in subjects that are no flow's
_STREAM_SUFFIXES = ("_all", "_part", "_log", "_snap", "_retry")


class Polling(StrEnum):
    """Which shards get a request."""

    ANY = "ANY"
    ALL = "ALL"


DEFAULT_POLLING: Mapping[str, Polling] = {"/index": Polling.ANY, "/search": Polling.ALL, "*": Polling.ANY}


@dataclass(frozen=True, slots=True)
class Node:
    """One executor of a flow: what routing needs to know about it, and in `options` what only the starter of its processes needs.

    `polling` holds what the user set, by endpoint or `*`; `polls_all` adds Jina's defaults. `options` (uses, uses_with, env ...) may hold
    Python objects and secrets: it is never part of `to_dict`, of the version or of a comparison.
    """

    name: str
    needs: tuple[str, ...] = (GATEWAY,)
    replicas: int = 1
    shards: int = 1
    polling: Mapping[str, Polling] = field(default_factory=dict)
    when: Mapping[str, Any] | None = None  # docarray's query language, see conditions.py
    floating: bool = False
    external: bool = False  # someone else runs its workers, on this broker
    hosts: tuple[str, ...] = ()  # gateways elsewhere that its workers, which are this flow's, pass its requests on to
    external_flow: str = ""  # flow and executor name that an external executor's workers serve under; "" = as here
    external_executor: str = ""
    no_reduce: bool = False
    stateful: bool = False  # every replica applies the requests of `@write` endpoints, in the order of one log for each shard
    allow_partial: bool = False  # at the deadline answer with the parts that came, marked, instead of an error
    retries: int | None = None  # extra attempts after an exception of `retry_on`; None = the worker's default
    retry_on: tuple[str, ...] = ()  # class names of exceptions; () = an exception is always the answer
    backoff_s: float = 0.5  # before the second attempt; doubles with each, with jitter
    max_backoff_s: float = 30.0
    max_deliver: int | None = None  # worker deaths on one request before quarantine; None = the role's setting
    ack_wait_s: float | None = None
    timeout_run_s: float | None = None  # a call that runs longer ends its worker, which counts as a death; None = no limit
    timeout_ready_ms: int = 600_000  # -1 = wait for ever (Jina's unit)
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def polls_all(self, endpoint: str) -> bool:
        """Whether every shard gets a request for `endpoint`.

        Looks at the user's own entry, Jina's default for the endpoint, the user's `*`; else ANY. So `polling="ALL"` leaves `/index` at ANY.
        """
        if self.shards == 1:
            return False
        for table, key in ((self.polling, endpoint), (DEFAULT_POLLING, endpoint), (self.polling, "*")):
            if key in table:
                return table[key] is Polling.ALL
        return False

    @property
    def shard_names(self) -> tuple[str, ...]:
        """Part names of an ALL-polled answer: "0", "1" ..."""
        return tuple(map(str, range(self.shards)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form without `options`; fields at their default are left out."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "options"}
        return {key: _plain(value) for key, value in plain.items() if key == "name" or value != _NODE_DEFAULTS[key]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Node:
        """The node that `to_dict` wrote; unknown keys are ignored (a graph's version tells when they mattered)."""
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key in _NODE_FIELDS
        }
        known["polling"] = {endpoint: Polling(value) for endpoint, value in raw.get("polling", {}).items()}
        return cls(**known)


_NODE_DEFAULTS: dict[str, Any] = {each.name: getattr(Node("x"), each.name) for each in fields(Node)}
_NODE_FIELDS = frozenset(_NODE_DEFAULTS) - {"options"}
_NOT_ROUTING = frozenset(
    {"hosts", "stateful", "replicas", "retries", "retry_on", "backoff_s", "max_backoff_s", "max_deliver", "ack_wait_s",
     "timeout_run_s", "timeout_ready_ms"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Journal:
    """How much of a flow's online requests is kept for replay: for so long, and the newest of them up to so many bytes."""

    keep_s: float = 7 * 86400.0
    max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Graph:
    """A flow: its name and its executors in the order they were added. Call `validate` before first use.

    `version` is 16 hex digits of a SHA-256 over all that changes routing; scaling or retry settings do not change it, nor does what is
    kept of requests: `journal`, and `keep_results_s`, the seconds for which every online answer can be fetched again (0 = those that ask).
    """

    flow: str
    nodes: tuple[Node, ...] = ()
    journal: Journal | None = None
    keep_results_s: float = 0.0
    version: str = field(init=False, compare=False, default="")
    _index: dict[str, Node] = field(init=False, compare=False, repr=False, default_factory=dict)
    plans: dict[str, Any] = field(init=False, compare=False, repr=False, default_factory=dict)  # caches of routing.py
    routes: dict[Any, Any] = field(init=False, compare=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        self._index.update({node.name: node for node in self.nodes})
        object.__setattr__(self, "version", _version_of(self))

    def __hash__(self) -> int:
        return hash((self.flow, self.version))

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def node(self, name: str) -> Node:
        """The executor `name`; raises `NotFound`."""
        try:
            return self._index[name]
        except KeyError:
            raise NotFound(f"flow {self.flow!r} has no executor {name!r}{_hint(name, self._index)}") from None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes)

    @property
    def roots(self) -> tuple[Node, ...]:
        """Executors that get the client's documents."""
        return tuple(node for node in self.nodes if GATEWAY in node.needs)

    @property
    def leaves(self) -> tuple[Node, ...]:
        """Executors whose output is (part of) the answer: not floating, and needed by floating ones at most."""
        needed = {need for node in self.nodes if not node.floating for need in node.needs}
        return tuple(node for node in self.nodes if not node.floating and node.name not in needed)

    @property
    def meeting_places(self) -> tuple[str, ...]:
        """Where parts may meet: executors with several predecessors or shards, and "gateway" when several leaves make the answer."""
        places = [node.name for node in self.nodes if len(node.needs) > 1 or node.shards > 1]
        return (*places, GATEWAY) if len(self.leaves) > 1 else tuple(places)

    def host_of(self, place: str) -> str:
        """The executor whose workers complete what meets at `place`: itself, unless its workers are someone else's. Raises `FlowError`."""
        candidates = [node.name for node in self.leaves] if place == GATEWAY else [place, *self.node(place).needs]
        for name in candidates:
            if name != GATEWAY and not self.node(name).external:
                return name
        raise FlowError(f"executor {place!r}: what it needs comes from external executors only; put an executor of this flow between them")

    def topological(self) -> tuple[Node, ...]:
        """Nodes with every node behind all it needs, else in the order they were added; raises `FlowError` naming a cycle."""
        done: dict[str, Node] = {}
        waiting = list(self.nodes)
        while waiting:
            ready = [node for node in waiting if all(need == GATEWAY or need in done for need in node.needs)]
            if not ready:
                circle = ", ".join(repr(node.name) for node in waiting)
                raise FlowError(f"executors {circle}: `needs` go in a circle")
            done.update({node.name: node for node in ready})
            waiting = [node for node in waiting if node.name not in done]
        return tuple(done.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form for the key-value bucket, without the nodes' `options`."""
        kept = {"journal": asdict(self.journal) if self.journal else None, "keep_results_s": self.keep_results_s}
        given = {key: value for key, value in kept.items() if value}
        return {"flow": self.flow, "version": self.version, "nodes": [node.to_dict() for node in self.nodes], **given}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Graph:
        """The graph that `to_dict` wrote; raises `FlowError` for anything else, also for one whose routing this version cannot follow."""
        try:
            nodes = tuple(Node.from_dict(node) for node in raw["nodes"])
            journal = Journal(**raw["journal"]) if raw.get("journal") else None
            graph = cls(raw["flow"], nodes, journal, raw.get("keep_results_s", 0.0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FlowError(f"not a flow definition: {error!r}") from error
        graph.validate()
        if raw.get("version", graph.version) != graph.version:
            raise FlowError(
                f"flow {graph.flow!r}, version {raw['version']}: written by another release of streamflow with rules unknown here"
            )
        return graph

    def validate(self) -> None:
        """Raise `FlowError`, naming the executor, when the definition cannot work."""
        _token(self.flow, "flow")
        if self.flow in _NO_FLOWS:
            raise FlowError(f"flow {self.flow!r}: this name is reserved")
        seen: set[str] = set()
        for node in self.nodes:
            _check_name(node.name, seen)
            seen.add(node.name)
        for node in self.nodes:
            _check_edges(node, self)
            _check_numbers(node)
            _check_polling(node)
            if node.when is not None:
                compile_condition(node.when, executor=node.name)
        self.topological()


def _token(name: str, what: str) -> None:
    try:
        token(name, what)
    except InvalidInput as error:
        raise FlowError(str(error)) from None


def _check_name(name: str, seen: set[str]) -> None:
    _token(name, "executor")
    if name in seen:
        raise FlowError(f"executor {name!r}: there are two of this name")
    if name in RESERVED:
        raise FlowError(f"executor {name!r}: this name is reserved")
    for suffix in _STREAM_SUFFIXES:
        if name + suffix in seen or name.removesuffix(suffix) in seen - {name}:
            raise FlowError(f"executor {name!r}: too close to the name of another one, whose streams end in {suffix!r}")


def _check_edges(node: Node, graph: Graph) -> None:
    where = f"executor {node.name!r}"
    if not node.needs:
        raise FlowError(f"{where}: `needs` is empty; use 'gateway' for an executor that gets the client's documents")
    if len(set(node.needs)) != len(node.needs):
        raise FlowError(f"{where}: `needs` names an executor twice: {', '.join(node.needs)}")
    for need in node.needs:
        if need != GATEWAY and need not in graph:
            raise FlowError(f"{where}: needs {need!r}, which does not exist{_hint(need, graph.names)}")
        if need != GATEWAY and graph.node(need).floating and not node.floating:
            raise FlowError(f"{where}: needs {need!r}, which is floating; only a floating executor may follow a floating one")
    if (node.external or node.hosts) and node.no_reduce and len(node.needs) > 1:
        raise FlowError(f"{where}: no_reduce does not work for an external executor with several predecessors")
    if not node.external and (node.external_flow or node.external_executor):
        raise FlowError(f"{where}: external_flow and external_executor are for external executors; set external=True")


def _check_numbers(node: Node) -> None:
    lowest = {"replicas": 1, "shards": 1, "max_deliver": 1, "retries": -1, "timeout_ready_ms": -1}
    for name, least in lowest.items():
        value = getattr(node, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise FlowError(f"executor {node.name!r}: {name} is {value!r}, it must be an integer of {least} or more")
    for name in ("ack_wait_s", "timeout_run_s", "backoff_s", "max_backoff_s"):
        value = getattr(node, name)
        if value is not None and not value > 0:
            raise FlowError(f"executor {node.name!r}: {name} is {value!r}, it must be above 0")


def _check_polling(node: Node) -> None:
    for endpoint, value in node.polling.items():
        if endpoint != "*" and not endpoint.startswith("/"):
            raise FlowError(f"executor {node.name!r}: polling of {endpoint!r}: an endpoint starts with '/', or is '*' for all others")
        if not isinstance(value, Polling):
            raise FlowError(f"executor {node.name!r}: polling of {endpoint!r} is {value!r}: use ANY or ALL")


def _version_of(graph: Graph) -> str:
    nodes = [{key: value for key, value in node.to_dict().items() if key not in _NOT_ROUTING} for node in graph.nodes]
    canonical = json.dumps([graph.flow, nodes], sort_keys=True, separators=(",", ":"), default=str)
    return sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Polling) else value


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
