"""Jobs over HTTP: `POST /jobs` with lines of JSON, then state, results, control and replay below `/jobs/{id}`.

A body of `application/x-ndjson` is stored as it comes, so that its size does not matter; `application/json` is read whole. Results are
lines of JSON, or with `Accept: text/event-stream` events whose ids are cursors: a browser that loses its connection goes on by itself.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from streamflow.broker.envelope import EMPTY, JSON
from streamflow.broker.errors import InvalidInput, StreamflowError
from streamflow.broker.job_results import Result
from streamflow.broker.jobs import Progress
from streamflow.broker.json_lines import Faults, JsonLines
from streamflow.broker.replay import Range

from .answers import failure, iso, print_json
from .desk import refused
from .http_io import UnsupportedType
from .jobs_desk import DEFAULT_LIMIT, JobDesk, action_of
from .jobs_inputs import LINES, bounded, flag, from_lines, from_list, number, order_of, text
from .sse import PING_S
from .status import outcome, retry_after_s

_GONE_STATUS = 499  # nobody reads it: the client left
Handler: TypeAlias = Callable[..., Awaitable[Response]]


def jobs_router(desk: JobDesk, max_request_bytes: int) -> APIRouter:
    """The routes. No request of a job may be larger than `max_request_bytes`, whatever the size of the job."""
    router = APIRouter(prefix="/jobs", tags=["Jobs"])
    routes = _Routes(desk, max_request_bytes)
    for method, path, handler, summary in (
        ("POST", "", routes.submit, "Store the inputs of a job; its id at once"),
        ("GET", "", routes.newest, "The newest jobs"),
        ("POST", "/replay", routes.replay, "Run stored requests of the journal again"),
        ("GET", "/{job_id}", routes.status, "How far a job is"),
        ("GET", "/{job_id}/results", routes.results, "Results as they are recorded, lines of JSON or events"),
        ("POST", "/{job_id}/replay", routes.replay, "Run the inputs of a job again"),
        ("POST", "/{job_id}/{action}", routes.control, "pause, resume or cancel"),
    ):
        router.add_api_route(path, _answering(handler), methods=[method], summary=summary, response_class=Response)
    return router


class _Routes:
    def __init__(self, desk: JobDesk, limit_bytes: int) -> None:
        self._desk = desk
        self._limit_bytes = limit_bytes

    async def submit(self, request: Request) -> Response:
        faults = Faults(strict=flag(request.query_params, "strict"))
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind in LINES:
            order, size = order_of(request.query_params, self._desk.flow)
            inputs = from_lines(request.stream(), JsonLines(size, faults), faults, self._limit_bytes)
        elif kind == JSON:
            body = await self._object(request)
            order, size = order_of({**request.query_params, **body}, self._desk.flow)
            inputs = from_list(body.get("data"), JsonLines(size, faults), faults)
        else:
            raise UnsupportedType(f"content-type {kind[:100]!r}: send {LINES[0]} or {JSON}")
        progress = await self._desk.submit(order, inputs)
        skipped = {"count": faults.count, "lines": [{"line": fault.line, "reason": fault.reason} for fault in faults.first]}
        return _accepted(_shown(progress) | {"skipped": skipped})

    async def newest(self, request: Request) -> Response:
        limit = int(number(request.query_params, "limit", DEFAULT_LIMIT))
        return _json({"jobs": [_shown(progress) for progress in await self._desk.newest(limit)]})

    async def status(self, request: Request) -> Response:
        return _json(_shown(await self._desk.status(request.path_params["job_id"])))

    async def control(self, request: Request) -> Response:
        action = action_of(request.path_params["action"])
        return _json(_shown(await self._desk.control(request.path_params["job_id"], action)))

    async def replay(self, request: Request) -> Response:
        asked = {**request.query_params, **await self._object(request)}
        within = Range(
            number(asked, "since"), number(asked, "until"), int(number(asked, "fromSeq")), int(number(asked, "toSeq"))
        )  # fmt: skip
        progress, made = await self._desk.replay(
            request.path_params.get("job_id", ""), flag(asked, "failedOnly"), within, number(asked, "rate"), text(asked, "key"),
            text(asked, "tenant"),
        )  # fmt: skip
        return _accepted(_shown(progress) | {"gone": made.gone})

    async def results(self, request: Request) -> Response:
        """The job is looked up first, so that an unknown one is a plain 404."""
        wants_events = "text/event-stream" in request.headers.get("accept", "")
        start = int(number({"start": request.headers.get("last-event-id") or 0, **request.query_params}, "start"))
        job = await self._desk.job(request.path_params["job_id"])
        found = self._desk.results(job, start, follow=flag(request.query_params, "follow", default=True))
        if wants_events:
            return StreamingResponse(_events(found), media_type="text/event-stream", headers={"cache-control": "no-cache"})
        return StreamingResponse(_lines(found), media_type=LINES[0])

    async def _object(self, request: Request) -> dict[str, Any]:
        """The JSON object in the body, {} when there is none."""
        body = b"".join([chunk async for chunk in bounded(request.stream(), self._limit_bytes)])
        try:
            values = orjson.loads(body) if body.strip() else {}
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"the body is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise InvalidInput("the body must be a JSON object")
        return values


def _answering(handler: Handler) -> Handler:
    """`handler`, with errors answered in the form that data requests have."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=_GONE_STATUS)
        except StreamflowError as error:
            envelope = refused(error, client_id=request.headers.get("x-request-id", ""))
            said = outcome(error.code)
            headers = {"retry-after": str(retry_after_s(envelope.status))} if said.retry else {}
            status = 415 if isinstance(error, UnsupportedType) else said.http
            return Response(failure(envelope, 0.0), status_code=status, headers=headers, media_type=JSON)

    answer.__name__ = handler.__name__
    return answer


