"""Executors that talk, and clients that listen: for the tests of streaming endpoints."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker import subjects
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import OK, Code
from streamflow.broker.flow import Graph, Node
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from tests.running import Running

BOTH = pytest.mark.parametrize("endpoint", ["/sync", "/async"])


class Token(BaseDoc):
    text: str = ""
    number: int = -1
    made: float = 0.0  # Unix seconds


class Talker(Executor):
    """`/sync`, `/async` count to `n`; `bad_at` raises there, `pause_s` blocks between two documents. What happened stands in `log`."""

    log: list[str] = []
    yielded = 0
    closed = threading.Event()

    @classmethod
    def forget(cls) -> None:
        cls.log.clear()
        cls.yielded = 0
        cls.closed.clear()

    @requests(on="/sync")
    def say(self, doc: Token, parameters: dict[str, Any], context: Any = None, **kwargs: Any) -> Token:  # type: ignore[misc]
        try:
            for number in range(int(parameters.get("n", 5))):
                if number == parameters.get("bad_at"):
                    raise ValueError(f"no word {number}")
                yield self._token(doc, number, context)
                time.sleep(parameters.get("pause_s", 0.0))
        finally:
            self._over("sync")

    @requests(on="/async")
    async def asay(self, doc: Token, parameters: dict[str, Any], context: Any = None, **kwargs: Any) -> Token:  # type: ignore[misc]
        try:
            for number in range(int(parameters.get("n", 5))):
                if number == parameters.get("bad_at"):
                    raise ValueError(f"no word {number}")
                yield self._token(doc, number, context)
                if parameters.get("pause_s"):
                    time.sleep(parameters["pause_s"])
                if parameters.get("hang_at") == number:
                    await asyncio.Event().wait()
        except asyncio.CancelledError:
            Talker.log.append("cancelled")
            raise
        finally:
            self._over("async")

    @requests(on="/plain")
    def plain(self, docs: DocList[Token], parameters: dict[str, Any], **kwargs: Any) -> DocList[Token]:
        return DocList[Token](Token(text=doc.text, number=number) for doc in docs for number in range(int(parameters.get("n", 5))))

    def _token(self, doc: Token, number: int, context: Any) -> Token:
        Talker.yielded += 1
        return Token(text=f"{doc.text}{context.attempt if context.attempt > 1 else ''}", number=number, made=time.time())

    def _over(self, what: str) -> None:
        Talker.log.append(f"{what} over")
        Talker.closed.set()


class Silent(Executor):
    @requests(on="/elsewhere")
    def nothing(self, docs: DocList[Token], **kwargs: Any) -> None: ...


class Plus(Executor):
    """Adds a `+`; `drop` gives nothing for odd numbers, `double` two documents, `fail_at` raises for one."""

    calls = 0

    @requests
    def add(self, docs: DocList[Token], parameters: dict[str, Any], **kwargs: Any) -> DocList[Token]:
        Plus.calls += 1
        if any(doc.number == parameters.get("fail_at") for doc in docs):
            raise ValueError("not this one")
        if parameters.get("drop"):
            return DocList[Token](doc for doc in docs if doc.number % 2 == 0)
        if parameters.get("double"):
            return DocList[Token](Token(text=doc.text + mark, number=doc.number) for doc in docs for mark in "+-")
        for doc in docs:
            doc.text += "+"
        return docs


class Join(Executor):
    """Both branches changed the same document; the later one's text wins."""

    @requests
    def join(self, docs: DocList[Token], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += f"|{len(docs)}"


def call(endpoint: str, text: str = "w", **parameters: Any) -> Call:
    deadline, accept = parameters.pop("deadline", 0.0), parameters.pop("accept", JSON)
    body = json.dumps({"data": [{"text": text}], "parameters": parameters}).encode()
    return Call(endpoint, body, JSON, accept, deadline=deadline)


class Heard:
    """What a reader got: `words` as (text, number) and the last status."""

    def __init__(self) -> None:
        self.parts: list[Envelope] = []

    @property
    def docs(self) -> list[dict[str, Any]]:
        return [json.loads(bytes(part.body))[0] for part in self.parts if part.body]

    @property
    def words(self) -> list[tuple[str, int]]:
        return [(doc["text"], doc["number"]) for doc in self.docs]

    @property
    def numbers(self) -> list[int]:
        return [doc["number"] for doc in self.docs]

    @property
    def code(self) -> Code:
        return self.parts[-1].status.code

    def check_form(self) -> None:
        """Positions count up, one document each, the last part alone is final and empty."""
        assert [part.position for part in self.parts] == list(range(len(self.parts)))
        assert [part.final for part in self.parts] == [False] * (len(self.parts) - 1) + [True]
        assert not self.parts[-1].body and all(part.status is OK for part in self.parts[:-1])


async def listen(flow: Running, request: Call, limit_s: float = 30.0) -> Heard:
    """Read a stream to its end."""
    heard = Heard()
    async with asyncio.timeout(limit_s), aclosing(flow.dispatcher.stream(request)) as parts:
        async for part in parts:
            heard.parts.append(part)
    heard.check_form()
    return heard


async def queue_lengths(flow: Running) -> dict[str, int]:
    infos = {name: await flow.bus.api(f"STREAM.INFO.{subjects.work_stream(flow.graph.flow, name)}") for name in flow.graph.names}
    return {name: info["state"]["messages"] for name, info in infos.items()}


async def queues_empty(flow: Running, limit_s: float = 5.0) -> None:
    limit = time.monotonic() + limit_s
    while any((left := await queue_lengths(flow)).values()):
        assert time.monotonic() < limit, f"left in the queues: {left}"


async def take(parts: AsyncIterator[Envelope], number: int) -> list[Envelope]:
    return [await asyncio.wait_for(anext(parts), 10) for _ in range(number)]


def docs_of(part: Envelope) -> list[dict[str, Any]]:
    heard = Heard()
    heard.parts = [part]
    return heard.docs


def chain(flow: str, *names: str, **options: Any) -> Graph:
    """A flow in which each executor follows the one before."""
    nodes = [Node(name, needs=names[at - 1 : at] if at else ("gateway",), **options) for at, name in enumerate(names)]
    return Graph(flow, tuple(nodes))


def one(flow: str, **options: Any) -> Graph:
    return chain(flow, "talk", **options)
