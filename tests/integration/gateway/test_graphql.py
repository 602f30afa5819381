"""`/graphql`: Jina's documented mutation, types by the executors' schemas, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from graphql import build_client_schema, get_introspection_query, print_schema
from hypothesis import given
from hypothesis import settings as amount
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.gateway.graphql_app import schema_of
from streamflow.gateway.graphql_limits import MOST_FIELDS, MOST_REQUESTS
from streamflow.gateway.graphql_types import Types
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import serve_http
from streamflow.workers.executor import Executor, requests
from tests.running import running

pytestmark = pytest.mark.feature("GW-19")

LOCAL = "127.0.0.1"
JINAS = 'mutation { docs(data: {text: "abcd"}) { id matches { embedding } } }'


class Match(BaseDoc):
    text: str = ""
    embedding: NdArray | None = None
    matches: list[Match] = []


class Text(BaseDoc):
    text: str
    size: int = 0
    tags: dict[str, str] = {}
    matches: DocList[Match] = DocList[Match]()


class Picture(BaseDoc):
    url: str
    size: str = "small"


class Wanted(BaseModel):
    top_k: int = Field(1, le=5)


class Finder(Executor):
    @requests(on="/search")
    def search(self, docs: DocList[Text], parameters: Wanted, **kwargs: Any) -> DocList[Text]:
        for doc in docs:
            doc.size = 1 << 40
            doc.matches = DocList[Match]([Match(text=f"{doc.text}{at}", embedding=np.arange(2.0)) for at in range(parameters.top_k)])
        return docs

    @requests(on="/look")
    def look(self, docs: DocList[Picture], **kwargs: Any) -> DocList[Picture]:
        return docs

    @requests(on="/fail")
    def fail(self, docs: DocList[Text], **kwargs: Any) -> None:
        raise ValueError("no luck")


class Asked:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def post(self, query: Any, status: int = 200, **more: Any) -> dict[str, Any]:
        async with self.http.post("/graphql", json={"query": query, **more}) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == status, answer
            return answer

    async def docs(self, query: str, **variables: Any) -> Any:
        answer = await self.post(query, variables=variables)
        assert "errors" not in answer, answer
        return answer["data"]["docs"]

    async def error(self, query: Any, status: int = 200, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = (await self.post(query, status, **more))["errors"][0]
        return found


@pytest.fixture
async def graphql(settings: BrokerSettings, flow_name: str) -> AsyncIterator[Asked]:
    options = GatewaySettings(flow=flow_name, expose_graphql_endpoint=True)
    async with running(settings, Graph(flow_name, (Node("finder"),)), {"finder": Finder}) as flow:
        server = await serve_http(create_app(flow.dispatcher, options), options, [(LOCAL, 0)])
        async with aiohttp.ClientSession(f"http://{LOCAL}:{server.ports[0]}") as http:
            yield Asked(http)
        await server.stop(1.0)


async def test_jinas_documented_mutation_works(graphql: Asked) -> None:
    (doc,) = await graphql.docs(JINAS)
    assert doc["matches"] == [{"embedding": [0.0, 1.0]}] and doc["id"]


async def test_documents_parameters_and_the_endpoint_are_arguments(graphql: Asked) -> None:
    query = (
        "query($data: [DocumentInput], $k: JSON) "
        '{ docs(data: $data, parameters: {top_k: $k}, targetExecutor: "find.*", execEndpoint: "search/") { text size matches { text } } }'
    )
    docs = await graphql.docs(query, data=[{"text": "a", "tags": {"b": "c"}}, {"text": "d"}], k=2)
    assert docs[0] == {"text": "a", "size": 1 << 40, "matches": [{"text": "a0"}, {"text": "a1"}]}
    assert [doc["text"] for doc in docs] == ["a", "d"]
    assert await graphql.docs('{ docs(data: [{url: "x"}], execEndpoint: "/look") { url size } }') == [{"url": "x", "size": "small"}]


async def test_several_requests_in_one_document_are_answered_each(graphql: Asked) -> None:
    fields = "{ text matches { text } }"
    answer = await graphql.post(f'{{ a: docs(data: {{text: "1"}}) {fields} b: docs(data: {{text: "2"}}, execEndpoint: "/fail") {fields} }}')
    assert answer["data"] == {"a": [{"text": "1", "matches": [{"text": "10"}]}], "b": None}
    (error,) = answer["errors"]
    assert error["path"] == ["b"] and "no luck" in error["message"] and error["extensions"].pop("requestId")
    assert error["extensions"] == {"code": "EXECUTOR_ERROR", "executor": "finder", "replica": "finder/rep-0", "attempt": 1}


async def test_the_schema_can_be_asked_for(graphql: Asked) -> None:
    answer = await graphql.post(get_introspection_query())
    text = print_schema(build_client_schema(answer["data"]))
    assert 'docs(data: [DocumentInput], parameters: JSON, targetExecutor: String, execEndpoint: String = "/search"): [Document]' in text
    assert "size: JSON" in text, "a number in one document, text in the other"
    assert "embedding: JSON" in text and "matches: [Match]" in text and "matches: [MatchInput]" in text


async def test_a_query_may_come_by_get_and_a_mutation_not(graphql: Asked) -> None:
    query = "query($text: String) { docs(data: {text: $text}) { text } }"
    async with graphql.http.get("/graphql", params={"query": query, "variables": '{"text": "a"}'}) as response:
        assert (response.status, await response.json()) == (200, {"data": {"docs": [{"text": "a"}]}})
    async with graphql.http.get("/graphql", params={"query": JINAS}) as response:
        assert response.status == 405
    async with graphql.http.get("/graphql", params={"query": query, "variables": "{"}) as response:
        assert response.status == 400


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"query": "{ docs(data: {txt: 1}) { text } }"}, "'DocumentInput' not to include unknown field 'txt'"),
    ({"query": "{ docs { nothing } }"}, "Cannot query field 'nothing' on type 'Document'"),
    ({"query": '{ docs(data: {text: "a"}, execEndpoint: "/gone") { text } }'}, "no endpoint '/gone' in flow"),
    ({"query": "{ docs(data: {size: 1}) { text } }"}, "data[0].text: Field required"),
    ({"query": "{ docs(parameters: 99999999999999999999999) { text } }"}, "the arguments cannot be sent"),
    ({"query": "query a { docs { text } } query b { docs { text } }"}, "Must provide operation name"),
]


async def test_what_is_wrong_with_a_request_is_said(graphql: Asked) -> None:
    for asked, message in WRONG:
        assert message in (await graphql.error(**asked))["message"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"query": "{ docs { text }"}, "Syntax Error"),
    ({"query": 7}, "query: required"),
    ({"query": "{ docs { text } }", "variables": [1]}, "variables: must be an object"),
    ({"query": "{ docs { text } }", "operationName": 3}, "operationName: must be text"),
    ({"query": "{ docs { " + "text " * MOST_FIELDS + "} }"}, f"at most {MOST_FIELDS} fields"),
    (
        {"query": "{" + "".join(f"a{at}: docs {{ text }} " for at in range(MOST_REQUESTS + 1)) + "}"},
        f"at most {MOST_REQUESTS} requests",
    ),
    ({"query": "{ docs(parameters: " + "[" * 5000 + "]" * 5000 + ") { text } }"}, "too deep"),
    ({"query": "{ docs { text(" + "a: 1 " * 10000 + ") } }"}, "token"),
]


async def test_what_is_no_graphql_or_too_much_is_refused(graphql: Asked) -> None:
    for asked, message in REFUSED:
        assert message in (await graphql.error(status=400, **asked))["message"]


async def test_fragments_are_counted_written_out(graphql: Asked) -> None:
    levels = "".join(f"fragment f{at} on Match {{ a: matches {{ ...f{at + 1} }} b: matches {{ ...f{at + 1} }} }} " for at in range(30))
    query = "{ docs { matches { ...f0 } } } " + levels + "fragment f30 on Match { text }"
    assert "fields" in (await graphql.error(query, 400))["message"]
    circle = "{ docs { matches { ...a } } } fragment a on Match { ...b } fragment b on Match { ...a }"
    assert "Cannot spread fragment" in (await graphql.error(circle))["message"]


async def test_variables_may_be_nested_deep(graphql: Asked) -> None:
    deep: dict[str, Any] = {"text": "a"}
    for _ in range(300):
        deep = {"text": "a", "matches": [deep]}
    query = "query($data: [DocumentInput]) { docs(data: $data) { text } }"
    answer = await graphql.post(query, variables={"data": [deep]})
    assert answer["data"] == {"docs": [{"text": "a"}]} or "nested too deep" in answer["errors"][0]["message"]


async def test_other_bodies_than_json_are_refused(graphql: Asked) -> None:
    async with graphql.http.post("/graphql", data="{ docs { text } }", headers={"content-type": "text/plain"}) as response:
        assert response.status == 415
    async with graphql.http.post("/graphql", data="{", headers={"content-type": "application/json"}) as response:
        assert response.status == 400


SCHEMAS = st.recursive(
    st.sampled_from(
        [{}, True, {"type": "string"}, {"type": "integer"}, {"type": ["string", "null"]}, {"$ref": "#/$defs/A"}, {"$ref": "#"}]
    ),
    lambda inner: st.one_of(
        inner.map(lambda each: {"type": "array", "items": each}),
        st.lists(inner, max_size=3).map(lambda several: {"anyOf": several}),
        st.dictionaries(st.sampled_from(["id", "text", "__x", "a-b", "größe"]), inner, max_size=3).map(
            lambda fields: {"type": "object", "properties": fields}
        ),
    ),
    max_leaves=8,
)


@amount(max_examples=100, deadline=None)
@given(st.lists(SCHEMAS.filter(lambda each: isinstance(each, dict)), max_size=3), SCHEMAS)
def test_any_announced_schema_becomes_types(announced: list[Any], shared: Any) -> None:
    documents = [{"title": "A-B", **each, "$defs": {"A": shared}} for each in announced]

    class View:
        endpoints = {str(at): EndpointInfo(str(at), request_schema=each, response_schema=each) for at, each in enumerate(documents)}

    assert "docs(" in print_schema(schema_of(View, None))  # type: ignore[arg-type]
    assert Types(is_input=True).document([]).name == "JSON"
