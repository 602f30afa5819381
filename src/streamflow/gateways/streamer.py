"""`GatewayStreamer`: documents from a gateway of the user's own into the flow, and the answers back.

It encodes the documents, hands the request to the same desk and dispatcher as the built-in protocols, and decodes the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from docarray import DocList

from streamflow.broker import codec
from streamflow.broker.envelope import COLUMNS
from streamflow.broker.errors import NotFound, StreamflowError, Unavailable
from streamflow.client.inputs import chunks
from streamflow.client.plain import parameters_of, plain
from streamflow.client.results import DataRequest, doc_list, element_type
from streamflow.client.transport import trace_context
from streamflow.gateway.answers import status_json
from streamflow.gateway.desk import Desk
from streamflow.gateway.dispatch import Call
from streamflow.gateway.view import FALLBACK
from streamflow.gateway.window import Window

from .answers import answer_of, error_in

_current: GatewayStreamer | None = None  # of this process


class GatewayStreamer:
    """Sends documents through the flow. Belongs to the event loop of the gateway process; its methods may run side by side."""

    def __init__(self, desk: Desk, executors: tuple[str, ...], *, prefetch: int = 1000) -> None:
        """`prefetch` requests of one call are open at a time, 0 = no limit."""
        self._desk = desk
        self._prefetch = prefetch
        self.executor = Executors(self, executors)

    @staticmethod
    def get_streamer() -> GatewayStreamer:
        """The streamer of this gateway process, for modules that do not see the gateway. Raises `Unavailable` in any other process."""
        if _current is None:
            raise Unavailable("no gateway of one's own runs in this process: get_streamer() is for the code that it serves")
        return _current

    def readiness(self) -> dict[str, Any]:
        """What `GET /dry_run` answers: code 0 when every executor has a ready replica, else 1 with the reason."""
        return status_json(self._desk.view.readiness())

    async def stream(
        self,
        docs: Any,
        request_size: int = 100,
        return_results: bool = False,
        exec_endpoint: str | None = None,
        target_executor: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        results_in_order: bool = False,
        return_type: Any = DocList,
    ) -> AsyncGenerator[tuple[Any, StreamflowError | None], None]:
        """Send `docs`, `request_size` of them in a request; yields `(documents, error)` of each answer as it comes.

        `documents` is a `DocList` of `return_type`, or the whole `DataRequest` with `return_results`; empty when `error` says what went
        wrong: an `ExecutorError`, or that the request was refused or late. `error.name` is the class name of the exception.
        `docs` may be a `DocList`, any iterable, or an async generator; raises what reading and encoding them raises.
        """
        call = self._call(exec_endpoint, target_executor, parameters)
        async with aclosing(self._answers(docs, request_size, call, results_in_order, return_type)) as answers:
            async for answer in answers:
                yield (answer if return_results else answer.docs), error_in(answer)

    async def stream_docs(
        self,
        docs: Any,
        request_size: int = 100,
        return_results: bool = False,
        exec_endpoint: str | None = None,
        target_executor: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        results_in_order: bool = False,
        request_id: str | None = None,
        return_type: Any = DocList,
    ) -> AsyncGenerator[Any, None]:
        """Like `stream`, but yields documents only, and raises for the first answer that failed. `request_id` goes with every request."""
        call = self._call(exec_endpoint, target_executor, parameters, request_id or "")
        async with aclosing(self._answers(docs, request_size, call, results_in_order, return_type)) as answers:
            async for answer in answers:
                _raise_for(answer)
                yield answer if return_results else answer.docs

    async def stream_doc(
        self,
        doc: Any,
        return_results: bool = False,
        exec_endpoint: str | None = None,
        target_executor: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        return_type: Any = None,
    ) -> AsyncGenerator[tuple[Any, StreamflowError | None], None]:
        """Send one document to a streaming endpoint; yields `(document, error)` for each document as it comes, `(None, error)` for a
        failure, which is the last. Leaving the loop early ends the endpoint's work."""
        call = _filled(self._call(exec_endpoint, target_executor, parameters, request_id or ""), [doc])
        async with aclosing(self._desk.stream(call)) as parts:
            async for part in parts:
                answer = answer_of(part, return_type)
                if not answer.ok:
                    yield (answer if return_results else None), error_in(answer)
                elif part.body:
                    yield (answer if return_results else answer.docs[0]), None

    async def process_single_data(self, request: DataRequest, context: Any = None) -> DataRequest:
        """Send the documents of `request` (an answer from elsewhere, say) as one request; the answer, failed or not."""
        header = request.header
        call = self._call(header.exec_endpoint, header.target_executor, request.parameters, header.request_id)
        return answer_of(await self._desk.send(_filled(call, list(request.docs))), DocList[request.document_type])  # type: ignore[name-defined]

    async def _answers(self, docs: Any, size: int, call: Call, in_order: bool, return_type: Any) -> AsyncGenerator[DataRequest, None]:
        window: Window[None] = Window(self._prefetch, in_order=in_order)
        feeder = asyncio.create_task(self._feed(window, chunks(docs, size), call), name="gateway streamer")
        try:
            async for _, envelope in window:
                yield answer_of(envelope, return_type)
            await feeder  # what reading the documents raised
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
            window.cancel()

    async def _feed(self, window: Window[None], source: AsyncGenerator[list[Any], None], call: Call) -> None:
        try:
            async with aclosing(source):
                async for docs in source:
                    await window.room()
                    window.add(None, self._desk.send(_filled(call, docs)))
        finally:
            window.close()

    def _call(self, endpoint: str | None, target: str | None, parameters: Any, client_id: str = "") -> Call:
        return Call(
            self._desk.view.name(endpoint or FALLBACK),
            accept=COLUMNS,
            parameters=plain(parameters_of(parameters)),
            client_id=client_id,
            target_executor=target or "",
            trace=trace_context(),
        )


