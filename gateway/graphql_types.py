"""GraphQL types out of the JSON Schemas that workers announce.

Every field may be null on the way out, and left out on the way in: workers check documents, and say better what is wrong with one. What
GraphQL has no type for (tensors, mappings, unions) is `JSON`; whole numbers are `Long`, since `Int` ends at 32 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from graphql import (
    GraphQLBoolean,
    GraphQLField,
    GraphQLFloat,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLString,
    IntValueNode,
    ValueNode,
)

from .schemas import REF, TENSOR, Components, Schema

_NAME = re.compile(r"[A-Za-z][_0-9A-Za-z]*|_(?!_)[_0-9A-Za-z]*")
_LONG = range(-(1 << 63), 1 << 64)  # what JSON of ours can hold
_RESERVED = ("Query", "Mutation", "Document", "DocumentInput", "JSON", "Long", "Int", "Float", "String", "Boolean", "ID")
Type: TypeAlias = Any  # GraphQLInputType or GraphQLOutputType, by the direction


def _long(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _LONG:
        raise ValueError("a whole number of at most 64 bits is needed")
    return value


def _long_literal(node: ValueNode, _variables: Any = None) -> int:
    return _long(int(node.value) if isinstance(node, IntValueNode) else None)


JSON = GraphQLScalarType("JSON", description="Any JSON value, such as a tensor as nested lists.")
LONG = GraphQLScalarType(
    "Long", serialize=_long, parse_value=_long, parse_literal=_long_literal, description="A whole number of at most 64 bits."
)
_SCALARS: dict[str, GraphQLScalarType] = {
    "string": GraphQLString,
    "integer": LONG,
    "number": GraphQLFloat,
    "boolean": GraphQLBoolean,
}


class Types:
    """The types of one direction: of documents in (`is_input`), or out."""

    def __init__(self, *, is_input: bool) -> None:
        self._is_input = is_input
        self._suffix = "Input" if is_input else ""
        self._schemas: Schema = {}
        self._components = Components(self._schemas)
        self._made: dict[str, Type] = {}  # by component
        self._names = set(_RESERVED)

    def document(self, announced: Iterable[Schema | None]) -> Type:
        """The fields of all `announced` documents in one. A field that is not the same in all is `JSON`, as is what has no fields."""
        roots = [self._components.add(each, "Document") for each in announced if each]
        fields: dict[str, Type] = {}
        for root in roots:
            for name, field in self._fields(self._schemas[root["$ref"].removeprefix(REF)]).items():
                fields[name] = field if str(fields.get(name, field)) == str(field) else JSON
        return self._object(f"Document{self._suffix}", lambda: fields) if fields else JSON

    def of(self, schema: Any) -> Type:
        """The type of a value with this schema."""
        if not isinstance(schema, dict) or TENSOR in schema:
            return JSON
        if "$ref" in schema:
            return self._component(str(schema["$ref"]).removeprefix(REF))
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                kinds = [each for each in schema[key] if each != {"type": "null"}]
                return self.of(kinds[0]) if len(kinds) == 1 else JSON
        if schema.get("type") == "array" and "items" in schema:
            return GraphQLList(self.of(schema["items"]))
        kind = schema.get("type")
        return _SCALARS.get(kind, JSON) if isinstance(kind, str) else JSON

    def _component(self, name: str) -> Type:
        if name not in self._made:
            schema = self._schemas.get(name, {})
            self._made[name] = JSON  # a schema that is only itself
            if any(_NAME.fullmatch(field) for field in schema.get("properties", {})):
                self._made[name] = self._object(self._name(name), lambda: self._fields(schema))
            else:
                self._made[name] = self.of(schema)
        return self._made[name]

    def _fields(self, schema: Schema) -> dict[str, Type]:
        """Fields whose names GraphQL can spell."""
        return {name: self.of(field) for name, field in schema.get("properties", {}).items() if _NAME.fullmatch(name)}

    def _object(self, name: str, fields: Callable[[], dict[str, Type]]) -> Type:
        """`fields` is asked later, since types may contain each other."""
        if self._is_input:
            return GraphQLInputObjectType(name, lambda: {key: GraphQLInputField(kind) for key, kind in fields().items()})
        return GraphQLObjectType(name, lambda: {key: GraphQLField(kind) for key, kind in fields().items()})

    def _name(self, component: str) -> str:
        base = name = re.sub(r"\W", "_", f"{component}{self._suffix}", flags=re.ASCII).lstrip("_0123456789") or "Type"
        number = 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name
