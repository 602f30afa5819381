"""The embedded broker: which server it runs, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamflow.broker.bus import Bus
from streamflow.broker.errors import RuntimeFailToStart
from streamflow.broker.server import EmbeddedBroker, check_version, find_server_binary
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.versions import MINIMUM_VERSION, require_version, version_of
from tests.e2e.programs import environment_of


@pytest.mark.parametrize("said", ["nats-server: v2.14.2", "nats-server: v2.9.99", "what?", ""])
def test_a_server_that_is_too_old_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    binary = tmp_path / "nats-server"
    binary.write_text(f"#!/bin/sh\necho '{said}'\n")
    binary.chmod(0o755)
    monkeypatch.setenv("STREAMFLOW_NATS_SERVER", str(binary))
    server = EmbeddedBroker(tmp_path / "store")

    with pytest.raises(RuntimeFailToStart, match=f"{said or 'of unknown version'}.*: streamflow needs 2.14.3 or newer".replace("?", r"\?")):
        server.start()
    assert server.pid == 0 and not (tmp_path / "store").exists()


def test_the_server_in_use_is_new_enough() -> None:
    assert (version_of(check_version(find_server_binary())) or ()) >= MINIMUM_VERSION
    assert require_version("nats-server: v2.14.3", "it") == "2.14.3"


async def test_an_external_broker_that_is_too_old_is_refused_at_connect() -> None:
    """A server of an older release, as far as a client sees it before it has sent anything that matters."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.8","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as old:
        port = old.sockets[0].getsockname()[1]
        with pytest.raises(
            RuntimeFailToStart, match=rf"the broker at nats://127.0.0.1:{port} is .*2.12.8.*: streamflow needs 2.14.3 or newer"
        ):
            await Bus.connect(BrokerSettings(broker_url=f"nats://127.0.0.1:{port}"), "test")


def test_no_two_servers_run_on_the_same_data(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path / "store"), EmbeddedBroker(tmp_path / "store")
    first.start()
    try:
        with pytest.raises(RuntimeFailToStart, match=f"another broker runs on the data in {tmp_path / 'store'}"):
            second.start()
        first.kill()
        second.start()
    finally:
        first.stop()
        second.stop()


SCRIPT = """
import sys
from streamflow.broker.server import EmbeddedBroker
server = EmbeddedBroker()
server.start()
print(server.store, flush=True)
sys.stdin.read()
server.stop()
"""


def run(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment_of({"TMPDIR": str(folder)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server outlives its starter and keeps the folder")
def test_what_a_kill_left_behind_is_removed_by_the_next_start(tmp_path: Path) -> None:
    killed, left = run(tmp_path)
    running, kept = run(tmp_path)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert left.exists()

    until_removed(tmp_path, left)
    assert kept.exists() and (kept / "jetstream").exists()
    running.communicate("")
    assert list(tmp_path.iterdir()) == []


def until_removed(folder: Path, left: Path) -> None:
    """The killed one's server may take a moment to end, and holds the folder until then."""
    for _ in range(20):
        later, _ = run(folder)
        later.communicate("")
        if not left.exists():
            return
    raise AssertionError(f"{left} is still there")


async def test_a_full_disk_in_the_log_asks_for_a_restart_once(own_broker: EmbeddedBroker) -> None:
    assert own_broker.store is not None and not own_broker.has_lost_its_disk()
    with (own_broker.store / "nats-server.log").open("a") as log:
        log.write("[ERR] JetStream failed to store a msg on stream '$G > A': write 2.blk: no space left on device\n")
    assert own_broker.has_lost_its_disk()
    own_broker.kill()
    own_broker.start()
    assert not own_broker.has_lost_its_disk()
