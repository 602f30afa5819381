"""post() of the synchronous client over every protocol, against real servers."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from docarray import DocList
from docarray.documents import TextDoc
from pydantic import BaseModel

from streamflow.broker.errors import Code, ExecutorError, InvalidInput, NotFound, Overloaded
from streamflow.client import BadArguments, DataRequest, RequestTimeout, ServerUnavailable, SyncClient
from tests.unit.client.backend import Item
from tests.unit.client.servers import Running

pytestmark = pytest.mark.feature("CL-03")


def items(count: int) -> list[Item]:
    return [Item(text=f"item {number}", number=number) for number in range(count)]


@pytest.mark.feature("CL-05")
def test_a_doc_list_type_gives_all_documents_in_one_list(client: SyncClient) -> None:
    found = client.post("/echo", items(25), return_type=DocList[Item], request_size=4, results_in_order=True)
    assert isinstance(found, DocList)
    assert found.doc_type is Item
    assert found.text == [f"ITEM {number}" for number in range(25)]


@pytest.mark.feature("CL-05")
def test_a_document_type_gives_the_only_result_bare_and_several_as_a_list(client: SyncClient) -> None:
    assert client.post("/echo", Item(text="one"), return_type=Item).text == "ONE"
    several = client.post("/echo", items(2), return_type=Item)
    assert isinstance(several, DocList)
    assert len(several) == 2


def test_without_a_type_documents_keep_every_field(client: SyncClient) -> None:
    found = client.post("/echo", Item(text="one", number=7))
    assert (found[0].text, found[0].number) == ("ONE", 7)


def test_tensors_survive(client: SyncClient) -> None:
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = client.post("/echo", Item(vector=sent), return_type=Item)
    np.testing.assert_array_equal(np.asarray(found.vector), sent)


@pytest.mark.feature("CL-07")
def test_responses_hold_header_parameters_routes_and_documents(client: SyncClient) -> None:
    (response,) = client.post(
        "/echo", Item(text="a"), parameters={"top_k": 2}, target_executor="first", return_responses=True, return_type=DocList[Item]
    )
    assert isinstance(response, DataRequest)
    assert (response.header.exec_endpoint, response.header.target_executor) == ("/echo", "first")
    assert response.request_id == response.header.request_id
    assert len(response.request_id) == 32
    assert response.parameters == {"top_k": 2}
    assert response.results == {}
    assert [(route.executor, route.start_time, route.end_time) for route in response.routes] == [("gateway", 1.0, 4.0), ("first", 2.0, 3.0)]
    assert response.docs.text == response.data.docs.text == ["A"]
    assert response.status.code is Code.OK
    assert response.to_dict()["data"][0]["text"] == "A"


@pytest.mark.feature("CL-07")
def test_dict_results_are_under_results(client: SyncClient) -> None:
    (response,) = client.post("/parameters", parameters={"hello": "world"}, return_responses=True)
    assert response.parameters["__results__"] == {"first/rep-0": {"hello": "world"}}
    assert len(response.docs) == 0


def test_what_the_server_is_told(client: SyncClient, server: Running) -> None:
    client.post("/echo", Item(text="a"), parameters={"a": 1}, target_executor="f.*", metadata={"X-Tenant": "blue"}, headers={"other": "1"})
    (asked,) = server.backend.asked
    assert (asked.endpoint, asked.target, asked.parameters) == ("/echo", "f.*", {"a": 1})
    sent = {name.lower(): value for name, value in asked.metadata.items()}
    assert (sent["x-tenant"], sent["other"]) == ("blue", "1")


@pytest.mark.feature("CL-18")
def test_parameters_may_be_a_model_and_hold_arrays(client: SyncClient, server: Running) -> None:
    class Search(BaseModel):
        top_k: int = 3
        names: list[str] = ["a"]

    client.post("/echo", parameters=Search())
    client.post("/echo", parameters={"vector": np.array([1.0, 2.0]), "only": {"x"}})
    assert server.backend.asked[0].parameters == {"top_k": 3, "names": ["a"]}
    assert server.backend.asked[1].parameters == {"vector": [1.0, 2.0], "only": ["x"]}


@pytest.mark.feature("CL-04")
@pytest.mark.parametrize("size", [0, -1])
def test_no_request_size_sends_all_in_one_request(client: SyncClient, server: Running, size: int) -> None:
    client.post("/echo", items(7), request_size=size)
    client.post("/echo", iter(items(7)), request_size=size)
    assert [len(asked.docs) for asked in server.backend.asked] == [7, 7]


@pytest.mark.feature("CL-04")
def test_inputs_of_every_kind(client: SyncClient, server: Running) -> None:
    def generator() -> Iterator[Item]:
        yield from items(3)

    async def coming() -> AsyncIterator[Item]:
        for item in items(3):
            yield item

    for inputs in (items(3), DocList[Item](items(3)), tuple(items(3)), generator, generator(), coming, coming(), iter(items(3))):
        found = client.post("/echo", inputs, request_size=2, return_type=DocList[Item], results_in_order=True)
        assert found.number == [0, 1, 2]
    assert len(server.backend.asked) == 16
    assert client.post("/echo", [], return_type=DocList[Item]) == DocList[Item]()
    assert [len(asked.docs) for asked in server.backend.asked[16:]] == [0]


def test_inputs_of_no_kind_are_refused(client: SyncClient) -> None:
    for inputs in ("text", {"text": "a"}, 5, ["text"], iter([1])):
        with pytest.raises(BadArguments, match="expected documents"):
            client.post("/echo", inputs)


@pytest.mark.feature("CL-06")
def test_callbacks_see_each_answer_in_the_callers_thread_and_post_returns_none(client: SyncClient) -> None:
    seen: list[tuple[str, str, int]] = []

    def note(name: str) -> Callable[[DataRequest], None]:
        return lambda response: seen.append((name, response.status.code, threading.get_ident()))

    docs = [Item(text="good"), Item(text="bad"), Item(text="good")]
    result = client.post(
        "/fail", docs, request_size=1, results_in_order=True, on_done=note("done"), on_error=note("error"), on_always=note("always")
    )
    assert result is None
    me = threading.get_ident()
    ok, failed = Code.OK, Code.EXECUTOR_ERROR
    done = [("done", ok, me), ("always", ok, me)]
    assert seen == [*done, ("error", failed, me), ("always", failed, me), *done]


def test_callbacks_may_use_the_client(client: SyncClient) -> None:
    found: list[str] = []
    client.post("/echo", Item(text="a"), on_done=lambda response: found.append(client.post("/echo", Item(text="b"), return_type=Item).text))
    assert found == ["B"]


def test_generators_run_in_the_callers_thread_and_may_use_the_client(client: SyncClient) -> None:
    threads: list[int] = []

    def documents() -> Iterator[Item]:
        for _ in range(3):
            threads.append(threading.get_ident())
            yield client.post("/echo", Item(text="x"), return_type=Item)

    assert client.post("/echo", documents, request_size=1, return_type=DocList[Item]).text == ["X"] * 3
    assert set(threads) == {threading.get_ident()}


def test_an_executor_error_raises_with_executor_replica_attempt_and_request_id(client: SyncClient, kind: str) -> None:
    with pytest.raises(ExecutorError) as caught:
        client.post("/fail", Item(text="bad"))
    place = " (replica rep-0, attempt 1)" if kind == "grpc" else ""  # the other wires do not tell
    assert f"executor First{place}: NotImplementedError('no such thing') (request " in str(caught.value)
    assert caught.value.name == "NotImplementedError"
    assert caught.value.status.args == ("no such thing",)
    assert "raise NotImplementedError" in caught.value.__notes__[0]


@pytest.mark.feature("CL-06")
def test_on_always_sees_a_failed_answer_before_it_raises(client: SyncClient) -> None:
    seen: list[Code] = []
    with pytest.raises(ExecutorError):
        client.post("/fail", Item(text="bad"), on_always=lambda response: seen.append(response.status.code))
    assert seen == [Code.EXECUTOR_ERROR]


@pytest.mark.feature("CL-13")
def test_continue_on_error_returns_the_rest(client: SyncClient, caplog: pytest.LogCaptureFixture) -> None:
    docs = [Item(text="good"), Item(text="bad"), Item(text="good")]
    found = client.post("/fail", docs, request_size=1, continue_on_error=True, return_type=DocList[Item])
    assert found.text == ["good", "good"]
    assert "no such thing" in caplog.text
    responses = client.post("/fail", docs, request_size=1, continue_on_error=True, return_responses=True)
    assert sorted(response.ok for response in responses) == [False, True, True]


def test_a_failing_callback_ends_the_post_unless_errors_are_passed_over(client: SyncClient, caplog: pytest.LogCaptureFixture) -> None:
    def broken(response: DataRequest) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.post("/echo", items(3), request_size=1, on_done=broken)
    client.post("/echo", items(3), request_size=1, on_done=broken, continue_on_error=True)
    assert caplog.text.count("KeyError: 'mine'") == 3


def test_a_failing_generator_ends_the_post(client: SyncClient) -> None:
    def documents() -> Iterator[Item]:
        yield Item()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.post("/echo", documents, request_size=1)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.INVALID_ARGUMENT, InvalidInput),
        (Code.NOT_FOUND, NotFound),
        (Code.RESOURCE_EXHAUSTED, Overloaded),
        (Code.UNAVAILABLE, ServerUnavailable),
        (Code.DEADLINE_EXCEEDED, RequestTimeout),
    ],
)
def test_each_code_raises_its_class(client: SyncClient, code: Code, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="refused with"):
        client.post("/refuse", parameters={"code": code.value})


def test_a_missing_worker_raises_in_spite_of_on_error_and_continue_on_error(client: SyncClient) -> None:
    seen: list[DataRequest] = []
    with pytest.raises(ConnectionError):
        client.post("/refuse", parameters={"code": "UNAVAILABLE"}, on_error=seen.append, continue_on_error=True)
    assert seen == []


@pytest.mark.feature("CL-10", "GW-23")
def test_answers_come_in_completion_order_unless_input_order_is_asked_for(client: SyncClient, server: Running) -> None:
    arguments: dict[str, Any] = {"request_size": 1, "parameters": {"count": 8}, "return_type": DocList[Item]}
    assert client.post("/backwards", items(8), **arguments).number != list(range(8))
    assert client.post("/backwards", items(8), results_in_order=True, **arguments).number == list(range(8))


@pytest.mark.feature("CL-11")
def test_prefetch_bounds_what_is_in_flight_and_what_is_read(client: SyncClient, server: Running) -> None:
    class Enough(Exception):
        pass

    pulled = answered = 0

    def endless() -> Iterator[Item]:
        nonlocal pulled
        while True:
            pulled += 1
            yield Item()

    def count(response: DataRequest) -> None:
        nonlocal answered
        answered += 1
        assert pulled <= answered + 2
        if answered == 10:
            raise Enough

    with pytest.raises(Enough):
        client.post("/slow", endless, request_size=1, prefetch=2, on_done=count)
    assert server.backend.peak == 2


def test_a_slow_answer_in_order_holds_back_the_input(client: SyncClient, server: Running) -> None:
    client.prefetch = 3
    client.post("/slow", items(20), request_size=1, results_in_order=True, return_type=DocList[Item])
    assert server.backend.peak <= 3


def test_no_answer_in_time_raises(client: SyncClient, server: Running) -> None:
    with pytest.raises(RequestTimeout, match="within 0.2 s"):
        client.post("/hold", items(3), request_size=1, timeout=0.2)
    assert server.backend.asked[0].deadline > 0


@pytest.mark.feature("CL-22")
def test_threads_share_a_client(client: SyncClient) -> None:
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        docs = [Item(number=number * 100 + index) for index in range(20)]
        found[number] = client.post("/echo", docs, request_size=3, return_type=DocList[Item], results_in_order=True).number

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: list(range(number * 100, number * 100 + 20)) for number in range(6)}


async def test_the_blocking_client_works_inside_of_an_event_loop(client: SyncClient) -> None:
    assert client.post("/echo", Item(text="a"), return_type=Item).text == "A"


def test_crud_names_are_endpoints(client: SyncClient, server: Running) -> None:
    with pytest.raises(NotFound):
        client.search(Item())
    assert server.backend.asked[0].endpoint == "/search"


def test_answers_that_do_not_fit_the_return_type_are_refused(client: SyncClient) -> None:
    class Price(TextDoc):
        price: float

    with pytest.raises(InvalidInput, match="price"):
        client.post("/echo", Item(text="a"), return_type=DocList[Price])


@pytest.mark.feature("CL-24")
def test_a_progress_bar_counts_requests(client: SyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.post("/echo", items(10), request_size=2, show_progress=True)
    assert "5/5" in capsys.readouterr().out


@pytest.mark.feature("CL-16")
def test_readiness(client: SyncClient, server: Running) -> None:
    assert client.is_flow_ready() is client.is_deployment_ready() is client.dry_run() is True
    server.server.ready = False
    assert client.is_flow_ready() is False
    server.stop()
    assert client.is_flow_ready(timeout=1.0) is False
    server.start()


@pytest.mark.feature("CL-17")
def test_profiling_breaks_a_round_trip_down(client: SyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    parts = client.profiling()
    assert parts["Server"] == pytest.approx(3000)
    assert parts["first"] == pytest.approx(1000)
    shown = capsys.readouterr().out
    assert "Roundtrip" in shown
    assert "first" in shown
    assert ("Waiting in queues" in shown) is ("Waiting in queues" in parts)


def test_a_closed_client_connects_again(client: SyncClient) -> None:
    client.post("/echo", Item())
    client.close()
    client.close()
    assert client.post("/echo", Item(text="a"), return_type=Item).text == "A"
