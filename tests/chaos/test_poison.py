"""P12: requests that kill, hang or exhaust their workers are quarantined or answered; the others hardly notice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from tests.e2e.checker import Done, stream_states
from tests.e2e.programs import Program, Programs, addresses_of, broker_of, flow_file
from tests.waiting import eventually

from .sizes import LIMIT_S, size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * LIMIT_S), pytest.mark.feature("QU-02", "ER-07")]
Say = Callable[[str], None]

POISONS = Path(__file__).parents[1] / "e2e" / "executors" / "poisons.py"
KINDS = ("raise", "exit", "segfault", "memory", "loop")
QUARANTINED = frozenset({"exit", "segfault", "loop"})
MAX_DELIVER = 2
REPLICAS = 16


class Flow:
    """One served flow of poisons, its ledger, and the file that cures it."""

    def __init__(self, programs: Programs, name: str, pause_s: float) -> None:
        folder = programs.folder / name
        folder.mkdir()
        self.ledger, self.cure = folder / "ledger", folder / "cure"
        executor = {
            "name": "work", "replicas": REPLICAS, "timeout_run_s": pause_s + 0.5, "max_deliver": MAX_DELIVER, "ack_wait_s": 2.0,
            "uses": {
                "jtype": "Poisons", "py_modules": [str(POISONS)],
                "with": {"ledger": str(self.ledger), "cure": str(self.cure), "pause_s": pause_s},
            },
        }  # fmt: skip
        self.name = name
        self.program: Program = programs.streamflow("flow", "--uses", str(flow_file(folder, name, [executor])))
        self.url = f"http://{addresses_of(self.program)['http']}/run"

    async def throughput(self, texts: list[str]) -> tuple[float, Counter[tuple[str, int, str]]]:
        """Healthy requests per second until the last healthy one has its answer, and all answers by kind, status and code."""
        answers: Counter[tuple[str, int, str]] = Counter()
        started = ended = monotonic()
        todo = iter(enumerate(texts))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:

            async def client() -> None:
                nonlocal ended
                for number, text in todo:
                    body = {"data": [{"id": f"r{number}", "text": text}]}
                    async with session.post(self.url, json=body) as response:
                        answer = json.loads(await response.read())
                    answers[text, response.status, answer.get("code", "OK")] += 1
                    if not text:
                        ended = max(ended, monotonic())

            # More clients than workers and poison: one that waits for its quarantine keeps no healthy request back.
            await asyncio.gather(*(client() for _ in range(4 * REPLICAS + len(texts) // 100)))
        return texts.count("") / (ended - started), answers


async def test_poison_is_quarantined_and_the_healthy_hardly_notice(programs: Programs, say: Say) -> None:
    requests, pause_s = size("P12_REQUESTS", 20_000, 100_000), size("P12_PAUSE_MS", 200, 200) / 1000
    texts = [KINDS[at // 100 % len(KINDS)] if at % 100 == 50 else "" for at in range(requests)]
    healthy = Flow(programs, "healthy", pause_s)
    undisturbed, answers = await healthy.throughput([""] * texts.count(""))
    assert set(answers) == {("", 200, "OK")}
    healthy.program.stop()
    ill = Flow(programs, "ill", pause_s)
    disturbed, answers = await ill.throughput(texts)
    assert {key: count for key, count in answers.items() if not key[0]} == {("", 200, "OK"): texts.count("")}
    for kind in KINDS:
        code = "QUARANTINED" if kind in QUARANTINED else "EXECUTOR_ERROR"
        assert answers[kind, 500, code] == texts.count(kind), answers
    deaths = sum(answers[kind, 500, "QUARANTINED"] for kind in QUARANTINED) * MAX_DELIVER

    letters = await dead_letters(programs, ill)
    assert len(letters) == sum(map(texts.count, QUARANTINED))
    assert all(letter["attempts"] >= MAX_DELIVER and "workers of executor 'work' died" in letter["error"] for letter in letters)
    before = Done.read(ill.ledger).attempts
    ill.cure.touch()
    retried = programs.streamflow("dlq", "retry", "--all", "--flow", "ill", "--broker", broker_of(ill.program))
    assert await asyncio.to_thread(retried.wait, 120) == 0 and retried.output.count(": queued") == len(letters)

    async def is_empty() -> bool:
        return not (await stream_states(broker_of(ill.program)))["sf_ill_work"]["messages"]

    await eventually(is_empty, 120, "what was put back has run")
    after = Done.read(ill.ledger).attempts
    again = {name: len(after[name]) - len(before[name]) for name in after if len(after[name]) != len(before.get(name, ()))}
    assert len(again) == len(letters) and set(again.values()) == {1}
    assert not await dead_letters(programs, ill)
    share = disturbed / undisturbed
    cost_s = (1 / share - 1) * requests * pause_s / deaths
    say(
        f"P12 {requests} requests of {pause_s * 1000:.0f} ms, 1 % poison ({', '.join(KINDS)}), {REPLICAS} replicas, max_deliver "
        f"{MAX_DELIVER}: {deaths} deaths; healthy {undisturbed:.1f}/s undisturbed, {disturbed:.1f}/s with poison ({share:.0%}, "
        f"{cost_s:.1f} s of one worker for each death); "
        f"{len(letters)} quarantined, each run once by `dlq retry`"
    )
    assert share >= 0.9


async def dead_letters(programs: Programs, flow: Flow) -> list[dict[str, object]]:
    program = programs.streamflow("dlq", "ls", "--json", "--flow", flow.name, "--broker", broker_of(flow.program))
    assert await asyncio.to_thread(program.wait, 60) == 0
    return [json.loads(line) for line in program.output.splitlines() if line.startswith("{")]
