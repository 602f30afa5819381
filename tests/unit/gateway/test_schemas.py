"""Announced schemas in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

import jsonschema_rs
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.exposed import Routes
from streamflow.gateway.openapi import add_endpoints
from streamflow.gateway.schemas import REF, Components

pytestmark = pytest.mark.feature("GW-15")


class Image(BaseModel):
    url: str = ""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    image: Image | None = None


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Animal(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")
    friends: list[Animal] = []


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [reference for item in value for reference in references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    mapping = [target for target in value.get("mapping", {}).values()] if isinstance(value.get("mapping"), dict) else []
    return own + mapping + [reference for item in value.values() for reference in references(item)]


def assert_complete(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    for reference in references(document):
        assert reference.startswith(REF), reference
        assert reference.removeprefix(REF).split("/")[0] in components, reference


def build(*endpoints: EndpointInfo) -> dict[str, Any]:
    return add_endpoints(FastAPI().openapi(), {endpoint.name: endpoint for endpoint in endpoints}, Routes(GatewaySettings()))


def test_nested_recursive_and_discriminated_schemas_resolve() -> None:
    document = build(EndpointInfo("/pets", Animal.model_json_schema(), Animal.model_json_schema()))
    assert_complete(document)
    schemas = document["components"]["schemas"]
    assert schemas["Animal"]["properties"]["friends"]["items"] == {"$ref": REF + "Animal"}
    assert schemas["Animal"]["properties"]["pet"]["discriminator"]["mapping"] == {"cat": REF + "Cat", "dog": REF + "Dog"}
    assert "$defs" not in schemas["Animal"]


def test_equal_schemas_are_shared_and_different_ones_of_a_name_are_not() -> None:
    one = {"title": "Doc", "type": "object", "properties": {"a": {"type": "string"}}}
    other = {"title": "Doc", "type": "object", "properties": {"b": {"$ref": "#"}}}
    document = build(EndpointInfo("/one", one, one), EndpointInfo("/two", one, other))
    assert_complete(document)
    schemas = document["components"]["schemas"]
    assert schemas["Doc"] == one
    assert schemas["Doc_2"]["properties"]["b"] == {"$ref": REF + "Doc_2"}
    assert "Doc_3" not in schemas


def test_equal_text_over_different_definitions_is_not_shared() -> None:
    def announced(kind: str) -> dict[str, Any]:
        return {
            "title": "Doc",
            "type": "object",
            "properties": {"x": {"$ref": "#/definitions/Inner"}},
            "definitions": {"Inner": {"type": kind}},
        }

    document = build(EndpointInfo("/one", announced("string")), EndpointInfo("/two", announced("integer")))
    schemas = document["components"]["schemas"]
    second = schemas["Doc_2"]["properties"]["x"]["$ref"].removeprefix(REF)
    assert schemas[schemas["Doc"]["properties"]["x"]["$ref"].removeprefix(REF)] == {"type": "string"}
    assert schemas[second] == {"type": "integer"}


def test_our_own_components_keep_their_names() -> None:
    document = build(EndpointInfo("/e", {"title": "Status", "type": "object"}))
    assert "code" in document["components"]["schemas"]["Status"]["properties"]
    assert document["components"]["schemas"]["Status_2"] == {"title": "Status", "type": "object"}


def test_only_references_are_rewritten_not_data_or_names() -> None:
    schema = {
        "title": "Odd",
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "default": {"$ref": "#/$defs/In"}, "mapping": {"type": "object"}},
        "default": {"$ref": "#/$defs/In"},
        "$defs": {"In": {"type": "string"}},
    }
    odd: dict[str, Any] = {}
    Components(odd).add(schema, "x")
    assert odd["Odd"]["default"] == {"$ref": "#/$defs/In"}
    assert odd["Odd"]["properties"]["default"] == {"$ref": REF + "In"}
    assert odd["Odd"]["properties"]["$ref"] == {"type": "string"}


@pytest.mark.parametrize("schema", [None, {}, {"$ref": "#/$defs/Missing"}, {"$defs": 5}, {"title": "a b/c", "properties": 7}])
def test_a_strange_schema_breaks_nothing(schema: dict[str, Any] | None) -> None:
    document = build(EndpointInfo("/x", schema, schema))
    assert "/x" in document["paths"]
    assert all(name.replace("_", "").replace(".", "").replace("-", "").isalnum() for name in document["components"]["schemas"])


def test_every_endpoint_and_the_generic_route_are_listed() -> None:
    document = build(EndpointInfo("/a/b", description="Says b."), EndpointInfo("/default"), EndpointInfo("/tokens", streaming=True))
    assert set(document["paths"]) == {"/a/b", "/default", "/tokens", "/post"}
    assert document["paths"]["/a/b"]["post"]["description"] == "Says b."
    assert set(document["paths"]["/tokens"]) == {"get", "post"}
    assert list(document["paths"]["/tokens"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
    identifiers = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize(
    ("shape", "sound", "unsound"),
    [
        ("[2, 3]", [[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6]),
        ("[3]", [1, 2, 3], [1, 2]),
        ("[x, 2]", [[1, 2]], [1, 2]),
        ("not specified", [[1, 2], [3, 4]], 5),
        ("[2, ...]", [1, 2], "12"),
    ],
)
def test_tensors_are_described_as_they_are_printed(shape: str, sound: Any, unsound: Any) -> None:
    announced = {"type": "object", "properties": {"v": {"type": "array", "items": {"type": "number"}, "tensor/array shape": shape}}}
    document = build(EndpointInfo("/x", announced, announced))
    described = document["components"]["schemas"]["x_input"]["properties"]["v"]
    check = jsonschema_rs.validator_for(described)
    assert check.is_valid(sound) and not check.is_valid(unsound)


def test_a_get_has_its_document_in_the_query() -> None:
    count = {"type": "integer", "minimum": 1}
    taken = {"type": "object", "properties": {"text": {"type": "string"}, "count": count, "tags": {"type": "array"}}, "required": ["text"]}
    tokens = build(EndpointInfo("/tokens", taken, taken, streaming=True))["paths"]["/tokens"]
    assert "requestBody" in tokens["post"] and "requestBody" not in tokens["get"]
    assert tokens["get"]["parameters"] == [
        {"name": "text", "in": "query", "required": True, "schema": {"type": "string"}},
        {"name": "count", "in": "query", "required": False, "schema": count},
    ]
