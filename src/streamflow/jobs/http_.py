"""Jobs over HTTP: `/jobs` of a gateway. Requests go up as lines of JSON, results come back as server-sent events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp
import orjson
from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker.envelope import JSON
from streamflow.broker.errors import OK, InvalidInput, StreamflowError
from streamflow.broker.job_records import Input, Order, State
from streamflow.broker.subjects import token
from streamflow.client.address import Address
from streamflow.client.errors import ServerUnavailable
from streamflow.client.json_wire import error_from, failure, json_object, routes
from streamflow.client.results import Header, Parts
from streamflow.client.sse import events
from streamflow.client.transport import CONNECT_S, Metadata

from .backend import Again, Watched
from .status import JobResponse, JobStatus

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
_LOST = (aiohttp.ClientError, TimeoutError, OSError)


class HttpJobs:
    """See `backend.Backend`."""

    content_type = JSON

    def __init__(self, address: Address, session: aiohttp.ClientSession, base: str, metadata: Metadata) -> None:
        self._address = address
        self._session = session
        self._base = base
        self._headers = dict(metadata)

    async def submit(self, order: Order, inputs: AsyncIterator[Input]) -> JobStatus:
        asked = {
            "on": order.endpoint, "flow": order.flow, "targetExecutor": order.target_executor, "key": order.key,
            "rate": str(order.rate), "parameters": orjson.dumps(order.parameters).decode(), "tenant": order.tenant,
        }  # fmt: skip
        watched = Watched(inputs)
        try:
            return _status(await self._ask("POST", "/jobs", asked, _lines(watched), "application/x-ndjson"))
        except (StreamflowError, asyncio.CancelledError) as error:
            raise watched.failure or error from None

    async def replay(self, again: Again) -> JobStatus:
        if again.to_flow and again.to_flow != again.flow:
            raise InvalidInput("to_flow: a gateway replays into the flow that it serves; use Client('nats://...') for another one")
        within = asdict(again.within)
        asked = {"failedOnly": again.failed_only, "fromSeq": within.pop("from_seq"), "toSeq": within.pop("to_seq"), **within}
        path = f"/jobs/{_named(again.job)}/replay" if again.job else "/jobs/replay"
        body = orjson.dumps(asked | {"rate": again.rate, "key": again.key, "tenant": again.tenant})
        return _status(await self._ask("POST", path, {}, body, JSON))

    async def status(self, flow: str, job_id: str) -> JobStatus:
        return _status(await self._ask("GET", f"/jobs/{_named(job_id)}"))

    async def control(self, flow: str, job_id: str, action: str) -> JobStatus:
        return _status(await self._ask("POST", f"/jobs/{_named(job_id)}/{action}"))

    async def newest(self, flow: str, limit: int) -> list[JobStatus]:
        return [_status(told) for told in (await self._ask("GET", "/jobs", {"limit": str(limit)}))["jobs"]]

    async def results(
        self, flow: str, job_id: str, start: int, follow: bool, doc_type: type[BaseDocWithoutId]
    ) -> AsyncGenerator[JobResponse, None]:
        asked = {"start": str(start), "follow": str(follow)}
        headers = {**self._headers, "accept": "text/event-stream"}
        url = f"{self._base}/jobs/{_named(job_id)}/results"
        try:
            async with self._session.get(url, params=asked, headers=headers, timeout=_TIMEOUT) as reply:
                if reply.status >= 300:
                    raise error_from(reply.status, json_object(await reply.read()), "")
                async for name, data in events(reply.content.iter_any()):
                    if name == "end":
                        return
                    if name == "error":
                        raise error_from(500, orjson.loads(data), "")
                    yield _response(orjson.loads(data), doc_type)
        except StreamflowError:  # some of which are ConnectionErrors
            raise
        except _LOST as error:
            raise self._lost(error) from error
        raise ServerUnavailable(f"{self._address}: the results ended before the last one")

    async def _ask(self, method: str, path: str, params: dict[str, str] | None = None, body: Any = None, content_type: str = "") -> Any:
        """The JSON object that the gateway answers. Raises the error that it tells."""
        headers = self._headers | ({"content-type": content_type} if content_type else {})
        try:
            async with self._session.request(
                method, self._base + path, params=params, data=body, headers=headers, timeout=_TIMEOUT
            ) as reply:
                answer = json_object(await reply.read())
        except _LOST as error:
            raise self._lost(error) from error
        if reply.status >= 300:
            raise error_from(reply.status, answer, "")
        return answer

    def _lost(self, error: Exception) -> ServerUnavailable:
        return ServerUnavailable(f"{self._address}: {error or type(error).__name__}")


async def _lines(inputs: AsyncIterable[Input]) -> AsyncIterator[bytes]:
    """A list of documents a line: a request each."""
    async for given in inputs:
        yield (given.body or b"[]") + b"\n"


def _named(job_id: str) -> str:
    """A job's id as it stands in a path. Raises `InvalidInput` for what cannot be one."""
    return token(job_id, "job")


def _status(told: dict[str, Any]) -> JobStatus:
    created = datetime.fromisoformat(told["created"]).timestamp() if told.get("created") else 0.0
    return JobStatus(
        told["id"], told["flow"], told["endpoint"], State(told["state"]), told["total"], told["done"], told["failed"], created,
        told.get("gone", 0), told.get("tenant", ""), told.get("waits", ""),
    )  # fmt: skip


def _response(told: dict[str, Any], doc_type: type[BaseDocWithoutId]) -> JobResponse:
    header = told["header"]
    status = OK if told.get("code") is None else failure(500, told)
    body, content_type = _documents(told)
    parts = Parts(
        Header(header["requestId"], status, header["execEndpoint"], header["targetExecutor"]),
        body,
        content_type,
        partial(dict, told.get("parameters") or {}),
        partial(routes, told),
    )
    return JobResponse(parts, doc_type, number=told["number"], cursor=told["cursor"])


def _documents(told: dict[str, Any]) -> tuple[bytes, str]:
    """Body and content type: documents of a job that was not handed in over HTTP come in a form of their own, in base64."""
    if "body" in told:
        return base64.b64decode(told["body"]), told["contentType"]
    return (orjson.dumps(told["data"]) if told.get("data") else b""), JSON
