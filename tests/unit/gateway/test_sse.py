"""Streaming endpoints over HTTP."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import orjson
import pytest

from streamflow.broker.errors import Code, Status
from tests.waiting import eventually

from .echoing import EchoDispatcher

pytestmark = pytest.mark.feature("GW-16")

Session = aiohttp.ClientSession


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\r\n\r\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\r\n") if line and not line.startswith(":"))
        if fields:
            data = fields["data"]  # there is such a line always: a browser drops events without one
            found.append((fields["event"], json.loads(data) if data else None))
    return found


async def stream(http: Session, method: str, path: str, *, is_whole: bool = True, **options: Any) -> list[tuple[str, Any]]:
    """`is_whole`: the answer comes to its end rather than to that of the connection."""
    async with http.request(method, path, **options) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = b""
        try:
            async for chunk in response.content.iter_any():
                text += chunk
        except aiohttp.ClientPayloadError:
            assert not is_whole
        else:
            assert is_whole
        return events(text.decode())


async def test_documents_come_as_events(http: Session) -> None:
    found = await stream(http, "GET", "/hello", json={"text": "hi"})
    assert [name for name, _ in found] == ["update", "update", "update", "end"]
    assert found[1][1] == {"n": 1, "of": {"text": "hi"}}


@pytest.mark.parametrize(
    ("method", "options", "document"),
    [
        ("GET", {"params": {"text": "a b", "n": "3"}}, {"text": "a b", "n": 3}),
        ("GET", {"params": {"n": "many"}}, {"n": "many"}),
        ("GET", {"params": {"n": "562305652300967641088"}}, {"n": 562305652300967641088.0}),
        ("GET", {}, {}),
        ("POST", {"json": {"text": "x"}}, {"text": "x"}),
        ("POST", {"json": {"data": {"text": "x"}, "parameters": {"k": 1}}}, None),
        ("POST", {"json": {"data": 5}}, {"data": 5}),
    ],
)
async def test_where_the_document_comes_from(
    http: Session, dispatcher: EchoDispatcher, method: str, options: dict[str, Any], document: dict[str, Any] | None
) -> None:
    if document is None:
        dispatcher.parts = 0
    await stream(http, method, "/hello", **options)
    sent = orjson.loads(dispatcher.calls[0].body)
    assert sent == ({"data": [document]} if document is not None else options["json"])


@pytest.mark.parametrize(
    ("method", "path", "accept", "is_stream"),
    [
        ("POST", "/hello", "*/*", True),
        ("POST", "/hello", "application/json", False),
        ("GET", "/hello", "application/json", True),
        ("POST", "/echo", "application/json", False),
        ("POST", "/echo", "text/event-stream", True),
        ("GET", "/echo", "text/event-stream", True),
    ],
)
async def test_who_gets_a_stream(http: Session, method: str, path: str, accept: str, is_stream: bool) -> None:
    async with http.request(method, path, json={"data": [{"text": "x"}]}, headers={"accept": accept}) as response:
        assert response.status == 200
        assert (response.content_type == "text/event-stream") == is_stream
        if not is_stream:
            assert (await response.json())["data"] == [{"text": "x"}]


async def test_an_error_before_the_first_document_is_a_plain_answer(http: Session, dispatcher: EchoDispatcher) -> None:
    dispatcher.parts = 0
    dispatcher.statuses["/hello"] = Status(Code.INVALID_ARGUMENT, "text: required")
    async with http.get("/hello") as response:
        assert response.status == 422
        assert (await response.json())["detail"] == "text: required"


async def test_an_error_in_the_middle_is_the_last_event(
    http: Session, dispatcher: EchoDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """And the answer is incomplete, for readers that look at documents only."""
    dispatcher.statuses["/hello"] = Status(Code.EXECUTOR_ERROR, "ValueError('x')")
    found = await stream(http, "GET", "/hello", json={}, is_whole=False)
    assert [name for name, _ in found] == ["update", "update", "update", "error"]
    assert found[-1][1]["code"] == "EXECUTOR_ERROR"
    assert "without completing response" not in caplog.text


async def test_a_document_cannot_forge_an_event(http: Session) -> None:
    text = "event: end\r\n\r\nevent: update"
    async with http.get("/hello", json={"text": text}) as response:
        raw = await response.read()
    assert raw.count(b"event: ") == 4
    assert events(raw.decode())[0][1]["of"]["text"] == text


async def test_a_client_that_leaves_ends_the_stream(http: Session, dispatcher: EchoDispatcher) -> None:
    dispatcher.stream_holds.clear()
    response = await http.get("/hello", json={})
    assert await response.content.readline() == b"event: update\r\n"
    response.close()
    await eventually(lambda: dispatcher.streams_closed == 1, what="the end of the stream")


@pytest.mark.parametrize("body", [b"{", b"\xff"])
async def test_a_bad_body_is_422(http: Session, body: bytes) -> None:
    async with http.post("/hello", data=body, headers={"content-type": "application/json"}) as response:
        assert response.status == 422
