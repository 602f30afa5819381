"""Requests over HTTP: `POST /<endpoint>` for each, server-sent events for streaming endpoints.

Every streamflow gateway serves any endpoint under its own path. Jina's serves only the listed ones, the rest under `/default` or `/post`:
when a path is refused (404, 405), `/openapi.json` is read once and the request goes where jina's own client would send it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp
import orjson

from streamflow.broker import codec
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import OK, Code, Status

from .address import Address
from .errors import RequestTimeout, ServerUnavailable, error_of, named_status
from .plain import plain, to_json
from .results import DataRequest, Header, Parts, Route
from .sse import events
from .task_link import TaskLink
from .transport import Ask, Link, Metadata, Outgoing

_CODES: dict[int, Code] = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.NOT_FOUND,
    413: Code.TOO_LARGE,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_UNLISTED = (404, 405)
_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_SHOWN = 300


class HttpTransport:
    """See `transport.Transport`. At most `connections` requests are on the wire at once; more wait here."""

    def __init__(self, address: Address, proxy: bool = False, connections: int = 100) -> None:
        self.address = address
        self._base = f"http{'s' if address.tls else ''}://{address.target}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
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
        headers = {**_headers(ask), "accept": "text/event-stream", "x-request-id": request.request_id}
        url = f"{self._base}{self.path(ask.endpoint)}"
        timeout = aiohttp.ClientTimeout(total=ask.timeout_s)
        try:
            async with self._session.get(url, data=_document(ask, request), headers=headers, timeout=timeout) as reply:
                if reply.status >= 300:
                    raise error_of(_failure(reply.status, _object(await reply.read())), request.request_id)
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
        answer = _object(body)
        if status >= 300 or answer.get("code") not in (None, 0, "SUCCESS"):
            raise ServerUnavailable(f"{self.address}: {answer.get('description') or f'HTTP {status}'}")

    async def close(self) -> None:
        await self._session.close()

    def path(self, endpoint: str) -> str:
        """Where to send requests for `endpoint`, as far as known."""
        return self._paths.get(endpoint) or f"/{endpoint.strip('/') or 'default'}"

    async def post(self, body: bytes, ask: Ask) -> tuple[int, bytes]:
        """HTTP status and body of the answer. Raises `ServerUnavailable` or `RequestTimeout`."""
        path = self.path(ask.endpoint)
        status, answer = await self._exchange("POST", path, body, ask)
        if status in _UNLISTED and ask.endpoint not in self._paths and not _is_ours(answer):
            self._paths[ask.endpoint] = await self._find(ask)
            if self._paths[ask.endpoint] != path:
                return await self._exchange("POST", self._paths[ask.endpoint], body, ask)
        return status, answer

    async def _find(self, ask: Ask) -> str:
        """The path of `ask.endpoint` by the rule of jina's client: its own when listed, else /default when listed, else /post."""
        async with self._listing:
            if self._listed is None:
                _, body = await self._exchange("GET", "/openapi.json", b"", ask)
                self._listed = _object(body).get("paths") or {}
        own = self.path(ask.endpoint)
        for path in (own, "/default"):
            if "post" in self._listed.get(path, ()):
                return path
        return "/post"

    async def _exchange(self, method: str, path: str, body: bytes, ask: Ask) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=ask.timeout_s)
        try:
            async with self._session.request(method, self._base + path, data=body, headers=_headers(ask), timeout=timeout) as reply:
                return reply.status, await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._lost(error, ask) from error

    def _lost(self, error: Exception, ask: Ask) -> ServerUnavailable | RequestTimeout:
        if isinstance(error, TimeoutError):
            return RequestTimeout(f"{self.address}: no answer within {ask.timeout_s} s")
        return ServerUnavailable(f"{self.address}: {error or type(error).__name__}")


class _HttpLink(TaskLink):
    def __init__(self, transport: HttpTransport, ask: Ask) -> None:
        super().__init__()
        self._transport, self._ask = transport, ask
        self._parameters = to_json(plain(ask.parameters)) if ask.parameters else b"{}"

    async def call(self, request: Outgoing) -> DataRequest:
        status, answer = await self._transport.post(self._body(request), self._ask)
        return _response(status, answer, self._ask, request.request_id)

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


def _response(status: int, answer: bytes, ask: Ask, request_id: str) -> DataRequest:
    values = _object(answer)
    outcome = OK if status < 300 else _failure(status, values)
    header = values.get("header") or {}
    parts = Parts(
        Header(header.get("requestId") or header.get("request_id") or request_id, outcome, ask.endpoint, ask.target_executor),
        answer if outcome is OK and values.get("data") else b"",
        JSON,
        partial(_dict, values.get("parameters")),
        partial(_routes, values.get("routes")),
    )
    return DataRequest(parts, ask.doc_type)


def _failure(http: int, values: dict[str, Any]) -> Status:
    """The status in an error answer: our wire code where there is one, jina's status, FastAPI's `detail`, or the HTTP code alone."""
    status = (values.get("header") or {}).get("status") or {}
    raised = status.get("exception") or {}
    detail = values.get("detail")
    text = status.get("description") or (detail if isinstance(detail, str) else orjson.dumps(detail).decode()[:_SHOWN])
    found = named_status(
        raised.get("name", ""), text, tuple(raised.get("args", ())), tuple(raised.get("stacks", ())), raised.get("executor") or ""
    )
    code = values.get("code")
    exact = Code(code) if code in set(Code) else _CODES.get(http, Code.EXECUTOR_ERROR if http in (499, 500) else Code.INTERNAL)
    return Status(exact, found.description, found.exception, found.args, found.stacks, found.executor)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; what is no JSON (a proxy's error page) becomes the text of an error."""
    try:
        values = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        values = {"detail": body[:_SHOWN].decode("utf-8", "replace")}
    return values if isinstance(values, dict) else {}


def _is_ours(body: bytes) -> bool:
    return _object(body).get("code") == Code.NOT_FOUND.value


def _part(name: str, data: str, ask: Ask, request: Outgoing) -> DataRequest | None:
    """The answer in one event, None for the end. Raises the error that an `error` event holds."""
    if name == "end":
        return None
    if name == "error":
        raise error_of(_failure(500, _object(data.encode())), request.request_id)
    parts = Parts(Header(request.request_id, OK, ask.endpoint, ask.target_executor), b"[%b]" % data.encode(), JSON)
    return DataRequest(parts, ask.doc_type)


def _headers(ask: Ask) -> dict[str, str]:
    headers = {**_HEADERS, **ask.trace, **dict(ask.metadata)}
    if ask.timeout_s:
        headers["x-streamflow-timeout-ms"] = str(ask.timeout_s * 1000)
    return headers


def _document(ask: Ask, request: Outgoing) -> bytes:
    """The body that asks a streaming endpoint: the document alone, as Jina has it; only with parameters the form of other requests."""
    documents = codec.encode(request.docs, JSON).strip()
    if not ask.parameters:
        return documents[1:-1]
    return b'{"data":%b,"parameters":%b}' % (documents, to_json(plain(ask.parameters)))


def _dict(values: Any) -> dict[str, Any]:
    return dict(values or {})


def _routes(routes: Any) -> list[Route]:
    return [Route(route.get("executor", ""), _unix(route.get("startTime")), _unix(route.get("endTime"))) for route in routes or ()]


def _unix(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
