"""The components of the OpenAPI document that every endpoint shares: header, status, route and failure (Jina's JSON forms)."""

from __future__ import annotations

from .schemas import REF, Schema

TARGET: Schema = {
    "type": "string",
    "format": "regex",
    "description": "Regular expression: only executors it matches get the request; past the others it goes as it is.",
}
_NULL_STRING: Schema = {"anyOf": [{"type": "string"}, {"type": "null"}]}
SHARED: dict[str, Schema] = {
    "RequestHeader": {
        "type": "object",
        "properties": {
            "requestId": {"type": "string", "description": "Echoed in the answer."},
            "targetExecutor": TARGET,
            "timeout": {
                "type": "integer",
                "minimum": 0,
                "exclusiveMaximum": 1 << 32,
                "description": "Unix seconds after which the request may be dropped.",
            },
        },
    },
    "Status": {
        "type": "object",
        "properties": {
            "code": {"type": "integer", "enum": [0, 1], "description": "0 = success, 1 = error"},
            "description": {"type": "string"},
            "exception": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "args": {"type": "array", "items": {"type": "string"}},
                            "stacks": {"type": "array", "items": {"type": "string"}},
                            "executor": {"type": "string"},
                        },
                    },
                    {"type": "null"},
                ]
            },
        },
    },
    "AnswerHeader": {
        "type": "object",
        "properties": {
            "requestId": {"type": "string"},
            "status": {"anyOf": [{"$ref": REF + "Status"}, {"type": "null"}]},
            "execEndpoint": {"type": "string"},
            "targetExecutor": {"type": "string"},
        },
    },
    "Route": {
        "type": "object",
        "properties": {
            "executor": {"type": "string"},
            "startTime": _NULL_STRING,
            "endTime": _NULL_STRING,
            "status": {"anyOf": [{"$ref": REF + "Status"}, {"type": "null"}]},
        },
    },
    "Failure": {
        "type": "object",
        "properties": {
            "detail": {"type": "string"},
            "code": {"type": "string", "description": "Such as INVALID_ARGUMENT or EXECUTOR_ERROR."},
            "executor": {"type": "string", "description": "In the flow, at which the request ended; left out when it got to none."},
            "replica": {"type": "string"},
            "attempt": {"type": "integer", "minimum": 1},
            "header": {"$ref": REF + "AnswerHeader"},
        },
        "required": ["detail"],
    },
}


def events_of(document: Schema) -> Schema:
    """One event of a stream of documents (OpenAPI 3.2 has `itemSchema` for it, which readers of 3.1 pass over)."""
    return {"anyOf": [_event("update", document), _event("error", {"$ref": REF + "Failure"}), _event("end", None)]}


def _event(name: str, content: Schema | None) -> Schema:
    data: Schema = {"const": ""} if content is None else {"contentMediaType": "application/json", "contentSchema": content}
    properties = {"event": {"type": "string", "const": name}, "data": {"type": "string"} | data}
    return {"type": "object", "properties": properties, "required": ["event", "data"]}
