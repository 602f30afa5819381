"""Jobs through the client: over the broker, over a gateway's gRPC and HTTP, with the same outcome."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests
from streamflow.broker import subjects
from streamflow.broker.errors import AlreadyExists, Code, InvalidInput, NotFound, PermissionDenied
from streamflow.broker.exit_codes import FAILED
from streamflow.broker.flow import Graph, Journal, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.cli.job_options import exit_code, line
from streamflow.client import AsyncClient, Client
from streamflow.client.errors import BadArguments
from streamflow.gateway.service import GatewayProcess
from streamflow.jobs import AsyncJob, JobStatus, JobTimeout, State
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAYS = ("nats", "grpc", "http")
LOCAL = "127.0.0.1"


class Upper(Executor):
    """Counts its runs; refuses "bad" until it is repaired; waits at a closed gate."""

    runs: Counter[str] = Counter()
    repaired = False
    gate = asyncio.Event()

    @requests(on="/upper")
    async def upper(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> DocList[TextDoc]:
        await Upper.gate.wait()
        for doc in docs:
            Upper.runs[str(doc.text)] += 1
            if str(doc.text).startswith("bad") and not Upper.repaired:
                raise ValueError(f"cannot read {doc.text}")
            doc.text = str(doc.text).upper() + parameters.get("mark", "")
        return docs


@dataclass
class Served:
    flow: Running
    clients: dict[str, AsyncClient]
    addresses: dict[str, tuple[str, int]]
    stop: Stop

    @property
    def name(self) -> str:
        return self.flow.graph.flow


@asynccontextmanager
async def served(settings: BrokerSettings, flow_name: str, journal: Journal | None = None, **options: Any) -> AsyncIterator[Served]:
    """`options` are those of the gateway."""
    Upper.runs, Upper.repaired, Upper.gate = Counter(), False, asyncio.Event()
    Upper.gate.set()
    async with running(settings, Graph(flow_name, (Node("upper"),), journal=journal), {"upper": Upper}) as flow:
        listen = [{"protocol": protocol, "host": LOCAL, "port": 0} for protocol in ("http", "grpc")]
        found: dict[str, tuple[str, int]] = {}
        stop = Stop()
        process = GatewayProcess(
            GatewaySettings(**settings.model_dump(), flow=flow_name, listen=listen, **options),
            lambda state, message="", **facts: found.update(facts.get("addresses", {})),
            check_schemas=False,
        )
        task = asyncio.create_task(process.main(stop))
        await eventually(lambda: found or task.done(), what="the gateway listens")
        urls = {name: f"{name}://{host}:{port}" for name, (host, port) in found.items()} | {"nats": f"{settings.broker_url}/{flow_name}"}
        clients = {way: Client(urls[way], asyncio=True) for way in WAYS}
        try:
            yield Served(flow, clients, found, stop)
        finally:
            Upper.gate.set()
            for client in clients.values():
                await client.close()
            stop.set("test over")
            await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(broker: EmbeddedBroker) -> AsyncIterator[Served]:
    async with served(BrokerSettings(broker_url=broker.url), f"t{secrets.token_hex(6)}") as found:
        yield found


@pytest.fixture
def place(shared: Served) -> Served:
    """The flow of this file, as if no test had been there."""
    Upper.runs.clear()
    Upper.repaired = False
    Upper.gate.set()
    return shared


def texts(number: int) -> DocList[TextDoc]:
    return DocList[TextDoc]([TextDoc(id=f"d{at}", text=f"t{at}") for at in range(number)])


async def results_of(job: AsyncJob, start: int = 0) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    async for response in job.results(DocList[TextDoc], start):
        assert response.number not in found and response.request_id == f"{job.id}-{response.number}"
        found[response.number] = [str(doc.text) for doc in response.docs] if response.ok else [response.status.description]
    return found


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_from_submit_to_its_last_result(place: Served, way: str) -> None:
    client = place.clients[way]
    job = await client.submit("/upper", texts(250), request_size=100, parameters={"mark": "!"})
    found = await results_of(job)
    assert [text for number in range(3) for text in found[number]] == [f"T{at}!" for at in range(250)]
    status = await job.wait(timeout=10)
    assert (status.state, status.total, status.done, status.failed, status.endpoint) == (State.DONE, 3, 3, 0, "/upper")
    assert [one.id for one in await client.jobs(limit=1)] == [job.id]
    assert (await client.job(job.id).status()).done == 3


async def test_every_way_reads_what_another_one_submitted(place: Served) -> None:
    for way in WAYS:
        job = await place.clients[way].submit("upper", texts(5), request_size=2)
        for other in WAYS:
            found = await results_of(place.clients[other].job(job.id))
            assert found == {0: ["T0", "T1"], 1: ["T2", "T3"], 2: ["T4"]}


@pytest.mark.parametrize("way", WAYS)
async def test_errors_are_results_with_what_the_executor_raised(place: Served, way: str) -> None:
    docs = [TextDoc(text="good"), TextDoc(text="bad 1"), TextDoc(text="good")]
    job = await place.clients[way].submit("/upper", docs, request_size=1)
    responses = {response.number: response async for response in job.results()}
    assert [responses[number].ok for number in range(3)] == [True, False, True]
    status = responses[1].status
    assert (status.code, status.exception, status.executor) == (Code.EXECUTOR_ERROR, "ValueError", "Upper")
    assert "bad 1" in status.description
    assert [route.executor for route in responses[0].routes] == ["upper"] and responses[0].header.exec_endpoint == "/upper"
    assert (await job.status()).failed == 1


@pytest.mark.parametrize("way", WAYS)
async def test_results_go_on_from_a_cursor_live(place: Served, way: str) -> None:
    Upper.gate.clear()
    job = await place.clients[way].submit("/upper", texts(20), request_size=1)
    assert [response async for response in job.results(follow=False)] == []
    reading = asyncio.create_task(results_of(job))
    Upper.gate.set()
    assert len(await reading) == 20
    cursors = [response.cursor async for response in job.results()]
    assert cursors == sorted(set(cursors))
    rest = await results_of(job, cursors[12])
    assert len(rest) == 7
    assert await results_of(job, cursors[-1]) == {}


@pytest.mark.parametrize("way", WAYS)
async def test_pause_resume_and_cancel(place: Served, way: str) -> None:
    Upper.gate.clear()
    job = await place.clients[way].submit("/upper", texts(1000), request_size=1)
    assert (await job.pause()).state is State.PAUSED
    assert (await job.resume()).state is State.RUNNING
    with pytest.raises(JobTimeout, match="of 1000 requests are done after 0.2 s"):
        await job.wait(timeout=0.2)
    reading = asyncio.create_task(results_of(job))
    assert (await job.cancel()).state is State.CANCELLED
    assert (await job.wait(timeout=5)).state is State.CANCELLED
    assert len(await asyncio.wait_for(reading, 10)) < 1000
    with pytest.raises(NotFound, match=job.id):
        await job.pause()


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_key_is_the_same_job(place: Served, way: str) -> None:
    client = place.clients[way]

    def submitted(*words: str) -> Any:  # documents whose ids are made anew each time
        return client.submit("/upper", [TextDoc(text=word) for word in words], key=f"{way} monday", request_size=2)

    several = await asyncio.gather(*(submitted("a", "b", "c") for _ in range(6)))
    assert len({job.id for job in several}) == 1
    await several[0].wait(timeout=10)
    assert (await submitted("a", "b", "c")).id == several[0].id
    with pytest.raises(AlreadyExists, match="monday"):
        await submitted("a", "b", "other")
    assert Upper.runs == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("way", WAYS)
async def test_replay_of_a_job_of_its_failures_and_of_a_range(place: Served, way: str) -> None:
    client = place.clients[way]
    before = datetime.datetime.now(datetime.UTC)
    words = ["a", "bad 1", "c", "bad 2"]
    job = await client.submit("/upper", [TextDoc(text=word) for word in words], request_size=1)
    await job.wait(timeout=10)
    Upper.repaired = True
    failed = await client.replay(job=job.id, failed_only=True, rate=1000)
    assert await results_of(failed) == {1: ["BAD 1"], 3: ["BAD 2"]}
    whole = await client.replay(job=job.id, since=before, key=f"{way} again")
    assert (await client.replay(job=job.id, since=before, key=f"{way} again")).id == whole.id
    assert len(await results_of(whole)) == 4
    assert (await job.status()).failed == 2
    stream = subjects.jobs_stream(place.name)
    await place.flow.bus.api(f"STREAM.PURGE.{stream}", {"filter": subjects.job(place.name, job.id, f"{job.id}-0")})
    part = await client.replay(job=job.id)
    assert part.gone == 1 and sorted(await results_of(part)) == [1, 2, 3]
    with pytest.raises(NotFound, match="keeps no journal"):
        await client.replay()


@pytest.mark.parametrize("way", WAYS)
async def test_a_tenant_has_jobs_and_keys_of_its_own(place: Served, way: str) -> None:
    client, key = place.clients[way], f"{way} shared"
    job = await client.submit("/upper", TextDoc(text="a"), tenant="Acme Ltd", key=key)
    status = await job.wait(timeout=10)
    assert status.tenant == "Acme Ltd" and status in await client.jobs()
    assert (await client.submit("/upper", TextDoc(text="a"), tenant="Acme Ltd", key=key)).id == job.id
    others = [await client.submit("/upper", TextDoc(text=text), tenant=tenant, key=key) for text, tenant in (("b", "rival"), ("c", None))]
    assert len({job.id, *(other.id for other in others)}) == 3
    assert [(await other.wait(timeout=10)).tenant for other in others] == ["rival", ""]
    assert (await (await client.replay(job=job.id)).status()).tenant == "Acme Ltd"
    assert (await (await client.replay(job=job.id, tenant="rival")).status()).tenant == "rival"
    for wrong in ("a" * 257, "line\nline"):
        with pytest.raises(InvalidInput, match="tenant"):
            await client.submit("/upper", TextDoc(text="a"), tenant=wrong)


async def test_who_says_who_he_is_works_for_his_own_tenant(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> None:
    """Where the gateway asks, nobody takes the share of another one; a caller without a tenant has a share of his own."""
    callers = [{"name": "jo", "tenant": "shop"}, {"name": "alone"}]
    tokens = [{**caller, "sha256": hashlib.sha256(caller["name"].encode()).hexdigest()} for caller in callers]
    rules = tmp_path / "auth.yml"
    rules.write_text(json.dumps({"tokens": tokens}))
    async with served(settings, flow_name, auth_file=str(rules), allow_anonymous=True) as place:
        for way, (name, own) in itertools.product(("grpc", "http"), (("jo", "shop"), ("alone", "alone"), ("", "anonymous"))):
            client, metadata = place.clients[way], {"authorization": f"Bearer {name}"} if name else None
            for said in (None, own):
                job = await client.submit("/upper", TextDoc(text="a"), tenant=said, metadata=metadata)
                assert (await job.wait(timeout=10)).tenant == own
            again = await client.replay(job=job.id, metadata=metadata)
            assert (await again.status()).tenant == own
            with pytest.raises(PermissionDenied, match="tenant 'rival'"):
                await client.submit("/upper", TextDoc(text="a"), tenant="rival", metadata=metadata)
            with pytest.raises(PermissionDenied, match="tenant 'rival'"):
                await client.replay(job=job.id, tenant="rival", metadata=metadata)


@pytest.mark.feature("QU-03")
async def test_tenants_know_nothing_of_each_others_jobs(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> None:
    """What another one's job is asked is answered as if it had never been; the broker's own users see all."""
    callers = [{"name": "jo", "tenant": "shop"}, {"name": "jane", "tenant": "shop"}, {"name": "eve", "tenant": "rival"}]
    tokens = [{**caller, "sha256": hashlib.sha256(caller["name"].encode()).hexdigest()} for caller in callers]
    rules = tmp_path / "auth.yml"
    rules.write_text(json.dumps({"tokens": tokens}))
    async with served(settings, flow_name, journal=Journal(), auth_file=str(rules)) as place:
        for way in ("grpc", "http"):
            client, theirs = place.clients[way], [{"authorization": f"Bearer {caller['name']}"} for caller in callers]
            job = await client.submit("/upper", TextDoc(text="a"), metadata=theirs[0])
            status = await job.wait(timeout=10)
            assert status in await client.jobs(metadata=theirs[1]) and await client.job(job.id, metadata=theirs[1]).status() == status
            assert await client.jobs(metadata=theirs[2]) == []
            seen = client.job(job.id, metadata=theirs[2])
            for ask in (seen.status, seen.cancel, seen.pause, seen.resume, seen.wait, partial(results_of, seen)):
                with pytest.raises(NotFound, match=f"no job '{job.id}'"):
                    await ask()
            with pytest.raises(NotFound, match=f"no job '{job.id}'"):
                await client.replay(job=job.id, metadata=theirs[2])
            with pytest.raises(PermissionDenied, match="journal"):
                await client.replay(metadata=theirs[0])
            assert job.id in [each.id for each in await place.clients["nats"].jobs()]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_refused(place: Served, way: str) -> None:
    client = place.clients[way]
    unknown, before = client.job("nothing"), await client.jobs()
    for ask in (unknown.status, unknown.cancel, unknown.pause, unknown.resume, unknown.wait):
        with pytest.raises(NotFound, match="no job 'nothing'"):
            await ask()
    with pytest.raises(NotFound, match="no job 'nothing'"):
        await anext(unknown.results())
    with pytest.raises(NotFound, match="no job 'nothing'"):
        await client.replay(job="nothing")
    with pytest.raises(NotFound, match="no endpoint '/uper'"):
        await client.submit("/uper", texts(1))
    with pytest.raises(InvalidInput, match="at least one input"):
        await client.submit("/upper", iter(()))
    with pytest.raises(InvalidInput, match="rate"):
        await client.submit("/upper", texts(1), rate=-1)
    with pytest.raises(InvalidInput):
        await client.job("../x").status()

    def broken() -> Any:
        yield TextDoc(text="a")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await client.submit("/upper", broken, request_size=1)
    assert await client.jobs() == before


async def test_parameters_alone_and_all_in_one_request(place: Served) -> None:
    client = place.clients["nats"]
    for inputs, size in ((None, 100), (texts(7), 0)):
        job = await client.submit("/upper", inputs, request_size=size)
        (found,) = [response async for response in job.results(DocList[TextDoc])]
        assert len(found.docs) == (7 if inputs else 0)


async def test_files_run_but_for_their_broken_lines(place: Served, tmp_path: Path) -> None:
    lines, table = tmp_path / "data.jsonl", tmp_path / "data.csv"
    lines.write_text('{"text": "a"}\n\n{"text": \n{"text": "b"}\n[1]\n"c"\n{"text": "d"}')
    table.write_text('id,text\n1,x\n2\n3,"y\nz"\n4,w,too many\n')
    (tmp_path / "one.txt").write_text("first")
    (tmp_path / "two.txt").write_text("second")
    for way in WAYS:
        client = place.clients[way]
        job = await client.submit("/upper", lines, request_size=2, key=way)
        assert [fault.line for fault in job.skipped.first] == [3, 5, 6] and "not JSON" in str(job.skipped.first[0])
        assert await results_of(job) == {0: ["A", "B"], 1: ["D"]}
        assert (await client.submit("/upper", str(lines), request_size=2, key=way)).id == job.id
        with pytest.raises(InvalidInput, match="line 3: not JSON"):
            await client.submit("/upper", lines, strict=True)
    job = await place.clients["nats"].submit("/upper", table)
    assert [str(fault) for fault in job.skipped.first] == [
        "line 3: 1 cells where the head has 2",
        "line 6: 3 cells where the head has 2",
    ]
    assert await results_of(job) == {0: ["X", "Y\nZ"]}
    job = await place.clients["nats"].submit("/upper", str(tmp_path / "*.txt"))
    assert await results_of(job) == {0: ["FIRST", "SECOND"]}
    for wrong, reason in (
        ("nothing.jsonl", "No such file"),
        ("a.txt", "name a file that ends in"),
        ("*.xyz", "no file matches"),
        ("a.parquet", "pyarrow"),
    ):
        with pytest.raises(BadArguments, match=reason):
            await place.clients["nats"].submit("/upper", wrong)
    (tmp_path / "bad.jsonl").write_text("no\nno\n")
    with pytest.raises(InvalidInput, match="not one line can be read; line 1: not JSON"):
        await place.clients["nats"].submit("/upper", tmp_path / "bad.jsonl")


async def test_large_requests_and_results(place: Served) -> None:
    text = "a" * 1_500_000
    for way in WAYS:
        job = await place.clients[way].submit("/upper", TextDoc(text=text))
        assert await results_of(job) == {0: [text.upper()]}


async def test_plain_http(place: Served) -> None:
    """As curl would: lines in, state, lines and events out."""
    host, port = place.addresses["http"]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        async with session.post(
            "/jobs?on=/upper&requestSize=2",
            data=b'{"text":"a"}\n{"text":"b"}\nnot\n{"text":"c"}',
            headers={"content-type": "application/x-ndjson"},
        ) as answer:
            told = await answer.json()
            assert answer.status == 202 and answer.headers["location"] == f"/jobs/{told['id']}" and told["total"] == 2
            assert told["skipped"]["count"] == 1 and told["skipped"]["lines"][0]["line"] == 3
        async with session.get(f"/jobs/{told['id']}/results") as answer:
            lines = [json.loads(line) async for line in answer.content]
        assert {line["number"]: [doc["text"] for doc in line["data"]] for line in lines} == {0: ["A", "B"], 1: ["C"]}
        async with session.get(
            f"/jobs/{told['id']}/results", headers={"accept": "text/event-stream", "last-event-id": str(lines[0]["cursor"])}
        ) as answer:
            events = (await answer.text()).split("\r\n\r\n")
        assert events[0].startswith(f"id: {lines[1]['cursor']}\r\nevent: result\r\ndata: ") and events[1].startswith("event: end")
        async with session.post("/jobs", json={"on": "/upper", "data": [{"text": "q"}], "parameters": {"mark": "?"}}) as answer:
            second = await answer.json()
        async with session.get(f"/jobs/{second['id']}/results") as answer:
            assert json.loads(await answer.text())["data"][0]["text"] == "Q?"
        for method, path, body, status, says in (
            ("GET", "/jobs/nothing", None, 404, "no job 'nothing'"),
            ("GET", "/jobs/nothing/results", None, 404, "no job 'nothing'"),
            ("POST", f"/jobs/{second['id']}/explode", None, 422, "use one of pause, resume, cancel"),
            ("POST", "/jobs", {"data": []}, 422, "on: the endpoint is required"),
            ("POST", "/jobs", {"on": "/upper", "data": ["x"]}, 422, "neither a JSON object"),
            ("POST", "/jobs", {"on": "/upper", "flow": "other", "data": {}}, 404, "not 'other'"),
            ("POST", "/jobs?on=/upper&requestSize=-1", {}, 422, "requestSize"),
            ("POST", f"/jobs/{second['id']}/replay", {"since": "x"}, 422, "since"),
        ):
            async with session.request(method, path, json=body) as answer:
                told = await answer.json()
                assert answer.status == status and says in told["detail"], (path, told)
        async with session.post("/jobs?on=/upper", data=b"x", headers={"content-type": "text/plain"}) as answer:
            assert answer.status == 415
        async with session.get("/openapi.json") as answer:
            assert "/jobs/{job_id}/results" in (await answer.json())["paths"]


async def test_inputs_that_are_gone_are_told_by_every_way(settings: BrokerSettings, flow_name: str) -> None:
    async with served(settings, flow_name) as place:
        stop, worker = place.flow.workers.pop()
        stop.set("nothing is fed until an input is gone")
        await worker
        job = await place.clients["grpc"].submit("/upper", texts(3), request_size=1)
        await place.flow.bus.api(
            f"STREAM.PURGE.{subjects.jobs_stream(flow_name)}", {"filter": subjects.job(flow_name, job.id, f"{job.id}-1")}
        )
        place.flow.start_worker("upper", Upper)
        for way in WAYS:
            again = place.clients[way].job(job.id)
            status = await again.wait(timeout=20)
            assert (status.state, status.done, status.total, status.gone, status.waits) == (State.DONE, 2, 3, 1, "")
            assert await asyncio.wait_for(results_of(again), 10) == {0: ["T0"], 2: ["T2"]}
        assert exit_code(status) == FAILED and "1 gone before they ran" in line(status)


async def test_readers_go_on_elsewhere_when_a_gateway_stops(settings: BrokerSettings, flow_name: str) -> None:
    async with served(settings, flow_name) as place:
        Upper.gate.clear()
        host, port = place.addresses["http"]
        job = await place.clients["nats"].submit("/upper", texts(2))
        async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/jobs/{job.id}/results") as answer:
            place.stop.set("rolling restart")
            told = json.loads(await asyncio.wait_for(answer.text(), 5))
        assert told["code"] == "UNAVAILABLE" and "cursor" in told["detail"]


async def test_replay_of_what_clients_sent_online(settings: BrokerSettings, flow_name: str) -> None:
    async with served(settings, flow_name, Journal()) as place:
        for way in WAYS:
            [docs] = [docs async for docs in place.clients[way].post("/upper", TextDoc(text=way), return_type=DocList[TextDoc])]
            assert docs[0].text == way.upper()
        for way in WAYS:
            replay = await place.clients[way].replay(rate=500)
            found = await results_of(replay)
            assert sorted(found) == [1, 2, 3] and sorted(text for each in found.values() for text in each) == ["GRPC", "HTTP", "NATS"]


async def test_online_requests_over_the_broker(place: Served) -> None:
    client = place.clients["nats"]
    assert await client.is_flow_ready()
    found = [doc async for docs in client.post("/upper", texts(30), request_size=10, return_type=DocList[TextDoc]) for doc in docs]
    assert sorted(str(doc.text) for doc in found) == sorted(f"T{at}" for at in range(30))
    with pytest.raises(Exception, match="cannot read bad"):
        await anext(client.post("/upper", TextDoc(text="bad")))


async def test_the_synchronous_client(place: Served, settings: BrokerSettings) -> None:
    def all_of_it() -> tuple[JobStatus, list[str]]:
        with Client(settings.broker_url) as client:
            job = client.submit("/upper", (TextDoc(text=f"s{at}") for at in range(10)), flow=place.name, request_size=5)
            status = job.wait(timeout=10, show_progress=False)
            found = sorted(str(doc.text) for response in job.results(DocList[TextDoc]) for doc in response.docs)
            assert client.job(job.id, flow=place.name).status() == status
            with pytest.raises(BadArguments, match="flow: required"):
                client.jobs()
            with pytest.raises(BadArguments, match="name the flow in the address"):
                client.post("/upper", TextDoc(text="x"))
            with pytest.raises(BadArguments, match="jobs are asked for over"):
                Client("ws://127.0.0.1:1").jobs()
            assert client.jobs(flow=place.name, limit=1) == [status]
            return status, found

    status, found = await asyncio.to_thread(all_of_it)
    assert (status.state, found) == (State.DONE, sorted(f"S{at}" for at in range(10)))
