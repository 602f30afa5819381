"""Handing in a job counts for its caller as any other request does."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import jobs, subjects
from streamflow.broker.errors import Overloaded, TooLarge
from streamflow.broker.settings import BrokerSettings
from streamflow.client import AsyncClient, Client
from tests.integration.gateway.secured import Secured, Upper, secured

WAYS = pytest.mark.parametrize("way", ["http", "grpc"])
LIMITS: dict[str, dict[str, float]] = {
    "free": {},
    "slow": {"requests_per_s": 0.2, "burst": 2},
    "paced": {"requests_per_s": 50, "burst": 50},
    "narrow": {"in_flight": 1},
    "small": {"max_request_bytes": 2000},
    "few": {"jobs": 2},
}


@pytest.fixture
async def gateway(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> AsyncIterator[Secured]:
    tokens = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "limits": limits} for name, limits in LIMITS.items()]
    file = tmp_path / "auth.yml"
    file.write_text(yaml.safe_dump({"tokens": tokens}))
    async with secured(settings, flow_name, auth_file=str(file)) as found:
        yield found


@asynccontextmanager
async def client(gateway: Secured, way: str, name: str) -> AsyncIterator[AsyncClient]:
    url = "{}://{}:{}".format(way, *gateway.addresses[way])
    made = Client(url, asyncio=True, metadata={"authorization": f"Bearer {name}"})
    yield made
    await made.close()


def texts(number: int, length: int = 1) -> DocList[TextDoc]:
    return DocList[TextDoc]([TextDoc(text="x" * length) for _ in range(number)])


async def stored(gateway: Secured) -> int:
    """Messages in the stream of inputs."""
    info = await gateway.flow.bus.api(f"STREAM.INFO.{subjects.jobs_stream(gateway.flow.graph.flow)}")
    return int(info["state"]["last_seq"])


@WAYS
async def test_each_job_is_one_request_of_the_callers_rate(gateway: Secured, way: str) -> None:
    async with client(gateway, way, "slow") as slow, client(gateway, way, "free") as free:
        first = await slow.submit("/run", texts(5), request_size=1)
        await slow.replay(job=first.id)
        before = await stored(gateway)
        for again in (slow.submit("/run", texts(1)), slow.replay(job=first.id)):
            with pytest.raises(Overloaded, match=r"'slow' may send 0\.2 requests per second"):
                await again
        assert await stored(gateway) == before
        assert (await gateway.ask(way, "slow")).status in (429, "RESOURCE_EXHAUSTED"), "it has one rate for all that it asks"
        assert (await free.submit("/run", texts(1))).id


@WAYS
async def test_a_job_runs_no_faster_than_its_caller_may_send(gateway: Secured, way: str) -> None:
    asked = {("paced", 0): 50.0, ("paced", 20): 20.0, ("paced", 200): 50.0, ("free", 0): 0.0, ("free", 200): 200.0}
    for (name, rate), expected in asked.items():
        async with client(gateway, way, name) as caller:
            job = await caller.submit("/run", texts(1), rate=rate)
            again = await caller.replay(job=job.id, rate=rate)
        for made in (job, again):
            assert (await jobs.get(gateway.flow.bus, gateway.flow.graph.flow, made.id)).rate == expected, (name, rate)


@WAYS
async def test_the_inputs_of_a_job_are_together_no_larger_than_a_request(gateway: Secured, way: str) -> None:
    async with client(gateway, way, "small") as small:
        assert (await small.submit("/run", texts(3, 100), request_size=1)).id
        with pytest.raises((TooLarge, Overloaded), match="2000 bytes that 'small' may send"):
            await small.submit("/run", texts(30, 100), request_size=1)


@WAYS
async def test_a_submit_is_in_flight_until_all_is_stored(gateway: Secured, way: str) -> None:
    async with client(gateway, way, "narrow") as narrow:
        before = await gateway.sequence()
        holding = asyncio.create_task(gateway.ask("http", "narrow", hold=True))
        while await gateway.sequence() == before:
            await asyncio.sleep(0.01)
        assert "in flight" in str(await _refusal(narrow))
        Upper.holds.set()
        assert (await holding).is_good
        assert await _refusal(narrow) is None and await _refusal(narrow) is None


@WAYS
async def test_a_caller_has_no_more_unfinished_jobs_than_it_may(gateway: Secured, way: str) -> None:
    async with client(gateway, way, "few") as few, client(gateway, way, "free") as free:
        waiting = [await few.submit("/run", texts(3), request_size=1, key=key, rate=0.001) for key in ("a", "b")]
        for further in (few.submit("/run", texts(1)), few.replay(job=waiting[0].id)):
            with pytest.raises(Overloaded, match="'few' has 2 unfinished jobs, 'few' may have 2"):
                await further
        assert (await few.submit("/run", texts(3), request_size=1, key="a", rate=0.001)).id == waiting[0].id, "it is no further one"
        assert (await free.submit("/run", texts(1))).id
        await waiting[0].cancel()
        assert (await few.submit("/run", texts(1))).id


@WAYS
async def test_jobs_handed_in_at_the_same_time_are_counted(gateway: Secured, way: str) -> None:
    async with client(gateway, way, "few") as few:
        found = await asyncio.gather(*(few.submit("/run", texts(20), request_size=1, rate=0.001) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, Overloaded) for each in found) == 4, found


async def _refusal(caller: AsyncClient) -> Exception | None:
    try:
        await caller.submit("/run", texts(1))
    except Overloaded as error:
        return error
    return None
