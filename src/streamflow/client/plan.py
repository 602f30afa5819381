"""The arguments of one post(), checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from pydantic import BaseModel

from .errors import BadArguments
from .inputs import known_length
from .prefetch import MOST_BYTES, MOST_REQUESTS
from .results import DataRequest
from .retry import Backoff
from .transport import Ask

Callback = Callable[[DataRequest], Any]
Parameters = Mapping[str, Any] | BaseModel | None
Pairs = Mapping[str, str] | Iterable[tuple[str, str]] | None


class ClientOptions(TypedDict, total=False):
    """The keywords of `Client()` beyond the address, for type checkers; `base.ClientBase` has the defaults."""

    tls: bool | None
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    prefetch: int
    prefetch_bytes: int
    show_progress: bool
    proxy: bool
    metadata: Pairs
    grpc_channel_options: Any


@dataclass(frozen=True, slots=True)
class Post:
    """One post() or stream_doc(): what every request says (`ask`), where the documents come from, what happens to the answers."""

    ask: Ask
    inputs: Any = None
    request_size: int = 100
    prefetch: int = MOST_REQUESTS
    prefetch_bytes: int = MOST_BYTES
    in_order: bool = False
    show_progress: bool = False
    continue_on_error: bool = False
    return_responses: bool = False
    bare: bool = False  # return_type is a document class: one single result is returned without a list
    backoff: Backoff = field(default_factory=Backoff)
    on_done: Callback | None = None
    on_error: Callback | None = None
    on_always: Callback | None = None
    request_id: str = ""  # "" = each request gets an id of its own

    @property
    def requests(self) -> int | None:
        """How many requests there will be, None when only reading the inputs would tell."""
        length = known_length(self.inputs)
        if length is None:
            return None
        return 1 if self.inputs is None else -(-length // self.request_size) if self.request_size > 0 else min(length, 1)


def checked_timeout(timeout: float | None) -> float | None:
    """`timeout` in seconds. Raises `BadArguments` unless it is above 0."""
    if timeout is not None and timeout <= 0:
        raise BadArguments(f"timeout {timeout!r}: expected seconds above 0")
    return timeout
