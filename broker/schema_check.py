"""FL-12: whether what each executor answers with is what those behind it take, for every endpoint, before the flow serves anybody.

Executors are followed as requests are: one that has neither the endpoint nor a fallback lets everything through; at a join the fields of
all branches come together (`no_reduce`: each branch by itself). Fields that an executor changing its documents in place does not know
travel on with them. What is compared of two schemas, and what is not, says `schema_fit.py`.
An endpoint without types, or an executor whose endpoints are not known here (external ones), fits everything. What clients send is not
checked: it is what the first executors take, by definition. Nor is `target_executor`, with which only some of the executors run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .announce import EndpointInfo
from .errors import FlowError
from .flow import GATEWAY, Graph, Node
from .schema_fit import Misfit, View, misfits_of_fields

FALLBACK = "/default"
MAX_SHOWN = 20

Endpoints = Mapping[str, Iterable[EndpointInfo]]  # executor -> what its workers announced; one that is missing may do anything


def require_fitting_schemas(graph: Graph, endpoints: Endpoints) -> None:
    """Raise `FlowError`, a line per misfit: `encoder -> indexer, /search: field 'embedding': indexer requires it, ...`."""
    problems = list(schema_problems(graph, endpoints))
    if problems:
        more = [f"... and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
        raise FlowError("\n".join([f"flow {graph.flow!r}: documents do not fit:", *problems[:MAX_SHOWN], *more]))


def schema_problems(graph: Graph, endpoints: Endpoints) -> Iterator[str]:
    """One sentence for each field of each edge and endpoint that does not fit."""
    table = {name: {info.name: info for info in infos} for name, infos in endpoints.items()}
    for endpoint in dict.fromkeys(name for infos in table.values() for name in infos):
        yield from _Walk(graph, endpoint, table).problems()


@dataclass(frozen=True, slots=True)
class Offer:
    """Documents on their way: the executors they come from (() = the client), and by field the views of all that give it.

    `fields` None = anything.
    """

    origins: tuple[str, ...] = ()
    fields: Mapping[str, list[View]] | None = None


class _Walk:
    """Follows the requests for one endpoint through the graph."""

    def __init__(self, graph: Graph, endpoint: str, table: Mapping[str, Mapping[str, EndpointInfo]]) -> None:
        self._graph = graph
        self._endpoint = endpoint
        self._table = table
        self._offers: dict[str, Offer] = {GATEWAY: Offer(fields=self._sent_by_clients())}

    def problems(self) -> Iterator[str]:
        for node in self._graph.topological():
            incoming = [self._offers[need] for need in node.needs]
            yield from self._at(node, incoming)
            self._offers[node.name] = self._out_of(node, _merged(incoming))

    def _at(self, node: Node, incoming: list[Offer]) -> Iterator[str]:
        info = self._info(node)
        if info is None or info.request_schema is None:
            return
        taken = View.of(info.request_schema)
        for offer in incoming if node.no_reduce else [_merged(incoming)]:
            if offer.origins and offer.fields is not None:
                yield from (self._sentence(offer, node, found) for found in misfits_of_fields(offer.fields, taken))

    def _out_of(self, node: Node, incoming: Offer) -> Offer:
        if node.name not in self._table:
            return Offer((node.name,))
        info = self._info(node)
        if info is None:
            return incoming
        if info.response_schema is None:
            return Offer((node.name,))
        own = {name: [view] for name, view in View.of(info.response_schema).fields().items()}
        passing = incoming.fields or {} if info.response_schema == info.request_schema else {}
        return Offer((node.name,), {**passing, **own})

    def _info(self, node: Node) -> EndpointInfo | None:
        """The endpoint as the executor serves it; None when it lets the request through, or is not known."""
        infos = self._table.get(node.name, {})
        return infos.get(self._endpoint) or infos.get(FALLBACK)

    def _sent_by_clients(self) -> Mapping[str, list[View]] | None:
        """The fields of all that get documents from a client; None when one of them takes anything."""
        fields: dict[str, list[View]] = {}
        for node in self._entries():
            info = self._info(node)
            if info is None or info.request_schema is None:
                return None
            for name, view in View.of(info.request_schema).fields().items():
                fields.setdefault(name, []).append(view)
        return fields

    def _entries(self) -> list[Node]:
        """Executors that work on what a client sent, those before them having let it through."""
        untouched, entries = {GATEWAY}, []
        for node in self._graph.topological():
            if not untouched.intersection(node.needs):
                continue
            if self._info(node) is None and node.name in self._table:
                untouched.add(node.name)
            else:
                entries.append(node)
        return entries

    def _sentence(self, offer: Offer, node: Node, found: Misfit) -> str:
        givers = ", ".join(offer.origins)
        if found.given:
            what = f"{givers} {_verb(offer, 'gives', 'give')} {found.given}, {node.name} takes {found.taken}"
        else:
            what = f"{node.name} requires it, {givers} {_verb(offer, 'does', 'do')} not give it"
        return f"{givers} -> {node.name}, {self._endpoint}: field {found.path!r}: {what}"


def _verb(offer: Offer, one: str, many: str) -> str:
    return one if len(offer.origins) == 1 else many


def _merged(offers: list[Offer]) -> Offer:
    """What a join of `offers` hands over."""
    origins = tuple(dict.fromkeys(origin for offer in offers for origin in offer.origins))
    fields: dict[str, list[View]] = {}
    for offer in offers:
        if offer.fields is None:
            return Offer(origins)
        for name, views in offer.fields.items():
            fields.setdefault(name, []).extend(views)
    return Offer(origins, fields)
