"""Which server is connected to next."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import ParseResult, urlparse

from streamflow.broker.servers import Servers


@dataclass(frozen=True)
class Known:
    uri: ParseResult


POOL = [Known(urlparse(f"nats://n{number}:4222")) for number in range(3)]
PLACES = [server.uri.netloc for server in POOL]


def test_the_server_that_was_left_comes_last() -> None:
    for left in PLACES:
        servers = Servers(0.0)
        servers.left(left)
        assert [servers.choose(POOL, {})[0].uri.netloc for _ in POOL][-1] == left


def test_every_server_is_tried_before_one_is_tried_again() -> None:
    servers = Servers(0.0)
    tried = [servers.choose(POOL, {})[0].uri.netloc for _ in range(9)]
    for first in (0, 3, 6):
        assert sorted(tried[first : first + 3]) == PLACES


def test_each_is_tried_at_once_and_then_after_a_wait() -> None:
    servers = Servers(0.5)
    servers.left(PLACES[0])
    assert [servers.choose(POOL, {})[1] for _ in POOL] == [0.0, 0.0, 0.0]
    pauses = [servers.choose(POOL, {})[1] for _ in POOL]
    assert all(0.3 < pause <= 0.5 for pause in pauses)


def test_a_lone_server_is_tried_at_once_after_it_was_left() -> None:
    servers = Servers(0.5)
    started = time.monotonic()
    servers.left(PLACES[0])
    assert servers.choose(POOL[:1], {}) == (POOL[0], 0.0)
    assert 0.3 < servers.choose(POOL[:1], {})[1] <= 0.5 and time.monotonic() - started < 0.2
