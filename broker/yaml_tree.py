"""YAML (and so JSON) text to a plain tree that remembers lines. Pure: reads no other file, builds no object, expands no variable.

Only mappings (keys: text or whole numbers), lists and scalars come out. A local tag `!Name` on a mapping becomes its key `jtype: Name`;
every other tag is refused.
Size, depth and alias expansion are bounded, so that a hostile file costs an error and not the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .errors import FlowError

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 50_000  # after aliases are expanded
INLINE = "<inline>"
_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "binary"))
_MAP = "tag:yaml.org,2002:map"

Key = str | int
TreePath = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """What a text says: dicts, lists, scalars; and the line (from 1) of every path in it."""

    value: Any
    source: str = INLINE
    lines: dict[TreePath, int] = field(default_factory=dict)

    def where(self, *path: Key) -> str:
        """`file:line: path.to.key`, with the line of the nearest parent when the path itself is not in the text."""
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), None)
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
        place = self.source if line is None else f"{self.source}:{line}"
        return f"{place}: {dotted}" if dotted else place

    def error(self, text: str, *path: Key) -> FlowError:
        """The error to raise for what stands at `path`."""
        return FlowError(f"{self.where(*path)}: {text}")


def read(path: Path) -> Tree:
    """The tree in a file. Raises `FlowError` when it cannot be read or parsed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FlowError(f"{path}: larger than {MAX_BYTES} bytes")
        return parse(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise FlowError(f"{path}: cannot be read: {error}") from error


def parse(text: str, source: str = INLINE) -> Tree:
    """The tree in `text`; `source` names it in errors. An empty text is `None`. Raises `FlowError` with line and reason."""
    if len(text) > MAX_BYTES:
        raise FlowError(f"{source}: larger than {MAX_BYTES} bytes")
    try:
        builder = _Builder(yaml.SafeLoader(text), source)
        root = builder.loader.get_single_node()
        return Tree(None if root is None else builder.build(root, ()), source, builder.lines)
    except yaml.YAMLError as error:
        raise FlowError(f"{source}:{_line_of(error)}: {_reason(error)}") from error
    except RecursionError:
        raise FlowError(f"{source}: nested deeper than {MAX_DEPTH} levels") from None


class _Builder:
    """Turns nodes into plain values, once per place where they appear."""

    def __init__(self, loader: yaml.SafeLoader, source: str) -> None:
        self.loader = loader
        self.source = source
        self.lines: dict[TreePath, int] = {}
        self.count = 0

    def build(self, node: Node, path: TreePath, line: int | None = None) -> Any:
        self.lines[path] = line or node.start_mark.line + 1
        self.count += 1
        if self.count > MAX_NODES:
            raise self.error(node, f"more than {MAX_NODES} values, aliases expanded")
        if len(path) > MAX_DEPTH:  # also where an alias contains itself
            raise self.error(node, f"nested deeper than {MAX_DEPTH} levels")
        if node.tag.startswith("!"):
            return self.tagged(node, path)
        return self.plain(node, path)

    def plain(self, node: Node, path: TreePath) -> Any:
        if isinstance(node, MappingNode) and node.tag == _MAP:
            return {key: self.build(value, (*path, key), line) for key, value, line in self.entries(node)}
        if isinstance(node, SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(value, (*path, index)) for index, value in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in _SCALARS:
            return self.scalar(node)
        raise self.error(node, f"tag {node.tag!r} is not allowed; only plain YAML and !ClassName on a mapping are")

    def tagged(self, node: Node, path: TreePath) -> dict[str, Any]:
        name = node.tag[1:]
        if isinstance(node, ScalarNode) and not node.value:
            return {"jtype": name}
        if not isinstance(node, MappingNode) or not name:
            raise self.error(node, f"tag {node.tag!r} stands on a value that is not a mapping")
        values = {str(key): self.build(value, (*path, key), line) for key, value, line in self.entries(node)}
        return {"jtype": name} | values

    def entries(self, node: MappingNode) -> Iterator[tuple[Key, Node, int]]:
        """Key, value node and line of each entry, `<<` merged."""
        seen: dict[Key, int] = {}
        for key_node, _ in node.value:
            key, line = self.key(key_node), key_node.start_mark.line + 1
            if key in seen and key != "<<":
                raise self.error(key_node, f"key {key!r} stands here twice, first in line {seen[key]}")
            seen[key] = line
        if "<<" in seen:
            self.loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            yield self.key(key_node), value_node, key_node.start_mark.line + 1

    def key(self, node: Node) -> Key:
        """Text as written (`yes` and `on` are no booleans here), or a whole number."""
        if not isinstance(node, ScalarNode):
            raise self.error(node, "a key must be text")
        value = self.scalar(node) if node.tag == "tag:yaml.org,2002:int" else node.value
        return value if isinstance(value, int) else str(node.value)

    def scalar(self, node: ScalarNode) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError, TypeError) as error:
            raise self.error(node, f"not a value: {str(node.value)[:80]!r}: {error}") from error

    def error(self, node: Node, text: str) -> FlowError:
        return FlowError(f"{self.source}:{node.start_mark.line + 1}: {text}")


def _line_of(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark else 1


def _reason(error: yaml.YAMLError) -> str:
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    return ": ".join(part for part in parts if part) or " ".join(str(error).split())
