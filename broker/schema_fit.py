"""Whether documents of one JSON schema can be read as documents of another. Pure; knows pydantic's and docarray's way of printing them.

Compared, by name, at any depth, in any order: types (an integer is a number, true and false are numbers too), enumerations (a common value
is enough), items of lists, tensors by their number of elements where both shapes are fixed, and nested documents (`$defs`) by structure.
What the giver has and the taker does not know is fine, and so is what the taker has a default for. Of a union, or of a value that may be
null, one member that fits is enough: only what can never work is a misfit.
Not compared: lengths, ranges, patterns and formats of values, validators, element types of tensors, and members of tuples.
Fields go by the name in the schema, which is the alias where there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

JsonSchema = Mapping[str, Any]

_TENSOR = "tensor/array shape"  # docarray's mark in the schema of a tensor field
_WIDER = frozenset({("integer", "number"), ("boolean", "integer"), ("boolean", "number")})
_REFERENCE = "#/$defs/"


class Misfit(NamedTuple):
    """Where two schemas part: what stands there in each, `given` "" = nothing although it is required."""

    path: str
    given: str
    taken: str


@dataclass(frozen=True, slots=True)
class View:
    """A place in a schema, with the definitions that its references mean."""

    node: JsonSchema
    definitions: Mapping[str, JsonSchema]

    @classmethod
    def of(cls, schema: JsonSchema) -> View:
        return cls(schema, schema.get("$defs", {}))

    def inner(self, node: Any) -> View:
        """`node` of the same schema; true, false and nonsense stand for anything."""
        return View(node if isinstance(node, Mapping) else {}, self.definitions)

    def fields(self) -> dict[str, View]:
        """The fields of a document by name."""
        properties = self.followed().node.get("properties", {})
        return {name: self.inner(node) for name, node in properties.items()}

    def required(self) -> frozenset[str]:
        return frozenset(self.followed().node.get("required", ()))

    def followed(self) -> View:
        """What a reference, or a lone member of `allOf`, stands for."""
        view, seen = self, set[int]()
        while id(view.node) not in seen:  # a wrong definition may refer to itself
            seen.add(id(view.node))
            reference, lone = view.node.get("$ref"), view.node.get("allOf", ())
            if isinstance(reference, str):
                view = self.inner(self.definitions.get(reference.removeprefix(_REFERENCE)))
            elif len(lone) == 1:
                view = self.inner(lone[0])
        return view

    def members(self, seen: set[int] | None = None) -> list[View]:
        """The members of a union, each with one type; itself when it is none."""
        view, seen = self.followed(), set() if seen is None else seen
        if id(view.node) in seen:  # a union that is a member of itself
            return []
        seen.add(id(view.node))
        nodes = view.node.get("anyOf") or view.node.get("oneOf")
        if nodes:
            return [member for node in nodes for member in view.inner(node).members(seen)]
        kinds = view.node.get("type")
        return [view.inner({**view.node, "type": kind}) for kind in kinds] if isinstance(kinds, list) else [view]

    @property
    def kind(self) -> str:
        """JSON type of a place that is no union; "" = anything."""
        found = self.node.get("type")
        if found is None:
            return next((kind for key, kind in (("properties", "object"), ("items", "array")) if key in self.node), "")
        return str(found)

    @property
    def values(self) -> list[Any] | None:
        """The values of an enumeration, None when any value will do."""
        found = [self.node["const"]] if "const" in self.node else self.node.get("enum")
        return found if isinstance(found, list) else None

    @property
    def elements(self) -> int | None:
        """Elements of a tensor with a fixed shape: docarray reshapes where only they agree. None = no tensor, or not fixed."""
        found = re.fullmatch(r"\[\s*(\d+(\s*,\s*\d+)*)\s*\]", str(self.node.get(_TENSOR, "")))
        return math.prod(int(size) for size in found[1].split(",")) if found else None

    def __str__(self) -> str:
        """For people: "tensor [128]", "array of integer", "Address", "string or null"."""
        return self.text()

    def text(self, depth: int = 0) -> str:
        return " or ".join(dict.fromkeys(_describe(member, depth) for member in self.members())) or "nothing"


def _describe(view: View, depth: int) -> str:
    if view.values is not None:
        return f"one of {', '.join(map(repr, view.values[:5]))}{' ...' if len(view.values) > 5 else ''}"
    if _TENSOR in view.node:
        return "tensor" if view.elements is None else f"tensor {view.node[_TENSOR]}"
    if view.kind == "array":
        return f"array of {view.inner(view.node['items']).text(depth + 1)}" if "items" in view.node and depth < 3 else "array"
    if view.kind == "object" and "properties" in view.node:
        return str(view.node.get("title", "object"))
    return view.kind or "anything"


def misfit(given: View, taken: View) -> Misfit | None:
    """The first place where what `given` describes can never be read as what `taken` describes; None when it can be."""
    return _Comparison().of(given, taken, "")


class _Comparison:
    """Remembers what it has compared, and takes what it is comparing for fitting: documents may contain themselves."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Misfit | None] = {}
        self._kept: list[View] = []  # so that no identity in `_known` is given to another object

    def of(self, given: View, taken: View, path: str) -> Misfit | None:
        given, taken = given.followed(), taken.followed()
        pair = id(given.node), id(taken.node)
        if pair not in self._known:
            self._kept += [given, taken]
            self._known[pair] = None
            self._known[pair] = self._of(given, taken, path)
        return self._known[pair]

    def _of(self, given: View, taken: View, path: str) -> Misfit | None:
        found = [self._single(source, target, path) for source in _not_null(given) for target in _not_null(taken)]
        if None in found or not found:
            return None
        return found[0] if len(found) == 1 else Misfit(path, str(given), str(taken))

    def _single(self, given: View, taken: View, path: str) -> Misfit | None:
        """Of two places that are no unions."""
        wrong = Misfit(path, str(given), str(taken))
        if not given.kind or not taken.kind:
            return None
        if given.kind != taken.kind and (given.kind, taken.kind) not in _WIDER:
            return wrong
        if given.values and taken.values and not any(value in taken.values for value in given.values):
            return wrong
        if taken.kind == "array":
            return self._lists(given, taken, path)
        return self._documents(given, taken, path) if "properties" in given.node and "properties" in taken.node else None

    def _lists(self, given: View, taken: View, path: str) -> Misfit | None:
        tensors = (_TENSOR in given.node) + (_TENSOR in taken.node)
        if tensors == 2:
            fixed = given.elements is not None and taken.elements is not None
            return Misfit(path, str(given), str(taken)) if fixed and given.elements != taken.elements else None
        if "items" not in given.node or "items" not in taken.node:
            return None
        source, target = given.inner(given.node["items"]), taken.inner(taken.node["items"])
        if tensors:  # printed as a flat list of numbers whatever its dimensions
            return None if _numbers(source) and _numbers(target) else Misfit(path, str(given), str(taken))
        return self.of(source, target, f"{path}[]")

    def _documents(self, given: View, taken: View, path: str) -> Misfit | None:
        has, required = given.fields(), taken.required()
        for name, target in taken.fields().items():
            inside = f"{path}.{name}" if path else name
            found = self.of(has[name], target, inside) if name in has else Misfit(inside, "", str(target)) if name in required else None
            if found is not None:
                return found
        return None


def _not_null(view: View) -> list[View]:
    """The members of a union without null, unless there is nothing else."""
    members = view.members()
    return [member for member in members if member.kind != "null"] or members


def _numbers(items: View) -> bool:
    """Whether a tensor may be made of, or become, a list of `items`."""
    return any(member.kind in ("", "number", "integer", "boolean") or member.kind == "array" for member in items.members())


def misfits_of_fields(given: Mapping[str, list[View]], taken: View) -> Iterator[Misfit]:
    """Of documents whose fields come from several places: `given` has the views of each field, of which one has to fit."""
    required = taken.required()
    for name, target in taken.fields().items():
        if name not in given:
            if name in required:
                yield Misfit(name, "", str(target))
            continue
        found = [misfit(view, target) for view in given[name]]
        if None not in found:
            first = found[0]
            assert first is not None
            yield first._replace(path=f"{name}.{first.path}" if first.path and first.path[0] != "[" else f"{name}{first.path}")
