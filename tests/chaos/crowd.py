"""Many plain sockets to one server at once: clients that connect, say something, and then do nothing, read nothing, or vanish."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close sends RST

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def post(path: str, body: bytes, accept: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Crowd:
    """`number` connections that each sent `greeting`. `small`: with the smallest receive buffer there is: servers feel it at once."""

    def __init__(self, address: str, number: int, greeting: bytes, *, small: bool = False) -> None:
        host, _, port = address.partition(":")
        self._sockets: list[socket.socket] = []
        for _ in range(number):
            one = socket.socket()
            if small:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.settimeout(30)
            one.connect((host, int(port)))
            one.sendall(greeting)
            self._sockets.append(one)

    def read_heads(self) -> set[bytes]:
        """The first bytes of each answer, such as `HTTP/1.1 101`."""
        return {one.recv(12, socket.MSG_WAITALL) for one in self._sockets}

    def ports(self) -> set[tuple[int, int]]:
        """The server's port and the own one of each: two sockets may have the same own one."""
        return {(one.getpeername()[1], one.getsockname()[1]) for one in self._sockets}

    def count_open(self) -> int:
        return sum(_is_open(one) for one in self._sockets)

    def vanish(self) -> float:
        """All at once, without a goodbye. Returns the seconds it took."""
        began = time.monotonic()
        for one in self._sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()
        self._sockets.clear()
        return time.monotonic() - began


def _is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def crowd(address: str, number: int, greeting: bytes, *, small: bool = False) -> Iterator[Crowd]:
    made = Crowd(address, number, greeting, small=small)
    try:
        yield made
    finally:
        made.vanish()
