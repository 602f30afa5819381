"""Validation with errors a person can act on: where, which key, what is wrong, and what was probably meant."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import ErrorDetails

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import KeyPath, Tree, dotted

from .models import EFFECT

_HEADS = "there is no head here that would run it; add it as an executor of the flow, before or behind this one"
# What Jina has and this engine does not, and what to do instead.
REFUSED = {
    "uses_before": _HEADS,
    "uses_after": _HEADS,
    "uses_before_address": _HEADS,
    "uses_after_address": _HEADS,
}
_INSTANCE = re.compile(r" or instance of \w+")
log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=BaseModel)


def check_tree(model: type[Model], tree: Tree) -> Model:
    """The checked content of a file. Raises `FlowError`, a line per problem: `flow.yml:12: executors[1].replicas: Input should be ...`."""
    if not isinstance(tree.value, Mapping):
        raise tree.error(f"expected a mapping with `jtype`, got {type(tree.value).__name__}")
    return _check(model, tree.value, lambda path: tree.where(*path))


def check_keywords(model: type[Model], arguments: Mapping[str, Any], who: str) -> Model:
    """The checked keywords of a Python call; messages start with `who` ("executors[1] 'encoder'")."""
    return _check(model, arguments, lambda path: f"{who}: {dotted(path)}" if path else who)


def _check(model: type[Model], data: Mapping[str, Any], say: Callable[[KeyPath], str]) -> Model:
    try:
        checked = model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        lines = dict.fromkeys(_line(model, data, each, say) for each in details)
        raise FlowError("\n".join(lines)) from None
    for path, effect in without_effect(model, data):
        log.warning("%s: %s", say(path), effect)
    return checked


def _line(model: type[BaseModel], data: Any, error: ErrorDetails, say: Callable[[KeyPath], str]) -> str:
    path = _path(data, error)
    if error["type"] == "extra_forbidden":
        return f"{say(path)}: {REFUSED.get(str(path[-1])) or f'unknown key{_meant(path, model)}'}"
    given = error["input"]
    hint = "; a comma does not belong at the end of a line" if isinstance(given, str) and given.endswith(",") else ""
    return f"{say(path)}: {_INSTANCE.sub('', error['msg'].removeprefix('Value error, '))}{hint}"


def _path(data: Any, error: ErrorDetails) -> KeyPath:
    """Where in `data` the error is: pydantic's location without the names of union members, which are not in the data."""
    path: list[str | int] = []
    for step in error["loc"]:
        try:
            data = data[step]
        except (LookupError, TypeError):
            if error["type"] != "missing" or step is not error["loc"][-1]:
                continue
        path.append(step)
    return tuple(path)


def _meant(path: KeyPath, model: type[BaseModel]) -> str:
    """ "; did you mean 'replicas'?"."""
    known = list(_keys(_model_at(model, path[:-1])))
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        yield from (str(each) for each in alias.choices) if isinstance(alias, AliasChoices) else (name,)


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    """The model whose keys stand at `path` inside `model`."""
    for step in path:
        names = (name for name, field in model.model_fields.items() if step in _names_of(name, field.validation_alias))
        name = next(names, None)
        inner = _inner_model(model.model_fields[name].annotation) if name else None
        model = inner or model
    return model


def _names_of(name: str, alias: object) -> tuple[object, ...]:
    return (name, *alias.choices) if isinstance(alias, AliasChoices) else (name,)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner_model(each) for each in getattr(annotation, "__args__", ()))
    return next((each for each in found if each), None)


def without_effect(model: type[BaseModel], data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Arguments in `data`, valid or not, that do nothing when the flow runs: where they stand, and what to say."""
    if isinstance(data, list):
        for index, each in enumerate(data):
            yield from without_effect(model, each, (*path, index))
    if not isinstance(data, Mapping):
        return
    for name, field in model.model_fields.items():
        key = next((each for each in _names_of(name, field.validation_alias) if each in data), None)
        if key is None or data[key] is None:
            continue
        extra, inner = field.json_schema_extra, _inner_model(field.annotation)
        if isinstance(extra, dict) and EFFECT in extra:
            yield (*path, str(key)), str(extra[EFFECT])
        elif inner:
            yield from without_effect(inner, data[key], (*path, str(key)))