class ExecutorStreamer:
    """One executor of the flow, asked without the others."""

    def __init__(self, streamer: GatewayStreamer, name: str) -> None:
        self._streamer = streamer
        self.name = name

    async def post(
        self,
        inputs: Any = None,
        request_size: int = 100,
        on: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        return_type: Any = DocList,
        **options: Any,
    ) -> Any:
        """Send `inputs`, `request_size` in a request; all documents of the answers in order, as one `DocList`. With a document class in
        `return_type` a single one comes without a list. Raises for an answer that failed. `options` are further ones of `stream_docs`."""
        found: list[Any] = []
        options = {"request_size": request_size, "exec_endpoint": on, "parameters": parameters, **options, "results_in_order": True}
        answers = self._streamer.stream_docs(inputs, return_type=return_type, target_executor=f"^{self.name}$", **options)
        async for docs in answers:
            found.extend(docs)
        doc_type, bare = element_type(return_type)
        return found[0] if bare and len(found) == 1 else doc_list(doc_type, found)

    async def stream_doc(
        self, inputs: Any, on: str | None = None, parameters: Mapping[str, Any] | None = None, return_type: Any = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """The documents that a streaming endpoint of this executor answers to the document `inputs`, as they come. Raises as `post`."""
        options = {"exec_endpoint": on, "parameters": parameters, "return_type": return_type, **options}
        parts = self._streamer.stream_doc(inputs, target_executor=f"^{self.name}$", **options)
        async with aclosing(parts):
            async for doc, error in parts:
                if error is not None:
                    raise error
                yield doc


class Executors(Mapping[str, ExecutorStreamer]):
    """The executors of the flow by name."""

    def __init__(self, streamer: GatewayStreamer, names: tuple[str, ...]) -> None:
        self._all = {name: ExecutorStreamer(streamer, name) for name in names}

    def __getitem__(self, name: str) -> ExecutorStreamer:
        if name not in self._all:
            raise NotFound(f"no executor {name!r} in this flow; known: {', '.join(self._all)}")
        return self._all[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def use(streamer: GatewayStreamer | None) -> None:
    """Make `streamer` the one that `get_streamer` gives."""
    global _current
    _current = streamer


def _filled(call: Call, docs: list[Any]) -> Call:
    return replace(call, body=codec.encode(docs, COLUMNS), content_type=COLUMNS) if docs else call


def _raise_for(answer: DataRequest) -> None:
    error = error_in(answer)
    if error is not None:
        raise error
