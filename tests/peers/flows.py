"""The same Flows and Deployment in either library, served side by side for comparison.

Run with the Python of the environment that has the library: `python flows.py jina|streamflow PORT...`, 12 ports: gRPC, HTTP and WebSocket
of the main flow, of one whose executor is too slow, of one whose executor went away; gRPC and HTTP of a streaming Deployment; one for
who went away.
Prints `ready`; ends when its stdin does.
"""

import asyncio
import contextlib
import importlib
import sys
from typing import Any

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

library: Any = importlib.import_module(sys.argv[1])
Executor, requests = library.Executor, library.requests
PROTOCOLS = ["grpc", "http", "websocket"]
TIMEOUT_MS = 500


class Item(BaseDoc):
    text: str = ""
    number: int = 0
    vector: NdArray | None = None  # type: ignore[type-arg]  # docarray's own generic base


class First(Executor):
    @requests
    def other(self, docs: DocList[Item], **kwargs: Any) -> DocList[Item]:
        return docs

    @requests(on="/echo")
    def echo(self, docs: DocList[Item], parameters: dict[str, Any], **kwargs: Any) -> DocList[Item]:
        for doc in docs:
            doc.text += parameters.get("suffix", "!")
        return docs

    @requests(on="/fail")
    def fail(self, docs: DocList[Item], **kwargs: Any) -> DocList[Item]:
        if any(doc.text == "bad" for doc in docs):
            raise NotImplementedError("no such thing")
        return docs

    @requests(on="/sleep")
    async def sleep(self, docs: DocList[Item], **kwargs: Any) -> DocList[Item]:
        await asyncio.sleep(docs[0].number / 1000)
        return docs

    @requests(on="/results")
    def results(self, docs: DocList[Item], parameters: dict[str, Any], **kwargs: Any) -> DocList[Item]:
        return {"answer": 42, "given": parameters.get("hello", ""), "documents": len(docs)}


class Second(Executor):
    @requests
    def other(self, docs: DocList[Item], **kwargs: Any) -> DocList[Item]:
        return docs

    @requests(on="/echo")
    def echo(self, docs: DocList[Item], parameters: dict[str, Any], **kwargs: Any) -> DocList[Item]:
        for doc in docs:
            doc.text += parameters.get("suffix", "?")
            doc.vector = np.arange(3.0)
        return docs


class Talker(Executor):
    @requests(on="/talk")
    async def talk(self, doc: Item, parameters: dict[str, Any], **kwargs: Any) -> Item:  # jina wants the class of one document
        for number, word in enumerate(doc.text.split()):
            if word == "bad":
                raise ValueError("a bad word")
            yield Item(text=word + parameters.get("suffix", ""), number=number)


def main() -> None:
    *ports, stream_grpc, stream_http, away = (int(port) for port in sys.argv[2:])
    flow = _flow(ports[0:3]).add(uses=First, name="first").add(uses=Second, name="second")
    slow = _flow(ports[3:6], timeout_send=TIMEOUT_MS).add(uses=First, name="first")
    talker = library.Deployment(
        uses=Talker, protocol=["grpc", "http"], port=[stream_grpc, stream_http], host="127.0.0.1", include_gateway=False
    )
    elsewhere = library.Deployment(uses=First, port=away, host="127.0.0.1", include_gateway=False)
    with flow, slow, talker, contextlib.ExitStack() as broken:
        with elsewhere:  # a jina gateway is ready only when it has seen its executors
            broken.enter_context(_flow(ports[6:9], retries=0).add(name="away", external=True, host="127.0.0.1", port=away))
        print("ready", flush=True)
        sys.stdin.read()


def _flow(ports: list[int], **options: Any) -> Any:
    return library.Flow(protocol=PROTOCOLS, port=ports, host="127.0.0.1", **options)


if __name__ == "__main__":
    main()
