"""Kinds of values in flow files and keywords, and how loosely they may be written: a list or one of it, a mapping or its JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def _as_list(value: object) -> object:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return [value]
    return list(value) if isinstance(value, tuple | set) else value


def _as_text(value: object) -> object:
    """Environment variables are text; YAML writes numbers and booleans without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value) if isinstance(value, int | float) else value


def from_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("Input should be a mapping or JSON text of one") from None


def _polling(value: object) -> object:
    """A word stands for all endpoints; a mapping may be JSON text; words in any case."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = from_json(value)
    table = {"*": value} if isinstance(value, str) else value
    return {key: each.upper() if isinstance(each, str) else each for key, each in table.items()} if isinstance(table, Mapping) else table


def _protocols(value: object) -> object:
    listed = _as_list(value)
    return [each.lower() if isinstance(each, str) else each for each in listed] if isinstance(listed, list) else listed


def _coding(value: object) -> object:
    """gRPC's spelling too: "Gzip", "NoCompression"."""
    return value.lower().replace("nocompression", "none") if isinstance(value, str) else value


Int = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=65535)]
Ports = Annotated[list[Port], BeforeValidator(_as_list, json_schema_input_type=Port | list[Port])]
Texts = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]
Env = dict[str, Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int | float | bool | None)]]
Polls = Annotated[dict[str, Literal["ANY", "ALL"]], BeforeValidator(_polling, json_schema_input_type=str | dict[str, str])]
Protocols = Annotated[
    list[Literal["grpc", "http", "websocket"]],
    BeforeValidator(_protocols, json_schema_input_type=Literal["grpc", "http", "websocket"] | list[Literal["grpc", "http", "websocket"]]),
]
Level = Annotated[
    Literal["debug", "info", "warning", "error"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]
Coding = Annotated[Literal["none", "gzip", "deflate"], BeforeValidator(_coding)]
Object = dict[str, Any]
JsonObject = Annotated[dict[str, Any], BeforeValidator(from_json, json_schema_input_type=str | dict[str, Any])]
Free = JsonValue
