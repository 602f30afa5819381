"""The same calls by the `Client` of either library, unmodified: run with the Python of the environment that has it.

`python calls.py jina|streamflow PORT...`, the ports as for `flows.py`. Prints one JSON object: way (gRPC stream, gRPC unary, HTTP,
WebSocket) to call to what came back, without what differs from run to run (ids, times).
"""

import asyncio
import functools
import importlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

library: Any = importlib.import_module(sys.argv[1])
LIMIT_S = 8.0
NOTHING = "no answer"
NOT_SERVED = "not served"
WAYS = {"gRPC stream": "grpc", "gRPC unary": "grpc", "HTTP": "http", "WebSocket": "websocket"}
PLACES = ("grpc", "http", "websocket")


class Item(BaseDoc):
    text: str = ""
    number: int = 0
    vector: NdArray | None = None  # type: ignore[type-arg]  # docarray's own generic base


class Wrong(BaseDoc):
    number: str = "many"


class Options(BaseModel):
    suffix: str = "+"


@dataclass(frozen=True)
class Way:
    """One protocol: the ports of main, slow and broken flow and of the streaming Deployment (0 = does not serve this protocol)."""

    name: str
    protocol: str
    main: int
    slow: int
    broken: int
    talker: int
    away: int

    def client(self, port: int = 0, **options: Any) -> Any:
        return library.Client(host="127.0.0.1", port=port or self.main, protocol=self.protocol, **options)

    def post(self, on: str, inputs: Any = None, port: int = 0, **options: Any) -> Any:
        if self.name == "gRPC unary":
            options["stream"] = False
        options.setdefault("return_type", DocList[Item])
        return self.client(port).post(on, inputs, **options)


CALLS: dict[str, Callable[[Way], Any]] = {}


def call(title: str) -> Callable[[Callable[[Way], Any]], Callable[[Way], Any]]:
    def keep(function: Callable[[Way], Any]) -> Callable[[Way], Any]:
        CALLS[title] = function
        return function

    return keep


def items(count: int) -> list[Item]:
    return [Item(text=str(number), number=number) for number in range(count)]


def fields(docs: Any) -> Any:
    return [[doc.text, doc.number] for doc in docs]


@call("post: a document")
def _(way: Way) -> Any:
    found = way.post("/echo", Item(text="hi", number=3))
    return [type(found).__name__, fields(found)]


@call("post: return_type=Item, one result")
def _(way: Way) -> Any:
    found = way.post("/echo", Item(text="hi"), return_type=Item)
    return found.text if isinstance(found, Item) else [type(found).__name__, fields(found)]


@call("post: return_type=Item, two results")
def _(way: Way) -> Any:
    return fields(way.post("/echo", items(2), return_type=Item))


@call("post: a tensor there and back")
def _(way: Way) -> Any:
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = np.asarray(way.post("/", Item(vector=sent))[0].vector)
    return [found.tolist(), list(found.shape)]


@call("post: 25 documents, request_size=4, results_in_order")
def _(way: Way) -> Any:
    return "".join(way.post("/echo", DocList[Item](items(25)), request_size=4, results_in_order=True).text)


@call("post: 25 documents, request_size=4, return_responses")
def _(way: Way) -> Any:
    found = way.post("/echo", items(25), request_size=4, return_responses=True)
    return sorted(len(response.docs) for response in found)


@call("post: a generator, prefetch=2")
def _(way: Way) -> Any:
    def documents() -> Iterator[Item]:
        yield from items(9)

    return sorted(way.post("/echo", documents(), request_size=2, prefetch=2).text)


@call("post: a generator function")
def _(way: Way) -> Any:
    return sorted(way.post("/echo", lambda: iter(items(3)), request_size=2).text)


@call("post: an empty list")
def _(way: Way) -> Any:
    return len(way.post("/echo", [], return_responses=True))


@call("post: parameters without documents")
def _(way: Way) -> Any:
    (response,) = way.post("/results", parameters={"hello": "world"}, return_responses=True)
    return [len(response.docs), response.parameters]


@call("post: an executor's dict")
def _(way: Way) -> Any:
    (response,) = way.post("/results", items(2), return_responses=True)
    return [len(response.docs), response.parameters]


