"""Access to the gRPC side: an interceptor before every method but those that probes ask."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import grpc

from streamflow.broker.errors import PermissionDenied, Unauthenticated
from streamflow.broker.settings import GatewaySettings

from .auth import is_local
from .grpc_streams import Context
from .rules import Rules, rules_of
from .status import outcome

_OPEN = ("/grpc.health.v1.Health/", "/jina.JinaGatewayDryRunRPC/")
_NAMES = ("x509_common_name", "x509_subject_alternative_name")
_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def interceptors(settings: GatewaySettings) -> list[grpc.aio.ServerInterceptor]:
    """Of a gateway with these settings; none when everybody is let in. Raises `FlowError`."""
    rules = rules_of(settings)
    return [] if rules.access is None else [Gatekeeper(rules)]


class Gatekeeper(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Puts the check before each handler: only there the client's certificate is known."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lets_local = rules.access is not None and rules.access.lets_local

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN):
            return handler
        kind, make = _KINDS[handler.request_streaming, handler.response_streaming]
        checked = self._before(getattr(handler, kind))
        return make(checked, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer)

    def _before(self, behaviour: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
        async def call(request: Any, context: Context) -> Any:
            await self._admit(context)
            return await behaviour(request, context)

        async def generate(request: Any, context: Context) -> Any:
            await self._admit(context)
            async for answer in behaviour(request, context):
                yield answer

        return generate if inspect.isasyncgenfunction(behaviour) else call

    async def _admit(self, context: Context) -> None:
        if self._lets_local and _is_local(context.peer()):
            return
        try:
            given = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")
            self._rules.admit(given if isinstance(given, str) else "", _names(context))
        except (Unauthenticated, PermissionDenied) as error:
            await context.abort(getattr(grpc.StatusCode, outcome(error.code).grpc), str(error))


def _names(context: Context) -> list[str]:
    """Names in the certificate of the client, which TLS has checked; [] without one."""
    found = context.auth_context() if context.auth_context is not None else {}
    return [value.decode("utf-8", "replace") for name in _NAMES for value in found.get(name, ())]


def _is_local(peer: str) -> bool:
    """Of "ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "unix:..."."""
    kind, _, address = unquote(peer).partition(":")
    return kind == "unix" or is_local(address.rpartition(":")[0].strip("[]"))
