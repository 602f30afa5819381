"""Runs a user's gateway in the gateway process, in the place of the built-in servers; its life is that of `gateway.service`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import socket
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.broker.lifecycle import FAILED, Stop
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.desk import Desk
from streamflow.gateway.dispatch import Dispatcher
from streamflow.gateway.listening import Info, Listening, Open

from .base import Gateway, Runtime
from .streamer import GatewayStreamer, use

log = logging.getLogger(__name__)

_LOOK_S = 0.02
_LAST_WORDS_S = 0.5  # for a server that is told to end at once
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def opener(kind: type[Gateway], arguments: Mapping[str, Any]) -> Open:
    """What opens the ports of a gateway process by running a `kind(**arguments)`."""

    async def open_ports(dispatcher: Dispatcher, settings: GatewaySettings, info: Info, stop: Stop) -> Listening:
        desk = Desk(dispatcher)
        streamer = GatewayStreamer(desk, dispatcher.graph.names, prefetch=settings.prefetch)
        use(streamer)
        server = Hosted(construct(kind, arguments, Runtime(settings, streamer)), desk, stop, settings.held)
        await server.start()
        return Listening([server], {listen.protocol: (listen.host, listen.port) for listen in settings.listen})

    return open_ports


def construct(kind: type[Gateway], arguments: Mapping[str, Any], runtime: Runtime) -> Gateway:
    """The gateway object. Raises `FlowError` for arguments that do not fit its `__init__`, `RuntimeFailToStart` when that raised."""
    missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
    if missing:
        raise FlowError(f"gateway {kind.__name__}: does not define {missing}")
    signature = inspect.signature(kind.__init__)
    if not any(parameter.kind is parameter.VAR_KEYWORD or name == "runtime" for name, parameter in signature.parameters.items()):
        raise FlowError(f"{kind.__name__}.__init__ must take **kwargs and call super().__init__(**kwargs)")
    try:
        gateway = kind(runtime=runtime, **arguments)
    except TypeError as error:
        raise FlowError(f"gateway {kind.__name__}: {error} (arguments are given as uses_with, or under `with`)") from error
    except Exception as error:
        raise _failed(kind, "__init__", error) from error
    if not hasattr(gateway, "streamer"):
        raise FlowError(f"{kind.__name__}.__init__ must call super().__init__(**kwargs)")
    return gateway


class Hosted:
    """A running gateway of the user's (`gateway.listening.Server`)."""

    def __init__(self, gateway: Gateway, desk: Desk, stop: Stop, held: Collection[str] = ()) -> None:
        """`held` are addresses ("host:port") that this process inherited, which it shares with the gateway before it."""
        self._gateway = gateway
        self._held = held
        self._desk = desk
        self._stop = stop
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Set the server up and return once its first port takes connections. Raises `RuntimeFailToStart`."""
        gateway = self._gateway
        _require_free(gateway.host, (port for port in gateway.ports if not self._holds(port)))
        try:
            await gateway.setup_server()
        except (Exception, SystemExit) as error:
            raise _failed(type(gateway), "setup_server", error) from error
        handlers = _handlers()
        self._task = asyncio.create_task(self._run(), name="gateway server")
        await self._until_connectable()
        # A uvicorn of the user's takes the signals for itself, and raises them again when it has ended.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        self._task.add_done_callback(self._ended)

    async def stop(self, grace_s: float) -> None:
        """Have the user's `shutdown` run, and wait for `run_server` to return; it is cancelled after `grace_s` seconds."""
        task, self._task = self._task, None
        if task is None:
            return
        self._desk.view.draining.set()
        try:
            async with asyncio.timeout(max(grace_s, _LAST_WORDS_S)):
                await self._gateway.shutdown()
                await asyncio.wait((task,))
        except TimeoutError:
            log.warning("%s did not end within %g s", type(self._gateway).__name__, grace_s)
        except Exception:
            log.exception("%s: shutdown failed", type(self._gateway).__name__)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        use(None)

    async def _run(self) -> None:
        try:
            await self._gateway.run_server()
        except (Exception, SystemExit) as error:  # uvicorn leaves by sys.exit when it cannot listen
            raise _failed(type(self._gateway), "run_server", error) from error

    async def _until_connectable(self) -> None:
        assert self._task is not None
        while not self._task.done():
            if await self._is_open():
                return
            await asyncio.wait((self._task,), timeout=_LOOK_S)
        await self._task
        raise RuntimeFailToStart(f"gateway {type(self._gateway).__name__}: run_server returned before port {self._gateway.port} was open")

    async def _is_open(self) -> bool:
        if self._holds(self._gateway.port):  # which may be open because of the gateway before it
            return self._gateway.is_listening
        try:
            _, writer = await asyncio.open_connection(_reachable(self._gateway.host), self._gateway.port)
        except OSError:
            return False
        writer.close()
        return True

    def _holds(self, port: int) -> bool:
        return f"{self._gateway.host}:{port}" in self._held

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is None or task.cancelled():
            return  # told to
        log.error("%s: run_server ended by itself", type(self._gateway).__name__, exc_info=task.exception())
        self._stop.set("the gateway's server ended by itself", FAILED)


def _failed(kind: type[Gateway], where: str, error: BaseException) -> RuntimeFailToStart:
    return RuntimeFailToStart(f"gateway {kind.__name__}: {where}: {type(error).__name__}: {error}")


def _require_free(host: str, ports: Iterable[int]) -> None:
    """Somebody else's listener would look like the user's own server."""
    for port in dict.fromkeys(ports):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise RuntimeFailToStart(f"gateway: cannot listen on {host}:{port}: {error.strerror or error}") from error


def _handlers() -> dict[signal.Signals, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) is not None}


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
