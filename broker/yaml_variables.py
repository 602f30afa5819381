"""Variables in a parsed file: `${{ ENV.NAME }}`, `${{ CONTEXT.name }}` and `${{root.path.to.value}}`.

They are put in after parsing, so the text of a variable can never add keys or change the structure. A variable that is the whole of an
unquoted string takes the kind its text has (`port: ${{ ENV.PORT }}` is a number); in quotes, or within longer text, it stays text. CONTEXT
and root keep the kind of what they refer to; under `env:` everything stays text, so that `0123` survives.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from .errors import FlowError
from .yaml_tree import MAX_BYTES, MAX_DEPTH, MAX_NODES, Key, KeyPath, Tree, scalar

_VARIABLE = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def resolve(tree: Tree, context: Mapping[str, Any] | None = None) -> Tree:
    """`tree` with all variables replaced. Raises `FlowError` with source and line for one that is undefined or refers to itself."""
    tree.value = _Resolver(tree, context or {}).visit(tree.value, ())
    if _size(tree.value, MAX_NODES) > MAX_NODES:
        raise FlowError(f"{tree.source}: more than {MAX_NODES} values after variables are put in")
    return tree


def _size(value: Any, limit: int) -> int:
    """Values in `value`, counting shared ones each time; stops above `limit`."""
    count = 1
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        if count > limit:
            break
        count += _size(each, limit - count)
    return count


class _Resolver:
    def __init__(self, tree: Tree, context: Mapping[str, Any]) -> None:
        self._tree = tree
        self._context = context
        self._done: dict[KeyPath, Any] = {}
        self._open: list[KeyPath] = []  # strings whose references are being followed
        self._nodes = 0

    def visit(self, value: Any, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._refuse(path, "too many values after variables are put in")
        if isinstance(value, Mapping):
            return {key: self.visit(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.visit(each, (*path, index)) for index, each in enumerate(value)]
        if isinstance(value, str) and "${{" in value:
            return self._string(value, path)
        return value

    def _refuse(self, path: KeyPath, problem: str) -> FlowError:
        return self._tree.error(problem, *path)

    def _string(self, text: str, path: KeyPath) -> Any:
        if path in self._done:
            return self._done[path]
        if path in self._open:
            raise self._refuse(path, f"{text!r} refers to itself")
        self._open.append(path)
        self._done[path] = value = self._replaced(text, path)
        self._open.pop()
        return value

    def _replaced(self, text: str, path: KeyPath) -> Any:
        whole = _VARIABLE.fullmatch(text)
        if whole:
            value = self._variable(whole[1], path)
            is_word = isinstance(value, str) and path in self._tree.plain and "env" not in path
            return scalar(value) if is_word else value
        value = _VARIABLE.sub(lambda found: str(self._variable(found[1], path)), text)
        if len(value) > MAX_BYTES:
            raise self._refuse(path, "too long after variables are put in")
        return value

    def _variable(self, name: str, path: KeyPath) -> Any:
        space, _, rest = name.partition(".")
        if space == "ENV":
            if rest not in os.environ:
                raise self._refuse(path, f"environment variable {rest!r} is not set")
            return os.environ[rest]
        if space == "CONTEXT":
            return self._look_up(self._context, rest, path, "the context")
        if space == "root":
            return self._reference(rest, path)
        raise self._refuse(path, f"variable {name!r}: use ENV.NAME, CONTEXT.name or root.path.to.value")

    def _reference(self, name: str, path: KeyPath) -> Any:
        steps = _steps(name)
        value = self._look_up(self._tree.value, name, path, "this file")
        if isinstance(value, dict | list) and path[: len(steps)] == steps:
            raise self._refuse(path, f"'root.{name}' refers to itself")
        return self.visit(value, steps)

    def _look_up(self, value: Any, name: str, path: KeyPath, what: str) -> Any:
        for step in _steps(name):
            try:
                value = value[step]
            except (LookupError, TypeError):
                raise self._refuse(path, f"{name!r} is not in {what}") from None
        return value


def _steps(name: str) -> KeyPath:
    """ "executors[0].name" as keys and positions."""
    return tuple(int(position) if position else _position(key) for key, position in _STEP.findall(name))


def _position(key: str) -> Key:
    return int(key) if key.isdecimal() and len(key) < 9 else key
