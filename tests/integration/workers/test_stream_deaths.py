"""Streams whose worker, broker or gateway connection dies in the middle: they go on where they were, or end in an error."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from streamflow.broker import codec, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, Envelope, decode, encode
from streamflow.broker.errors import Code
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Dispatcher
from streamflow.workers import streaming
from streamflow.workers.keepalive import Keepalive
from streamflow.workers.suspects import Suspects
from tests.chaos.proxy import Proxy
from tests.running import running
from tests.waiting import eventually

from .streams import BOTH, Heard, Plus, Talker, Token, call, chain, docs_of, listen, one, queue_lengths, queues_empty, take

pytestmark = [pytest.mark.feature("EX-14"), pytest.mark.usefixtures("silent_talker")]


@pytest.mark.parametrize("bad_at", [None, 8])
async def test_a_request_is_settled_when_the_broker_has_all_its_documents(
    settings: BrokerSettings, flow_name: str, bad_at: int | None
) -> None:
    small = settings.model_copy(update={"max_queue_messages": 3})
    async with running(small, chain(flow_name, "talk", "a"), {}) as flow:
        flow.dispatcher.catalog.absent = lambda longer_than_s: set()  # type: ignore[method-assign]
        flow.start_worker("talk", Talker)
        reading = asyncio.create_task(listen(flow, call("/sync", n=10, bad_at=bad_at)))
        await eventually(Talker.closed.is_set)

        async def is_full() -> bool:
            return (await queue_lengths(flow))["a"] >= 3

        await eventually(is_full, what="a full queue")
        assert await queue_lengths(flow) == {"talk": 1, "a": 3}
        flow.start_worker("a", Plus)
        heard = await reading
        assert heard.numbers == list(range(bad_at or 10)) and heard.code is (Code.EXECUTOR_ERROR if bad_at else Code.OK)
        await queues_empty(flow)


async def test_another_attempt_goes_on_where_the_first_was_and_never_mixes(settings: BrokerSettings, flow_name: str) -> None:
    graph = one(flow_name, ack_wait_s=0.3)
    async with running(settings, graph, {}) as flow:
        flow.dispatcher.catalog.absent = lambda longer_than_s: set()  # type: ignore[method-assign]
        heard = Heard()

        async def read() -> None:
            async for part in flow.dispatcher.stream(call("/sync", n=10)):
                heard.parts.append(part)

        reading = asyncio.create_task(read())
        got: list[Delivery] = []
        pull = Pull(flow.bus, subjects.work_stream(flow_name, "talk"), "now", got.append)
        await pull.start()
        await eventually(lambda: got)
        await pull.stop()
        request = decode(got[0].payload)

        sent: list[Envelope] = []
        await flow.bus.listen(request.reply, lambda subject, reply, header, payload: sent.append(decode(payload)))

        def of_the_dead(position: int) -> None:
            part = request._replace(body=codec.encode([Token(text="dead", number=position)], JSON), content_type=JSON, source="dead.1")
            flow.bus.publish(request.reply, encode(part._replace(position=position, final=False)))

        for position in (1, 0, 2, 7, 2):
            of_the_dead(position)
        await eventually(lambda: len(heard.parts) == 3)
        flow.start_worker("talk", Talker)
        await eventually(lambda: len(heard.parts) > 3)
        for position in (5, 6, 9):
            of_the_dead(position)
        await asyncio.wait_for(reading, 10)
        heard.check_form()
        assert heard.words == [("dead", 0), ("dead", 1), ("dead", 2), *(("w2", number) for number in range(3, 10))]
        assert heard.parts[-1].attempt == 2
        assert min(part.position for part in sent if part.attempt == 2 and part.position >= 0) == 3, "sent again what had arrived"
        await queues_empty(flow)


async def test_a_stream_that_gets_further_is_not_what_kills_workers(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, one(flow_name), {}) as flow:
        suspects, stream = Suspects(flow.bus, flow_name, "talk"), Envelope("r1", flow_name)
        assert [await suspects.mark(stream) for _ in range(3)] == [1, 2, 3]
        for documents, starts in ((0, 4), (10, 2), (10, 3), (10, 4), (11, 2)):
            await suspects.advanced(stream, documents)
            assert await suspects.mark(stream) == starts
        await suspects.clear(stream)
        assert await suspects.mark(stream) == 1


@BOTH
async def test_a_worker_that_was_thought_dead_stops_and_leaves_the_request_to_the_other(
    settings: BrokerSettings, flow_name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.1)
    monkeypatch.setattr(Keepalive, "hold", lambda self, subject, deadline: None)
    graph = one(flow_name, ack_wait_s=0.5, max_deliver=50)
    async with running(settings, graph, {"talk": Talker}) as flow:
        parts = flow.dispatcher.stream(call(endpoint, n=200))
        first = await take(parts, 1)
        flow.start_worker("talk", Talker, replica=1)
        await eventually(Talker.closed.is_set)  # the first generator, told that it was replaced
        assert (await listen(flow, call(endpoint, n=1))).numbers == [0]

        async def is_settled() -> bool:
            return (await queue_lengths(flow))["talk"] <= 1

        await eventually(is_settled, what="the short request is settled")
        assert (await queue_lengths(flow))["talk"] == 1, "the first worker settled what is the second one's"
        rest = [part async for part in parts]
        heard = Heard()
        heard.parts = [*first, *rest]
        heard.check_form()
        assert heard.numbers == list(range(200)) and heard.code is Code.OK
        await queues_empty(flow)


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_a_stream_survives_the_death_of_its_broker(
    own_broker: EmbeddedBroker, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors) as flow:
        numbers = []
        async with asyncio.timeout(30), aclosing(flow.dispatcher.stream(call(endpoint, n=300, pause_s=0.002))) as parts:
            async for part in parts:
                numbers += [doc["number"] for doc in docs_of(part)]
                if part.position in (40, 150):
                    own_broker.kill()
                    await asyncio.sleep(0.1)
                    await asyncio.to_thread(own_broker.start)
        assert numbers == list(range(300)) and part.status.code is Code.OK
        await queues_empty(flow, 10)


@BOTH
async def test_parts_that_were_lost_with_the_gateways_connection_come_again(
    settings: BrokerSettings, flow_name: str, endpoint: str
) -> None:
    """The worker's own connection holds, so it knows of nothing; what it sent meanwhile is gone."""
    proxy = Proxy(settings.broker_url)
    await proxy.start()
    async with running(settings, chain(flow_name, "talk"), {"talk": Talker}) as flow:
        bus = await Bus.connect(BrokerSettings(broker_url=proxy.url), "behind the proxy")
        dispatcher = Dispatcher(bus, flow.graph)
        await dispatcher.start()
        numbers: list[int] = []
        async with asyncio.timeout(30), aclosing(dispatcher.stream(call(endpoint, n=100, pause_s=0.01))) as parts:
            async for part in parts:
                numbers += [doc["number"] for doc in docs_of(part)]
                if part.position == 20:
                    proxy.fall_silent()
                    await asyncio.sleep(0.3)
                    proxy.cut()
        assert numbers == list(range(100)) and part.status.code is Code.OK
        await queues_empty(flow, 10)
        await dispatcher.close()
        await bus.close()
    await proxy.stop()
