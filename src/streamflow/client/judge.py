"""One post() on a transport: from inputs to answers that callbacks have seen, and failures that nobody handles raised."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker.errors import StreamflowError

from .address import Address
from .connections import Connections
from .diagnosis import explained
from .errors import BadArguments, ServerUnavailable
from .exchange import Exchange
from .inputs import InCaller, chunks
from .plan import Callback, Post
from .prefetch import Prefetch
from .progress import Bar
from .results import DataRequest
from .transport import Outgoing, Transport

_log = logging.getLogger(__name__)


async def answers(post: Post, connections: Connections, in_caller: InCaller | None) -> AsyncGenerator[DataRequest, None]:
    """The answers of `post`, after its callbacks have seen them. Raises for a failed one that nobody wants to handle."""
    transport = connections.get()
    total = post.requests
    link = await transport.link(post.ask, total == 1)
    source = chunks(post.inputs, post.request_size, in_caller)
    exchange = Exchange(
        link, source, prefetch=Prefetch(post.prefetch, post.prefetch_bytes), in_order=post.in_order, timeout_s=post.ask.timeout_s,
        backoff=post.backoff, request_id=post.request_id,
    )  # fmt: skip
    with Bar(total, post.show_progress) as bar:
        async with aclosing(_explained(exchange.responses(), transport.address)) as responses:
            async for response in responses:
                bar.step(response)
                await _handle(response, post, in_caller)
                yield response


async def documents(post: Post, connections: Connections) -> AsyncGenerator[Any, None]:
    """The documents of a streaming endpoint's answer.

    A connection that breaks on the way is made again, as often as the post's back-off says: the request goes out once more under the same
    id, and as many documents as have been yielded already are left out.
    """
    if not isinstance(post.inputs, BaseDocWithoutId):
        raise BadArguments(f"inputs: a streaming endpoint takes one document, got {type(post.inputs).__name__}")
    transport = connections.get()
    request = Outgoing([post.inputs])
    yielded = 0
    while True:
        request.attempts += 1
        try:
            async with aclosing(_parts(post, transport, request, yielded)) as found:
                async for doc in found:
                    yielded += 1
                    yield doc
            return
        except ServerUnavailable as error:
            if request.attempts >= post.backoff.max_attempts:
                error.request_id, error.attempts = request.request_id, request.attempts
                if yielded:
                    raise
                raise await explained(error, transport.address) from error
            _log.info("stream %s: going on after document %d: %s", request.request_id, yielded, error)
        await asyncio.sleep(post.backoff.pause_s(request.attempts))


async def _parts(post: Post, transport: Transport, request: Outgoing, skipped: int) -> AsyncGenerator[Any, None]:
    """The documents of one attempt behind the first `skipped`."""
    position = 0
    async with aclosing(transport.stream(post.ask, request)) as parts:
        async for part in parts:
            if not part.ok:
                raise part.error()
            for doc in part.docs:
                if position >= skipped:
                    yield doc
                position += 1
    if position < skipped:
        raise StreamflowError(f"the stream ended after {position} documents, {skipped} had come: its endpoint does not repeat itself")


async def _explained(responses: AsyncGenerator[DataRequest, None], address: Address) -> AsyncGenerator[DataRequest, None]:
    """`responses`; when not even a first one can be had, the error says what to change about `address`."""
    came = False
    try:
        async with aclosing(responses):
            async for response in responses:
                came = True
                yield response
    except ServerUnavailable as error:
        if came:
            raise
        raise await explained(error, address) from error


async def _handle(response: DataRequest, post: Post, in_caller: InCaller | None) -> None:
    """Callbacks in Jina's order. `on_always` sees a failed answer too, before it is raised."""
    for callback in (post.on_done if response.ok else post.on_error, post.on_always):
        if callback is not None:
            await _call(callback, response, post.continue_on_error, in_caller or _run_here)
    if not response.ok and post.on_error is None:
        error = response.error()
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
