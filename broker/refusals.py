"""What JetStream says when it refuses, as errors of ours; the error's number decides, not its text (ADR-7)."""

from __future__ import annotations

import json
from typing import Any

from .errors import AlreadyExists, NotFound, Overloaded, StreamflowError, TooLarge, Unavailable

# Maximum messages or bytes exceeded; insufficient resources; account storage exceeded; as many consumers as a stream may have.
_FULL = {10077, 10023, 10047, 10026}
_TOO_LARGE = {10054}
_UNDER_WAY = 10158  # duplicate message id is in process
_NOT_FIRST = {10071, 10164}  # wrong last sequence
_NOT_DELETED = 10057  # for whatever reason, which only the text tells
_NOT_FOUND = {10014, 10037, 10059, 10149}  # consumer, message, stream, consumer of a stream


class UnderWay(StreamflowError):
    """A publish with this message id is being stored: its acknowledgement, or another try, will tell."""


def refusal(subject: str, header: bytes | None, payload: bytes) -> StreamflowError | None:
    """Why the broker did not store a publish; None when it did."""
    if header is not None and b" 503" in header[:14]:
        return Unavailable(f"no stream takes {subject}: its flow is not provisioned on this broker")
    if b'"error"' in payload:
        return error_of(json.loads(payload)["error"], subject)
    return None


def error_of(error: dict[str, Any], where: str) -> StreamflowError:
    """Our error for a JetStream API error."""
    code, text = error.get("err_code", 0), error.get("description", "unknown error")
    if code in _FULL:
        return Overloaded(f"the queue is full ({text})")
    if code in _TOO_LARGE:
        return TooLarge(f"message refused by the broker ({text})")
    if code == _UNDER_WAY:
        return UnderWay(f"{where}: {text}")
    if code in _NOT_FIRST:
        return AlreadyExists(f"{where} is taken")
    if code in _NOT_FOUND or (code == _NOT_DELETED and "no message found" in text):
        return NotFound(f"{where}: {text}")
    if error.get("code") == 503:
        return Unavailable(f"{where}: {text}")
    return StreamflowError(f"{where}: {text} ({code})")
