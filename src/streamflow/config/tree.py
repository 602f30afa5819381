"""Safe YAML with the file and line of every value.

PyYAML composes nodes; values are made from them here, so no constructor of PyYAML ever runs on a user's tag. Scalars follow the YAML 1.2
core schema (`on`, `yes` and `12:30` are strings). Local tags (`!Flow`, `!MyExec`) become the key `jtype` of their mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from streamflow.broker.errors import FlowError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 10_000  # after aliases are expanded
INLINE = "inline YAML"

KeyPath = tuple[str | int, ...]

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
    """A parsed file: plain values, the line of each by its path, and which strings were written without quotes."""

    value: Any
    file: str = INLINE
    lines: dict[KeyPath, int] = field(default_factory=dict)
    plain: set[KeyPath] = field(default_factory=set)
    folder: Path | None = None  # relative paths in the file start here

    def where(self, path: KeyPath = ()) -> str:
        """ "flow.yml:12" of the value at `path`, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"


class _Loader(yaml.SafeLoader):
    """Composes nodes only. Words without quotes and tag get the tag `_PLAIN`: their kind is decided here, not by PyYAML's 1.1 rules."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"<<\Z"))], None: [(_PLAIN, re.compile(""))]}


def read_file(path: str | Path) -> Tree:
    """The tree of a YAML file. Raises `FlowError` when it cannot be read or is no safe YAML."""
    path = Path(path)
    try:
        with path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise FlowError(f"{path}: cannot be read: {reason}") from error
    tree = read_text(text, file=path.name)
    tree.folder = path.resolve().parent
    return tree


def read_text(text: str, *, file: str = INLINE) -> Tree:
    """The tree of one YAML document in `text`. Raises `FlowError` with file and line."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise FlowError(f"{file}: larger than {MAX_BYTES >> 20} MiB")
    try:
        return _Builder(file).tree(_Loader(text).get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FlowError(f"{file}:{mark.line + 1 if mark else 1}: no valid YAML: {_said(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FlowError(f"{file}:{line}: no valid YAML: character {_character(error.character)} is not allowed") from None
    except RecursionError:
        raise FlowError(f"{file}: nested too deep") from None


def from_data(data: Mapping[str, Any], *, name: str = "dict") -> Tree:
    """A tree of values that are Python objects already."""
    return Tree(dict(data), name)


class _Builder:
    """Makes values of nodes; one per document."""

    def __init__(self, file: str) -> None:
        self._tree = Tree(None, file)
        self._nodes = 0

    def tree(self, node: yaml.Node | None) -> Tree:
        if node is not None:
            self._tree.value = self._value(node, ())
        return self._tree

    def _refuse(self, node: yaml.Node, problem: str) -> FlowError:
        return FlowError(f"{self._tree.file}:{node.start_mark.line + 1}: {problem}")

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refuse(node, f"more than {MAX_NODES} values, counting every use of an anchor")
        if len(path) > MAX_DEPTH:
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
        for key_node, value_node in node.value:
            if key_node.tag == f"{_CORE}merge":
                merged |= self._merge(value_node, path)
                continue
            key = self._key(key_node)
            if key in own:
                raise self._refuse(key_node, f"key {key!r} is there twice")
            self._tree.lines[(*path, key)] = key_node.start_mark.line + 1
            own[key] = self._value(value_node, (*path, key))
        return merged | own

    def _merge(self, node: yaml.Node, path: KeyPath) -> dict[Any, Any]:
        """`<<: *anchor` or a list of them, the first winning."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise self._refuse(source, "'<<' takes a mapping or a list of mappings")
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise self._refuse(source, f"more than {MAX_NODES} values, counting every use of an anchor")
            merged |= self._value(source, path)
        return merged

    def _key(self, node: yaml.Node) -> str | int:
        if not isinstance(node, yaml.ScalarNode):
            raise self._refuse(node, "a key must be a single word or number")
        value = scalar(node.value) if node.tag == _PLAIN else None
        return value if type(value) is int else str(node.value)


def _said(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(each for each in (error.context, error.problem) if each)


def _character(code: int | bytes | str) -> str:
    return f"U+{code:04X}" if isinstance(code, int) else repr(code)


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