@call("post: numbers in parameters")
def _(way: Way) -> Any:
    (response,) = way.post("/", Item(), parameters={"top_k": 5, "deep": {"list": [1, None, True]}}, return_responses=True)
    return response.parameters


@call("post: parameters for one executor each")
def _(way: Way) -> Any:
    return way.post("/echo", Item(), parameters={"first__suffix": "A", "second__suffix": "B"})[0].text


@call("post: parameters as a pydantic model")
def _(way: Way) -> Any:
    return way.post("/echo", Item(), parameters=Options())[0].text


@call("post: target_executor")
def _(way: Way) -> Any:
    return [way.post("/echo", Item(), target_executor=name)[0].text for name in ("first", "second.*", "nobody")]


@call("post: target_executor that is no expression")
def _(way: Way) -> Any:
    return way.post("/echo", Item(), target_executor="(")[0].text


@call("post: an endpoint that no executor has")
def _(way: Way) -> Any:
    return fields(way.post("/nowhere", Item(text="a")))


@call("post: header of the answer")
def _(way: Way) -> Any:
    (response,) = way.post("/echo", Item(), target_executor="first", return_responses=True)
    header = response.header
    return [header.exec_endpoint, header.target_executor, bool(header.request_id)]


@call("post: routes of the answer")
def _(way: Way) -> Any:
    (response,) = way.post("/echo", Item(), return_responses=True)
    return [route.executor for route in response.routes]


@call("post: callbacks")
def _(way: Way) -> Any:
    seen: list[str] = []
    result = way.post(
        "/echo",
        items(3),
        request_size=1,
        on_done=lambda response: seen.append(f"done {len(response.docs)}"),
        on_error=lambda response: seen.append("error"),
        on_always=lambda response: seen.append("always"),
    )
    return [result, seen]


@call("post: callbacks of a failed request")
def _(way: Way) -> Any:
    seen: list[str] = []
    callbacks = {f"on_{name}": functools.partial(lambda name, _: seen.append(name), name) for name in ("done", "error", "always")}
    way.post("/fail", Item(text="bad"), **callbacks)
    return seen


@call("post: a callback that raises")
def _(way: Way) -> Any:
    def broken(response: Any) -> None:
        raise KeyError("mine")

    return way.post("/echo", Item(), on_done=broken)


@call("post: a callback that raises, continue_on_error")
def _(way: Way) -> Any:
    def broken(response: Any) -> None:
        raise KeyError("mine")

    return way.post("/echo", Item(), on_done=broken, continue_on_error=True)


@call("error: the executor raises")
def _(way: Way) -> Any:
    return fields(way.post("/fail", Item(text="bad")))


@call("error: what on_error sees")
def _(way: Way) -> Any:
    seen: list[Any] = []

    def note(response: Any) -> None:
        status = response.header.status
        seen.append([status.code not in (0, "OK"), status.description, _name(status.exception)])

    way.post("/fail", Item(text="bad"), on_error=note)
    return seen


def _name(exception: Any) -> str:
    """A message in the original, the name itself in ours."""
    return exception if isinstance(exception, str) else str(exception.name)


@call("error: continue_on_error")
def _(way: Way) -> Any:
    docs = [Item(text="good"), Item(text="bad"), Item(text="good")]
    return len(way.post("/fail", docs, request_size=1, continue_on_error=True, return_responses=True))


@call("error: documents of another class")
def _(way: Way) -> Any:
    return fields(way.post("/echo", Wrong()))


@call("error: the executor is too slow (timeout_send)")
def _(way: Way) -> Any:
    return fields(way.post("/sleep", Item(number=3000), way.slow))


@call("error: the executor is too slow, continue_on_error")
def _(way: Way) -> Any:
    return fields(way.post("/sleep", Item(number=3000), way.slow, continue_on_error=True))


@call("error: the client's own timeout")
def _(way: Way) -> Any:
    return fields(way.post("/sleep", Item(number=3000), timeout=0.3))


@call("error: an executor that went away")
def _(way: Way) -> Any:
    return fields(way.post("/echo", Item(), way.broken))


@call("error: no gateway, max_attempts=2")
def _(way: Way) -> Any:
    return fields(way.post("/echo", Item(), way.away, max_attempts=2, initial_backoff=0.01, max_backoff=0.02))


@call("is_flow_ready")
def _(way: Way) -> Any:
    return [way.client().is_flow_ready(), way.client(way.away).is_flow_ready()]


