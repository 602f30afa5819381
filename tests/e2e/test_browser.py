"""`examples/browser` in headless Chromium: a page of another origin reads a stream of tokens by fetch, EventSource and WebSocket."""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import pytest
import yaml

from .programs import ROOT, Program, Programs, until

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
EXAMPLE = ROOT / "examples" / "browser"
WORDS = "to be or not to be"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.feature("GW-16", "GW-17", "GW-21"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def page() -> Iterator[str]:
    """Address of the page, on a port (so of an origin) of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(EXAMPLE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


def flow(programs: Programs, **gateway: Any) -> str:
    """The example's flow on a free port; its address."""
    definition = yaml.safe_load((EXAMPLE / "flow.yml").read_text())
    definition["gateway"] |= {"port": 0, "host": "127.0.0.1", **gateway}
    definition["executors"][0]["uses"]["py_modules"] = [str(EXAMPLE / "typewriter.py")]
    file = programs.folder / "flow.yml"
    file.write_text(yaml.safe_dump(definition))
    program, addresses = programs.flow(file)
    return addresses["http"]


class Tab:
    """A page of a running browser, by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def value(self, expression: str) -> Any:
        """What the JavaScript `expression` is now."""
        self._number += 1
        call = {"id": self._number, "method": "Runtime.evaluate", "params": {"expression": expression, "returnByValue": True}}
        await self._socket.send_json(call)
        while (answer := await self._socket.receive_json(timeout=20)).get("id") != self._number:
            pass
        return answer["result"]["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 30.0) -> Any:
        """The value of `expression` once it is true."""
        async with asyncio.timeout(timeout_s):
            while not (value := await self.value(expression)):
                await asyncio.sleep(0.02)
        return value


def browser(programs: Programs, url: str) -> tuple[Program, str]:
    """A headless Chromium at `url`, and the address of its DevTools."""
    profile = programs.folder / "profile"
    assert CHROMIUM is not None
    flags = [
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
    ]
    # Its Unix socket lies in TMPDIR, and such a name has 107 bytes at most: the test's own folder may be too deep for it.
    program = programs.run("chromium", CHROMIUM, *flags, url, HOME=str(programs.folder), TMPDIR="/tmp")
    port_file = profile / "DevToolsActivePort"
    until(lambda: port_file.is_file() and port_file.read_text().count("\n"), 40, what="Chromium opens its DevTools")
    return program, f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"


@asynccontextmanager
async def tab(programs: Programs, url: str) -> AsyncIterator[Tab]:
    program, tools = browser(programs, url)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{tools}/json/list") as answer:
            targets = json.loads(await answer.text())
        target = next(each for each in targets if each["type"] == "page")
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield Tab(socket)
    program.end()


def shown(id: str) -> str:
    return f"(document.getElementById('{id}')?.textContent.trim() ?? '')"


ENDED = f"/done|failed/.test({shown('state')}) && {shown('state')}"


async def test_a_page_shows_a_stream_of_tokens(programs: Programs, page: str) -> None:
    address = flow(programs)
    async with tab(programs, f"{page}?gateway={address}") as chromium:
        first = await chromium.until(shown("events"))
        assert WORDS.startswith(first) and len(first) < len(WORDS), f"not word by word: {first!r}"
        assert await chromium.until(ENDED) == "done"
        assert await chromium.value(shown("fetch")) == f"{len(WORDS)} letters"
        assert await chromium.value(shown("events")) == WORDS
        assert await chromium.value(shown("socket")) == WORDS


async def test_without_cors_the_browser_refuses_the_answer(programs: Programs, page: str) -> None:
    address = flow(programs, cors=False)
    async with tab(programs, f"{page}?gateway={address}") as chromium:
        assert (await chromium.until(ENDED)).startswith("failed: ")
        assert await chromium.value(shown("fetch")) == ""
        assert await chromium.value(shown("events")) == ""
