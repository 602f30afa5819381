"""Announced JSON Schemas as OpenAPI components.

They are put in as the workers announced them, never rebuilt: docarray cannot print again every schema that it can read. Each announced
schema and each of its definitions becomes a component of its own name, `$ref`s rewritten to it; equal ones are shared. Only tensors are
described anew: docarray says a flat list of numbers, and they are printed nested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
REF = "#/components/schemas/"
TENSOR = "tensor/array shape"  # docarray's mark in the schema of a tensor field: "[2, 3]", "[x, 3]", "not specified"
_UNTYPED: Schema = {"title": "Document", "type": "object", "description": "A document without a declared schema."}
_BAD_CHARS = re.compile(r"[^A-Za-z0-9._-]+")
_LOCAL_REF = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")
_VALUES = frozenset(("default", "example", "examples", "const", "enum"))  # plain data, in which "$ref" means nothing
_NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "dependentSchemas"))  # maps from a name to a schema


def component_name(text: str) -> str:
    """`text` with only the characters that a component's name may have."""
    return _BAD_CHARS.sub("_", text).strip("_") or "root"


class Components:
    """The `components.schemas` of the document, with unique names."""

    def __init__(self, schemas: Schema) -> None:
        self._schemas = schemas
        self._sources: dict[str, Any] = {}  # name -> the announced schema and its root, to share equal ones

    def add(self, announced: Schema | None, fallback_name: str) -> Schema:
        """A `$ref` to the component that holds `announced` (None = untyped)."""
        root = announced if isinstance(announced, dict) else _UNTYPED
        definitions = _definitions(root)
        names = {"": self._name(str(root.get("title") or fallback_name), (root, definitions))}
        for key, definition in definitions.items():
            names[key] = self._name(key, (definition, definitions))
        for key, name in names.items():
            if name not in self._schemas:
                source = definitions[key] if key else {k: v for k, v in root.items() if k not in ("$defs", "definitions", "$schema")}
                self._schemas[name] = _rewrite(source, names)
        return {"$ref": REF + names[""]}

    def _name(self, wanted: str, source: Any) -> str:
        """`wanted`, or `wanted_2` ... when another schema has that name already."""
        base = component_name(wanted)
        name, number = base, 1
        while name in self._sources and self._sources[name] != source or name in self._schemas and name not in self._sources:
            number += 1
            name = f"{base}_{number}"
        self._sources[name] = source
        return name


def _definitions(root: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("definitions", "$defs"):
        definitions = root.get(key)
        if isinstance(definitions, dict):
            found |= definitions
    return found


def _rewrite(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with local references pointing at components; `names` maps definition keys ("" = the schema itself)."""
    if isinstance(value, list):
        return [_rewrite(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return _tensor(value)
    return {key: _rewrite_item(key, item, names) for key, item in value.items()}


def _tensor(schema: Schema) -> Schema:
    shape = str(schema[TENSOR])
    sizes = [size.strip() for size in shape.strip("[]").split(",")] if shape.startswith("[") and "..." not in shape else []
    nested: Schema = {"type": "number"} if sizes else {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}}
    for size in reversed(sizes):
        nested = {"type": "array", "items": nested, **({"minItems": int(size), "maxItems": int(size)} if size.isdecimal() else {})}
    return {key: item for key, item in schema.items() if key != "example"} | nested  # the example is text, whatever the type


def _rewrite_item(key: str, item: Any, names: Mapping[str, str]) -> Any:
    if key in _VALUES:
        return item
    if key == "$ref" and isinstance(item, str):
        return _reference(item, names)
    if key == "mapping" and isinstance(item, dict):  # of a discriminator
        return {name: _reference(target, names) if isinstance(target, str) else target for name, target in item.items()}
    if key in _NAMED_SCHEMAS and isinstance(item, dict):
        return {name: _rewrite(schema, names) for name, schema in item.items()}
    return _rewrite(item, names)


def _reference(target: str, names: Mapping[str, str]) -> str:
    if target == "#":
        return REF + names[""]
    match = _LOCAL_REF.match(target)
    if match is None or match[1] not in names:
        return target
    return REF + names[match[1]] + target[match.end() :]