@call("profiling")
def _(way: Way) -> Any:
    return sorted(way.client().profiling(show_table=False))


@call("Client: port in URL and keyword")
def _(way: Way) -> Any:
    return library.Client(host=f"{way.protocol}://127.0.0.1:{way.main}", port=way.main)


@call("Client: a URL")
def _(way: Way) -> Any:
    scheme = "ws" if way.protocol == "websocket" else way.protocol
    return fields(library.Client(host=f"{scheme}://127.0.0.1:{way.main}").post("/echo", Item(), return_type=DocList[Item]))


@call("show_progress")
def _(way: Way) -> Any:
    return len(way.post("/echo", items(3), request_size=1, show_progress=True))


@call("compression='Gzip'")
def _(way: Way) -> Any:
    return fields(way.post("/echo", Item(text="hi"), compression="Gzip"))


@call("async client: post")
def _(way: Way) -> Any:
    async def ask() -> list[Any]:
        docs = way.client(asyncio=True).post("/echo", items(4), request_size=1, return_type=DocList[Item])
        return sorted([fields(found) async for found in docs])

    return asyncio.run(ask())


@call("async client: an async generator")
def _(way: Way) -> Any:
    async def documents() -> AsyncIterator[Item]:
        for item in items(4):
            yield item

    async def ask() -> list[Any]:
        docs = way.client(asyncio=True).post("/echo", documents(), request_size=2, return_type=DocList[Item])
        return sorted([fields(found) async for found in docs])

    return asyncio.run(ask())


@call("async client: is_flow_ready")
def _(way: Way) -> Any:
    return asyncio.run(way.client(asyncio=True).is_flow_ready())


def _streamed(way: Way, words: str, **options: Any) -> Any:
    async def ask() -> list[Any]:
        found = []
        client = way.client(way.talker, asyncio=True)
        try:
            async for doc in client.stream_doc(on="/talk", inputs=Item(text=words), return_type=Item, **options):
                found.append([doc.text, doc.number])
        except Exception as error:
            return [found, shown(error)]
        return found

    return asyncio.run(ask()) if way.talker else NOT_SERVED


@call("stream_doc")
def _(way: Way) -> Any:
    return _streamed(way, "a b c")


@call("stream_doc: parameters")
def _(way: Way) -> Any:
    return _streamed(way, "a b", parameters={"suffix": "!"})


@call("stream_doc: an error on the way")
def _(way: Way) -> Any:
    return _streamed(way, "a bad c")


def shown(error: BaseException) -> dict[str, Any]:
    """The nearest class that both libraries, or Python, know; and whether its text says what happened."""
    public = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return {"raises": type(error).__name__, "which is a": public}


class NoAnswer(BaseException):
    """The limit of one call has passed."""


def answer(function: Callable[[Way], Any], way: Way) -> Any:
    """What `function` returns or raises within the limit, as JSON can hold it.

    Asked a second time where nothing comes: now and then a stream of the original hangs. In the main thread, interrupted by a signal:
    gRPC's event loops in several threads stop one another (grpc/grpc#25364).
    """
    found = _answer(function, way)
    found = _answer(function, way) if found == NOTHING else found
    return json.loads(json.dumps(found, default=lambda value: type(value).__name__, sort_keys=True))


def _answer(function: Callable[[Way], Any], way: Way) -> Any:
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        with redirect_stdout(io.StringIO()):
            return function(way)
    except (NoAnswer, asyncio.CancelledError):
        return NOTHING
    except Exception as error:
        return shown(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up(number: int, frame: Any) -> None:
    raise NoAnswer


def ways(ports: list[int]) -> Iterator[Way]:
    talkers = {"gRPC stream": ports[9], "HTTP": ports[10]}
    for name, protocol in WAYS.items():
        at = PLACES.index(protocol)
        yield Way(name, protocol, ports[at], ports[3 + at], ports[6 + at], talkers.get(name, 0), ports[11])


def main() -> None:
    logging.disable(logging.CRITICAL)
    found = {
        way.name: {title: answer(functools.partial(function), way) for title, function in CALLS.items()}
        for way in ways([int(port) for port in sys.argv[2:]])
    }
    print(json.dumps(found), flush=True)
    os._exit(0)  # what has been given up may hold an orderly exit


if __name__ == "__main__":
    main()
