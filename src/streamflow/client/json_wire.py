"""Answers in JSON, of HTTP and WebSocket, as a `DataRequest`: the documents stay text until they are asked for."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import orjson

from streamflow.broker.envelope import JSON
from streamflow.broker.errors import OK, Code, Status, StreamflowError

from .errors import error_of, named_status
from .results import DataRequest, Header, Parts, Route, place_of
from .transport import Ask

_CODES: dict[int, Code] = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.NOT_FOUND,
    409: Code.ALREADY_EXISTS,
    413: Code.TOO_LARGE,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_SHOWN = 300


def response(status: int, answer: bytes, ask: Ask, request_id: str) -> DataRequest:
    values = json_object(answer)
    outcome = OK if status < 300 else failure(status, values)
    header = values.get("header") or {}
    parts = Parts(
        Header(header.get("requestId") or header.get("request_id") or request_id, outcome, ask.endpoint, ask.target_executor),
        answer if outcome is OK and values.get("data") else b"",
        JSON,
        partial(_dict, values.get("parameters")),
        partial(routes, values),
    )
    return DataRequest(parts, ask.doc_type)


def failure(http: int, values: dict[str, Any]) -> Status:
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


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; what is no JSON (a proxy's error page) becomes the text of an error."""
    try:
        values = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        values = {"detail": body[:_SHOWN].decode("utf-8", "replace")}
    return values if isinstance(values, dict) else {}


def is_ours(body: bytes) -> bool:
    return json_object(body).get("code") == Code.NOT_FOUND.value


def _dict(values: Any) -> dict[str, Any]:
    return dict(values or {})


def routes(values: dict[str, Any]) -> list[Route]:
    """Of an answer; only one that failed tells a replica and an attempt, those of its last stop."""
    said = values.get("routes") or ()
    found = [Route(route.get("executor", ""), _unix(route.get("startTime")), _unix(route.get("endTime"))) for route in said]
    if found and values.get("replica"):
        found[-1] = found[-1]._replace(replica=str(values["replica"]), attempt=int(values.get("attempt") or 1))
    return found


def error_from(http: int, values: dict[str, Any], request_id: str) -> StreamflowError:
    """The exception for an error answer."""
    return error_of(failure(http, values), request_id, place_of(routes(values)))


def _unix(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
