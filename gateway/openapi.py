"""The OpenAPI document: FastAPI's own routes plus one route per endpoint of the flow."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from streamflow.broker.announce import EndpointInfo

from .exposed import Exposed, Routes
from .json_wire import GENERIC
from .openapi_parts import SHARED, TARGET, events_of
from .schemas import REF, Components, Schema, component_name
from .view import FALLBACK, View

_CAMEL = {"operation_id": "operationId"}
_EVENTS = "text/event-stream"
_QUERY_TYPES = ("string", "integer", "number", "boolean")
_WITH_OWN_REFUSALS = frozenset(("Health", "Debug", "GraphQL"))  # tags
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

    def __init__(self, app: FastAPI, view: View, routes: Routes) -> None:
        self._app = app
        self._view = view
        self._routes = routes
        self._version = -1
        self._document: Schema = {}

    def build(self) -> Schema:
        """The document, as a dict ready for JSON."""
        if self._version != self._view.version:
            app = self._app
            own = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _add_refusals(own)
            self._document = add_endpoints(own, self._view.endpoints, self._routes)
            self._version = self._view.version
        return self._document


def _add_refusals(document: Schema) -> None:
    """Routes that are no data routes, and yet are refused as those are: jobs and kept results."""
    for item in document.get("paths", {}).values():
        for operation in item.values():
            if not _WITH_OWN_REFUSALS.intersection(operation.get("tags", ())):
                operation["responses"] = operation["responses"] | _error_responses()


def add_endpoints(document: Schema, endpoints: Mapping[str, EndpointInfo], routes: Routes) -> Schema:
    """`document` with a path per endpoint (and `/post`, which takes them all) and their components.

    An endpoint that `expose_endpoints` names is shown as that says, in the place of its automatic route.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(SHARED)
    components = Components(schemas)
    paths = document.setdefault("paths", {})
    exposed = {"/" + route.endpoint.strip("/") for route in routes.exposed}
    for name, endpoint in sorted(endpoints.items()):
        path = "/" + name.strip("/")
        if path not in exposed and not routes.hides(path):
            _add_automatic(paths.setdefault(path, {}), path, endpoint, components)
    for route in routes.exposed:
        _add_exposed(paths.setdefault(route.path, {}), route, endpoints, components)
    if GENERIC not in endpoints and not routes.hides(GENERIC):
        paths.setdefault(GENERIC, {})["post"] = _generic_operation()
    return document


def _add_automatic(item: Schema, path: str, endpoint: EndpointInfo, components: Components) -> None:
    item["post"] = operation = _operation(path, endpoint, components)
    if endpoint.streaming and "get" not in item:
        item["get"] = _by_get(operation, endpoint) | {"operationId": operation["operationId"] + "_get"}


def _add_exposed(item: Schema, route: Exposed, endpoints: Mapping[str, EndpointInfo], components: Components) -> None:
    """`route` by each of its methods; an endpoint that no worker has announced (yet) is shown untyped."""
    name = "/" + route.endpoint.strip("/")
    endpoint = endpoints.get(name) or endpoints.get(name[1:]) or EndpointInfo(name)
    for method in route.methods:
        operation = _operation(route.path, endpoint, components)
        operation["operationId"] = f"{component_name(route.path)}_{method.lower()}"
        if method == "GET":
            operation = _by_get(operation, endpoint)
        item[method.lower()] = operation | {_CAMEL.get(key, key): value for key, value in route.details.items()}


def _by_get(operation: Schema, endpoint: EndpointInfo) -> Schema:
    """The operation with its document in the query; that of a streaming endpoint is answered by events whatever the client accepts."""
    responses = operation["responses"]
    content = {kind: answer for kind, answer in responses["200"]["content"].items() if kind == _EVENTS or not endpoint.streaming}
    responses = responses | {"200": responses["200"] | {"content": content}}
    without_body = {key: value for key, value in operation.items() if key != "requestBody"}
    return without_body | {"parameters": _query(endpoint), "responses": responses}


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
        answer = {_EVENTS: {"itemSchema": events_of(document_out)}, **answer}
        request = {"anyOf": [request | {"required": ["data"], "additionalProperties": False}, document_in]}
    return {
        "summary": f"Endpoint {path}" if path != FALLBACK else "Every endpoint without a method of its own",
        "description": endpoint.description,
        "operationId": f"{label}_post",
        "tags": ["Endpoints"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {"200": {"description": "The documents after the flow", "content": answer}} | _error_responses(),
    }


def _request_body(document: Schema, parameters: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {
            "data": {"anyOf": [{"type": "array", "items": document}, document]},
            "parameters": parameters,
            "header": {"anyOf": [{"$ref": REF + "RequestHeader"}, {"type": "null"}]},
            "targetExecutor": TARGET,
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
    request["properties"]["execEndpoint"] = {"type": "string", "minLength": 1, "description": "The endpoint to call, such as /search."}
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
    document = endpoint.request_schema or {}
    plain = {
        name: schema
        for name, schema in document.get("properties", {}).items()
        if isinstance(schema, dict) and schema.get("type") in _QUERY_TYPES
    }
    needed = document.get("required", ())
    return [{"name": name, "in": "query", "required": name in needed, "schema": schema} for name, schema in plain.items()]
