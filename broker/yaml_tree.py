"""YAML (and so JSON) text to a plain tree that knows the file and line of every value. Used for flow, deployment and executor files.

PyYAML composes nodes; values are made of them here, so no constructor of PyYAML ever runs on a user's tag. Scalars follow the YAML 1.2
core schema (`on`, `yes`, `12:30` and dates are text). A local tag (`!Flow`, `!MyExec`) becomes the key `jtype` of its mapping; every other
tag is refused. Size, depth and alias expansion are bounded, so that a hostile file costs an error and not the process.
Variables are put in afterwards, by `yaml_variables.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import FlowError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 50_000  # after aliases are expanded
INLINE = "inline YAML"

Key = str | int
KeyPath = tuple[Key, ...]

_CORE = "tag:yaml.org,2002:"
_PLAIN = "plain"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_COLLECTIONS = {"seq": yaml.SequenceNode, "map": yaml.MappingNode}


@dataclass(slots=True)
class Tree:
    """What a text says: dicts, lists and scalars; the line (from 1) of every path in it, and which strings were written without quotes."""

    value: Any
    source: str = INLINE  # for errors: the file as the user named it, or what stands for it
    lines: dict[KeyPath, int] = field(default_factory=dict)
    plain: set[KeyPath] = field(default_factory=set)
    file: Path | None = None  # absolute; relative paths in the text start at its folder

    def line_of(self, *path: Key) -> str:
        """ "flow.yml:12" of the value at `path`, or of the nearest one around it that stands in the text."""
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), None)
        return self.source if line is None else f"{self.source}:{line}"

    def where(self, *path: Key) -> str:
        """ "flow.yml:12: executors[1].replicas"."""
        return f"{self.line_of(*path)}: {dotted(path)}" if path else self.line_of()

    def error(self, text: str, *path: Key) -> FlowError:
        """The error to raise for what stands at `path`."""
        return FlowError(f"{self.where(*path)}: {text}")


def dotted(path: KeyPath) -> str:
    """ "executors[1].replicas"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def read(path: str | Path) -> Tree:
    """The tree of a file. Raises `FlowError` when it cannot be read or is no safe YAML."""
    path = Path(path)
    try:
        with path.open("rb") as source:
            text = source.read(MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise FlowError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        # Cutting at the limit may split a character; too large is the better reason then.
        too_large = path.stat().st_size > MAX_BYTES
        raise FlowError(_too_large(str(path)) if too_large else f"{path}: cannot be read: not UTF-8 text") from error
    tree = parse(text, str(path))
    tree.file = path.resolve()
    return tree


def parse(text: str, source: str = INLINE) -> Tree:
    """The tree of the one YAML document in `text`, None when it is empty. Raises `FlowError` with source and line."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise FlowError(_too_large(source))
    try:
        return _Builder(source).tree(_Loader(text).get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FlowError(f"{source}:{mark.line + 1 if mark else 1}: no valid YAML: {_said(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FlowError(f"{source}:{line}: no valid YAML: character {_character(error.character)} is not allowed") from None
    except RecursionError:
        raise FlowError(f"{source}: nested too deep") from None


def from_data(data: Mapping[str, Any], source: str = "dict") -> Tree:
    """A tree of values that are Python objects already; it knows no lines."""
    return Tree(dict(data), source)


class _Loader(yaml.SafeLoader):
    """Composes nodes only. Words without quotes and tag get the tag `_PLAIN`: their kind is decided here, not by PyYAML's 1.1 rules."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"<<\Z"))], None: [(_PLAIN, re.compile(""))]}


class _Builder:
    """Makes values of nodes, once per place where they appear; one per document."""

    def __init__(self, source: str) -> None:
        self._tree = Tree(None, source)
        self._nodes = 0

    def tree(self, node: yaml.Node | None) -> Tree:
        if node is not None:
            self._tree.value = self._value(node, ())
        return self._tree

    def _refuse(self, node: yaml.Node, problem: str) -> FlowError:
        return FlowError(f"{self._tree.source}:{node.start_mark.line + 1}: {problem}")

    def _count(self, node: yaml.Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refuse(node, f"more than {MAX_NODES} values, counting every use of an anchor")

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count(node)
        if len(path) > MAX_DEPTH:  # also where an alias contains itself
            raise self._refuse(node, f"nested more than {MAX_DEPTH} deep")
        self._tree.lines.setdefault(path, node.start_mark.line + 1)
        tag = node.tag or ""
        if tag.startswith("!") and tag != "!":
            return self._tagged(node, tag[1:], path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if tag.removeprefix(_CORE) not in _COLLECTIONS or not isinstance(node, _COLLECTIONS[tag.removeprefix(_CORE)]):
            raise self._refuse(node, f"tag {tag!r} is not allowed")
        return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)

    def _tagged(self, node: yaml.Node, name: str, path: KeyPath) -> Any:
        """`!Name` on a mapping, or on nothing: the mapping with `jtype: Name` in front."""
        if isinstance(node, yaml.MappingNode):
            return {"jtype": name} | self._mapping(node, path)
        if isinstance(node, yaml.ScalarNode) and not node.value:
            return {"jtype": name}
        raise self._refuse(node, f"tag '!{name}' belongs before a mapping")

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind = (node.tag or "").removeprefix(_CORE)
        self._tree.plain.discard(path)
        if node.tag == _PLAIN:
            self._tree.plain.add(path)
            return scalar(node.value)
        if kind in ("int", "float", "bool", "null"):
            return self._forced(node, kind)
        if kind not in ("str", "merge", "!"):
            raise self._refuse(node, f"tag {node.tag!r} is not allowed")
        return node.value

    def _forced(self, node: yaml.ScalarNode, kind: str) -> Any:
        value = scalar(node.value)
        if kind == "float" and type(value) is int:
            return float(value)
        if type(value).__name__ != {"null": "NoneType"}.get(kind, kind):
            raise self._refuse(node, f"{node.value!r} is no {kind}")
        return value

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        return [self._value(each, (*path, index)) for index, each in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for _, value_node in filter(_is_merge, node.value):  # first, so that what is known of a path is known of the own value
            merged |= self._merge(value_node, path)
        for key_node, value_node in node.value:
            if _is_merge((key_node, value_node)):
                continue
            key = self._key(key_node)
            if key in own:
                raise self._refuse(key_node, f"key {key!r} is there twice, first in line {self._tree.lines[*path, key]}")
            self._tree.lines[*path, key] = key_node.start_mark.line + 1
            own[key] = self._value(value_node, (*path, key))
        return merged | own

    def _merge(self, node: yaml.Node, path: KeyPath) -> dict[Any, Any]:
        """`<<: *anchor` or a list of them, the first winning."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise self._refuse(source, "'<<' takes a mapping or a list of mappings")
            merged |= self._value(source, path)
        return merged

    def _key(self, node: yaml.Node) -> Key:
        """Text as written (`yes` and `1.5` are text here), or a whole number."""
        if not isinstance(node, yaml.ScalarNode):
            raise self._refuse(node, "a key must be a single word or number")
        value = scalar(node.value) if node.tag == _PLAIN else None
        return value if type(value) is int else str(node.value)


def _is_merge(entry: tuple[yaml.Node, yaml.Node]) -> bool:
    return bool(entry[0].tag == f"{_CORE}merge")


def scalar(text: str) -> Any:
    """The value of an unquoted word: null, true/false, a number, else the text itself (YAML 1.2 core schema)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 64:
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text) and len(text) < 64:
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _said(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(each for each in (error.context, error.problem) if each)


def _character(code: int | bytes | str) -> str:
    return f"U+{code:04X}" if isinstance(code, int) else repr(code)


def _too_large(source: str) -> str:
    return f"{source}: larger than {MAX_BYTES >> 20} MiB"
