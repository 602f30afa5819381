"""What a client may ask of the answer itself: that it is kept, and whether to wait for it.

`x-streamflow-keep: <seconds>` (HTTP header, also when a WebSocket is opened, and gRPC metadata; `keep` in a JSON message on a WebSocket):
the answer can be fetched again for so long. `Prefer: respond-async` (RFC 7240; `"prefer"` on a WebSocket): do not wait for it at all.
The request id that the client sent is the name under which it is found, and under which the request runs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import InvalidInput

if TYPE_CHECKING:
    from .dispatch import Call

NAME = "x-streamflow-keep"
PREFER = "prefer"
_RESPOND_ASYNC = "respond-async"
HEADERS = (NAME.encode(), PREFER.encode())
_PENDING = "pending"


def read_headers(call: Call, headers: Mapping[bytes, bytes]) -> None:
    """Note in `call` what the headers ask for. Raises `InvalidInput`."""
    keep, prefer = (headers.get(name) for name in HEADERS)
    if keep is not None:
        call.keep_s = keep_s_of(keep.decode("latin-1"))
    if prefer is not None:
        call.detached = _wants_no_wait(prefer.decode("latin-1"))


def read_message(call: Call, message: bytes) -> None:
    """The same of a JSON message, which wins. Raises `InvalidInput`."""
    if b'"keep"' not in message and b'"prefer"' not in message:
        return
    fields = orjson.loads(message)
    keep, prefer = fields.get("keep"), fields.get(PREFER)
    if keep is not None:
        call.keep_s = keep_s_of(keep)
    if prefer is not None:
        call.detached = _wants_no_wait(str(prefer))


def keep_s_of(value: object) -> float:
    """Seconds to keep an answer. Raises `InvalidInput`."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < 1e9:
        raise InvalidInput(f"{NAME}: must be a number of seconds of 1 or more")
    return seconds


def _wants_no_wait(prefer: str) -> bool:
    return _RESPOND_ASYNC in (each.partition(";")[0].strip().lower() for each in prefer.split(","))


def pending(envelope: Envelope) -> Envelope:
    """What stands for the answer while the request is under way."""
    return envelope._replace(reply="", record="", body=b"", content_type="", extra={_PENDING: True})


def is_pending(envelope: Envelope) -> bool:
    return _PENDING in envelope.extra
