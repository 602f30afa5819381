"""The gRPC side of the gateway: Jina's services, our own, health and reflection on one `grpc.aio` server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.broker.settings import GatewaySettings

from .auth_grpc import interceptors
from .desk import Desk, Dispatching
from .grpc_jina import JinaServices
from .grpc_native import NATIVE, NativeService
from .grpc_state import StateService
from .grpc_streams import Streams
from .health import HEALTH, Health, services_of
from .jobs_desk import JobDesk
from .jobs_grpc import JOBS, JobService
from .proto.registry import POOL
from .state_desk import StateDesk

COLLECT_S = 10.0
SURVIVORS_AFTER = 30  # collections: then what outlived them is looked at too, before it is much
_INT32_MAX = (1 << 31) - 1
_COMPRESSION = {"none": None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 9999),
    ("grpc.keepalive_timeout_ms", 4999),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_time_between_pings_ms", 10000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a second listener
)


class GrpcServer:
    """One gRPC server on any number of ports."""

    def __init__(
        self,
        dispatcher: Dispatching,
        settings: GatewaySettings,
        *,
        info: Callable[[], Mapping[str, str]] = dict,
        certificate: tuple[Path, Path] | None = None,
        jobs: JobDesk | None = None,
        states: StateDesk | None = None,
    ) -> None:
        """`info` adds lines to Jina's `_status`; `settings.grpc_server_options` win over ours; `jobs`, `states` None = no jobs, no
        snapshots.

        `certificate` is a PEM certificate chain and its key: TLS on all ports. Raises `FlowError` for options that gRPC cannot take.
        """
        self._desk = Desk(dispatcher)
        self._streams = Streams()
        self._health = Health(self._desk.view)
        self._certificate = certificate
        self._client_ca = Path(settings.ssl_ca).read_bytes() if settings.ssl_ca else None
        self._interceptors = interceptors(settings)
        bounds = [("grpc.max_receive_message_length", min(settings.max_request_bytes, _INT32_MAX))]
        if settings.held:
            bounds.append(("grpc.so_reuseport", 1))  # the supervisor keeps others away, and a gateway takes over from another
        self._options: list[tuple[str, object]] = [*_OPTIONS, *bounds, *_checked(settings.grpc_server_options)]
        self._compression = _COMPRESSION[settings.compression]
        is_public = settings.no_debug_endpoints or settings.admin_port is not None  # what operators do is kept off its ports
        self._jina = JinaServices(self._desk, self._streams, prefetch=settings.prefetch, info=None if is_public else info)
        self._states = () if states is None or is_public else tuple(StateService(states).handlers())
        self._native = NativeService(self._desk, self._streams, prefetch=settings.prefetch)
        self._jobs = (JobService(jobs).handler(),) if jobs is not None else ()
        self._server: grpc.aio.Server | None = None
        self._collecting: asyncio.Task[None] | None = None

    async def start(self, addresses: Iterable[tuple[str, int]]) -> list[int]:
        """Listen on each `(host, port)`, port 0 = a free one; returns the real ports. Raises `RuntimeFailToStart`."""
        server = grpc.aio.server(options=list(dict(self._options).items()), compression=self._compression, interceptors=self._interceptors)
        services = (*self._jina.handlers(), self._native.handler(), self._health.handler(), *self._jobs, *self._states)
        server.add_generic_rpc_handlers(services)
        self._add_reflection(server)
        ports = [self._listen(server, host, port) for host, port in addresses]
        await server.start()
        self._server = server
        self._collecting = asyncio.create_task(_collect(), name="collect")
        return ports

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, answer what is in flight for up to `grace_s` seconds, then close."""
        if self._server is None:
            return
        self._desk.view.draining.set()
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        self._streams.stop()
        await stopping
        self._server = None
        if self._collecting is not None:
            self._collecting.cancel()

    def _listen(self, server: grpc.aio.Server, host: str, port: int) -> int:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._certificate is None:
                bound = server.add_insecure_port(address)
            else:
                chain, key = self._certificate
                credentials = grpc.ssl_server_credentials(
                    [(key.read_bytes(), chain.read_bytes())], self._client_ca, require_client_auth=self._client_ca is not None
                )
                bound = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise RuntimeFailToStart(f"gRPC cannot listen on {address}: {error}") from error
        if not bound:
            raise RuntimeFailToStart(f"gRPC cannot listen on {address}")
        return int(bound)

    def _add_reflection(self, server: grpc.aio.Server) -> None:
        for descriptor in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            POOL.AddSerializedFile(descriptor.serialized_pb)
        names = (*services_of("jina.proto"), NATIVE, *((JOBS,) if self._jobs else ()), HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, POOL)


async def _collect() -> None:
    """grpc.aio leaves 1 KB in cycles for each call. Where calls are few, the collector would let thousands of them come together; to look
    at the youngest objects, 20,000 at most, takes it a millisecond or two (docs/decisions/0033-memory-of-a-gateway.md)."""
    while True:
        await asyncio.sleep(COLLECT_S)
        gc.collect(1 if gc.get_count()[1] >= SURVIVORS_AFTER else 0)


def _checked(options: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    for name, value in options.items():
        if not isinstance(value, int | str):
            raise FlowError(f"gateway: grpc_server_options: {name}: {value!r} is neither a number nor text")
    return options.items()