def _shown(progress: Progress) -> dict[str, Any]:
    job = progress.job
    return {
        "id": job.id, "flow": job.flow, "endpoint": job.endpoint, "state": progress.state.value, "total": job.total,
        "done": progress.done, "failed": progress.failed, "gone": progress.gone, "created": iso(job.created), "tenant": job.tenant,
        "waits": progress.waits,
    }  # fmt: skip


def _json(values: dict[str, Any]) -> Response:
    return Response(orjson.dumps(values), media_type=JSON)


def _accepted(values: dict[str, Any]) -> Response:
    return Response(orjson.dumps(values), status_code=202, headers={"location": f"/jobs/{values['id']}"}, media_type=JSON)


async def _lines(found: AsyncGenerator[Result, None]) -> AsyncIterator[bytes]:
    async with aclosing(found):
        try:
            async for result in found:
                yield b"%b\n" % _printed(result)
        except StreamflowError as error:  # the head of the answer is out: a last line says why there is no more
            yield b"%b\n" % failure(refused(error), 0.0)


async def _events(found: AsyncGenerator[Result, None]) -> AsyncIterator[bytes]:
    try:
        async with aclosing(_with_pings(found)) as results:
            async for result in results:
                if result is None:
                    yield b": still running\r\n\r\n"
                else:
                    yield b"id: %d\r\nevent: result\r\ndata: %b\r\n\r\n" % (result.cursor, _printed(result))
        yield b"event: end\r\ndata: \r\n\r\n"
    except StreamflowError as error:
        yield b"event: error\r\ndata: %b\r\n\r\n" % failure(refused(error), 0.0)


async def _with_pings(found: AsyncGenerator[Result, None]) -> AsyncGenerator[Result | None, None]:
    """The results, and None whenever there was none for `PING_S`, since proxies close silent connections."""
    upcoming: asyncio.Future[Result | None] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(found, None))
            await asyncio.wait({upcoming}, timeout=PING_S)
            if not upcoming.done():
                yield None
                continue
            result, upcoming = upcoming.result(), None
            if result is None:
                return
            yield result
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await found.aclose()


def _printed(result: Result) -> bytes:
    """One result as JSON: an answer with its number and cursor. Documents that are not JSON stay encoded, in base64."""
    envelope = result.envelope
    head: dict[str, Any] = {"number": result.number, "cursor": result.cursor}
    if envelope.content_type not in (JSON, EMPTY):
        head |= {"contentType": envelope.content_type, "body": base64.b64encode(envelope.body).decode()}
        envelope = envelope._replace(content_type=EMPTY, body=b"")
    answer = print_json(envelope, 0.0).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"%b,%b" % (orjson.dumps(head)[:-1], answer[1:])
