"""Random flows in which executors fail: the client is told, and wherever parts would have met nothing is left.

`STREAMFLOW_FLOWS` flows (default 3), seed printed and settable (`STREAMFLOW_SEED`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import pytest
from docarray import DocList

from streamflow import requests
from streamflow.broker import subjects
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import Code
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import queues_of
from streamflow.gateway.dispatch import Call
from tests.e2e.executors.marks import Item, Marks
from tests.running import Running, running
from tests.waiting import eventually

from .graphs import SEED, documents, random_graph, request_of, shards

pytestmark = pytest.mark.feature("FL-04", "FL-06")

FLOWS = int(os.environ.get("STREAMFLOW_FLOWS", "3"))


class Fails(Marks):
    """Every second request; of a sharded executor not in every shard."""

    @requests
    def mark(self, docs: DocList[Item], context: Any = None, **kwargs: Any) -> None:
        if self.runtime_args.shard_id <= 0 and docs and str(docs[0].id).startswith("bad"):
            raise ValueError("not this one")
        super().mark(docs, context=context)


@pytest.mark.parametrize("number", range(FLOWS))
async def test_nothing_is_left_of_requests_that_failed(settings: BrokerSettings, flow_name: str, number: int) -> None:
    seed = SEED + number
    print(f"seed {seed}")
    dice = random.Random(seed)
    graph, adds = random_graph(dice, flow_name)
    failing = {node.name for node in dice.sample(graph.nodes, k=dice.randint(1, 2))}
    async with running(settings, graph, {}) as flow:
        for node in graph.nodes:
            for shard in shards(node):
                uses = Fails if node.name in failing else Marks
                flow.start_worker(node.name, uses, shard=shard, uses_with={"adds": adds[node.name], "pause_s": dice.random() / 50})
        await flow.ready_with({node.name: node.shards for node in graph.nodes})
        expects_failure = any(not graph.node(name).floating for name in failing)
        calls = [Call("/x", json.dumps(request_of(documents(prefix))).encode(), JSON) for prefix in ("bad", "good", "bad", "good")]
        answers = await asyncio.wait_for(asyncio.gather(*map(flow.dispatcher.send, calls)), 30)
        told = [Code.EXECUTOR_ERROR if expects_failure else Code.OK, Code.OK] * 2
        assert [answer.status.code for answer in answers] == told, f"seed {seed}: {failing} of {graph.to_dict()}"
        await eventually(lambda: _are_empty(flow, queues_of(graph, settings)), what="all is done")
        places = [subjects.part_stream(flow_name, place) for place in graph.meeting_places]
        await eventually(lambda: _are_empty(flow, places), what=f"nothing is left (seed {seed}: {failing} of {graph.to_dict()})")


async def _are_empty(flow: Running, streams: list[str]) -> bool:
    """Whether `streams` are empty."""
    states = await asyncio.gather(*(flow.bus.api(f"STREAM.INFO.{stream}") for stream in streams))
    return not any(state["state"]["messages"] for state in states)
