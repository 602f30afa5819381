"""A gateway of the user's own in the gateway process: how it is found, made, started and stopped, and what is said when that fails."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from uvicorn import Config
from uvicorn import Server as Uvicorn

from streamflow import Gateway
from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.broker.lifecycle import FAILED, Stop
from streamflow.broker.server import free_port
from streamflow.broker.settings import GatewaySettings, Listen
from streamflow.gateway.desk import Desk
from streamflow.gateways.base import Runtime
from streamflow.gateways.fastapi import FastAPIBaseGateway
from streamflow.gateways.host import Hosted, construct
from streamflow.gateways.loading import find_gateway
from streamflow.gateways.streamer import GatewayStreamer
from tests.unit.gateway.echoing import EchoDispatcher
from tests.waiting import eventually

pytestmark = pytest.mark.feature("GW-30", "GW-31")
LOCAL = "127.0.0.1"


def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x")
    writer.close()


class Plain(Gateway):
    """Answers every connection with one byte. `how` it goes wrong, if it does."""

    def __init__(self, how: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how
        self.end = asyncio.Event()

    async def setup_server(self) -> None:
        if self.how == "setup raises":
            raise ValueError("no such model")

    async def run_server(self) -> None:
        if self.how == "leaves":
            raise SystemExit(3)
        if self.how == "returns at once":
            return
        server = await asyncio.start_server(_greet, self.host, self.port)
        async with server:
            await self.end.wait()
        if self.how == "breaks":
            raise OSError("the disk is gone")

    async def shutdown(self) -> None:
        if self.how == "shutdown raises":
            raise ValueError("not now")
        if self.how != "stays":
            self.end.set()


@pytest.fixture
def runtime() -> Runtime:
    settings = GatewaySettings(flow="shop", listen=[Listen(protocol="http", host=LOCAL, port=free_port())], title="Shop", drain_s=5)
    return Runtime(settings, GatewayStreamer(Desk(EchoDispatcher()), ("encoder",)))


@pytest.fixture
def hosted(runtime: Runtime) -> Callable[..., tuple[Hosted, Stop]]:
    def make(kind: type[Gateway], **arguments: Any) -> tuple[Hosted, Stop]:
        stop = Stop()
        return Hosted(construct(kind, arguments, runtime), Desk(EchoDispatcher()), stop), stop

    return make


async def byte_from(port: int) -> bytes:
    reader, writer = await asyncio.open_connection(LOCAL, port)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_it_serves_from_start_to_stop(hosted: Any, runtime: Runtime) -> None:
    server, stop = hosted(Plain)
    port = runtime.settings.listen[0].port
    await server.start()
    assert await byte_from(port) == b"x"
    await server.stop(5)
    await server.stop(0)
    assert not stop.is_set()
    with pytest.raises(OSError):
        await byte_from(port)


async def test_it_is_told_its_settings_but_no_secrets(runtime: Runtime) -> None:
    gateway = construct(Plain, {}, runtime)
    assert (gateway.host, gateway.port, gateway.protocols) == (LOCAL, runtime.settings.listen[0].port, ["http"])
    assert (gateway.runtime_args.title, gateway.runtime_args.flow, gateway.name) == ("Shop", "shop", "gateway")
    assert not [name for name in vars(gateway.runtime_args) if "broker" in name or "credential" in name or name == "held"]
    assert gateway.logger.name.endswith("Plain") and repr(gateway).startswith("Plain(http:")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("setup raises", "gateway Plain: setup_server: ValueError: no such model"),
        ("leaves", "gateway Plain: run_server: SystemExit: 3"),
        ("returns at once", "gateway Plain: run_server returned before port"),
    ],
)
async def test_a_start_that_fails_says_where(hosted: Any, how: str, said: str) -> None:
    server, _ = hosted(Plain, how=how)
    with pytest.raises(RuntimeFailToStart, match=said):
        await server.start()


async def test_a_taken_port_is_named_before_anything_runs(hosted: Any, runtime: Runtime) -> None:
    port = runtime.settings.listen[0].port
    with socket.socket() as other:
        other.bind((LOCAL, port))
        other.listen()
        server, _ = hosted(Plain)
        with pytest.raises(RuntimeFailToStart, match=f"cannot listen on {LOCAL}:{port}"):
            await server.start()


async def test_a_server_that_breaks_ends_the_process(hosted: Any) -> None:
    server, stop = hosted(Plain, how="breaks")
    await server.start()
    server._gateway.end.set()
    await asyncio.wait_for(stop.wait(), 5)
    assert stop.code == FAILED
    await server.stop(0)


@pytest.mark.parametrize("how", ["stays", "shutdown raises"])
async def test_a_server_that_does_not_stop_is_cancelled(hosted: Any, how: str, runtime: Runtime) -> None:
    server, _ = hosted(Plain, how=how)
    await server.start()
    await asyncio.wait_for(server.stop(0.1), 5)
    with pytest.raises(OSError):
        await byte_from(runtime.settings.listen[0].port)


class WithUvicorn(Plain):
    """As the documentation has it: uvicorn takes the signals for itself."""

    async def setup_server(self) -> None:
        self.server = Uvicorn(Config(FastAPI(), host=self.host, port=self.port, log_level="critical"))

    async def run_server(self) -> None:
        await self.server.serve()

    async def shutdown(self) -> None:
        self.server.should_exit = True
        await self.server.shutdown()


async def test_signals_stay_with_the_process(hosted: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    server, _ = hosted(WithUvicorn)
    await server.start()
    assert signal.getsignal(signal.SIGTERM) == before
    await asyncio.wait_for(server.stop(5), 10)
    assert signal.getsignal(signal.SIGTERM) == before


class Web(FastAPIBaseGateway):
    started = 0

    @property
    def app(self) -> FastAPI:
        app = FastAPI(lifespan=_counting)

        @app.get("/dry_run")
        async def own() -> dict[str, str]:
            return {"own": "yes"}

        return app


async def _send(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(LOCAL, port)
    writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode())
    try:
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


class _counting:
    """A lifespan."""

    def __init__(self, app: FastAPI) -> None: ...

    async def __aenter__(self) -> None:
        Web.started += 1

    async def __aexit__(self, *error: object) -> None:
        Web.started -= 1


async def test_an_app_gets_health_routes_where_it_has_none_and_hears_of_start_and_end(hosted: Any, runtime: Runtime) -> None:
    server, _ = hosted(Web)
    port = runtime.settings.listen[0].port
    await server.start()
    assert Web.started == 1
    assert await _send(port, "/") == b"{}"
    assert await _send(port, "/dry_run") == b'{"own":"yes"}'
    await asyncio.wait_for(server.stop(5), 10)
    await eventually(lambda: Web.started == 0)


class NoKwargs(Plain):
    def __init__(self, how: str = "") -> None:
        self.how = how


class NoSuper(Plain):
    def __init__(self, **kwargs: Any) -> None:
        self.how = ""


class HalfDone(Gateway):
    async def setup_server(self) -> None: ...


class Raising(Plain):
    def __init__(self, **kwargs: Any) -> None:
        raise OSError("no weights")


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "said"),
    [
        (NoKwargs, {}, FlowError, "must take \\*\\*kwargs and call super"),
        (NoSuper, {}, FlowError, "must call super\\(\\).__init__"),
        (HalfDone, {}, FlowError, "gateway HalfDone: does not define run_server, shutdown"),
        (Plain, {"hwo": "x"}, FlowError, "unexpected keyword argument 'hwo'.*uses_with"),
        (Raising, {}, RuntimeFailToStart, "gateway Raising: __init__: OSError: no weights"),
    ],
)
async def test_what_cannot_be_made_says_why(runtime: Runtime, kind: Any, arguments: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        construct(kind, arguments, runtime)


def test_a_class_is_found_by_itself_its_module_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "fronts.py").write_text("from streamflow import Gateway\nclass Front(Gateway):\n    pass\n")
    assert find_gateway(Plain) is Plain
    assert find_gateway("Front", ["fronts.py"], [tmp_path]).__name__ == "Front"
    assert find_gateway("streamflow.gateways.fastapi.FastAPIBaseGateway") is FastAPIBaseGateway


@pytest.mark.parametrize(
    ("uses", "said"),
    [
        ("Nobody", "no gateway class 'Nobody'; list its file under py_modules"),
        ("pathlib.Path", "Path does not derive from streamflow.Gateway"),
        ("docker://image", "run the image as a service of its own"),
        (EchoDispatcher, "EchoDispatcher does not derive from streamflow.Gateway"),
    ],
)
def test_what_is_no_gateway_class_is_refused(uses: Any, said: str) -> None:
    with pytest.raises(FlowError, match=said):
        find_gateway(uses)
