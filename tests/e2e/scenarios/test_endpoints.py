"""What an executor class may look like, and what it is called with; what it prints is what Jina's documentation shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc

from streamflow import Client, Deployment, Executor, Flow, requests

from .served import port_of


class RequestExecutor(Executor):
    @requests(on=["/index", "/search"])
    def foo(self, **kwargs: Any) -> None:
        print("Calling foo")

    @requests(on="/other")
    async def bar(self, **kwargs: Any) -> None:
        await asyncio.sleep(1.0)
        print("Calling bar")


class WithDefault(Executor):
    @requests
    def foo(self, **kwargs: Any) -> None:
        print("fallback")

    @requests(on="/index")
    async def bar(self, **kwargs: Any) -> None:
        print("index")


class Parametrized(Executor):
    def __init__(self, param1: int = 1, param2: int = 2, param3: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.params = {"param1": param1, "param2": param2, "param3": param3}

    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for name, value in self.params.items():
            print(f"{name}: {value}")
        print(self.metas.name)


class Rebound(Executor):
    @requests
    def all_req(self, parameters: dict[str, Any], **kwargs: Any) -> None:
        print(f"all req {parameters.get('recipient')}")

    @requests(on="/foo")
    def foo(self, parameters: dict[str, Any], **kwargs: Any) -> None:
        print(f"foo {parameters.get('recipient')}")

    def bar(self, parameters: dict[str, Any], **kwargs: Any) -> None:
        print(f"bar {parameters.get('recipient')}")


class Status(Executor):
    @requests(on="/status")
    def status(self, **kwargs: Any) -> dict[str, Any]:
        return {"internal_parameter": 20}


class PrintDocuments(Executor):
    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        for doc in docs:
            print(f'PrintExecutor: received document with text: "{doc.text}"')
        return docs


class ProcessDocuments(Executor):
    @requests(on="/change_in_place")
    def in_place(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            doc.text = "I changed the executor in place"

    @requests(on="/return_different_docarray")
    def ret_docs(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return DocList[TextDoc]([TextDoc(text="I returned a different Document") for _ in docs])


class Hello(Executor):
    @requests
    def foo(self, parameters: dict[str, Any], **kwargs: Any) -> None:
        print(parameters["hello"])


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What the executors printed, by now."""
    return capfd.readouterr().out.splitlines()


@pytest.mark.feature("EX-04")
def test_t04_two_endpoints_for_one_method_and_an_async_one(capfd: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=RequestExecutor) as dep:
        dep.post(on="/index", inputs=[])
        dep.post(on="/other", inputs=[])
        dep.post(on="/search", inputs=[])
    assert said(capfd) == ["Calling foo", "Calling bar", "Calling foo"]


@pytest.mark.feature("EX-05")
def test_t05_an_endpoint_that_nobody_names_goes_to_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=WithDefault) as dep:
        dep.post("/blah")
        dep.post("/index")
    assert said(capfd) == ["fallback", "index"]


@pytest.mark.feature("EX-02", "EX-19", "EX-21", "EX-23")
def test_t06_t08_arguments_and_metas_from_outside(capfd: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=Parametrized, uses_with={"param1": 10, "param3": 30}, uses_metas={"name": "different_name"}) as dep:
        dep.post("/")
    assert said(capfd) == ["param1: 10", "param2: 2", "param3: 30", "different_name"]


@pytest.mark.feature("EX-22")
def test_t07_endpoints_rebound_from_outside(capfd: pytest.CaptureFixture[str]) -> None:
    with Flow().add(uses=Rebound, uses_requests={"/bar": "bar", "/non_foo": "foo", "/alias_foo": "foo"}) as flow:
        flow.post("/bar", parameters={"recipient": "bar()"})
        flow.post("/non_foo", parameters={"recipient": "foo()"})
        flow.post("/foo", parameters={"recipient": "all_req()"})
        flow.post("/alias_foo", parameters={"recipient": "foo()"})
    assert said(capfd) == ["bar bar()", "foo foo()", "all req all_req()", "foo foo()"]


@pytest.mark.feature("EX-12", "CL-05")
def test_t09_a_dict_is_a_result_beside_the_documents() -> None:
    with Deployment(uses=Status, name="my_executor") as dep:
        found = dep.post("/status", return_responses=True)
    assert found[0].to_dict()["parameters"] == {"__results__": {"my_executor/rep-0": {"internal_parameter": 20.0}}}


@pytest.mark.feature("EX-12")
def test_t10_changes_in_place_and_new_documents_reach_the_next_executor(capfd: pytest.CaptureFixture[str]) -> None:
    with Flow().add(uses=ProcessDocuments).add(uses=PrintDocuments) as flow:
        flow.post("/change_in_place", TextDoc(text="request1"))
        flow.post("/return_different_docarray", TextDoc(text="request2"))
    texts = ("I changed the executor in place", "I returned a different Document")
    assert said(capfd) == [f'PrintExecutor: received document with text: "{text}"' for text in texts]


@pytest.mark.feature("EX-10", "CL-04")
def test_t24_parameters_with_and_without_documents(capfd: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=Hello) as dep, Client(port=port_of(dep)) as client:
        client.post("/", BaseDoc(), parameters={"hello": "world"})
        client.post("/", parameters={"hello": "world"})
    assert said(capfd) == ["world", "world"]
