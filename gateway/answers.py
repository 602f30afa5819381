"""Answer envelopes as JSON (HTTP, SSE, WebSocket): the worker's documents as they came, the small rest printed around them.

Shape: Jina's `{"data", "parameters", "header", "routes"}`, camelCase, ISO times in UTC. A failure has the same shape plus `detail`
(a sentence), `code` (our wire code), and `executor`, `replica` and `attempt` when it got as far as an executor.
"""

from __future__ import annotations

import base64
import time
from functools import lru_cache
from typing import Any

import orjson

from streamflow.broker.envelope import EMPTY, JSON, Envelope, Hop
from streamflow.broker.errors import Code, Status

from .keeping import is_pending

GATEWAY = "gateway"
_EXACT_INT = 1 << 53
_OPTIONS = orjson.OPT_NON_STR_KEYS
_NO_DOCUMENTS = (b"", b"[]")


def request_id(envelope: Envelope) -> str:
    """The id to answer with: the client's own, else ours."""
    return envelope.client_id or envelope.request_id


def parameters(envelope: Envelope) -> dict[str, Any]:
    """The answer's parameters, what executors returned as dicts under `__results__`; integers as floats, as protobuf's Struct has them."""
    if not envelope.parameters and not envelope.results:
        return {}
    values = {**envelope.parameters, "__results__": envelope.results} if envelope.results else envelope.parameters
    printed: dict[str, Any] = plain(values)
    return printed


def plain(value: Any) -> Any:
    """`value` with only what JSON and Struct know: integers as floats while exact, bytes in base64."""
    if isinstance(value, (str, bool, float)) or value is None:
        return value
    if isinstance(value, int):
        return float(value) if -_EXACT_INT <= value <= _EXACT_INT else value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return str(value)


def hops(envelope: Envelope, started: float) -> tuple[Hop, ...]:
    """The trail with this gateway as its first stop; `started`: when the request came in (Unix seconds), 0.0 = it came another way."""
    trail = envelope.trail
    if not started or trail and trail[0].executor == GATEWAY:
        return trail
    return (Hop(GATEWAY, "", 0.0, started, time.time()), *trail)


def answer(envelope: Envelope, started: float) -> bytes:
    """The JSON answer for an OK envelope; an INTERNAL failure when its body is not JSON after all."""
    if envelope.content_type not in (JSON, EMPTY):
        text = f"the answer came as {envelope.content_type!r}, not as JSON"
        return failure(envelope._replace(status=Status(Code.INTERNAL, text)), started)
    return b"".join((b'{"data":', envelope.body or b"[]", b",", _rest(envelope, started, None)[1:]))


def failure(envelope: Envelope, started: float) -> bytes:
    """The JSON answer for an envelope whose status is an error."""
    status = envelope.status
    head = _dump({"detail": status.description or status.code.value, "code": status.code.value, **place_of(envelope), "data": []})
    return b"".join((head[:-1], b",", _rest(envelope, started, status_json(status))[1:]))


def place_of(envelope: Envelope) -> dict[str, Any]:
    """`executor`, `replica` and `attempt` (from 1) at which a request ended; {} for one that never got to an executor."""
    last = envelope.trail[-1] if envelope.trail else None
    if last is None or last.executor == GATEWAY:
        return {}
    return {"executor": last.executor, "replica": last.replica, "attempt": last.attempt}


def print_json(envelope: Envelope, started: float) -> bytes:
    """The JSON answer for any envelope."""
    return answer(envelope, started) if envelope.status.code is Code.OK else failure(envelope, started)


def status_json(status: Status) -> dict[str, Any]:
    """`StatusProto` as JSON: code 0 or 1, a sentence, the exception or null."""
    if status.code is Code.OK:
        return {"code": 0, "description": status.description, "exception": None}
    exception = {"name": status.exception, "args": status.args, "stacks": status.stacks, "executor": status.executor}
    return {"code": 1, "description": status.description, "exception": exception}


def document(body: bytes | memoryview) -> bytes:
    """The one document of a stream part's body `[{...}]`, without the brackets; empty when the part has none."""
    text = bytes(body).strip()
    return b"" if text in _NO_DOCUMENTS else text[1:-1].strip()


def _rest(envelope: Envelope, started: float, status: dict[str, Any] | None) -> bytes:
    header = {
        "requestId": request_id(envelope),
        "status": status,
        "execEndpoint": envelope.endpoint,
        "targetExecutor": envelope.target_executor,
    }
    routes = [
        {"executor": hop.executor, "startTime": iso(hop.enqueued or hop.started), "endTime": iso(hop.ended), "status": None}
        for hop in hops(envelope, started)
    ]
    rest: dict[str, Any] = {"parameters": parameters(envelope), "header": header, "routes": routes}
    if envelope.position >= 0:
        rest |= {"position": envelope.position, "final": envelope.final}
    if is_pending(envelope):
        rest["pending"] = True
    return _dump(rest)


def _dump(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError:  # half of a surrogate pair or an integer above 64 bits: nothing orjson prints, and no reason to lose an answer
        return orjson.dumps(_printable(value), option=_OPTIONS)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def iso(unix_s: float) -> str | None:
    """`2026-01-31T12:00:00.123456+00:00`, None for 0.0 = not there yet."""
    if not unix_s:
        return None
    second = int(unix_s)
    return f"{_second(second)}.{int((unix_s - second) * 1e6):06d}+00:00"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
