"""A Flow and a Deployment of the original jina, for the client tests: run with the Python of the environment that has it.

Arguments: ports of gRPC, HTTP, WebSocket (the Flow), gRPC, HTTP (a Deployment with a streaming endpoint). Prints `ready`; ends when its
stdin does.
"""

import asyncio
import sys

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from jina import Deployment, Executor, Flow, requests


class Item(BaseDoc):
    text: str = ""
    number: int = 0
    vector: NdArray | None = None


class First(Executor):
    @requests
    def other(self, docs: DocList[Item], **kwargs) -> DocList[Item]:
        return docs

    @requests(on="/echo")
    def echo(self, docs: DocList[Item], parameters: dict, **kwargs) -> DocList[Item]:
        for doc in docs:
            doc.text += parameters.get("suffix", "!")
        return docs

    @requests(on="/fail")
    def fail(self, docs: DocList[Item], **kwargs) -> DocList[Item]:
        if any(doc.text == "bad" for doc in docs):
            raise NotImplementedError("no such thing")
        return docs

    @requests(on="/sleep")
    async def sleep(self, docs: DocList[Item], **kwargs) -> DocList[Item]:
        await asyncio.sleep(docs[0].number / 1000)
        return docs

    @requests(on="/results")
    def results(self, docs: DocList[Item], parameters: dict, **kwargs) -> DocList[Item]:
        return {"answer": 42, "given": parameters.get("hello", "")}


class Second(Executor):
    @requests
    def other(self, docs: DocList[Item], **kwargs) -> DocList[Item]:
        return docs

    @requests(on="/echo")
    def echo(self, docs: DocList[Item], parameters: dict, **kwargs) -> DocList[Item]:
        for doc in docs:
            doc.text += parameters.get("suffix", "?")
            doc.vector = np.arange(3.0)
        return docs


class Talker(Executor):
    @requests(on="/talk")
    async def talk(self, doc: Item, **kwargs) -> Item:
        for number, word in enumerate(doc.text.split()):
            yield Item(text=word, number=number)


def main() -> None:
    grpc, http, websocket, stream_grpc, stream_http = map(int, sys.argv[1:6])
    flow = (
        Flow(protocol=["grpc", "http", "websocket"], port=[grpc, http, websocket], host="127.0.0.1")
        .add(uses=First, name="first")
        .add(uses=Second, name="second")
    )
    talker = Deployment(uses=Talker, protocol=["grpc", "http"], port=[stream_grpc, stream_http], host="127.0.0.1", include_gateway=False)
    with flow, talker:
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
