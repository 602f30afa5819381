"""Waits until a server that was just started answers a real request."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

import grpc

from ..process import Server

POLL_S = 0.02
CODE_FIELD = b"\x08"  # StatusProto.code; SUCCESS is 0, the default, and a default is not sent


class NeverReady(RuntimeError):
    """The server ended or did not answer in time."""


def wait_http(server: Server, url: str, body: bytes, expected: bytes, limit_s: float) -> float:
    """Seconds from process start to the first right answer."""
    return _wait(server, lambda: expected in _post(url, body), limit_s)


def wait_grpc(server: Server, address: str, limit_s: float) -> float:
    """Seconds from process start to the first successful `JinaGatewayDryRunRPC/dry_run`, which passes through every executor."""
    return _wait(server, lambda: _dry_run(address), limit_s)


def _wait(server: Server, answered: Callable[[], bool], limit_s: float) -> float:
    while (waited := time.perf_counter() - server.started) < limit_s:
        if answered():
            return time.perf_counter() - server.started
        if server.exited() is not None:
            raise NeverReady(f"ended with {server.exited()} after {waited:.1f} s: {server.log_tail()}")
        time.sleep(POLL_S)
    raise NeverReady(f"no answer within {limit_s:.0f} s: {server.log_tail()}")


def _post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            return bytes(answer.read())
    except (OSError, HTTPException):
        return b""


def _dry_run(address: str) -> bool:
    # A new channel each time: an old one would wait out its own reconnect back-off.
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/jina.JinaGatewayDryRunRPC/dry_run")
        try:
            return not call(b"", timeout=5.0).startswith(CODE_FIELD)
        except grpc.RpcError:
            return False
