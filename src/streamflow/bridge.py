"""An executor that runs elsewhere, behind a gateway of its own (FL-33): a worker of this flow that passes every request on to that address.

Routing, queueing and redelivery see an ordinary executor. Documents go through as they are, whatever their class; `__results__` and errors
of the other side come back as the executor's own. Parameters that the other side changes stay there, and an endpoint that streams answers
in one piece. An address that cannot be reached is UNAVAILABLE, after a few attempts with pauses between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from docarray import DocList
from docarray.base_doc import AnyDoc

from streamflow.broker.errors import Code, DeadlineExceeded, InvalidInput, Status, StreamflowError
from streamflow.client import AsyncClient, Client, DataRequest, ServerUnavailable
from streamflow.client.retry import Backoff
from streamflow.workers.executor import Executor, requests
from streamflow.workers.failures import EndpointError
from streamflow.workers.invoke import Context

ATTEMPTS = 3


class Anything(AnyDoc):
    """A document of any class: takes and keeps every field."""

    model_config = {**AnyDoc.model_config, "extra": "allow"}  # for its JSON schema; docarray's AnyDoc takes all fields anyway


class Bridge(Executor):
    """Passes requests on to gateways in turn: `addresses` are "host:port" or URLs, `metadata` goes with every request.

    `protocol` is grpc, http or websocket, for addresses that are no URL. `retries`: further attempts when nobody answers, -1 = the default.
    """

    def __init__(
        self,
        addresses: Sequence[str] = (),
        tls: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        protocol: str | None = None,
        retries: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not addresses:
            raise InvalidInput("a bridge needs the addresses of what it leads to")
        self._clients = [_client(address, tls, metadata, protocol) for address in addresses]
        attempts = max(ATTEMPTS, len(addresses)) if retries < 0 else retries + 1
        self._backoff = Backoff(attempts, 0.1, 2.0, 2.0)
        self._turn = 0

    @requests
    async def pass_on(
        self, docs: DocList[Anything], parameters: dict[str, Any], context: Context, **_kwargs: Any
    ) -> DocList[Anything] | dict[str, Any]:
        answer = await self._answer(docs, parameters, context)
        if _has_no_such_endpoint(answer, context.endpoint):
            return docs
        if not answer.ok:
            raise EndpointError(answer.status)
        results = answer.results
        if not results:
            return answer.docs
        docs[:] = answer.docs
        return next(iter(results.values())) if len(results) == 1 else results

    async def _answer(self, docs: DocList[Anything], parameters: dict[str, Any], context: Context) -> DataRequest:
        """The other side's answer, whatever it says. Raises `EndpointError` when there is none."""
        for attempt in range(1, self._backoff.max_attempts + 1):
            client = self._next_client()
            try:
                return await _ask(client, docs, parameters, context)
            except StreamflowError as error:
                if attempt == self._backoff.max_attempts or not isinstance(error, ServerUnavailable):
                    raise EndpointError(self._status(error, client)) from error
            await asyncio.sleep(self._backoff.pause_s(attempt))
        raise AssertionError("there is at least one attempt")

    def _next_client(self) -> AsyncClient:
        self._turn = (self._turn + 1) % len(self._clients)
        return self._clients[self._turn]

    def _status(self, error: StreamflowError, client: AsyncClient) -> Status:
        name = self.runtime_args.name
        return Status(
            error.code, f"external executor {name!r} at {client.address}: {error}", type(error).__name__, (str(error),), executor=name
        )


def _client(address: str, tls: bool | None, metadata: Mapping[str, str] | None, protocol: str | None) -> AsyncClient:
    if "://" in address:
        protocol = None
    return Client(address, protocol=protocol, asyncio=True, tls=tls, metadata=metadata, prefetch=0)


async def _ask(client: AsyncClient, docs: DocList[Anything], parameters: dict[str, Any], context: Context) -> DataRequest:
    """One request with all of `docs`, within what is left of the deadline."""
    timeout_s = context.remaining_s()
    if timeout_s is not None and timeout_s <= 0:
        raise DeadlineExceeded("the deadline of the request has passed")
    answers = client.post(
        context.endpoint,
        docs if len(docs) else None,
        on_error=_leave,  # an answer that says what failed is an answer
        parameters=parameters,
        request_size=0,
        return_responses=True,
        return_type=DocList[Anything],
        timeout=timeout_s,
    )
    (answer,) = [answer async for answer in answers]
    assert isinstance(answer, DataRequest)
    return answer


def _has_no_such_endpoint(answer: DataRequest, endpoint: str) -> bool:
    """Whether the gateway refused the endpoint; then the documents pass by, as by any executor that lacks it. gRPC gateways do not ask."""
    return answer.status.code is Code.NOT_FOUND and f"no endpoint {endpoint!r}" in answer.status.description


def _leave(_answer: DataRequest) -> None: ...
