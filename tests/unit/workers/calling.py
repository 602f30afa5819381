"""Calls of one endpoint, without a worker."""

from __future__ import annotations

from typing import Any

from docarray import BaseDoc, DocList

from streamflow.workers.executor import Executor, requests
from streamflow.workers.invoke import CallResult, Invoker


class In(BaseDoc):
    text: str = ""


class Out(BaseDoc):
    size: int = 0


def texts(*values: str) -> DocList[In]:
    return DocList[In]([In(text=value) for value in values])


def run(cls: type[Executor], docs: Any, parameters: Any = None, endpoint: str = "/x", **options: Any) -> CallResult:
    invoker = Invoker(cls(), **options)
    spec = invoker.resolve(endpoint)
    assert spec is not None
    return invoker.call(spec, docs, parameters or {})


def returning(value: Any) -> type[Executor]:
    """An executor whose only endpoint returns `value`, or what it gives for the documents."""

    class Returns(Executor):
        @requests(on="/x", request_schema=In, response_schema=Out)
        def foo(self, **kwargs: Any) -> Any:
            return value(kwargs["docs"]) if callable(value) else value

        @requests(on="/one", request_schema=In, response_schema=Out)
        def one(self, doc: Any, **kwargs: Any) -> Any:
            return value(doc) if callable(value) else value

    return Returns
