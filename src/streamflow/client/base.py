"""What the synchronous and the asynchronous client share: settings, the connection, and one post() from inputs to judged answers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from docarray.base_doc.doc import BaseDocWithoutId
from pydantic import BaseModel

from streamflow.broker.errors import StreamflowError

from .address import Address, Protocol, parse
from .connections import Connections
from .errors import BadArguments, error_of
from .exchange import Exchange
from .inputs import InCaller, chunks, known_length, resolve
from .plain import parameters_of
from .progress import Bar
from .results import DataRequest, element_type
from .retry import Backoff
from .transport import Ask, Outgoing, Transport, pairs, trace_context

Callback = Callable[[DataRequest], Any]
Parameters = Mapping[str, Any] | BaseModel | None
Pairs = Mapping[str, str] | Iterable[tuple[str, str]] | None
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Post:
    """The arguments of one post(), checked."""

    ask: Ask
    inputs: Any = None
    request_size: int = 100
    prefetch: int = 1000
    in_order: bool = False
    show_progress: bool = False
    continue_on_error: bool = False
    return_responses: bool = False
    bare: bool = False  # return_type is a document class: one single result is returned without a list
    backoff: Backoff = field(default_factory=Backoff)
    on_done: Callback | None = None
    on_error: Callback | None = None
    on_always: Callback | None = None

    @property
    def requests(self) -> int | None:
        """How many requests there will be, None when only reading the inputs would tell."""
        length = known_length(self.inputs)
        if length is None:
            return None
        return 1 if self.inputs is None else -(-length // self.request_size) if self.request_size > 0 else min(length, 1)


class ClientBase:
    """See `Client` for the arguments."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | str | None = None,
        protocol: str | None = None,
        *,
        tls: bool | None = None,
        prefetch: int = 1000,
        show_progress: bool = False,
        proxy: bool = False,
        metadata: Pairs = None,
        grpc_channel_options: Any = None,
        **ignored: Any,
    ) -> None:
        if ignored:
            warnings.warn(f"Client(): no effect here: {', '.join(sorted(ignored))}", stacklevel=3)
        self.address: Address = parse(host, port, protocol, tls)
        self.prefetch = prefetch
        self.show_progress = show_progress
        self._metadata = pairs(metadata)
        self._connections = Connections(_maker(self.address, proxy, grpc_channel_options))

    def _plan(
        self,
        on: str,
        inputs: Any = None,
        *,
        parameters: Parameters = None,
        target_executor: str | None = None,
        return_type: Any = None,
        timeout: float | None = None,
        metadata: Pairs = None,
        headers: Pairs = None,
        compression: str | None = None,
        stream: bool = True,
        prefetch: int | None = None,
        show_progress: bool = False,
        **rest: Any,
    ) -> Post:
        doc_type, bare = element_type(return_type)
        if timeout is not None and timeout <= 0:
            raise BadArguments(f"timeout {timeout!r}: expected seconds above 0")
        ask = Ask(
            endpoint=on,
            target_executor=target_executor or "",
            parameters=parameters_of(parameters),
            doc_type=doc_type,
            timeout_s=timeout,
            metadata=pairs(self._metadata, metadata, headers),
            compression=compression,
            unary=not stream,
            trace=trace_context(),
        )
        return Post(
            ask,
            resolve(inputs),
            bare=bare,
            prefetch=self.prefetch if prefetch is None else prefetch,
            show_progress=show_progress or self.show_progress,
            **rest,
        )

    async def _answers(self, post: Post, in_caller: InCaller | None) -> AsyncGenerator[DataRequest, None]:
        """The answers of `post`, after its callbacks have seen them. Raises for a failed one that nobody wants to handle."""
        total = post.requests
        link = await self._connections.get().link(post.ask, total == 1)
        source = chunks(post.inputs, post.request_size, in_caller)
        exchange = Exchange(
            link, source, prefetch=post.prefetch, in_order=post.in_order, timeout_s=post.ask.timeout_s, backoff=post.backoff
        )
        with Bar(total, post.show_progress) as bar:
            async with aclosing(exchange.responses()) as responses:
                async for response in responses:
                    bar.step(response)
                    await _handle(response, post, in_caller)
                    yield response

    async def _streamed(self, post: Post) -> AsyncGenerator[Any, None]:
        """The documents of a streaming endpoint's answer."""
        if not isinstance(post.inputs, BaseDocWithoutId):
            raise BadArguments(f"inputs: a streaming endpoint takes one document, got {type(post.inputs).__name__}")
        parts = self._connections.get().stream(post.ask, Outgoing([post.inputs]))
        async with aclosing(parts):
            async for part in parts:
                if not part.ok:
                    raise error_of(part.status, part.request_id)
                for doc in part.docs:
                    yield doc

    async def _ready(self, timeout_s: float, metadata: Pairs = None) -> bool:
        try:
            await self._connections.get().ready(timeout_s, pairs(self._metadata, metadata))
        except (StreamflowError, OSError) as error:
            _log.info("not ready: %s", error)
            return False
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.address)!r})"


async def _handle(response: DataRequest, post: Post, in_caller: InCaller | None) -> None:
    """Callbacks in Jina's order. `on_always` sees a failed answer too, before it is raised."""
    for callback in (post.on_done if response.ok else post.on_error, post.on_always):
        if callback is not None:
            await _call(callback, response, post.continue_on_error, in_caller or _run_here)
    if not response.ok and post.on_error is None:
        error = error_of(response.status, response.request_id)
        if not post.continue_on_error:
            raise error
        _log.error("%s", error)


async def _call(callback: Callback, response: DataRequest, keep_going: bool, run: InCaller) -> None:
    try:
        await run(callback, response)
    except Exception:
        if not keep_going:
            raise
        _log.exception("callback for request %s", response.request_id)


async def _run_here(function: Callable[..., Any], *arguments: Any) -> Any:
    result = function(*arguments)
    return await result if isinstance(result, Awaitable) else result


def _maker(address: Address, proxy: bool, grpc_channel_options: Any) -> Callable[[], Transport]:
    # Each protocol's library takes 0.1 to 0.3 s to import, so only the one that is used gets imported.
    if address.protocol is Protocol.GRPC:
        from .grpc_ import GrpcTransport, channel_options

        options = channel_options(grpc_channel_options)
        return lambda: GrpcTransport(address, options, proxy)
    if address.protocol is Protocol.HTTP:
        from .http_ import HttpTransport

        return lambda: HttpTransport(address, proxy)
    from .websocket_ import WebSocketTransport

    return lambda: WebSocketTransport(address, proxy)
