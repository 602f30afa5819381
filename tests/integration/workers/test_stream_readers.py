"""Readers of a stream that are slow, or cannot be heard: the generator waits for them, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc
from docarray.typing import NdArray

from streamflow.broker import codec, credit
from streamflow.broker.credit import LEAST_BYTES, MOST_BYTES, WINDOW_PARTS
from streamflow.broker.envelope import COLUMNS, JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers import streaming
from streamflow.workers.executor import Executor, requests
from streamflow.workers.stream import QUIET_LOOKS, Stream
from tests.running import running
from tests.waiting import eventually

from .streams import BOTH, Heard, Plus, Silent, Talker, call, chain, listen, one, queues_empty, take

pytestmark = [pytest.mark.feature("EX-14"), pytest.mark.usefixtures("silent_talker")]


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a", "b")])
async def test_a_slow_reader_holds_its_generator_back_and_nobody_else(
    settings: BrokerSettings, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors, concurrency=2) as flow:
        streams = [flow.dispatcher.stream(call(endpoint, n=1000)) for _ in range(5)]
        for parts in streams:
            assert (await take(parts, 1))[0].position == 0
        await eventually(lambda: Talker.yielded == 5 * WINDOW_PARTS)
        began = time.monotonic()
        assert (await listen(flow, call(endpoint, n=10))).numbers == list(range(10))
        assert time.monotonic() - began < 3.0
        assert Talker.yielded == 5 * WINDOW_PARTS + 10, "a generator went on although its reader did not"
        rest = [part.position async for part in streams[0]]
        assert rest == list(range(1, 1001))
        for parts in streams[1:]:
            await parts.aclose()
        await eventually(lambda: len(Talker.log) - Talker.log.count("cancelled") == 6)
        await queues_empty(flow)


class Image(BaseDoc):
    pixels: NdArray


class Camera(Executor):
    taken = 0

    @requests(on="/film")
    def film(self, doc: Image, parameters: dict[str, Any], **kwargs: Any) -> Image:  # type: ignore[misc]
        for number in range(int(parameters["n"])):
            Camera.taken += 1
            yield Image(pixels=np.full(int(parameters.get(f"bytes{number}", parameters["bytes"])), number, dtype=np.uint8))


@pytest.mark.parametrize("size", [300_000, 3_000_000])
@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_large_documents_fill_the_window_by_their_bytes(
    settings: BrokerSettings, flow_name: str, size: int, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 60.0)  # the test's time is up before chance helps
    executors = {name: Camera if name == "talk" else Silent for name in names}
    Camera.taken = 0
    async with running(settings, chain(flow_name, *names), executors) as flow:
        body = b'{"data": [{"pixels": [0]}], "parameters": {"n": 60, "bytes": %d}}' % size
        parts = flow.dispatcher.stream(Call("/film", body, JSON, COLUMNS))
        first = await take(parts, 1)
        await eventually(lambda: Camera.taken)
        await listen(flow, Call("/film", b'{"data": [{"pixels": [0]}], "parameters": {"n": 1, "bytes": 1}}', JSON, COLUMNS))
        assert Camera.taken <= MOST_BYTES // size + 2, "a generator went on although its window was full"
        async with asyncio.timeout(30):
            numbers = [int(codec.decode(part.body, COLUMNS, Image).docs[0].pixels[0]) async for part in parts if part.body]
        assert numbers == list(range(1, 60)) and first[0].position == 0
        await queues_empty(flow)


@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_a_document_above_the_limit_ends_the_stream_in_its_place(
    settings: BrokerSettings, flow_name: str, names: tuple[str, ...]
) -> None:
    executors = {name: Camera if name == "talk" else Silent for name in names}
    small = settings.model_copy(update={"max_request_bytes": 1_000_000})
    async with running(small, chain(flow_name, *names), executors) as flow:
        body = b'{"data": [{"pixels": [0]}], "parameters": {"n": 1000, "bytes": 10, "bytes7": 2000000}}'
        heard = Heard()
        async for part in flow.dispatcher.stream(Call("/film", body, JSON, COLUMNS)):
            heard.parts.append(part)
        heard.check_form()
        assert len(heard.parts) == 8 and heard.code is Code.TOO_LARGE
        await queues_empty(flow)


async def test_the_more_streams_there_are_the_less_each_may_be_ahead(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "ALL_BYTES", 4 * LEAST_BYTES)
    body = b'{"data": [{"pixels": [0]}], "parameters": {"n": 60, "bytes": %d}}' % (LEAST_BYTES // 4)
    Camera.taken = 0
    async with running(settings, one(flow_name), {"talk": Camera}) as flow:
        streams = [flow.dispatcher.stream(Call("/film", body, JSON, COLUMNS)) for _ in range(5)]
        await take(streams[0], 1)
        await eventually(lambda: Camera.taken >= 15, what="a stream that is alone has all the room")
        for parts in streams[1:4]:
            await take(parts, 1)
        await eventually(lambda: Camera.taken >= 15 + 3 * 4)
        before = Camera.taken
        await take(streams[4], 1)
        await eventually(lambda: Camera.taken >= before + 4)
        await asyncio.sleep(0.1)  # long enough for it to ask, and to go on
        assert Camera.taken <= before + 5
        for parts in streams:
            await parts.aclose()


async def test_a_stream_without_news_is_asked_about_less_and_less_often_unless_nobody_answers(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.02)
    monkeypatch.setattr(streaming, "TURNS", 1)
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        probed, asked = flow.dispatcher._probed, []
        looks = counted_looks(monkeypatch)

        def count(probe: Envelope) -> None:
            asked.append(probe)
            probed(probe)

        monkeypatch.setattr(flow.dispatcher, "_probed", count)
        parts = flow.dispatcher.stream(call("/sync", n=1000))
        await take(parts, 1)
        await eventually(lambda: Talker.yielded == WINDOW_PARTS)
        began, had = len(looks), len(asked)
        await eventually(lambda: len(looks) >= began + 64)
        assert 64 // QUIET_LOOKS - 1 <= len(asked) - had <= 64 // QUIET_LOOKS + 5
        monkeypatch.setattr(flow.dispatcher, "_report", lambda source, payload: None)
        await eventually(lambda: len(asked) > had + 64 // QUIET_LOOKS + 5, what="a question without an answer is asked again")
        began, had = len(looks), len(asked)
        await eventually(lambda: len(looks) >= began + 16)
        assert len(asked) - had >= 12
        await parts.aclose()


def counted_looks(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """Filled with each look at a stream."""
    looks: list[Stream] = []
    is_due = Stream.is_due

    def look(stream: Stream) -> bool:
        looks.append(stream)
        return is_due(stream)

    monkeypatch.setattr(Stream, "is_due", look)
    return looks


async def test_lost_reports_cost_a_moment_and_not_the_stream(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.05)
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        tell, lost = flow.dispatcher._report, []

        def tell_seldom(source: str, payload: bytes) -> None:
            lost.append(payload)
            if len(lost) % 3 == 0:
                tell(source, payload)

        for waiting in ("/sync", "/async"):
            monkeypatch.setattr(flow.dispatcher, "_report", tell_seldom)
            assert (await listen(flow, call(waiting, n=500))).numbers == list(range(500))
        assert len(lost) > 10
