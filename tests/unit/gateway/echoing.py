"""A dispatcher without a bus: answers what it is sent, or what a test told it to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from streamflow.broker.announce import Announcement, EndpointInfo
from streamflow.broker.envelope import JSON, PROTOBUF, Envelope, Hop
from streamflow.broker.errors import Status
from streamflow.broker.flow import Graph, Node
from streamflow.gateway.catalog import Catalog
from streamflow.gateway.dispatch import Call
from streamflow.gateway.echo import echo
from streamflow.gateway.jina_wire import data_content, docs_of

TEXT_DOC: dict[str, Any] = {
    "title": "TextDoc",
    "type": "object",
    "properties": {"id": {"type": "string"}, "text": {"type": "string"}, "n": {"type": "integer"}},
}
ENDPOINTS = (
    EndpointInfo("/echo", TEXT_DOC, TEXT_DOC, description="Gives back what it got."),
    EndpointInfo("/a/b"),
    EndpointInfo("/held"),
    EndpointInfo("/hello", TEXT_DOC, TEXT_DOC, streaming=True, single=True),
)


class EchoDispatcher:
    """`/held` waits until the test answers `held`; `statuses` makes an endpoint fail; streaming endpoints count to 3."""

    def __init__(self, endpoints: tuple[EndpointInfo, ...] = ENDPOINTS) -> None:
        self.connected = True
        self.calls: list[Call] = []
        self.statuses: dict[str, Status] = {}
        self.results: dict[str, Any] = {}
        self.held: list[tuple[Call, asyncio.Future[Envelope]]] = []
        self.cancelled = 0
        self.streams_closed = 0
        self.parts = 3
        self.stream_holds = asyncio.Event()
        self.stream_holds.set()
        self._endpoints = endpoints
        self.catalog = Catalog(Graph("shop", (Node("encoder"),)))
        self.announce()

    def announce(self, endpoints: tuple[EndpointInfo, ...] | None = None) -> None:
        """A ready worker says what it serves."""
        self._endpoints = self._endpoints if endpoints is None else endpoints
        self.catalog.hear(Announcement("shop", "encoder", "i1", endpoints=self._endpoints).encode())

    def send(self, call: Call) -> asyncio.Future[Envelope]:
        self.calls.append(call)
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._count_cancelled)
        if call.endpoint == "/held":
            self.held.append((call, future))
        else:
            future.set_result(self.answer(call))
        return future

    async def stream(self, call: Call) -> AsyncIterator[Envelope]:
        self.calls.append(call)
        try:
            for position in range(self.parts):
                yield self._part(call, position)
                await self.stream_holds.wait()
            status = self.statuses.get(call.endpoint)
            end = self.answer(call)._replace(body=b"", position=self.parts)
            yield end._replace(status=status) if status else end
        finally:
            self.streams_closed += 1

    def answer(self, call: Call) -> Envelope:
        now = time.time()
        envelope = Envelope(
            f"r{len(self.calls)}",
            "shop",
            endpoint=call.endpoint,
            client_id=call.client_id,
            content_type=call.content_type,
            accept=call.accept,
            target_executor=call.target_executor,
            parameters=call.parameters,
            results=self.results,
            trail=(Hop("encoder", "encoder-0", now, now, now),),
            body=call.body,
        )
        status = self.statuses.get(call.endpoint)
        return envelope._replace(status=status, body=b"", content_type="") if status else echo(envelope)

    def release(self, index: int = 0) -> None:
        """Answer one held call; 0 = the one that waits longest."""
        call, future = self.held.pop(index)
        if not future.done():
            future.set_result(self.answer(call))

    def _part(self, call: Call, position: int) -> Envelope:
        body = data_content(docs_of(call.body)) if call.accept == PROTOBUF else call.body
        if call.accept == JSON:
            body = orjson.dumps([{"n": position, "of": orjson.loads(call.body)["data"][0]}])
        return Envelope(
            "s1", endpoint=call.endpoint, client_id=call.client_id, content_type=call.accept, position=position, final=False, body=body
        )

    def _count_cancelled(self, future: asyncio.Future[Envelope]) -> None:
        self.cancelled += future.cancelled()
