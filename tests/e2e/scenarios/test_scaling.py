"""Replicas, shards, batches, and how many requests are under way at the same time."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Client, Deployment, Executor, Flow, requests

from .executors import Decorated, Linear, Row, Slow, Span
from .served import port_of

HERE = Path(__file__).parent
LINEAR = """
jtype: Linear
py_modules: [{module}]
uses_dynamic_batching: {{/default: {{preferred_batch_size: 10, timeout: 200}}}}
"""


class Inside(Executor):
    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        print(f"inside: {docs.text}")
        return docs


class RandomSleep(Executor):
    @requests
    def foo(self, **kwargs: Any) -> None:
        time.sleep(random.uniform(0.01, 0.13))


@pytest.mark.feature("SC-01", "SC-02", "SC-03", "SC-05")
@pytest.mark.parametrize("polling", ["ALL", "any"])
def test_t13_replicas_shards_and_polling(polling: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One request: replicas work on it once whatever the polling is, shards each when ALL are polled; one document comes back."""
    flow = Flow().add(uses=Inside, name="copies", replicas=2, polling=polling).add(uses=Inside, name="parts", shards=2, polling=polling)
    with flow:
        assert flow.post("/", TextDoc(text="hello"), target_executor="copies", return_type=DocList[TextDoc]).text == ["hello"]
        assert flow.post("/", TextDoc(text="there"), target_executor="parts", return_type=DocList[TextDoc]).text == ["there"]
    inside = capfd.readouterr().out
    assert [inside.count(f"inside: ['{text}']") for text in ("hello", "there")] == [1, 2 if polling == "ALL" else 1]


@pytest.mark.feature("CL-10", "SC-01")
def test_t26_results_come_in_the_order_of_the_inputs() -> None:
    inputs = DocList[TextDoc]([TextDoc(text=f"ordinal-{number}") for number in range(180)])
    with Deployment(uses=RandomSleep, replicas=3) as dep, Client(port=port_of(dep)) as client:
        found = client.post("/", inputs, request_size=10, return_type=DocList[TextDoc], results_in_order=True)
    assert found.text == inputs.text


@pytest.mark.feature("DB-01", "DB-02", "DB-03", "DB-04", "DB-05", "DB-08", "DB-11", "EX-25")
def test_t28_dynamic_batching_by_decorator_by_argument_and_by_yaml(tmp_path: Path) -> None:
    """25 requests of a document each through all three: calls of at most 10, and everybody gets the answer to their own."""
    (tmp_path / "linear.yml").write_text(LINEAR.format(module=HERE / "executors.py"))
    batching = {"/default": {"preferred_batch_size": 10, "timeout": 200}}
    flow = Flow().add(uses=Decorated).add(uses=Linear, uses_dynamic_batching=batching).add(uses=str(tmp_path / "linear.yml"))
    rows = np.random.default_rng(2).random((25, 128))
    inputs = DocList[Row]([Row(x=row) for row in rows])
    with flow:
        found = flow.post("/foo", inputs, request_size=1, return_type=DocList[Row], results_in_order=True)
    np.testing.assert_allclose([doc.y for doc in found], rows @ np.random.default_rng(1).random((128, 128)))
    sizes = np.array([doc.calls for doc in found])
    assert sizes.shape == (25, 3) and sizes.max() <= 10
    assert (sizes.max(axis=0) > 1).all(), sizes


@pytest.mark.feature("GW-24", "CL-08", "CL-11", "ER-09")
async def test_t40_no_more_requests_are_under_way_than_the_prefetch_of_the_gateway() -> None:
    async def endless() -> AsyncIterator[Span]:
        for number in itertools.count():
            yield Span(number=number)

    found: list[Span] = []
    with Flow().config_gateway(prefetch=2).add(uses=Slow, uses_with={"seconds": 0.05}, replicas=4) as flow:
        async with Client(port=port_of(flow), asyncio=True) as client:
            async for docs in client.post("/", endless(), request_size=1, return_type=DocList[Span]):
                found.extend(docs)
                if len(found) >= 16:
                    break
    running = [sum(other.began <= doc.began < other.ended for other in found) for doc in found]
    assert max(running) == 2, running
