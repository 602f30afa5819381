"""Random flows against a plain evaluation of the same graph in this process: joins, shards, fan-out, filters, floating branches.

`STREAMFLOW_FLOWS` flows (default 15; `make chaos` runs 300) of 2 to 12 executors, seed printed and settable (`STREAMFLOW_SEED`).
`test_killed_flows.py` has the same as real processes that are killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random

import pytest

from streamflow.broker.envelope import JSON
from streamflow.broker.errors import Code
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from tests.e2e.executors.marks import Marks
from tests.running import running

from .graphs import SEED, answer_of, documents, evaluate, random_graph, request_of, shards

pytestmark = pytest.mark.feature("FL-04", "FL-06")

FLOWS = int(os.environ.get("STREAMFLOW_FLOWS", "15"))


@pytest.mark.parametrize("number", range(FLOWS))
async def test_a_random_flow_gives_what_its_graph_says(settings: BrokerSettings, flow_name: str, number: int) -> None:
    seed = SEED + number
    print(f"seed {seed}")
    graph, adds = random_graph(random.Random(seed), flow_name, filters=True)
    docs = documents()
    expected = evaluate(graph, adds, docs)
    async with running(settings, graph, {}) as flow:
        for node in graph.nodes:
            for shard in shards(node):
                flow.start_worker(node.name, Marks, shard=shard, uses_with={"adds": adds[node.name]})
        await flow.ready_with({node.name: node.shards for node in graph.nodes})
        body = json.dumps(request_of(docs)).encode()
        calls = (flow.dispatcher.send(Call("/x", body, JSON)) for _ in range(3))
        for answer in await asyncio.wait_for(asyncio.gather(*calls), 30):
            assert answer.status.code is Code.OK, answer.status
            assert answer_of(json.loads(bytes(answer.body))) == expected, f"seed {seed}: {graph.to_dict()}"
