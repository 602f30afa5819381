"""What a flow chart shows, before it is drawn: boxes and the lines between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from streamflow.broker.flow import GATEWAY, Graph, Node

ANSWER = "gateway:answer"  # no executor can have this name
MAX_LABEL = 40


class BoxKind(StrEnum):
    CLIENT = "client"
    EXECUTOR = "executor"
    FLOATING = "floating"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Box:
    """`lines`: the name, then what there is to say about it."""

    key: str
    lines: tuple[str, ...]
    kind: BoxKind = BoxKind.EXECUTOR


@dataclass(frozen=True, slots=True)
class Line:
    source: str
    target: str
    dotted: bool = False  # nobody waits for what travels here


@dataclass(frozen=True, slots=True)
class Chart:
    """`boxes` in flow order: the gateway first, the answer last."""

    title: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def chart_of(graph: Graph) -> Chart:
    """The chart of a checked graph."""
    boxes = [Box(GATEWAY, (GATEWAY,), BoxKind.CLIENT), *map(_box, graph.nodes), Box(ANSWER, (GATEWAY,), BoxKind.CLIENT)]
    lines = [Line(need, node.name, node.floating) for node in graph.nodes for need in node.needs]
    leaves = [node.name for node in graph.leaves] or [GATEWAY]
    return Chart(graph.flow, tuple(boxes), (*lines, *(Line(leaf, ANSWER) for leaf in leaves)))


def _box(node: Node) -> Box:
    kind = BoxKind.EXTERNAL if node.external or node.hosts else BoxKind.FLOATING if node.floating else BoxKind.EXECUTOR
    about = [", ".join(node.hosts) or uses_text(node.options.get("uses"))]
    counts = [f"{count} {what}" for count, what in ((node.replicas, "replicas"), (node.shards, "shards")) if count > 1]
    about += [", ".join(counts), "no_reduce" if node.no_reduce else "", _condition(node)]
    return Box(node.name, (node.name, *(short(line) for line in about if line)), kind)


def uses_text(uses: Any) -> str:
    """A word for whatever `uses` is: the class, the file, the image."""
    if isinstance(uses, type):
        return uses.__name__
    jtype = uses.get("jtype") if isinstance(uses, Mapping) else getattr(uses, "jtype", None)
    if jtype is not None:
        return str(jtype)
    text = str(uses or "").strip()
    return "inline" if "\n" in text else text if "://" in text else PurePath(text).name


def _condition(node: Node) -> str:
    return "" if node.when is None else f"when {json.dumps(node.when, ensure_ascii=False, default=str)}"


def short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"
