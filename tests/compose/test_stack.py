"""The stack of compose/docker-compose.yml and what happens to it: a crash, a broker restart, more replicas (`make compose-test`)."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .containers import ContainerStack
from .engine import NoEngine, start_engine
from .processes import ProcessStack
from .stack import Stack, post

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.feature("CN-12", "CN-03")]

ADJECTIVES = ("red", "green", "blue", "black", "white", "old", "new", "small", "large", "cheap")
NOUNS = ("shoe", "jacket", "lamp", "table", "bicycle", "umbrella", "kettle", "violin", "carpet", "mirror")
TEXTS = [f"{adjective} {noun} number {at}" for at, (adjective, noun) in enumerate((a, n) for a in ADJECTIVES for n in NOUNS)]


@pytest.fixture(scope="module")
def stack(capsys_disabled: Callable[[str], None]) -> Iterator[Stack]:
    """The stack, up and healthy; says which of the two ways it runs."""
    engine = None
    try:
        engine = start_engine()
        found: Stack = ContainerStack(engine)
    except NoEngine as reason:
        capsys_disabled(f"compose test: no container engine ({reason})")
        found = ProcessStack()
    capsys_disabled(f"compose test: running as {found.kind}")
    try:
        found.up()
        yield found
    finally:
        found.down()
        if engine is not None:
            engine.stop()


@pytest.fixture(scope="module")
def capsys_disabled(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints past pytest's capturing: nobody should have to guess which of the two ran."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)

    return say


def index(stack: Stack, texts: list[str], first: int) -> int:
    """How many texts the index holds afterwards."""
    data = [{"id": f"text-{first + at}", "text": text} for at, text in enumerate(texts)]
    answer = post(f"{stack.url}/index", {"data": data})
    return max(int(doc["indexed"]) for doc in answer["data"])


def search(stack: Stack, texts: list[str]) -> list[list[str]]:
    """Per text the ids of its matches, best first."""
    answer = post(f"{stack.url}/search", {"data": [{"text": text} for text in texts], "parameters": {"limit": 3}})
    return [[match["id"] for match in doc["matches"]] for doc in answer["data"]]


def finds_itself(stack: Stack, at: int) -> bool:
    return search(stack, [TEXTS[at]])[0][0] == f"text-{at}"


def eventually(check: Callable[[], Any], within_s: float = 60.0) -> None:
    """`check()` becomes true; what the gateway refuses meanwhile (503 and the like) is its right."""
    limit = time.monotonic() + within_s
    while True:
        try:
            if check():
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > limit:
                raise AssertionError(f"still {error} after {within_s:g} s") from error
        assert time.monotonic() < limit, f"not within {within_s:g} s"
        time.sleep(0.2)


def test_t20_hundred_texts_are_indexed_while_an_encoder_crashes(stack: Stack) -> None:
    batches = range(0, 100, 10)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(index, stack, TEXTS[first : first + 10], first) for first in batches]
        answers[2].result(timeout=60)
        stack.crash("encoder")
        held = [answer.result(timeout=60) for answer in answers]
    assert max(held) == 100


def test_ten_searches_find_what_was_indexed(stack: Stack) -> None:
    asked = list(range(5, 100, 10))
    assert [found[0] for found in search(stack, [TEXTS[at] for at in asked])] == [f"text-{at}" for at in asked]


def test_the_crashed_encoder_comes_back(stack: Stack) -> None:
    eventually(lambda: stack.healthy("encoder") == 2)


def test_a_broker_restart_is_survived_by_everybody(stack: Stack) -> None:
    stack.restart("nats")
    eventually(lambda: finds_itself(stack, 42))
    eventually(lambda: all(stack.healthy(name) for name in ("nats", "gateway", "encoder", "indexer")))


def test_more_replicas_need_one_command(stack: Stack) -> None:
    stack.scale("encoder", 4)
    assert stack.healthy("encoder") == 4
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda at: finds_itself(stack, at), range(0, 100, 5)))


def test_a_crashed_indexer_comes_back_with_its_index(stack: Stack) -> None:
    stack.crash("indexer")
    eventually(lambda: finds_itself(stack, 99))


def test_nothing_is_left_after_down(stack: Stack) -> None:
    stack.down()
    assert stack.leftovers() == []
