"""Requests over HTTP: `POST /<endpoint>` for each, server-sent events for streaming endpoints.

Every streamflow gateway serves any endpoint under its own path. Jina's serves only the listed ones, the rest under `/default` or `/post`:
when a path is refused (404, 405), `/openapi.json` is read once and the request goes where jina's own client would send it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
import orjson

from streamflow.broker import codec
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import OK, StreamflowError
from streamflow.jobs.http_ import HttpJobs

from .address import Address
from .errors import BadArguments, RequestTimeout, ServerUnavailable
from .headers import REQUEST_ID, timeout_of
from .json_wire import error_from, is_ours, json_object, response
from .plain import plain, to_json
from .results import DataRequest, Header, Parts
from .sse import events
from .task_link import TaskLink
from .transport import BROKER_ONLY, CONNECT_S, Ask, Link, Metadata, Outgoing

_UNLISTED = (404, 405)
_UNDER_WAY = 202
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 1.0
MOST_CONNECTIONS = 100
_HEADERS = {"content-type": "application/json", "accept": "application/json"}


class HttpTransport:
    """See `transport.Transport`. At most `MOST_CONNECTIONS` requests are on the wire at once; more wait here."""

    def __init__(self, address: Address, proxy: bool = False) -> None:
        self.address = address
        self._base = f"http{'s' if address.tls else ''}://{address.target}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, ssl=address.files.context() if address.files else True),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=proxy,
            auto_decompress=True,
        )
        self._paths: dict[str, str] = {}  # endpoint to the path that serves it, where it is not the endpoint itself
        self._listed: dict[str, Any] | None = None
        self._listing = asyncio.Lock()

    async def link(self, ask: Ask, single: bool) -> Link:
        return _HttpLink(self, ask)

    async def stream(self, ask: Ask, request: Outgoing) -> AsyncGenerator[DataRequest, None]:
        headers = {**_headers(ask), "accept": "text/event-stream", REQUEST_ID: request.request_id}
        url = f"{self._base}{self.path(ask.endpoint)}"
        timeout = aiohttp.ClientTimeout(total=ask.timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._session.get(url, data=_document(ask, request), headers=headers, timeout=timeout) as reply:
                if reply.status >= 300:
                    raise error_from(reply.status, json_object(await reply.read()), request.request_id)
                if _is_more_than_a_document(ask) and REQUEST_ID not in reply.headers:
                    raise StreamflowError(f"{self.address}: this server takes no parameters for a stream over HTTP: use gRPC")
                async for name, data in events(reply.content.iter_any()):
                    part = _part(name, data, ask, request)
                    if part is None:
                        return
                    yield part
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error, ask) from error
        raise ServerUnavailable(f"{self.address}: the stream ended before its last part (request {request.request_id})")

    async def ready(self, timeout_s: float, metadata: Metadata) -> None:
        ask = Ask("/dry_run", timeout_s=timeout_s, metadata=metadata)
        status, body = await self._exchange("GET", "/dry_run", b"", ask)
        if status in _UNLISTED:  # a single jina Executor over HTTP has its health check only
            status, body = await self._exchange("GET", "/", b"", ask)
        answer = json_object(body)
        if status >= 300 or answer.get("code") not in (None, 0, "SUCCESS"):
            raise ServerUnavailable(f"{self.address}: {answer.get('description') or f'HTTP {status}'}")

    async def result(self, ask: Ask, request_id: str, wait: bool) -> DataRequest | None:
        path = f"/results/{quote(request_id, safe='')}"
        pause_s = FIRST_LOOK_S
        while True:
            status, body = await self._exchange("GET", path, b"", ask)
            if status != _UNDER_WAY:
                return response(status, body, ask, request_id)
            if not wait:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_LOOK_S)

    async def operate(self, flow: str) -> NoReturn:
        raise BadArguments(f"{self.address}: {BROKER_ONLY}")

    def jobs(self, metadata: Metadata) -> HttpJobs:
        return HttpJobs(self.address, self._session, self._base, metadata)

    async def close(self) -> None:
        await self._session.close()

    def path(self, endpoint: str) -> str:
        """Where to send requests for `endpoint`, as far as known."""
        return self._paths.get(endpoint) or f"/{endpoint.strip('/') or 'default'}"

    async def post(self, body: bytes, ask: Ask) -> tuple[int, bytes]:
        """HTTP status and body of the answer. Raises `ServerUnavailable` or `RequestTimeout`."""
        path = self.path(ask.endpoint)
        status, answer = await self._exchange("POST", path, body, ask)
        if status in _UNLISTED and ask.endpoint not in self._paths and not is_ours(answer):
            self._paths[ask.endpoint] = await self._find(ask)
            if self._paths[ask.endpoint] != path:
                return await self._exchange("POST", self._paths[ask.endpoint], body, ask)
        return status, answer

    async def _find(self, ask: Ask) -> str:
        """The path of `ask.endpoint` by the rule of jina's client: its own when listed, else /default when listed, else /post."""
        async with self._listing:
            if self._listed is None:
                _, body = await self._exchange("GET", "/openapi.json", b"", ask)
                self._listed = json_object(body).get("paths") or {}
        own = self.path(ask.endpoint)
        for path in (own, "/default"):
            if "post" in self._listed.get(path, ()):
                return path
        return "/post"

    async def _exchange(self, method: str, path: str, body: bytes, ask: Ask) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=ask.timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._session.request(method, self._base + path, data=body, headers=_headers(ask), timeout=timeout) as reply:
                return reply.status, await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error, ask) from error

    def _lost(self, error: Exception, ask: Ask) -> ServerUnavailable | RequestTimeout:
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
            return RequestTimeout(f"{self.address}: no answer within {ask.timeout_s} s")
        return ServerUnavailable(f"{self.address}: {error or type(error).__name__}")


