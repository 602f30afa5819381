"""Random flows against a plain evaluation of the same graph in this process: joins, shards, fan-out, floating branches, targets.

`STREAMFLOW_FLOWS` flows (default 15; `make chaos` runs 300) of 2 to 12 executors, seed printed and settable (`STREAMFLOW_SEED`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker.envelope import JSON
from streamflow.broker.errors import Code
from streamflow.broker.flow import GATEWAY, Graph, Node, Polling
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from tests.running import running

pytestmark = pytest.mark.feature("FL-04", "FL-06")

FLOWS = int(os.environ.get("STREAMFLOW_FLOWS", "15"))
SEED = int(os.environ.get("STREAMFLOW_SEED", "20261120"))


class Found(BaseDoc):
    shard: str


class Item(BaseDoc):
    text: str = ""
    found: DocList[Found] = DocList[Found]()


class Marks(Executor):
    """Adds its name to every text, a document of its own if told to, and a mark per shard."""

    def __init__(self, adds: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.adds = adds

    @requests
    def mark(self, docs: DocList[Item], **kwargs: Any) -> None:
        name, shard = self.runtime_args.name, self.runtime_args.shard_id
        for doc in docs:
            doc.text += f"<{name}"
            if shard >= 0:
                doc.found.append(Found(id=f"{name}.{shard}", shard=f"{name}.{shard}"))
        if self.adds:
            docs.append(Item(id=f"by-{name}", text=name))


Document = dict[str, Any]


def run(node: Node, docs: list[Document], adds: bool) -> list[Document]:
    """What `Marks` makes of `docs` at `node`, shards merged."""
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


def random_graph(dice: random.Random, name: str) -> tuple[Graph, dict[str, bool]]:
    nodes: list[Node] = []
    for number in range(dice.randint(2, 12)):
        earlier = [GATEWAY, *(node.name for node in nodes if not node.floating)]
        needs = tuple(dice.sample(earlier, k=min(len(earlier), dice.choice((1, 1, 1, 2, 3)))))
        shards = dice.choice((1, 1, 1, 1, 2, 3))
        polling = {"*": Polling.ALL} if shards > 1 else {}
        nodes.append(Node(f"e{number}", needs, shards=shards, polling=polling, floating=dice.random() < 0.08 and number > 0))
    return Graph(name, tuple(nodes)), {node.name: dice.random() < 0.4 for node in nodes}


@pytest.mark.parametrize("number", range(FLOWS))
async def test_a_random_flow_gives_what_its_graph_says(settings: BrokerSettings, flow_name: str, number: int) -> None:
    seed = SEED + number
    print(f"seed {seed}")
    graph, adds = random_graph(random.Random(seed), flow_name)
    docs = [{"id": f"d{n}", "text": f"t{n}", "found": []} for n in range(3)]
    expected = evaluate(graph, adds, docs)
    async with running(settings, graph, {}) as flow:
        for node in graph.nodes:
            for shard in range(node.shards) if node.shards > 1 else (-1,):
                flow.start_worker(node.name, Marks, shard=shard, uses_with={"adds": adds[node.name]})
        await flow.ready_with({node.name: node.shards for node in graph.nodes})
        body = json.dumps({"data": [{"id": doc["id"], "text": doc["text"]} for doc in docs]}).encode()
        calls = (flow.dispatcher.send(Call("/x", body, JSON)) for _ in range(3))
        for answer in await asyncio.wait_for(asyncio.gather(*calls), 30):
            assert answer.status.code is Code.OK, answer.status
            got = [
                {"id": doc["id"], "text": doc["text"], "found": [each["shard"] for each in doc["found"]]}
                for doc in json.loads(bytes(answer.body))
            ]
            assert got == expected, f"seed {seed}: {graph.to_dict()}"
