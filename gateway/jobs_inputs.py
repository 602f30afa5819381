"""What a job is asked by over HTTP: its inputs out of a body, and the values of a query or a JSON object."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

import orjson

from streamflow.broker.envelope import EMPTY, JSON
from streamflow.broker.errors import InvalidInput, TooLarge
from streamflow.broker.jobs import Input, Order
from streamflow.broker.json_lines import Faults, JsonLines

REQUEST_SIZE = 100
LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/ndjson")
Values: TypeAlias = Mapping[str, Any]


async def from_lines(chunks: AsyncIterator[bytes], lines: JsonLines, faults: Faults, limit_bytes: int) -> AsyncIterator[Input]:
    inputs = 0
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > limit_bytes:
            raise TooLarge(f"a line of more than {limit_bytes} bytes")
        for line in whole:
            for given in lines.take(line):
                inputs += 1
                yield given
    for given in (*lines.take(rest), *lines.rest()):
        inputs += 1
        yield given
    faults.check_any(inputs)


async def from_list(data: Any, lines: JsonLines, faults: Faults) -> AsyncIterator[Input]:
    """Of a body in one piece. Without documents: one request for the parameters alone."""
    if data is None:
        yield Input(EMPTY, b"")
        return
    documents = data if isinstance(data, list) else [data]
    given = [made for document in documents for made in lines.take(orjson.dumps(document))]
    given += lines.rest()
    faults.check_any(len(given))
    for one in given:
        yield one


async def bounded(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge(f"the body is larger than {limit_bytes} bytes: send lines of JSON ({LINES[0]})")
        yield chunk


def order_of(values: Values, flow: str) -> tuple[Order, int]:
    """What to do with the inputs, and how many documents make one request."""
    endpoint = text(values, "on")
    if not endpoint:
        raise InvalidInput("on: the endpoint is required, e.g. /index")
    order = Order(
        text(values, "flow") or flow, endpoint, _parameters(values.get("parameters")), text(values, "targetExecutor"),
        text(values, "key"), number(values, "rate"), JSON, text(values, "tenant"),
    )  # fmt: skip
    return order, int(number(values, "requestSize", REQUEST_SIZE))


def _parameters(given: Any) -> dict[str, Any]:
    try:
        values = orjson.loads(given) if isinstance(given, str) and given else given or {}
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"parameters: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidInput("parameters: must be a JSON object")
    return values


def text(values: Values, name: str) -> str:
    given = values.get(name) or ""
    if not isinstance(given, str):
        raise InvalidInput(f"{name}: must be a string")
    return given


def number(values: Values, name: str, default: float = 0.0) -> float:
    given = values.get(name)
    try:
        found = default if given in (None, "") else float(given)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found < 1e15:
        raise InvalidInput(f"{name}: must be a number, 0 or more")
    return found


def flag(values: Values, name: str, *, default: bool = False) -> bool:
    given = values.get(name)
    return default if given is None else str(given).lower() in ("", "1", "true", "yes")
