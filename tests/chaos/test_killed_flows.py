"""The random flows of `test_random_flows.py` as real processes, some of which are killed (SIGKILL) in the middle of their work.

`STREAMFLOW_KILLED_FLOWS` flows (default 3; `make chaos` runs 100), seed printed and settable (`STREAMFLOW_SEED`). Every answer is what the
graph says, is recorded once where it is kept, and no executor works on a request again but after the death of the one that had it: joins
complete once.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
import pytest

from streamflow.broker.flow import Graph
from tests.e2e.checker import nothing_left, recorded
from tests.e2e.programs import STEPS, Programs, addresses_of, broker_of, flow_file

from .graphs import SEED, Document, answer_of, documents, evaluate, random_graph, request_of, shards

pytestmark = [pytest.mark.slow, pytest.mark.feature("ER-08", "FL-06", "QU-07")]

FLOWS = int(os.environ.get("STREAMFLOW_KILLED_FLOWS", "3"))
MARKS = STEPS.with_name("marks.py")
REQUESTS = 16  # sent at once
PAUSE_S = 0.01  # of each execution
SETTLE_S = 0.001  # what follows it: to store the part or to publish the output, to look for other parts, to ack
LOOK_S = 0.0005
ACK_WAIT_S = "1"
KEPT = {"x-streamflow-keep": "3600"}
Say = Callable[[str], None]
Place = tuple[str, int]  # name of the executor, shard


class Run(NamedTuple):
    pid: int
    attempt: int
    request: str  # id of its first document


@dataclass
class Ledger:
    """What the executors wrote down so far."""

    file: Path
    pids: dict[Place, int] = field(default_factory=dict)  # of the process that started last
    runs: dict[Place, list[Run]] = field(default_factory=dict)
    done: dict[Place, list[Run]] = field(default_factory=dict)
    _read: int = 0

    def look(self) -> None:
        with self.file.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # the rest of it is on its way
                    return
                self._read += len(line)
                what, name, shard, pid, *more = line.decode().split()
                if what == "start":
                    self.pids[name, int(shard)] = int(pid)
                else:
                    kept = self.runs if what == "run" else self.done
                    kept.setdefault((name, int(shard)), []).append(Run(int(pid), int(more[0]), more[1]))

    @property
    def redelivered(self) -> int:
        return sum(run.attempt > 1 for runs in self.runs.values() for run in runs)

    @property
    def redone(self) -> int:
        """Executions of work that somebody had done, and died before it was settled."""
        return sum(len(done) - len({run.request for run in done}) for done in self.done.values())


@dataclass
class Totals:
    """Of all flows of this run."""

    flows: int = 0
    requests: int = 0
    kills: int = 0
    executions: int = 0
    redelivered: int = 0
    redone: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0

    def add(self, ledger: Ledger, kills: int, seconds: float, slowest_s: float) -> None:
        self.flows += 1
        self.requests += REQUESTS
        self.kills += kills
        self.executions += sum(map(len, ledger.runs.values()))
        self.redelivered += ledger.redelivered
        self.redone += ledger.redone
        self.seconds += seconds
        self.slowest_s = max(self.slowest_s, slowest_s)


@pytest.fixture(scope="module")
def totals(say: Say) -> Iterator[Totals]:
    sums = Totals()
    yield sums
    say(
        f"P7 random flows killed: {sums.flows} flows, {sums.requests} requests, {sums.kills} kills, {sums.executions} executions of which "
        f"{sums.redelivered} redelivered, {sums.redone} of them done but not settled, slowest answer {sums.slowest_s:.2f} s; "
        f"{sums.seconds:.1f} s, {sums.seconds / max(1, sums.flows):.1f} s per flow (seed {SEED})"
    )


@pytest.mark.parametrize("number", range(FLOWS))
async def test_a_random_flow_gives_what_its_graph_says_whoever_is_killed(
    programs: Programs, flow_name: str, totals: Totals, number: int
) -> None:
    seed = SEED + number
    print(f"seed {seed}")
    dice, began = random.Random(seed), time.monotonic()
    graph, adds = random_graph(dice, flow_name)
    ledger = Ledger(programs.folder / "ledger")
    file = flow_file(programs.folder, flow_name, list(executors(graph, adds, ledger.file)))
    program = programs.streamflow("flow", "--uses", str(file), STREAMFLOW_ACK_WAIT_S=ACK_WAIT_S)
    url, broker_url = f"http://{addresses_of(program)['http']}/x", broker_of(program)
    async with asyncio.TaskGroup() as group:
        kills = [group.create_task(kill(ledger, place, dice)) for place in victims(graph, dice)]
        asked = group.create_task(ask(url, graph, adds))
    await nothing_left(broker_url)
    (await recorded(broker_url, "online")).check_count(len(range(0, REQUESTS, 2)))
    check(graph, ledger, {task.result() for task in kills})
    assert program.stop() == 0, program.output
    totals.add(ledger, len(kills), time.monotonic() - began, asked.result())


def executors(graph: Graph, adds: dict[str, bool], ledger: Path) -> Iterator[dict[str, Any]]:
    for node in graph.nodes:
        options = {"adds": adds[node.name], "pause_s": PAUSE_S, "ledger": str(ledger)}
        uses = {"jtype": "Marks", "py_modules": [str(MARKS)], "with": options}
        sharded = {"shards": node.shards, "polling": "ALL"} if node.shards > 1 else {}
        yield {"name": node.name, "needs": list(node.needs), "floating": node.floating, "uses": uses, **sharded}


def places(graph: Graph) -> list[Place]:
    return [(node.name, shard) for node in graph.nodes for shard in shards(node)]


def victims(graph: Graph, dice: random.Random) -> list[Place]:
    """One to three processes."""
    found = places(graph)
    return dice.sample(found, k=min(len(found), dice.randint(1, 3)))


async def kill(ledger: Ledger, place: Place, dice: random.Random) -> int:
    """Kill the process of `place` while it works on a request that is drawn, or between its output and its ack. Returns its pid."""
    nth = dice.randint(1, REQUESTS - 1)
    lines, most_s = dice.choice(((ledger.runs, PAUSE_S), (ledger.done, SETTLE_S), (ledger.done, SETTLE_S)))
    more_s = dice.uniform(0.0, most_s)
    async with asyncio.timeout(30):
        while len(lines.get(place, ())) < nth:
            await asyncio.sleep(LOOK_S)
            ledger.look()
    await asyncio.sleep(more_s)
    pid = ledger.pids[place]
    psutil.Process(pid).kill()
    return pid


async def ask(url: str, graph: Graph, adds: dict[str, bool]) -> float:
    """Send all requests at once, every other one to be kept, and compare the answers. Returns the seconds of the slowest."""
    requests = [documents(f"r{number}-") for number in range(REQUESTS)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        answers = await asyncio.gather(*(post(session, url, docs, not at % 2) for at, docs in enumerate(requests)))
    for docs, (answer, _) in zip(requests, answers, strict=True):
        assert answer == evaluate(graph, adds, docs), graph.to_dict()
    return max(seconds for _, seconds in answers)


async def post(session: aiohttp.ClientSession, url: str, docs: list[Document], is_kept: bool) -> tuple[list[Document], float]:
    began = time.monotonic()
    async with session.post(url, json=request_of(docs), headers=KEPT if is_kept else {}) as response:
        answer = await response.json()
    assert response.status == 200, answer
    return answer_of(answer["data"]), time.monotonic() - began


def check(graph: Graph, ledger: Ledger, killed: set[int]) -> None:
    """Everybody worked on every request, and again only where a process had died with it."""
    ledger.look()
    wanted = {documents(f"r{number}-")[0]["id"] for number in range(REQUESTS)}
    for place in places(graph):
        had: dict[str, list[int]] = {}
        for run in ledger.runs.get(place, ()):
            had.setdefault(run.request, []).append(run.pid)
        assert set(had) == wanted, f"{place} worked on {sorted(had)}"
        wrong = {request: pids for request, pids in had.items() if len(set(pids)) < len(pids) or not killed.issuperset(pids[:-1])}
        assert not wrong, f"{place} worked again on what nobody had died with (request -> pids): {wrong}, killed {killed}"
