"""Random graphs of `Marks`, and a plain evaluation of them in this process: what a flow must answer, whatever happens to it."""

from __future__ import annotations

import os
import random
import re
from typing import Any

from streamflow.broker.flow import GATEWAY, Graph, Node, Polling

SEED = int(os.environ.get("STREAMFLOW_SEED", "20261120"))

Document = dict[str, Any]


def run(node: Node, docs: list[Document], adds: bool) -> list[Document]:
    """What `Marks` makes of `docs` at `node`, shards merged. A `when` takes documents out; one that takes out all leaves nothing to call it
    with, while a request that came without documents does."""
    if node.when is not None and docs:
        docs = [doc for doc in docs if re.search(node.when["text"]["$regex"], doc["text"])]
        if not docs:
            return []
    made = [{**doc, "text": f"{doc['text']}<{node.name}", "found": list(doc["found"])} for doc in docs]
    if node.shards > 1:
        for doc in made:
            doc["found"] += [f"{node.name}.{shard}" for shard in range(node.shards)]
    return made + ([{"id": f"by-{node.name}", "text": node.name, "found": []}] if adds else [])


def merged(branches: list[list[Document]]) -> list[Document]:
    """Same id = one document at the first place; the later text wins, found marks are united in order."""
    result: dict[str, Document] = {}
    for branch in branches:
        for doc in branch:
            known = result.get(doc["id"])
            if known is None:
                result[doc["id"]] = {**doc, "found": list(doc["found"])}
            else:
                known["text"] = doc["text"]
                known["found"] += [mark for mark in doc["found"] if mark not in known["found"]]
    return list(result.values())


def evaluate(graph: Graph, adds: dict[str, bool], docs: list[Document]) -> list[Document]:
    outputs: dict[str, list[Document]] = {GATEWAY: docs}
    for node in graph.topological():
        outputs[node.name] = run(node, merged([outputs[need] for need in node.needs]), adds[node.name])
    return merged([outputs[leaf.name] for leaf in graph.leaves])


def random_graph(dice: random.Random, name: str, *, filters: bool = False) -> tuple[Graph, dict[str, bool]]:
    """A flow of 2 to 12 executors, a quarter of them with a `when` if there are to be `filters`; and which of them add a document."""
    nodes: list[Node] = []
    for number in range(dice.randint(2, 12)):
        earlier = [GATEWAY, *(node.name for node in nodes if not node.floating)]
        needs = tuple(dice.sample(earlier, k=min(len(earlier), dice.choice((1, 1, 1, 2, 3)))))
        shards = dice.choice((1, 1, 1, 1, 2, 3))
        polling = {"*": Polling.ALL} if shards > 1 else {}
        when = {"text": {"$regex": _pattern(dice, number)}} if filters and dice.random() < 0.25 else None
        floating = dice.random() < 0.08 and number > 0
        nodes.append(Node(f"e{number}", needs, shards=shards, polling=polling, floating=floating, when=when))
    return Graph(name, tuple(nodes)), {node.name: dice.random() < 0.4 for node in nodes}


def _pattern(dice: random.Random, number: int) -> str:
    """Documents that passed a certain executor, some of the request's own, or those that executors added."""
    return dice.choice((f"<e{dice.randrange(number)}\\b" if number else "t[01]", "^t[01]", "^t", "^e"))


def documents(prefix: str = "d") -> list[Document]:
    """What a request brings."""
    return [{"id": f"{prefix}{at}", "text": f"t{at}", "found": []} for at in range(3)]


def request_of(docs: list[Document]) -> dict[str, Any]:
    """The JSON body of a request."""
    return {"data": [{"id": doc["id"], "text": doc["text"]} for doc in docs]}


def shards(node: Node) -> range | tuple[int]:
    """The numbers of its shards, -1 where there are none."""
    return range(node.shards) if node.shards > 1 else (-1,)


def answer_of(data: list[dict[str, Any]]) -> list[Document]:
    """The documents of a JSON answer as the evaluation writes them."""
    return [{"id": doc["id"], "text": doc["text"], "found": [each["shard"] for each in doc["found"]]} for doc in data]
