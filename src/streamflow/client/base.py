"""What the synchronous and the asynchronous client share: the arguments, and the connection."""

from __future__ import annotations

import asyncio
import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from streamflow.broker.errors import StreamflowError
from streamflow.crud import Crud
from streamflow.jobs.backend import Backend as JobBackend
from streamflow.jobs.calls import JobCalls

from .address import Address, Protocol, parse
from .connections import Connections
from .errors import BadArguments, RequestTimeout
from .headers import CONSISTENCY, KEEP
from .inputs import resolve
from .plain import parameters_of
from .plan import Callback, Pairs, Parameters, Post, checked_timeout
from .prefetch import MOST_BYTES, MOST_REQUESTS
from .results import DataRequest, element_type
from .retry import Backoff
from .tls import TlsFiles
from .transport import Ask, Transport, pairs, trace_context

if TYPE_CHECKING:
    from .letters import AsyncDeadLetters

Result = TypeVar("Result")  # what post() gives
Documents = TypeVar("Documents")  # what stream_doc() gives
One = TypeVar("One")  # what submit() gives
Many = TypeVar("Many")  # what jobs() gives
Handle = TypeVar("Handle")  # what job() gives
_log = logging.getLogger(__name__)


class ClientBase(Crud[Result], JobCalls[One, Many, Handle], Generic[Result, Documents, One, Many, Handle]):
    """See `Client` for the arguments."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | str | None = None,
        protocol: str | None = None,
        *,
        tls: bool | None = None,
        tls_ca: str | None = None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        prefetch: int = MOST_REQUESTS,
        prefetch_bytes: int = MOST_BYTES,
        show_progress: bool = False,
        proxy: bool = False,
        metadata: Pairs = None,
        grpc_channel_options: Any = None,
        **ignored: Any,
    ) -> None:
        if ignored:
            warnings.warn(f"Client(): no effect here: {', '.join(sorted(ignored))}", stacklevel=3)
        files = TlsFiles.of(tls_ca, tls_cert, tls_key)
        implied = True if files and tls is None and "://" not in host else tls
        self.address: Address = replace(parse(host, port, protocol, implied), files=files)
        if files and not self.address.tls:
            raise BadArguments(f"tls_ca, tls_cert and tls_key have no meaning for {self.address}, which is not encrypted")
        self.prefetch = prefetch
        self.prefetch_bytes = prefetch_bytes
        self.show_progress = show_progress
        self._metadata = pairs(metadata)
        self._connections = Connections(_maker(self.address, proxy, grpc_channel_options))

    def post(
        self,
        on: str,
        inputs: Any = None,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        parameters: Parameters = None,
        target_executor: str | None = None,
        request_size: int = 100,
        show_progress: bool = False,
        continue_on_error: bool = False,
        return_responses: bool = False,
        max_attempts: int = 1,
        initial_backoff: float = 0.5,
        max_backoff: float = 2.0,
        backoff_multiplier: float = 1.5,
        results_in_order: bool = False,
        stream: bool = True,
        prefetch: int | None = None,
        prefetch_bytes: int | None = None,
        return_type: Any = None,
        compression: str | None = None,
        timeout: float | None = None,
        metadata: Pairs = None,
        headers: Pairs = None,
        consistency: str | None = None,
        request_id: str | None = None,
        keep: float | None = None,
    ) -> Result:
        """Send `inputs` to endpoint `on`, in requests of `request_size` documents (all in one when <= 0).

        `inputs`: a document, a list, a DocList, an iterable, an async iterable, a function that returns one of these, or None for
        `parameters` alone. Iterables are read as requests leave: at most `prefetch` requests are open at a time, and with
        four open no further one is read while they and answers not taken yet come to `prefetch_bytes`, encoded (0 = no limit, for both).

        The synchronous client returns the documents of all answers as `return_type`, `DocList[Out]`; for a document class `Out` and one
        single result that document; with `return_responses` a list of `DataRequest`; with `on_done` or `on_always` None. Without callbacks
        all results are held in memory. The asynchronous one yields the documents of each answer, or its `DataRequest`, as it comes.
        Failed requests add no documents. Order is that of completion, or of the input with `results_in_order`.

        A failed request goes to `on_error`, else is logged with `continue_on_error`, else raises the class of its code:
        `ExecutorError` when an executor raised, `InvalidInput`, `NotFound`, `Overloaded`, ... Connection failures and passed deadlines
        always raise (`ServerUnavailable`, `RequestTimeout`: both are `ConnectionError`), after `max_attempts` with the same request id; the
        pause before attempt n + 1 is random in [0, min(initial_backoff * backoff_multiplier**(n-1), max_backoff)] seconds.

        `timeout`: seconds each attempt of a request may take. `stream=False`: independent calls instead of one stream (gRPC).
        `compression`: 'Gzip' or 'Deflate' (gRPC). `metadata` and `headers` go out as gRPC metadata or HTTP headers.
        `consistency='latest'`: replicas of a stateful executor answer reads when they have applied every write that was answered before.

        `keep`: seconds for which each answer can be fetched again, by `result(request_id)`, whatever became of this connection. Under the
        same `request_id` the same documents, ids included, then run once, however often they are sent, and others raise `AlreadyExists`.
        Of several requests the first has this id, the others "<id>-1", "<id>-2" ...
        """
        asked = {CONSISTENCY: consistency, KEEP: None if keep is None else str(keep)}
        said = (metadata, headers, {name: value for name, value in asked.items() if value})
        ask = self._ask(on, parameters, target_executor, return_type, compression, timeout, *said, unary=not stream)
        post = Post(
            ask,
            resolve(inputs),
            request_size=request_size,
            prefetch=self.prefetch if prefetch is None else prefetch,
            prefetch_bytes=self.prefetch_bytes if prefetch_bytes is None else prefetch_bytes,
            in_order=results_in_order,
            show_progress=show_progress or self.show_progress,
            continue_on_error=continue_on_error,
            return_responses=return_responses,
            bare=element_type(return_type)[1],
            backoff=Backoff(max(max_attempts, 1), initial_backoff, max_backoff, backoff_multiplier),
            on_done=on_done,
            on_error=on_error,
            on_always=on_always,
            request_id=request_id or "",
        )
        return self._run(post)

    def stream_doc(
        self,
        on: str,
        inputs: Any = None,
        parameters: Parameters = None,
        target_executor: str | None = None,
        return_type: Any = None,
        compression: str | None = None,
        timeout: float | None = None,
        metadata: Pairs = None,
        headers: Pairs = None,
        max_attempts: int = 1,
        initial_backoff: float = 0.5,
        max_backoff: float = 2.0,
        backoff_multiplier: float = 1.5,
    ) -> Documents:
        """Send one document to a streaming endpoint; yields its documents as they come; leaving the loop early ends it there.

        A slow reader holds the endpoint back. With `max_attempts` above 1 a stream whose connection breaks goes on where it was; its
        endpoint then runs again and has to yield the same documents. Jina's own servers take no parameters over HTTP, and do not stream
        over WebSocket. Raises as `post` does, after the documents that came before.
        """
        ask = self._ask(on, parameters, target_executor, return_type, compression, timeout, metadata, headers)
        backoff = Backoff(max(max_attempts, 1), initial_backoff, max_backoff, backoff_multiplier)
        return self._stream(Post(ask, resolve(inputs), backoff=backoff))

    @abstractmethod
    def _run(self, post: Post) -> Result: ...

    @abstractmethod
    def _stream(self, post: Post) -> Documents: ...

    def _ask(
        self,
        on: str,
        parameters: Parameters,
        target_executor: str | None,
        return_type: Any,
        compression: str | None,
        timeout: float | None,
        *more_metadata: Pairs,
        unary: bool = False,
    ) -> Ask:
        return Ask(
            endpoint=on,
            target_executor=target_executor or "",
            parameters=parameters_of(parameters),
            doc_type=element_type(return_type)[0],
            timeout_s=checked_timeout(timeout),
            metadata=pairs(self._metadata, *more_metadata),
            compression=compression,
            unary=unary,
            trace=trace_context(),
        )

    def _backend(self, metadata: Pairs) -> Callable[[], JobBackend]:
        said = pairs(self._metadata, metadata)
        return lambda: self._connections.get().jobs(said)

    async def _result(self, request_id: str, return_type: Any, wait: bool, timeout: float | None, metadata: Pairs) -> DataRequest | None:
        ask = self._ask("", None, None, return_type, None, timeout, metadata)
        try:
            async with asyncio.timeout(ask.timeout_s):
                response = await self._connections.get().result(ask, request_id, wait)
        except TimeoutError:
            raise RequestTimeout(f"{self.address}: no answer to request {request_id!r} within {timeout} s") from None
        if response is not None and not response.ok:
            raise response.error()
        return response

    def _letters(self, flow: str | None) -> AsyncDeadLetters:
        name = self._flow(flow)
        from .letters import AsyncDeadLetters  # loads nats

        return AsyncDeadLetters(lambda: self._connections.get().operate(name), name)

    async def _ready(self, timeout_s: float, metadata: Pairs = None) -> bool:
        try:
            await self._connections.get().ready(timeout_s, pairs(self._metadata, metadata))
        except (StreamflowError, OSError) as error:
            _log.info("not ready: %s", error)
            return False
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.address)!r})"


def _maker(address: Address, proxy: bool, grpc_channel_options: Any) -> Callable[[], Transport]:
    # Each protocol's library takes 0.1 to 0.3 s to import, so only the one that is used gets imported.
    if address.protocol is Protocol.GRPC:
        from .grpc_ import GrpcTransport
        from .grpc_channel import channel_options

        options = channel_options(grpc_channel_options)
        return lambda: GrpcTransport(address, options, proxy)
    if address.protocol is Protocol.HTTP:
        from .http_ import HttpTransport

        return lambda: HttpTransport(address, proxy)
    if address.protocol is Protocol.NATS:
        from .nats_ import NatsTransport

        return lambda: NatsTransport(address)
    from .websocket_ import WebSocketTransport

    return lambda: WebSocketTransport(address, proxy)
