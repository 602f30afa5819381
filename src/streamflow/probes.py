"""One round of `streamflow ping`: is whoever answers at this URL able to serve? By protocol, with the least that can ask."""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import SplitResult, urlsplit

from streamflow.broker.errors import InvalidInput, Unavailable

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 80, "grpcs": 443, "nats": 4222}
_DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # HealthCheckResponse.status = SERVING
_STATUS_ERROR = b"\x08\x01"  # StatusProto.code = ERROR


def parse(url: str) -> SplitResult:
    """`url` in parts; without a scheme it is gRPC, as for `jina ping`. Raises `InvalidInput`."""
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    try:
        valid = parts.hostname and parts.scheme in DEFAULT_PORTS and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInput(f"{url!r} is no address: use grpc://, http://, ws:// or nats:// with host:port")
    return parts


def probe(target: str, parts: SplitResult, timeout_s: float) -> None:
    """Ask once. Raises `Unavailable` with the reason when the answer is not "ready"; `target` is flow, gateway, executor or deployment."""
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    if parts.scheme == "nats":
        _nats(target, parts, timeout_s)
    elif parts.scheme.startswith("grpc"):
        _grpc(target, host, port, parts.scheme == "grpcs", timeout_s)
    else:  # a WebSocket gateway answers the same plain HTTP question on its port
        _http(target, host, port, parts.scheme in ("https", "wss"), timeout_s)


def _http(target: str, host: str, port: int, tls: bool, timeout_s: float) -> None:
    connection = (http.client.HTTPSConnection if tls else http.client.HTTPConnection)(host, port, timeout=timeout_s)
    path = "/" if target == "gateway" else "/dry_run"
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        # HTTP/2 begins with a frame where a status line is expected; a connection that was closed instead is both kinds of error.
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
            raise Unavailable("what answers there speaks no HTTP/1.1: a gRPC port takes grpc://") from error
        raise Unavailable(f"no answer: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Unavailable(f"HTTP {answer.status}: {_description(body)}")
    if path == "/dry_run" and _code(body) not in (0, "SUCCESS"):
        raise Unavailable(_description(body))


def _json(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _code(body: bytes) -> object:
    return _json(body).get("code")


def _description(body: bytes) -> str:
    found = _json(body)
    return str(found.get("description") or found.get("detail") or body[:200].decode(errors="replace") or "not ready")


def _grpc(target: str, host: str, port: int, tls: bool, timeout_s: float) -> None:
    import grpc  # 50 ms, and only this protocol needs it

    address = f"{host}:{port}"
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials()) if tls else grpc.insecure_channel(address)
    with channel:
        # Both messages are small enough to be read as bytes: request Empty or HealthCheckRequest(), answer a status with `code` first.
        call = channel.unary_unary(_HEALTH if target in ("gateway", "executor") else _DRY_RUN)
        try:
            answer = bytes(call(b"", timeout=timeout_s))
        except grpc.RpcError as error:
            details = str(error.details())
            hint = ": an HTTP port takes http:// or ws://" if "Failed parsing HTTP/2" in details else ""
            raise Unavailable(f"{error.code().name}: {details}{hint}") from error
    if target in ("gateway", "executor"):
        if not answer.startswith(_SERVING):
            raise Unavailable("not serving")
    elif answer.startswith(_STATUS_ERROR):
        raise Unavailable("not ready: an executor does not answer")


def _nats(target: str, parts: SplitResult, timeout_s: float) -> None:
    """`nats://host:port` asks the broker alone; `nats://host:port/<flow>[/<executor>]` asks the flow's workers."""
    flow, _, executor = parts.path.strip("/").partition("/")
    if flow:
        from .roll_call import check  # the client of the broker, 0.15 s

        check(f"nats://{parts.netloc}", flow, executor, timeout_s)
        return
    if target in ("executor", "deployment"):
        raise InvalidInput(f"name the {target}: nats://{parts.netloc}/<flow>/<executor>")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or DEFAULT_PORTS["nats"]), timeout=timeout_s) as link:
            greeting = link.recv(4)
    except OSError as error:
        raise Unavailable(f"no answer: {error}") from error
    if greeting != b"INFO":
        raise Unavailable("that is no NATS server")
