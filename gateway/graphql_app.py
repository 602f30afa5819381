"""`/graphql`: the documents of a flow as GraphQL, `docs(data:, parameters:, targetExecutor:, execEndpoint:)` as query and as mutation.

Names and defaults are those of Jina's GraphQL mutation. A field `docs` is one request to the flow; the JSON of its answer is read here, and
nowhere else in the gateway. Answers: https://graphql.github.io/graphql-over-http with `application/json`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLArgument,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    GraphQLString,
    OperationType,
    execute,
    get_operation_ast,
    parse,
    validate,
)

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, InvalidInput, StreamflowError
from streamflow.broker.settings import GatewaySettings

from .answers import place_of, request_id
from .desk import Desk
from .disconnect import DisconnectWatch
from .graphql_limits import MOST_TOKENS, check_size
from .graphql_types import JSON, Types
from .http_io import Headers, UnsupportedType, check_type, read_body
from .json_wire import http_call
from .schemas import Schema
from .status import outcome
from .view import View
from .window import answer_to

PATH = "/graphql"
_MOST_ERRORS = 20
_ANSWER: Schema = {"type": "object", "properties": {"data": {}, "errors": {"type": "array", "items": {"type": "object"}}}}
_QUESTION: Schema = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "variables": {"type": ["object", "null"]}, "operationName": {"type": ["string", "null"]}},
    "required": ["query"],
}


def graphql_router(desk: Desk, settings: GatewaySettings) -> APIRouter:
    """`GET` (queries only) and `POST` of `/graphql`."""
    router = APIRouter(tags=["GraphQL"])
    served = GraphQl(desk, settings.max_request_bytes)
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "What was asked for, and what went wrong", "content": {"application/json": {"schema": _ANSWER}}},
        **{code: {"description": text} for code, text in ((400, "No GraphQL"), (405, "A mutation by GET"), (413, "Too large"))},
    }
    body = {"required": True, "content": {"application/json": {"schema": _QUESTION}}}
    router.add_api_route(PATH, served.get, methods=["GET"], summary="GraphQL query", responses=responses, response_class=Response)
    router.add_api_route(
        PATH, served.post, methods=["POST"], summary="GraphQL query or mutation", responses={**responses, 415: {"description": "Not JSON"}},
        response_class=Response, openapi_extra={"requestBody": body},
    )  # fmt: skip
    return router


class GraphQl:
    """Runs GraphQL documents. The schema is made again when the workers announce something else."""

    def __init__(self, desk: Desk, limit_bytes: int) -> None:
        self._desk = desk
        self._limit_bytes = limit_bytes
        self._watch = DisconnectWatch()
        self._version = -1
        self._schema = GraphQLSchema()

    async def get(self, request: Request, query: str, variables: str = "", operationName: str = "") -> Response:
        asked: dict[str, Any] = {"query": query, "operationName": operationName or None}
        try:
            asked["variables"] = orjson.loads(variables) if variables else None
        except orjson.JSONDecodeError as error:
            return _refusal(InvalidInput(f"variables: not valid JSON: {error}"))
        return await self._answer(request, asked, reads_only=True)

    async def post(self, request: Request) -> Response:
        headers = dict(request.scope["headers"])
        try:
            check_type(headers)
            asked = orjson.loads(await read_body(request.receive, headers, self._limit_bytes))
        except orjson.JSONDecodeError as error:
            return _refusal(InvalidInput(f"the body is not valid JSON: {error}"))
        except StreamflowError as error:
            return _refusal(error, 415 if isinstance(error, UnsupportedType) else 0)
        return await self._answer(request, asked, reads_only=False)

    async def _answer(self, request: Request, asked: Any, *, reads_only: bool) -> Response:
        schema = self._current_schema()
        try:
            query, variables, operation = _question(asked)
            document, errors = await asyncio.to_thread(_read, schema, query)  # up to 0.5 s for the largest
        except InvalidInput as error:
            return _refusal(error)
        found = get_operation_ast(document, operation)
        if reads_only and found is not None and found.operation is not OperationType.QUERY:
            return _refusal(InvalidInput("a mutation needs POST"), 405)
        result = ExecutionResult(None, errors)
        if not errors:
            result = await _run(schema, document, variables, operation, request)
        return _json({"data": result.data, **({"errors": [error.formatted for error in result.errors]} if result.errors else {})})

    def _current_schema(self) -> GraphQLSchema:
        if self._version != self._desk.view.version:
            self._version = self._desk.view.version
            self._schema = schema_of(self._desk.view, self._docs)
        return self._schema

    async def _docs(self, _root: object, info: GraphQLResolveInfo[Any], execEndpoint: str, **given: Any) -> list[Any]:
        """The documents of one request's answer. Raises `GraphQLError` with the code of a failure under `extensions`."""
        try:
            envelope = await self._send(info.context, execEndpoint, {name: value for name, value in given.items() if value is not None})
            if envelope.status.code is not Code.OK:
                raise GraphQLError(envelope.status.description, extensions=_extensions(envelope))
            found: list[Any] = orjson.loads(envelope.body or b"[]")
        except StreamflowError as error:
            raise GraphQLError(str(error), extensions={"code": error.code.value}) from error
        return found

    async def _send(self, request: Request, endpoint: str, given: Mapping[str, Any]) -> Envelope:
        headers: Headers = dict(request.scope["headers"])
        try:
            body = orjson.dumps(given)
        except TypeError as error:
            raise InvalidInput(f"the arguments cannot be sent: {error}") from None
        future = self._desk.send(http_call(f"/{endpoint.strip('/')}", headers, body, self._desk.view))
        self._watch.add(future, request.receive)
        try:
            return await answer_to(future)
        finally:
            self._watch.drop(future)


