"""`streamflow doctor` of real brokers: each thing it looks for is made to happen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import EmbeddedBroker, free_port
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.cli.app import main
from streamflow.doctor.broker import _version, examine
from streamflow.doctor.verdict import Level, Verdict

ROOMY = "max_file_store: 1TB"
GRAPH = Graph("shop", (Node("e"),))


@pytest.fixture
def fsync_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    server = EmbeddedBroker(tmp_path / "fsync", limits=ROOMY, durability="fsync")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def plain_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    server = EmbeddedBroker(tmp_path / "plain", limits=ROOMY)
    server.start()
    yield server
    server.stop()


def of(broker: EmbeddedBroker, **more: object) -> BrokerSettings:
    return BrokerSettings.model_validate({"broker_url": broker.url, "connect_wait_s": 2.0, **more})


async def verdicts(settings: BrokerSettings) -> list[Verdict]:
    return [verdict async for verdict in examine(settings)]


def failures(found: list[Verdict]) -> list[str]:
    return [each.text for each in found if each.level is Level.FAIL]


async def deploy(settings: BrokerSettings, graph: Graph = GRAPH) -> None:
    bus = await Bus.connect(settings, "test")
    await provision(bus, graph, settings)
    await bus.close()


async def test_a_broker_that_writes_through_proves_it(fsync_broker: EmbeddedBroker) -> None:
    settings = of(fsync_broker, durability="fsync", max_queue_bytes=1 << 20, max_job_bytes=1 << 20)
    await deploy(settings)
    found = await verdicts(settings)
    assert {each.level for each in found} == {Level.OK}, found
    assert any("fsync, proven by http://127.0.0.1:" in each.text for each in found)
    assert any("streams and consumers are as deployed" in each.text for each in found)
    assert any(each.text.startswith("clock: ") for each in found)


async def test_a_promise_that_nothing_proves_fails(plain_broker: EmbeddedBroker) -> None:
    await deploy(of(plain_broker, durability="fsync"))
    [text] = failures(await verdicts(of(plain_broker)))
    assert "flow 'shop' promises fsync, which 0 of 1 servers prove" in text


async def test_another_server_proves_nothing(plain_broker: EmbeddedBroker, fsync_broker: EmbeddedBroker) -> None:
    port = int(fsync_broker.url.rsplit(":", 1)[1]) + 4000
    settings = of(plain_broker, durability="fsync", monitoring_url=f"http://127.0.0.1:{port}")
    assert "0 of 1 servers prove" in failures(await verdicts(settings))[0]


async def test_a_server_that_shows_that_it_does_not_write_through(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "monitoring.conf").write_text(f'http: "127.0.0.1:{port}"')
    server = EmbeddedBroker(tmp_path / "lazy", auth=tmp_path / "monitoring.conf")
    server.start()
    try:
        url = f"http://127.0.0.1:{port}"
        [text] = failures(await verdicts(of(server, durability="fsync", monitoring_url=url)))
        assert text == f"durability: this configuration promises fsync, but {url} acknowledges before it writes to disk"
    finally:
        server.stop()


async def test_the_exit_code_says_whether_the_promise_holds(plain_broker: EmbeddedBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["doctor", "--broker", plain_broker.url]) == 0
    assert "a power cut may cost the last ones" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["doctor", "--broker", plain_broker.url, "--durability", "fsync"]) == 1
    assert "name it with --monitoring" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["doctor", "--broker", plain_broker.url, "--json"]) == 0
    assert all(json.loads(line)["level"] == "ok" for line in capsys.readouterr().out.splitlines())


async def test_no_broker_is_one_finding() -> None:
    [verdict] = await verdicts(BrokerSettings(broker_url=f"nats://127.0.0.1:{free_port()}", connect_wait_s=0.3))
    assert verdict.level is Level.FAIL and verdict.text.startswith("no broker at")


async def test_what_was_changed_by_hand_is_named(plain_broker: EmbeddedBroker) -> None:
    settings = of(plain_broker)
    await deploy(settings)
    bus = await Bus.connect(settings, "test")
    stream = subjects.work_stream("shop", "e")
    consumer = (await bus.api(f"CONSUMER.INFO.{stream}.now"))["config"]
    changed = {"stream_name": stream, "config": consumer | {"ack_wait": 60_000_000_000}, "action": ""}
    await bus.api(f"CONSUMER.CREATE.{stream}.now.{consumer['filter_subject']}", changed)
    await bus.api(f"CONSUMER.DELETE.{stream}.bulk")
    await bus.api(f"STREAM.DELETE.{subjects.dead_stream('shop')}")
    await bus.close()
    found = await verdicts(settings)
    assert f"consumer now of stream {stream}: ack_wait is 60 s, not 5 s" in [each.text for each in found if each.level is Level.WARN]
    assert set(failures(found)) == {
        f"consumer bulk of stream {stream} is missing",
        f"flow 'shop': stream {subjects.dead_stream('shop')} is missing",
    }


async def test_replicas_and_room(plain_broker: EmbeddedBroker) -> None:
    settings = of(plain_broker, max_queue_bytes=10_000)
    await deploy(settings)
    bus = await Bus.connect(settings, "test")
    await bus.store_wait(subjects.work("shop", "e", "now", "r1"), bytes(8500), "r1")
    await bus.close()
    found = await verdicts(of(plain_broker, stream_replicas=3))
    stream = subjects.work_stream("shop", "e")
    assert f"stream {stream} has 1 replicas, not 3" in failures(found)
    assert any(each.text.startswith(f"stream {stream} holds 85") for each in found if each.level is Level.WARN)


async def test_flows_that_live_in_memory(plain_broker: EmbeddedBroker) -> None:
    await deploy(of(plain_broker, durability="memory"))
    assert failures(await verdicts(of(plain_broker))) == []


def test_an_old_broker_is_refused() -> None:
    assert _version("2.14.2").level is Level.FAIL
    assert _version("<nats server v2.14.3>").level is Level.OK
    assert _version("unknown").level is Level.FAIL
