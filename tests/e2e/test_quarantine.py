"""A request that kills its workers is given up, its neighbours are not, and its client is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .checker import stream_states
from .programs import ROOT, Programs, addresses_of, broker_of, flow_file

pytestmark = pytest.mark.feature("QU-02", "ER-07")

FILE = Path(__file__).with_name("executors") / "poison.py"


async def test_a_poisonous_request_is_quarantined_and_its_neighbours_are_answered(programs: Programs) -> None:
    executors = [{"name": "fragile", "replicas": 2, "uses": {"jtype": "Fragile", "py_modules": [str(FILE)]}}]
    file = flow_file(programs.folder, "fragile", executors)
    environment = {"PYTHONPATH": str(ROOT / "src"), "STREAMFLOW_ACK_WAIT_S": "0.6", "STREAMFLOW_MAX_DELIVER": "2"}
    program = programs.streamflow("flow", "--uses", str(file), **environment)
    url = f"http://{addresses_of(program)['http']}/run"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def ask(text: str) -> tuple[int, dict[str, Any]]:
            async with session.post(url, json={"data": [{"text": text}]}) as response:
                return response.status, await response.json()

        texts = [f"t{n}" for n in range(60)]
        texts[20] = texts[40] = "poison"
        answers = await asyncio.gather(*(ask(text) for text in texts))
    for text, (status, answer) in zip(texts, answers, strict=True):
        if text == "poison":
            assert status == 500 and "2 workers of executor 'fragile' died" in answer["detail"], answer
        else:
            assert status == 200 and answer["data"][0]["text"] == text + "!", answer
    left = {name: state["messages"] for name, state in (await stream_states(broker_of(program))).items() if state["messages"]}
    assert {name: count for name, count in left.items() if not name.startswith("KV_")} == {"sf_fragile_dead": 2}


async def test_a_call_that_never_ends_costs_its_worker_and_is_quarantined(programs: Programs) -> None:
    options = {"ledger": str(programs.folder / "ledger"), "cure": str(programs.folder / "cure")}
    uses = {"jtype": "Poisons", "py_modules": [str(FILE.with_name("poisons.py"))], "with": options}
    executor = {"name": "work", "uses": uses, "timeout_run_s": 0.5, "max_deliver": 1}
    program = programs.streamflow("flow", "--uses", str(flow_file(programs.folder, "endless", [executor])))
    url = f"http://{addresses_of(program)['http']}/run"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        async with session.post(url, json={"data": [{"text": "loop"}]}) as response:
            answer = await response.json()
        assert response.status == 500 and answer["code"] == "QUARANTINED", answer
        async with session.post(url, json={"data": [{"text": ""}]}) as response:
            assert response.status == 200
    assert "/run runs for longer than timeout_run_s = 0.5 s: this worker ends" in program.output
