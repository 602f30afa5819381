"""Batches made by hand: documents, an executor that notes its calls, and a batcher without a queue behind it."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import orjson
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc

from streamflow.broker.envelope import JSON, Envelope
from streamflow.workers.batching import Batcher, Ended
from streamflow.workers.executions import Execution, Outcome
from streamflow.workers.executor import Executor, dynamic_batching, requests
from streamflow.workers.invoke import Context, Invoker
from streamflow.workers.process import Processor
from streamflow.workers.waiting import Member, Waiting

Texts = DocList[TextDoc]


def docs_of(texts: list[str]) -> DocList[TextDoc]:
    return Texts(TextDoc(text=text) for text in texts)


class Price(BaseDoc):
    cents: int


class Calls(Executor):
    """Notes what each call got."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[list[str]] = []
        self.parameters: list[dict[str, Any]] = []
        self.contexts: list[Context] = []

    def note(self, docs: DocList[TextDoc]) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/in_place")
    @dynamic_batching(preferred_batch_size=4)
    def in_place(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> None:
        self.note(docs)
        self.parameters.append(parameters)
        for doc in docs:
            doc.text = doc.text.upper() + parameters.get("suffix", "")

    @requests(on="/priced")
    @dynamic_batching(preferred_batch_size=4)
    def priced(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[Price]:
        self.note(docs)
        return DocList[Price](Price(cents=len(doc.text)) for doc in docs)

    @requests(on="/reversed")
    @dynamic_batching(preferred_batch_size=4)
    def reversed_list(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return Texts(TextDoc(text=doc.text[::-1]) for doc in docs)

    @requests(on="/poison")
    @dynamic_batching(preferred_batch_size=32)
    def poison(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.note(docs)
        for doc in docs:
            if "poison" in doc.text:
                raise ValueError(f"cannot take {doc.text}")
            doc.text += "!"

    @requests(on="/filtered")
    @dynamic_batching(preferred_batch_size=8)
    def filtered(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return Texts(doc for doc in docs if "drop" not in doc.text)

    @requests(on="/grown")
    @dynamic_batching
    def grown(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        docs.append(TextDoc(text="one more"))

    @requests(on="/dict")
    @dynamic_batching(preferred_batch_size=4)
    def counted(self, docs: DocList[TextDoc], **kwargs: Any) -> dict[str, Any]:
        self.note(docs)
        for doc in docs:
            doc.text += "?"
        return {doc.text: len(docs) for doc in docs}

    @requests(on="/text")
    @dynamic_batching
    def text(self, docs: DocList[TextDoc], **kwargs: Any) -> Any:
        return "text"

    @requests(on="/context")
    @dynamic_batching
    def context(self, docs: DocList[TextDoc], context: Context, **kwargs: Any) -> None:
        self.contexts.append(context)

    @requests(on="/metric")
    @dynamic_batching(preferred_batch_size=10, use_custom_metric=True, custom_metric=lambda docs: sum(int(doc.text) for doc in docs))
    def metric(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.note(docs)

    @requests(on="/legacy")
    @dynamic_batching
    def legacy(self, docs, **kwargs):  # type: ignore[no-untyped-def]
        for doc in docs:
            doc.text = "seen"

    @requests(on="/async")
    @dynamic_batching(preferred_batch_size=4)
    async def slow(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.note(docs)
        await asyncio.sleep(0)
        for doc in docs:
            if "poison" in doc.text:
                raise ValueError("cannot take it")
            doc.text = doc.text.upper()


class Bench:
    """A batcher for one executor, fed by hand."""

    def __init__(self, executor: Executor, **options: Any) -> None:
        self.invoker = Invoker(executor, **options)
        self.processor = Processor(self.invoker, "exec", "exec/rep-0")
        self.batcher = Batcher(self.processor, self.invoker)
        self.waiting = Waiting()
        self.outcomes: dict[str, Outcome] = {}
        self.rounds: list[list[str]] = []

    def execution(
        self, endpoint: str, *texts: str, attempt: int = 1, deadline: float = 0.0, docs: Any = None, **parameters: Any
    ) -> Execution:
        data = [{"text": text} for text in texts] if docs is None else docs
        body = orjson.dumps({"data": data, "parameters": parameters})
        envelope = Envelope(
            f"r{time.monotonic_ns()}", "f", hop="exec", endpoint=endpoint, content_type=JSON, accept=JSON, body=body, deadline=deadline
        )
        delivery: Any = SimpleNamespace(
            attempt=attempt, fencing_token=len(self.outcomes) + 3, ack_subject=envelope.request_id, subject=b"work"
        )
        return Execution(delivery, envelope, self.invoker.resolve(endpoint), JSON)

    def admit(self, *executions: Execution) -> None:
        for n, execution in enumerate(executions):
            found = self.batcher.admit(execution, float(n))
            if isinstance(found, Member):
                self.waiting.add(found)
            else:
                self.ended([(execution, found)])

    def ended(self, ended: Ended) -> None:
        self.rounds.append([execution.envelope.request_id for execution, _ in ended])
        for execution, outcome in ended:
            assert execution.envelope.request_id not in self.outcomes, "a request ends once"
            self.outcomes[execution.envelope.request_id] = outcome

    def run(self, *executions: Execution) -> list[Outcome]:
        self.admit(*executions)
        while pieces := self.waiting.take(1e9):
            for ended in self.batcher.run(pieces):
                self.ended(ended)
        return [self.outcomes[execution.envelope.request_id] for execution in executions]