class _HttpLink(TaskLink):
    def __init__(self, transport: HttpTransport, ask: Ask) -> None:
        super().__init__()
        self._transport, self._ask = transport, ask
        self._parameters = to_json(plain(ask.parameters)) if ask.parameters else b"{}"

    async def encode(self, request: Outgoing) -> None:
        if not request.body:
            request.keep(self._body(request), JSON)

    async def call(self, request: Outgoing) -> DataRequest:
        status, answer = await self._transport.post(request.body, self._ask)
        return response(status, answer, self._ask, request.request_id)

    def _body(self, request: Outgoing) -> bytes:
        # `header` first, and routing keys nowhere else: a streamflow gateway then reads it without parsing the documents.
        header = orjson.dumps(
            {
                "request_id": request.request_id,
                "exec_endpoint": self._ask.endpoint,
                "target_executor": self._ask.target_executor or None,
            }
        )
        documents = codec.encode(request.docs, JSON) if request.docs else b"[]"
        return b"".join((b'{"header":', header, b',"parameters":', self._parameters, b',"data":', documents, b"}"))


def _part(name: str, data: str, ask: Ask, request: Outgoing) -> DataRequest | None:
    """The answer in one event, None for the end. Raises the error that an `error` event holds."""
    if name == "end":
        return None
    if name == "error":
        raise error_from(500, json_object(data.encode()), request.request_id)
    parts = Parts(Header(request.request_id, OK, ask.endpoint, ask.target_executor), b"[%b]" % data.encode(), JSON)
    return DataRequest(parts, ask.doc_type)


def _headers(ask: Ask) -> dict[str, str]:
    return {**_HEADERS, **ask.trace, **dict(ask.metadata), **dict(timeout_of(ask))}


def _is_more_than_a_document(ask: Ask) -> bool:
    return bool(ask.parameters or ask.target_executor)


def _document(ask: Ask, request: Outgoing) -> bytes:
    """The body that asks a streaming endpoint: the document alone, as Jina has it; the form of other requests where more is to be said."""
    documents = request.encoded(JSON).strip()
    if not _is_more_than_a_document(ask):
        return documents[1:-1]
    target = orjson.dumps(ask.target_executor or None)
    return b'{"data":%b,"targetExecutor":%b,"parameters":%b}' % (documents, target, to_json(plain(ask.parameters)))
