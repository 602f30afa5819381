"""What stands behind all servers of the client tests: one `Backend` with an endpoint for each behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow.broker import codec
from streamflow.broker.errors import Code, Status

OK_STATUS = Status()


class Item(BaseDoc):
    text: str = ""
    number: int = 0
    vector: NdArray | None = None  # type: ignore[type-arg]  # docarray's own generic base


@dataclass
class Asked:
    """One request, whatever protocol it came by."""

    endpoint: str
    docs: DocList[Item]
    parameters: dict[str, Any] = field(default_factory=dict)
    target: str = ""
    request_id: str = ""
    deadline: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)
    method: str = ""


@dataclass
class Answered:
    docs: DocList[Item]
    status: Status = OK_STATUS
    results: dict[str, Any] = field(default_factory=dict)


@dataclass
class Backend:
    """What the executors behind all servers do. Endpoints are methods; `asked` holds every request, `peak` the most that ran at once."""

    asked: list[Asked] = field(default_factory=list)
    running: int = 0
    peak: int = 0
    refusals: int = 0  # how many requests to `/busy` are still to be refused
    failures: int = 0  # how many requests to `/flaky` still break the connection
    cancelled: int = 0
    forgets: bool = False  # whether the streaming endpoint has nothing to say any more
    released: asyncio.Event = field(default_factory=asyncio.Event)
    held: list[asyncio.Future[None]] = field(default_factory=list)

    async def answer(self, asked: Asked) -> Answered:
        self.asked.append(asked)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            handler: Callable[[Asked], Awaitable[Answered]] = getattr(self, asked.endpoint.strip("/") or "echo", self.unknown)
            return await handler(asked)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def unknown(self, asked: Asked) -> Answered:
        return Answered(DocList[Item](), Status(Code.NOT_FOUND, f"no endpoint {asked.endpoint}", "NotFound"))

    async def echo(self, asked: Asked) -> Answered:
        await asyncio.sleep(0)
        for doc in asked.docs:
            doc.text = doc.text.upper()
        return Answered(asked.docs)

    default = echo

    async def parameters(self, asked: Asked) -> Answered:
        return Answered(asked.docs, results={"first/rep-0": asked.parameters})

    async def fail(self, asked: Asked) -> Answered:
        if any(doc.text == "bad" for doc in asked.docs):
            try:
                raise NotImplementedError("no such thing")
            except NotImplementedError as error:
                return Answered(asked.docs, Status.of_executor(error, "First"))
        return Answered(asked.docs)

    async def refuse(self, asked: Asked) -> Answered:
        code = Code(asked.parameters["code"])
        return Answered(DocList[Item](), Status(code, f"refused with {code.value}"))

    async def unread(self, asked: Asked) -> Answered:
        asked.request_id = ""
        return Answered(DocList[Item](), Status(Code.INVALID_ARGUMENT, "not a message", "InvalidInput"))

    async def busy(self, asked: Asked) -> Answered:
        if self.refusals:
            self.refusals -= 1
            return Answered(DocList[Item](), Status(Code.RESOURCE_EXHAUSTED, "the queue is full", "Overloaded"))
        return Answered(asked.docs)

    async def flaky(self, asked: Asked) -> Answered:
        if self.failures:
            self.failures -= 1
            raise BrokenPipeError
        return Answered(asked.docs)

    async def backwards(self, asked: Asked) -> Answered:
        """Answers `count` requests in the reverse of the order in which they came."""
        turn = asyncio.get_running_loop().create_future()
        self.held.append(turn)
        if len(self.held) == asked.parameters["count"]:
            self.held.pop().set_result(None)
        await turn
        await asyncio.sleep(0.005)
        if self.held:
            self.held.pop().set_result(None)
        return Answered(asked.docs)

    async def slow(self, asked: Asked) -> Answered:
        await asyncio.sleep(0.01)
        return Answered(asked.docs)

    async def grow(self, asked: Asked) -> Answered:
        """Answers with a text of `size` characters, the first document after the others have had 0.3 s."""
        if asked.docs[0].number == 0:
            await asyncio.sleep(0.3)
        return Answered(DocList[Item]([Item(text="x" * int(asked.parameters["size"]), number=asked.docs[0].number)]))

    async def hold(self, asked: Asked) -> Answered:
        await self.released.wait()
        return Answered(asked.docs)

    async def talk(self, asked: Asked) -> AsyncIterator[Answered]:
        """The streaming endpoint: one document for each word; an error where a word is `bad`, none before `released` where it is `wait`."""
        self.asked.append(asked)
        for position, word in enumerate([] if self.forgets else asked.docs[0].text.split()):
            if word == "bad":
                yield Answered(DocList[Item](), Status.of_executor(ValueError("a bad word"), "Talker"))
                return
            if word == "wait":
                await self.released.wait()
            yield Answered(DocList[Item]([Item(text=word + asked.parameters.get("suffix", ""), number=position)]))


def body_of(docs: DocList[Item], content_type: str) -> bytes:
    return codec.encode(docs, content_type) if len(docs) else b""


def docs_of(body: bytes, content_type: str) -> DocList[Item]:
    found: DocList[Item] = codec.decode(body, content_type, Item).docs if body else DocList[Item]()
    return found
