"""Parameters as plain values: what JSON, msgpack and protobuf's Struct can all hold."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

from .errors import BadArguments

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def parameters_of(given: Any) -> dict[str, Any]:
    """The dict in `parameters=`: None, a mapping or a pydantic model. Raises `BadArguments` for anything else."""
    if given is None:
        return {}
    if isinstance(given, BaseModel):
        return given.model_dump()
    if not isinstance(given, dict):
        raise BadArguments(f"parameters: expected a dict or a pydantic model, got {type(given).__name__}")
    return given


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with arrays as lists, models as dicts, dates as text. Raises `BadArguments` naming what cannot travel."""
    return orjson.loads(to_json(values))  # type: ignore[no-any-return]  # an object in, an object out


def to_json(values: Any) -> bytes:
    try:
        return orjson.dumps(values, default=_other, option=_OPTIONS)
    except TypeError as error:
        raise BadArguments(f"parameters: {error.__cause__ or error}") from error


def _other(value: Any) -> Any:
    for method in ("tolist", "model_dump"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent")
