"""What a client may ask of reads of stateful executors: `latest` = they see every write that was answered before (default: `any`).

HTTP header (also when a WebSocket is opened) and gRPC metadata `x-streamflow-consistency`; in a JSON message on a WebSocket the field
`consistency`.
"""

from __future__ import annotations

import orjson

from streamflow.broker.errors import InvalidInput

NAME = "x-streamflow-consistency"
HEADER = NAME.encode()


def is_latest(value: str) -> bool:
    """Whether `value`, "" = nothing said, asks for the latest state. Raises `InvalidInput` for other words than the two."""
    if value not in ("", "any", "latest"):
        raise InvalidInput(f"{NAME}: must be 'latest' or 'any', not {value[:40]!r}")
    return value == "latest"


def is_latest_in(message: bytes) -> bool:
    """Whether a JSON message asks for it. Raises `InvalidInput`."""
    value = orjson.loads(message).get("consistency") if b'"consistency"' in message else None
    if value is not None and not isinstance(value, str):
        raise InvalidInput("consistency: must be 'latest' or 'any'")
    return is_latest(value or "")