def _extensions(envelope: Envelope) -> dict[str, Any]:
    return {"code": envelope.status.code.value, "requestId": request_id(envelope), **place_of(envelope)}


def schema_of(view: View, resolve: Any) -> GraphQLSchema:
    """`docs` over all endpoints of the flow: its documents have the fields of the documents of each."""
    endpoints = view.endpoints.values()
    taken = Types(is_input=True).document(each.request_schema for each in endpoints)
    given = Types(is_input=False).document(each.response_schema for each in endpoints)
    arguments = {
        "data": GraphQLArgument(GraphQLList(taken)),
        "parameters": GraphQLArgument(JSON),
        "targetExecutor": GraphQLArgument(GraphQLString),
        "execEndpoint": GraphQLArgument(GraphQLString, default_value="/search"),
    }
    docs = GraphQLField(GraphQLList(given), arguments, resolve=resolve, description="Documents after the flow.")
    return GraphQLSchema(GraphQLObjectType("Query", {"docs": docs}), GraphQLObjectType("Mutation", {"docs": docs}))


def _read(schema: GraphQLSchema, query: str) -> tuple[DocumentNode, list[GraphQLError]]:
    """The document, and what in it does not fit `schema`. Raises `InvalidInput` for what is no GraphQL, or too much."""
    try:
        document = parse(query, max_tokens=MOST_TOKENS)
        check_size(document)
        return document, validate(schema, document, max_errors=_MOST_ERRORS)
    except RecursionError:
        raise InvalidInput("query: nested too deep") from None
    except GraphQLError as error:
        raise InvalidInput(str(error)) from None


async def _run(
    schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any], operation: str | None, request: Request
) -> ExecutionResult:
    try:
        running = execute(schema, document, variable_values=variables, operation_name=operation, context_value=request)
        return await running if isinstance(running, Awaitable) else running
    except RecursionError:
        return ExecutionResult(None, [GraphQLError("variables: nested too deep")])


def _question(asked: Any) -> tuple[str, dict[str, Any], str | None]:
    """`query`, `variables`, `operationName`. Raises `InvalidInput`."""
    if not isinstance(asked, dict) or not isinstance(asked.get("query"), str):
        raise InvalidInput("query: required, a GraphQL document")
    variables, operation = asked.get("variables") or {}, asked.get("operationName") or None
    if not isinstance(variables, dict):
        raise InvalidInput("variables: must be an object")
    if operation is not None and not isinstance(operation, str):
        raise InvalidInput("operationName: must be text")
    return asked["query"], variables, operation


def _refusal(error: StreamflowError, http_status: int = 0) -> Response:
    status = http_status or (400 if isinstance(error, InvalidInput) else outcome(error.code).http)
    return _json({"errors": [{"message": str(error), "extensions": {"code": error.code.value}}]}, status)


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
