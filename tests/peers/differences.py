"""Where we answer otherwise than jina 3.34.0 on purpose. What differs and is not listed here is a fault, and so is an idle entry.

An entry holds for the calls whose title starts with one of `calls`, on the ways named ("" = all), in one column of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVER = "our gateway"
CLIENT = "our client"


@dataclass(frozen=True)
class Difference:
    column: str
    calls: tuple[str, ...]
    ways: tuple[str, ...]
    reason: str

    def covers(self, column: str, call: str, way: str) -> bool:
        return column == self.column and call.startswith(self.calls) and (not self.ways or way in self.ways)


DIFFERENCES = (
    Difference(
        SERVER, ("post: header of the answer",), (), "The header repeats what was asked: endpoint and target executor, on every protocol."
    ),
    Difference(SERVER, ("post: routes of the answer",), ("HTTP",), "HTTP answers hold the routes too."),
    Difference(
        SERVER,
        ("error: the executor is too slow", "error: an executor that went away"),
        ("HTTP",),
        "The original's handler for 503 and 504 fails itself and answers 500; ours answers 503 and 504, which its client knows.",
    ),
    Difference(
        SERVER,
        ("post: target_executor that is no expression",),
        ("WebSocket",),
        "The original never answers; ours refuses the request.",
    ),
    Difference(CLIENT, ("post: a callback that raises",), (), "The caller's own exception comes out as it is."),
    Difference(
        CLIENT,
        ("post: callbacks of a failed request", "error: what on_error sees", "error: continue_on_error"),
        ("HTTP",),
        "Over HTTP the original raises for every failed request; ours hands it to on_error and continue_on_error, as on other protocols.",
    ),
    Difference(
        CLIENT,
        ("post: target_executor that is no", "error: the executor raises", "error: documents of another class"),
        ("HTTP",),
        "The same classes on every protocol, where the original raises ValueError over HTTP alone.",
    ),
    Difference(
        CLIENT,
        ("error: the executor is too slow", "error: an executor that went away"),
        ("HTTP",),
        "A 500 of the original's HTTP gateway is an answer that failed; what was meant as 503 or 504 cannot be told.",
    ),
    Difference(CLIENT, ("error: the client's own timeout",), ("HTTP",), "RequestTimeout, a ConnectionError, on every protocol."),
    Difference(CLIENT, ("error: the client's own timeout",), ("WebSocket",), "`timeout` counts over WebSocket too."),
    Difference(
        CLIENT,
        ("post: target_executor that is no expression",),
        ("WebSocket",),
        "The gateway closes the socket; the original waits on.",
    ),
    Difference(CLIENT, ("post: header of the answer",), ("HTTP",), "Where the server says nothing, the header holds what was asked."),
    Difference(CLIENT, ("profiling",), (), "The original's fails to import a package in its own environment."),
    Difference(
        CLIENT,
        ("stream_doc: parameters",),
        ("HTTP",),
        "Parameters of a stream over HTTP do not reach the original's server; ours says so instead of dropping them.",
    ),
    Difference(CLIENT, ("stream_doc: an error on the way",), ("HTTP",), "A stream that breaks is a ConnectionError."),
)

# By chance, with either server: whether the original's client notices depends on who closes the socket first.
UNSTEADY = ("post: a callback that raises", "error: the executor raises", "error: documents of another class")
UNSTEADY_WAY = "WebSocket"
