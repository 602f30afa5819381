"""An answer as callbacks and `return_responses=True` see it. Documents, parameters and routes are decoded when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple, get_origin

from docarray import DocList
from docarray.base_doc import AnyDoc
from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker import codec
from streamflow.broker.errors import OK, Code, Status, StreamflowError

from .errors import BadArguments, error_of


class Route(NamedTuple):
    """One stop of a request. Times are Unix seconds, 0.0 = not known; `enqueued` to `start_time` is the time spent waiting in the queue."""

    executor: str
    start_time: float = 0.0
    end_time: float = 0.0
    enqueued: float = 0.0
    replica: str = ""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Header:
    request_id: str
    status: Status = OK
    exec_endpoint: str = ""
    target_executor: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a protocol hands over: the body still encoded, the rest as functions that decode when called."""

    header: Header
    body: bytes = b""
    content_type: str = ""
    parameters: Callable[[], dict[str, Any]] = dict
    routes: Callable[[], list[Route]] = list
    more_bytes: int = 0  # that those functions hold


class DataRequest:
    """The answer to one request.

    `header` (`request_id`, `status`, `exec_endpoint`, `target_executor`), `docs`: `DocList` of the post's return type, `parameters`
    with what executors returned as dicts under `__results__`, `routes`: the gateway, then each executor.
    """

    def __init__(self, parts: Parts, doc_type: type[BaseDocWithoutId] = AnyDoc) -> None:
        self._parts = parts
        self.header = parts.header
        self.document_type = doc_type

    @property
    def request_id(self) -> str:
        return self.header.request_id

    @property
    def size_bytes(self) -> int:
        """What the answer takes as it came, before anything of it is decoded."""
        return len(self._parts.body) + self._parts.more_bytes

    @property
    def status(self) -> Status:
        return self.header.status

    @property
    def ok(self) -> bool:
        return self.header.status.code is Code.OK

    @cached_property
    def docs(self) -> DocList[Any]:
        """Documents of the answer; empty when it has none. Raises `InvalidInput` when they do not fit the return type."""
        return self.decode_docs()

    def decode_docs(self) -> DocList[Any]:
        """The documents, decoded anew and not kept."""
        parts = self._parts
        if not parts.body:
            return doc_list(self.document_type, [])
        # `trusted`: what a worker wrote from an equal class is not validated a second time. Other forms and classes always are.
        found: DocList[Any] = codec.decode(parts.body, parts.content_type, self.document_type, trusted=True).docs
        return found

    @property
    def data(self) -> DataRequest:
        """Jina's name for the part with the documents: `response.data.docs`."""
        return self

    @cached_property
    def parameters(self) -> dict[str, Any]:
        return self._parts.parameters()

    @property
    def results(self) -> dict[str, Any]:
        """What executors returned as dicts, by `<executor>/rep-<n>`."""
        found: dict[str, Any] = self.parameters.get("__results__", {})
        return found

    @cached_property
    def routes(self) -> list[Route]:
        return self._parts.routes()

    def error(self) -> StreamflowError:
        """The exception that `post()` raises for this answer; one whose status is OK has none (`ValueError`)."""
        return error_of(self.status, self.request_id, place_of(self.routes))

    def to_dict(self) -> dict[str, Any]:
        """Header, parameters, routes and data as plain values (documents as `to_json` would print them)."""
        return {
            "header": asdict(self.header) | {"status": asdict(self.status) | {"code": self.status.code.value}},
            "parameters": self.parameters,
            "routes": [route._asdict() for route in self.routes],
            "data": [dict(doc.__dict__) if isinstance(doc, AnyDoc) else doc.dict() for doc in self.docs],
        }

    def __repr__(self) -> str:
        return f"DataRequest(request_id={self.request_id!r}, endpoint={self.header.exec_endpoint!r}, status={self.status.code.value})"


def place_of(routes: list[Route]) -> str:
    """Replica and attempt at which a request ended, where the server tells them."""
    last = routes[-1] if routes else None
    return f"replica {last.replica}, attempt {last.attempt}" if last is not None and last.replica else ""


def doc_list(doc_type: type[BaseDocWithoutId], docs: list[Any]) -> DocList[Any]:
    """A `DocList[doc_type]` of `docs`, which are of that type already."""
    made: DocList[Any] = DocList[doc_type].construct(docs)  # type: ignore[valid-type]  # a class known at run time only
    return made


def element_type(return_type: Any) -> tuple[type[BaseDocWithoutId], bool]:
    """(document type, whether one document may be returned bare) of a `return_type` argument.

    `DocList[D]` gives (D, False), `D` gives (D, True), None and a bare `DocList` give (AnyDoc, False): documents that take every field.
    """
    if return_type is None:
        return AnyDoc, False
    kind = get_origin(return_type) or return_type  # DocList[D] is an alias of a class made for D
    if isinstance(kind, type) and issubclass(kind, DocList):
        return kind.doc_type, False
    if isinstance(kind, type) and issubclass(kind, BaseDocWithoutId):
        return kind, True
    raise BadArguments(f"return_type {return_type!r}: expected a document class or DocList[...] of one")
