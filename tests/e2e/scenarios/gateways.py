"""Gateways of the user's own that several scenarios run. No postponed annotations: FastAPI reads those of functions inside functions."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from docarray import DocList
from docarray.documents import TextDoc
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from uvicorn import Config, Server

from streamflow import Executor, Gateway, requests
from streamflow.serve.runtimes.gateway.http.fastapi import FastAPIBaseGateway
from streamflow.serve.streamer import GatewayStreamer

Docs = DocList[TextDoc]


def text(value: str) -> DocList[TextDoc]:
    return Docs([TextDoc(text=value)])


class Worker(Executor):
    """Adds its own name; slowly, when told to."""

    def __init__(self, word: str = "", seconds: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.word, self.seconds = word, seconds

    @requests
    def work(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        time.sleep(self.seconds)
        for doc in docs:
            doc.text = f"{doc.text}{self.word}"
        return docs

    @requests(on="/check")
    def check(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> DocList[TextDoc]:
        for doc in docs:
            if doc.text in parameters["bad"]:
                raise ValueError(f"{doc.text} is bad")
        return docs

    @requests(on="/letters")
    def letters(self, doc: TextDoc, **kwargs: Any) -> Iterator[TextDoc]:
        for letter in doc.text or "":
            yield TextDoc(text=letter)


class ServiceGateway(Gateway):
    """The documentation's: any server, here uvicorn, by the three methods."""

    def __init__(self, arg: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arg = arg

    async def setup_server(self) -> None:
        app = FastAPI(title="Custom Gateway")

        @app.get(path="/service")
        async def my_service(input: str) -> dict[str, Any]:
            result = None
            async for response_docs in self.streamer.stream_docs(docs=text(input), exec_endpoint="/", return_type=Docs):
                result = response_docs[0].text
            return {"result": result}

        @app.get(path="/about")
        async def about() -> dict[str, Any]:
            same = GatewayStreamer.get_streamer() is self.streamer
            known = {"host": self.host, "port": self.port, "ports": self.ports, "protocols": self.protocols, "name": self.runtime_args.name}
            return {"arg": self.arg, "executors": list(self.executor), "same": same, "title": self.runtime_args.title, **known}

        @app.get(path="/")
        def health_check() -> dict[str, str]:
            return {}

        self.server = Server(Config(app, host=self.host, port=self.port, log_level="error"))

    async def run_server(self) -> None:
        await self.server.serve()

    async def shutdown(self) -> None:
        self.server.should_exit = True
        await self.server.shutdown()


class Question(BaseModel):
    texts: list[str]
    size: int = 1


class AppGateway(FastAPIBaseGateway):
    """A FastAPI app, and nothing else."""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/in_turn")
        async def in_turn(text: str) -> dict[str, Any]:
            tic = time.time()
            docs1 = await self.executor["executor1"].post(
                on="/", inputs=Docs([TextDoc(text=text)]), parameters={"k": "v"}, return_type=Docs
            )
            docs2 = await self.executor["executor2"].post(
                on="/", inputs=Docs([TextDoc(text=text)]), parameters={"k": "v"}, return_type=Docs
            )
            return {"result": docs1.text + docs2.text, "time_taken": time.time() - tic}

        @app.get("/at_once")
        async def at_once(text: str) -> dict[str, Any]:
            tic = time.time()
            call1 = self.executor["executor1"].post(on="/", inputs=Docs([TextDoc(text=text)]), parameters={"k": "v"}, return_type=Docs)
            call2 = self.executor["executor2"].post(on="/", inputs=Docs([TextDoc(text=text)]), parameters={"k": "v"}, return_type=Docs)
            docs1, docs2 = await asyncio.gather(call1, call2)
            return {"result": docs1.text + docs2.text, "time_taken": time.time() - tic}

        @app.post("/checked")
        async def checked(question: Question) -> dict[str, Any]:
            results, errors = [], []
            async for docs, error in self.streamer.stream(
                docs=Docs([TextDoc(text=each) for each in question.texts]),
                exec_endpoint="/check",
                parameters={"bad": ["rotten"]},
                request_size=question.size,
                results_in_order=True,
                return_type=Docs,
            ):
                if error:
                    errors.append(error)
                else:
                    results.extend(docs.text)
            return {"results": results, "errors": [error.name for error in errors]}

        @app.get("/raises")
        async def raises() -> None:
            try:
                await self.executor["executor1"].post(on="/check", inputs=text("rotten"), parameters={"bad": ["rotten"]})
            except Exception as error:
                raise HTTPException(500, f"{type(error).__name__}: {error}") from error

        @app.get("/letters")
        async def letters(text: str) -> list[str]:
            one = self.executor["executor1"].stream_doc(TextDoc(text=text), on="/letters", return_type=TextDoc)
            return [doc.text async for doc in one]

        @app.get("/untyped")
        async def untyped(text: str) -> dict[str, Any]:
            answers = [answer async for answer in self.streamer.stream_docs([TextDoc(text=text)], exec_endpoint="/", return_results=True)]
            (answer,) = answers
            return {"text": answer.docs[0].text, "routes": [route.executor for route in answer.routes]}

        return app
