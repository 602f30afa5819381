"""`GET /results/{request_id}`: the answer of an earlier request that was to be kept, exactly as it would have come.

200 (or the status of its failure) with the answer, 202 while it is under way, 404 for an id that is unknown or has expired. With
`Accept: text/event-stream` the answer is waited for: `event: result` with the answer as data, then `event: end`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code

from .answers import print_json
from .desk import Desk
from .http_io import RESULTS, answer_headers, status_of
from .sse import PING_S

_PING = b": still working\r\n\r\n"


def results_router(desk: Desk) -> APIRouter:
    """The route, beside those for data requests."""
    router = APIRouter(tags=["Results"])

    @router.get(RESULTS + "/{request_id:path}", summary="The answer of an earlier request", response_class=Response)
    async def result(request_id: str, request: Request) -> Response:
        if "text/event-stream" not in request.headers.get("accept", ""):
            return _plain(await desk.result(request_id), time.time())
        found = await desk.result(request_id)
        if found.status.code is Code.NOT_FOUND:
            return _plain(found, time.time())
        return StreamingResponse(_events(desk, request_id), media_type="text/event-stream", headers={"cache-control": "no-cache"})

    return router


def _plain(answer: Envelope, started: float) -> Response:
    headers = {name.decode(): value.decode("latin-1") for name, value in answer_headers(answer)}
    return Response(print_json(answer, started), status_code=status_of(answer), headers=headers, media_type=JSON)


async def _events(desk: Desk, request_id: str) -> AsyncIterator[bytes]:
    waiting = asyncio.ensure_future(desk.result(request_id, wait=True))
    draining = asyncio.ensure_future(desk.view.draining.wait())
    try:
        while not (waiting.done() or draining.done()):
            await asyncio.wait((waiting, draining), timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
            if not (waiting.done() or draining.done()):
                yield _PING
        if waiting.done():
            text = print_json(waiting.result(), time.time()).replace(b"\r", b" ").replace(b"\n", b" ")
            yield b"event: result\r\ndata: %b\r\n\r\nevent: end\r\ndata: \r\n\r\n" % text
    finally:
        waiting.cancel()
        draining.cancel()
        await asyncio.gather(waiting, draining, return_exceptions=True)
