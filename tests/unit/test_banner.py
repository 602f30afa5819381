"""What the banner says about who can reach a flow."""

from __future__ import annotations

import pytest

from streamflow import banner
from streamflow.banner import Board


def rows(monkeypatch: pytest.MonkeyPatch, host: str, *, closed: bool) -> list[str]:
    monkeypatch.setattr(banner, "private_addresses", lambda: ["10.1.2.3"])
    board = Board("Flow", "shop", "1", {"http": (host, 8080), "grpc": (host, 9090)}, closed, "nats://127.0.0.1:4222")
    return [line.strip() for line in board.lines()[1:4]]


def test_addresses_of_all_interfaces_where_others_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, "0.0.0.0", closed=False) == [
        "HTTP    http://127.0.0.1:8080  http://10.1.2.3:8080",
        "Docs    http://127.0.0.1:8080/docs",
        "gRPC    grpc://127.0.0.1:9090  grpc://10.1.2.3:9090",
    ]


def test_no_address_of_the_network_where_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, "0.0.0.0", closed=True) == [
        "HTTP    http://127.0.0.1:8080  (other machines are refused)",
        "Docs    http://127.0.0.1:8080/docs",
        "gRPC    grpc://127.0.0.1:9090  (other machines are refused)",
    ]


def test_nothing_is_said_about_others_who_cannot_come(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, "127.0.0.1", closed=True)[0] == "HTTP    http://127.0.0.1:8080"
