"""Requests that go on while something is done to a flow: every answer and every failure is kept."""

from __future__ import annotations

import http.client
import json
import threading
import time
from types import TracebackType
from typing import Self


class Meanwhile:
    """Clients that post one document after the other to endpoint `on` at `address` ("host:port"), each over a connection that it keeps.

    Context manager. `answers` are (time.monotonic() at which it came, text); `failures` what was no answer with status 200.
    """

    def __init__(self, address: str, *, on: str = "/", clients: int = 4, pause_s: float = 0.002) -> None:
        self.answers: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self._address = address
        self._on = on
        self._pause_s = pause_s
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for client in self._clients:
            client.join(30)

    def last(self) -> str:
        return self.answers[-1][1] if self.answers else ""

    def texts(self) -> list[str]:
        """Different answers, in the order of their first."""
        return list(dict.fromkeys(text for _, text in self.answers))

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        while not self._over.wait(self._pause_s):
            try:
                self.answers.append((time.monotonic(), ask(connection, self._on)))
            except (OSError, http.client.HTTPException, AssertionError, LookupError) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


def ask(connection: http.client.HTTPConnection, on: str) -> str:
    """The text of the one document that comes back."""
    body = json.dumps({"data": [{"text": ""}], "execEndpoint": on})
    connection.request("POST", "/post", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    return str(json.loads(content)["data"][0]["text"])
