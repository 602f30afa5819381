"""The OpenAPI document: FastAPI's own routes plus one route per endpoint of the flow."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from streamflow.broker.announce import EndpointInfo

from .openapi_parts import SHARED
from .schemas import REF, Components, Schema, component_name
from .view import FALLBACK, View

_QUERY_TYPES = ("string", "integer", "number", "boolean")
_ERRORS = {
    "404": "No such endpoint",
    "413": "Body too large",
    "422": "Invalid input",
    "429": "Queue full: try again later",
    "500": "An executor raised",
    "503": "No worker or no broker",
    "504": "Deadline passed",
}


class OpenApi:
    """Builds the document and keeps it until the workers announce something else."""

    def __init__(self, app: FastAPI, view: View) -> None:
        self._app = app
        self._view = view
        self._version = -1
        self._document: Schema = {}

    def build(self) -> Schema:
        """The document, as a dict ready for JSON."""
        if self._version != self._view.version:
            app = self._app
            own = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            self._document = add_endpoints(own, self._view.endpoints)
            self._version = self._view.version
        return self._document


def add_endpoints(document: Schema, endpoints: Mapping[str, EndpointInfo]) -> Schema:
    """`document` with a path per endpoint (and `/post`, which takes them all) and their components."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(SHARED)
    components = Components(schemas)
    paths = document.setdefault("paths", {})
    for name, endpoint in sorted(endpoints.items()):
        path = "/" + name.strip("/")
        operation = _operation(path, endpoint, components)
        item = paths.setdefault(path, {})
        item["post"] = operation
        if endpoint.streaming and "get" not in item:
            item["get"] = operation | {"operationId": operation["operationId"] + "_get", "parameters": _query(endpoint)}
    if "/post" not in endpoints:
        paths.setdefault("/post", {})["post"] = _generic_operation()
    return document


def _operation(path: str, endpoint: EndpointInfo, components: Components) -> Schema:
    label = component_name(path)
    document_in = components.add(endpoint.request_schema, f"{label}_input")
    document_out = components.add(endpoint.response_schema, f"{label}_output")
    parameters: Schema = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    if endpoint.parameters_schema is not None:
        parameters = components.add(endpoint.parameters_schema, f"{label}_parameters")
    request = _request_body(document_in, parameters)
    answer = {"application/json": {"schema": _answer(document_out)}}
    if endpoint.streaming:
        answer = {"text/event-stream": {"schema": document_out}}
    return {
        "summary": f"Endpoint {path}" if path != FALLBACK else "Every endpoint without a method of its own",
        "description": endpoint.description,
        "operationId": f"{label}_post",
        "tags": ["Endpoints"],
        "requestBody": {"required": not endpoint.streaming, "content": {"application/json": {"schema": request}}},
        "responses": {"200": {"description": "The documents after the flow", "content": answer}} | _error_responses(),
    }


def _request_body(document: Schema, parameters: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {
            "data": {"anyOf": [{"type": "array", "items": document}, document]},
            "parameters": parameters,
            "header": {"anyOf": [{"$ref": REF + "RequestHeader"}, {"type": "null"}]},
            "targetExecutor": {"type": "string", "description": "Regular expression: only executors it matches get the request."},
        },
    }


def _answer(document: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": document},
            "parameters": {"type": "object"},
            "header": {"$ref": REF + "AnswerHeader"},
            "routes": {"type": "array", "items": {"$ref": REF + "Route"}},
        },
        "required": ["data", "parameters", "header", "routes"],
    }


def _generic_operation() -> Schema:
    request = _request_body({"type": "object"}, {"anyOf": [{"type": "object"}, {"type": "null"}]})
    request["properties"]["execEndpoint"] = {"type": "string", "description": "The endpoint to call, such as /search."}
    request["required"] = ["execEndpoint"]
    answer = {"application/json": {"schema": _answer({"type": "object"})}}
    return {
        "summary": "Any endpoint, named by execEndpoint",
        "operationId": "post_post",
        "tags": ["Endpoints"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {"200": {"description": "The documents after the flow", "content": answer}} | _error_responses(),
    }


def _error_responses() -> Schema:
    content = {"application/json": {"schema": {"$ref": REF + "Failure"}}}
    return {code: {"description": text, "content": content} for code, text in _ERRORS.items()}


def _query(endpoint: EndpointInfo) -> list[Schema]:
    """Query parameters of a streaming GET: the document's fields that are plain values."""
    properties = (endpoint.request_schema or {}).get("properties", {})
    plain = {name: schema for name, schema in properties.items() if isinstance(schema, dict) and schema.get("type") in _QUERY_TYPES}
    return [{"name": name, "in": "query", "required": False, "schema": {"type": schema["type"]}} for name, schema in plain.items()]
