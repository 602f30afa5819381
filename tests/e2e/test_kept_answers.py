"""Answers that are kept, as clients of each protocol ask for them; dead letters from the command line."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from streamflow import Client
from streamflow.broker.errors import AlreadyExists, ExecutorError, NotFound
from streamflow.gateway.proto import streamflow_pb2 as pb

from .executors.steps import Item
from .programs import Programs, broker_of, flow_file, step

pytestmark = pytest.mark.feature("GW-13", "QU-02")

FRAIL = Path(__file__).with_name("executors") / "frail.py"


@dataclass
class Served:
    addresses: dict[str, str]
    broker_url: str
    folder: Path

    @property
    def http(self) -> str:
        return f"http://{self.addresses['http']}"


@pytest.fixture(scope="module")
def flow(module_programs: Programs) -> Served:
    executors: list[dict[str, Any]] = [
        step("work", mark="+"),
        {"name": "frail", "uses": {"jtype": "Frail", "py_modules": [str(FRAIL)], "with": {"switch": str(module_programs.folder / "on")}}},
    ]
    file = flow_file(module_programs.folder, "kept", executors, ("grpc", "http", "websocket"), journal={"keep_s": 3600})
    program, addresses = module_programs.flow(file)
    return Served(addresses, broker_of(program), module_programs.folder)


def body(text: str) -> dict[str, Any]:
    return {"data": [{"id": text, "text": text}]}


async def test_http_accepts_at_once_and_answers_later(flow: Served) -> None:
    headers = {"x-request-id": "order/17 ü?", "prefer": "wait=1, Respond-Async"}
    async with aiohttp.ClientSession(flow.http) as session:
        async with session.post("/run", json=body("a"), headers={**headers, "x-request-id": "order/17"}) as accepted:
            assert accepted.status == 202 and accepted.headers["location"] == "/results/order%2F17"
            assert accepted.headers["retry-after"] == "1" and accepted.headers["x-request-id"] == "order/17"
            assert (await accepted.json())["pending"] is True
        async with session.get("/results/order%2F17", headers={"accept": "text/event-stream"}) as events:
            assert events.content_type == "text/event-stream"
            lines = (await events.text()).split("\r\n")
            assert lines[0] == "event: result" and lines[3] == "event: end"
            assert json.loads(lines[1].removeprefix("data: "))["data"][0]["text"] == "a+"
        async with session.get(accepted.headers["location"]) as found:
            assert found.status == 200 and found.headers["x-request-id"] == "order/17"
            answer = await found.json()
        assert answer["data"][0]["text"] == "a+" and answer["header"]["requestId"] == "order/17" and "pending" not in answer
        async with session.post("/run", json=body("a"), headers=headers | {"x-request-id": "order/17", "prefer": ""}) as plain:
            assert plain.status == 200  # does not ask for it to be kept: an ordinary request
        async with session.post("/run", json=body("b"), headers={"x-request-id": "order/17", "x-streamflow-keep": "60"}) as other:
            assert other.status == 409 and (await other.json())["code"] == "ALREADY_EXISTS"


async def test_http_says_what_it_cannot_do(flow: Served) -> None:
    async with aiohttp.ClientSession(flow.http) as session:
        for path in ("/results/never", "/results/..%2F..%2Fetc", "/results/%00%0d%0a", "/results/*", "/results/>"):
            async with session.get(path) as missing:
                assert missing.status == 404 and (await missing.json())["code"] == "NOT_FOUND", path
        async with session.get("/results/never", headers={"accept": "text/event-stream"}) as missing:
            assert missing.status == 404
        async with session.get("/results/" + "x" * 600) as long:
            assert long.status == 422
        for wrong in ("0", "-1", "soon", "1e99", "nan"):
            async with session.post("/run", json=body("a"), headers={"x-streamflow-keep": wrong}) as refused:
                assert refused.status == 422 and "x-streamflow-keep" in (await refused.json())["detail"]
        stream = {"x-streamflow-keep": "60", "accept": "text/event-stream"}
        async with session.post("/run", json=body("a"), headers=stream) as refused:
            assert refused.status == 422 and "a stream is not kept" in (await refused.json())["detail"]
        async with session.get("/openapi.json") as document:
            assert "/results/{request_id}" in (await document.json())["paths"]


async def test_grpc_keeps_and_gives_again(flow: Served) -> None:
    async with grpc.aio.insecure_channel(flow.addresses["grpc"]) as channel:
        unary = channel.unary_unary("/streamflow.v1.Streamflow/Unary")
        result = channel.unary_unary("/streamflow.v1.Streamflow/Result")
        request = pb.Request(endpoint="/run", content_type="application/json", body=json.dumps(body("g")).encode())
        metadata = (("x-request-id", "g1"), ("x-streamflow-keep", "60"))
        first = pb.Response.FromString(await unary(request.SerializeToString(), metadata=metadata))
        again = pb.Response.FromString(await result(pb.ResultRequest(request_id="g1").SerializeToString()))
        assert first.request_id == again.request_id == "g1" and json.loads(again.body)[0]["text"] == "g+" and again.body == first.body
        missing = pb.Response.FromString(await result(pb.ResultRequest(request_id="nothing").SerializeToString()))
        assert b"NOT_FOUND" in missing.status


async def test_websocket_fields(flow: Served) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{flow.addresses['websocket']}/") as socket:
        message = {**body("w"), "execEndpoint": "/run", "requestId": "w1", "keep": 60, "prefer": "respond-async"}
        await socket.send_json(message)
        assert (await socket.receive_json())["pending"] is True
        await socket.send_json({key: value for key, value in message.items() if key != "prefer"})
        refused = await socket.receive_json()
        assert refused["code"] == "ALREADY_EXISTS"  # the message is the body here, and it has changed
        async with session.get(f"{flow.http}/results/w1", headers={"accept": "text/event-stream"}) as events:
            assert '"text":"w+"' in await events.text()


@pytest.mark.parametrize("protocol", ["http", "grpc", "nats"])
async def test_the_client_asks_for_an_earlier_answer(flow: Served, protocol: str) -> None:
    host = f"{flow.broker_url}/kept" if protocol == "nats" else f"{protocol}://{flow.addresses[protocol]}"
    async with Client(host=host, asyncio=True) as client:
        doc, name = Item(id="c", text="c"), f"{protocol} id"
        for _ in range(2):
            answers = [docs async for docs in client.post("/run", doc, return_type=Item, request_id=name, keep=60)]
            assert answers[0].text == "c+"
        response = await client.result(name, return_type=Item)
        assert response is not None and response.docs[0].text == "c+" and response.request_id == name
        with pytest.raises(AlreadyExists):
            [docs async for docs in client.post("/run", Item(id="c", text="d"), request_id=name, keep=60)]
        with pytest.raises(NotFound):
            await client.result("never sent")
        several = [docs async for docs in client.post("/run", [doc] * 3, request_size=1, return_type=Item, request_id=f"{name} n", keep=9)]
        assert len(several) == 3
        for one in (f"{name} n", f"{name} n-1", f"{name} n-2"):
            assert (await client.result(one)) is not None
        with pytest.raises(ExecutorError):
            [docs async for docs in client.post("/frail", doc, request_id=f"{name} bad", keep=60)]
        with pytest.raises(ExecutorError, match="not yet"):
            await client.result(f"{name} bad")


async def test_dead_letters_are_seen_put_back_and_removed(flow: Served, programs: Programs) -> None:
    with Client(host=f"{flow.broker_url}/kept") as client:
        job = await asyncio.to_thread(client.submit, "/frail", [Item(id=str(n), text=str(n)) for n in range(3)], request_size=1)
        await asyncio.to_thread(job.wait, 30)
        place = ("--flow", "kept", "--broker", flow.broker_url)
        listed = programs.streamflow("dlq", "ls", *place, "--job", job.id, "--json")
        assert listed.wait() == 0
        letters = [json.loads(line) for line in listed.output.splitlines() if line.startswith("{")]
        assert len(letters) == 3 and {letter["executor"] for letter in letters} == {"frail"}
        assert "ValueError: not yet" in letters[0]["traceback"]
        shown = programs.streamflow("dlq", "show", str(letters[0]["id"]), *place)
        assert shown.wait() == 0 and "not yet" in shown.output and "'text': '" in shown.output

        (flow.folder / "on").touch()
        one = client.dead_letters().get(letters[0]["id"])
        assert client.dead_letters().retry(one) == "queued" and client.dead_letters().retry(one) == "gone"
        assert programs.streamflow("dlq", "rm", str(letters[1]["id"]), *place).wait() == 0
        again = programs.streamflow("dlq", "retry", "--executor", "frail", *place)
        assert again.wait() == 0 and again.output.count(": queued") == 1
        await asyncio.to_thread(job.wait, 30)
        results = await asyncio.to_thread(lambda: list(job.results(follow=False)))
        assert sorted(response.ok for response in results) == [False, True, True]
        assert programs.streamflow("dlq", "retry", str(letters[0]["id"]), *place).wait() == 2
        assert client.dead_letters().find() == []


async def test_the_journal_is_replayed(flow: Served) -> None:
    async with aiohttp.ClientSession(flow.http) as session:
        for number in range(5):
            async with session.post("/run", json=body(f"j{number}")) as answer:
                assert answer.status == 200
    with Client(host=f"{flow.broker_url}/kept") as client:
        job = await asyncio.to_thread(client.replay)
        await asyncio.to_thread(job.wait, 30)
        texts = [doc.text for response in await asyncio.to_thread(lambda: list(job.results(return_type=Item))) for doc in response.docs]
        assert {f"j{number}+" for number in range(5)} <= set(texts)
