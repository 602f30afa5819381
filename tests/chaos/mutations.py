"""Requests as a hostile or broken client would write them: seeded changes to valid JSON, protobuf and msgpack."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

WORDS = [
    "data", "docs", "parameters", "header", "execEndpoint", "targetExecutor", "requestId", "request_id", "timeout", "id", "text", "tags",
    "number", "__results__", "one__mark", "/run", "/", "*", ">", "../..", "$JS.API", "\x00", "\r\n", "'", "\\", "\ud7ff", "\U0001f600",
]  # fmt: skip
NUMBERS = [0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 1e308, -1e-308, 0.1]
VALUES: list[Any] = [None, True, False, "", [], {}, [[]], {"": ""}, *NUMBERS, *WORDS]
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"NaN",
    b"Infinity",
    b"-",
    b"1e999",
    b"/*",
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
]


def json_bodies(seed: int, number: int, valid: list[dict[str, Any]]) -> Iterator[bytes]:
    """`number` bodies: half of them still JSON of a wrong shape, half of them broken text."""
    chance = random.Random(seed)
    for at in range(number):
        tree = changed(chance, json.loads(json.dumps(chance.choice(valid))))
        body = json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        yield body if at % 2 else broken(chance, body, TOKENS)


def messages(seed: int, number: int, valid: list[bytes], inner: Callable[[random.Random], bytes] | None = None) -> Iterator[bytes]:
    """`number` serialized messages with bytes changed, cut, doubled; every second one sound outside and broken inside, by `inner`."""
    chance = random.Random(seed)
    for at in range(number):
        yield inner(chance) if inner is not None and at % 2 else broken_bytes(chance, chance.choice(valid))


def broken_bytes(chance: random.Random, data: bytes) -> bytes:
    return broken(chance, data, [bytes([chance.randrange(256)]) for _ in range(8)])


def changed(chance: random.Random, tree: Any) -> Any:
    """`tree` with one to four nodes changed."""
    for _ in range(chance.randint(1, 4)):
        tree = _changed(chance, tree)
    return tree


def _changed(chance: random.Random, node: Any) -> Any:
    """Go down by chance, and change what is found there."""
    if isinstance(node, dict) and node and chance.random() < 0.75:
        key = chance.choice(list(node))
        node[key] = _changed(chance, node[key])
        return node
    if isinstance(node, list) and node and chance.random() < 0.75:
        at = chance.randrange(len(node))
        node[at] = _changed(chance, node[at])
        return node
    return chance.choice(_CHANGES)(chance, node)


def _other(chance: random.Random, _node: Any) -> Any:
    return copy.deepcopy(chance.choice(VALUES))


def _wrapped(chance: random.Random, node: Any) -> Any:
    for _ in range(chance.choice((1, 2, 70, 100))):
        node = [node] if chance.random() < 0.5 else {chance.choice(WORDS): node}
    return node


def _added(chance: random.Random, node: Any) -> Any:
    if isinstance(node, dict):
        node[chance.choice(WORDS)] = _other(chance, None)
    elif isinstance(node, list):
        node.insert(chance.randint(0, len(node)), _other(chance, None))
    return node


def _removed(chance: random.Random, node: Any) -> Any:
    if isinstance(node, dict) and node:
        del node[chance.choice(list(node))]
    elif isinstance(node, list) and node:
        del node[chance.randrange(len(node))]
    return node


def _grown(chance: random.Random, node: Any) -> Any:
    times = chance.choice((2, 50)) if isinstance(node, str | list) and len(node) < 1000 else 3
    return node * times if isinstance(node, str) else [json.loads(json.dumps(node)) for _ in range(times)]


_CHANGES: list[Callable[[random.Random, Any], Any]] = [_other, _other, _wrapped, _added, _added, _removed, _grown]


def broken(chance: random.Random, body: bytes, tokens: list[bytes]) -> bytes:
    """`body` with one to six byte-level changes."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        chance.choice(_BREAKS)(chance, data, tokens)
    return bytes(data)


def _place(chance: random.Random, data: bytearray) -> int:
    return chance.randrange(len(data)) if data else 0


def _flip(chance: random.Random, data: bytearray, _tokens: list[bytes]) -> None:
    if data:
        data[_place(chance, data)] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray, _tokens: list[bytes]) -> None:
    if data:
        data[_place(chance, data)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))


def _cut(chance: random.Random, data: bytearray, _tokens: list[bytes]) -> None:
    del data[_place(chance, data) :]


def _drop(chance: random.Random, data: bytearray, _tokens: list[bytes]) -> None:
    start = _place(chance, data)
    del data[start : start + chance.randint(1, 16)]


def _double(chance: random.Random, data: bytearray, _tokens: list[bytes]) -> None:
    start = _place(chance, data)
    data[start:start] = data[start : start + chance.randint(1, 64)]


def _insert(chance: random.Random, data: bytearray, tokens: list[bytes]) -> None:
    start = _place(chance, data)
    data[start:start] = chance.choice(tokens) * chance.choice((1, 1, 1, 3, 100))


_BREAKS: list[Callable[[random.Random, bytearray, list[bytes]], None]] = [_flip, _flip, _set, _cut, _drop, _double, _insert]
