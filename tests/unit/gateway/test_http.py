"""Data requests over HTTP, against a real server."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.envelope import EMPTY, JSON
from streamflow.broker.errors import Code, Status
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import HttpServer, serve_http
from tests.waiting import eventually

from .conftest import LOCAL
from .echoing import ENDPOINTS, EchoDispatcher

Session = aiohttp.ClientSession
DOCS = [{"id": "1", "text": "hello"}]


async def post(http: Session, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    async with http.post(path, json=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.feature("GW-14")
async def test_documents_come_back_in_jinas_form(http: Session) -> None:
    status, answer = await post(http, "/echo", {"data": DOCS, "parameters": {"k": 5}})
    assert status == 200
    assert list(answer) == ["data", "parameters", "header", "routes"]
    assert answer["data"] == DOCS
    assert answer["header"]["execEndpoint"] == "/echo"
    assert [route["executor"] for route in answer["routes"]] == ["gateway", "encoder"]


async def test_the_clients_bytes_travel_untouched(http: Session, dispatcher: EchoDispatcher) -> None:
    body = b' {"data" : [ {"text":"\xc3\xa4"} ] }\n'
    async with http.post("/echo", data=body, headers={"content-type": "application/json; charset=utf-8"}) as response:
        assert response.status == 200
    (call,) = dispatcher.calls
    assert (call.body, call.content_type, call.accept, call.endpoint) == (body, JSON, JSON, "/echo")


async def test_a_body_without_content_type_is_json_and_an_empty_one_is_no_documents(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.post("/echo", data=b'{"data":[]}', skip_auto_headers=["content-type"]) as response:
        assert response.status == 200
    async with http.post("/echo") as response:
        assert (await response.json())["data"] == []
    assert [call.content_type for call in dispatcher.calls] == [JSON, EMPTY]


@pytest.mark.feature("GW-11")
@pytest.mark.parametrize("path", ["/a/b", "/a/b/", "/a%2Fb"])
async def test_nested_endpoints(http: Session, dispatcher: EchoDispatcher, path: str) -> None:
    await post(http, path, {"data": []})
    assert dispatcher.calls[0].endpoint == "/a/b"


@pytest.mark.feature("GW-13")
async def test_routing_keys_of_the_body_reach_the_call(http: Session, dispatcher: EchoDispatcher) -> None:
    header = {"requestId": "mine", "targetExecutor": "enc.*", "timeout": 4_000_000_000}
    _, answer = await post(http, "/echo", {"data": DOCS, "header": header})
    (call,) = dispatcher.calls
    assert (call.client_id, call.target_executor, call.deadline) == ("mine", "enc.*", 4_000_000_000.0)
    assert answer["header"]["requestId"] == "mine"
    assert answer["header"]["targetExecutor"] == "enc.*"


async def test_headers_reach_the_call_and_the_id_comes_back(http: Session, dispatcher: EchoDispatcher) -> None:
    headers = {"X-Request-Id": "h1", "X-Streamflow-Timeout-Ms": "1500", "traceparent": "00-abc-def-01", "tracestate": "a=b"}
    async with http.post("/echo", json={"data": []}, headers=headers) as response:
        assert response.headers["x-request-id"] == "h1"
        assert (await response.json())["header"]["requestId"] == "h1"
    (call,) = dispatcher.calls
    assert 0 < call.deadline - time.time() <= 1.5
    assert call.trace == {"traceparent": "00-abc-def-01", "tracestate": "a=b"}


async def test_an_id_that_no_header_may_hold_stays_in_the_body(http: Session) -> None:
    async with http.post("/echo", json={"header": {"requestId": "a\r\nX-Evil: 1"}}) as response:
        assert response.status == 200
        assert "x-request-id" not in response.headers
        assert "x-evil" not in response.headers
        assert (await response.json())["header"]["requestId"] == "a\r\nX-Evil: 1"


@pytest.mark.feature("GW-10", "GW-13")
@pytest.mark.parametrize("body", [{"execEndpoint": "/echo"}, {"exec_endpoint": "echo"}, {"header": {"exec_endpoint": "/echo"}}])
async def test_post_takes_any_endpoint(http: Session, dispatcher: EchoDispatcher, body: dict[str, Any]) -> None:
    status, _ = await post(http, "/post", {"data": DOCS, **body})
    assert (status, dispatcher.calls[0].endpoint) == (200, "/echo")


async def test_post_without_an_endpoint_says_so(http: Session) -> None:
    status, answer = await post(http, "/post", {"data": DOCS})
    assert status == 422
    assert "execEndpoint" in answer["detail"]


async def test_default_serves_what_the_body_names(http: Session, dispatcher: EchoDispatcher) -> None:
    dispatcher.announce((*ENDPOINTS, EndpointInfo("/default")))
    await post(http, "/default", {"data": DOCS})
    await post(http, "/default", {"data": DOCS, "header": {"exec_endpoint": "/blah"}})
    await post(http, "/anything", {"data": DOCS})
    assert [call.endpoint for call in dispatcher.calls] == ["/default", "/blah", "/anything"]


@pytest.mark.parametrize(("path", "body"), [("/nope", {}), ("/post", {"execEndpoint": "/nope"})])
async def test_an_unknown_endpoint_is_404_and_names_the_known_ones(http: Session, path: str, body: dict[str, Any]) -> None:
    status, answer = await post(http, path, body)
    assert status == 404
    assert "'/nope'" in answer["detail"]
    assert "/a/b, /echo" in answer["detail"]
    assert answer["header"]["requestId"]


async def test_without_ready_workers_nobody_can_know_and_the_dispatcher_decides(gateway_settings: GatewaySettings) -> None:
    dispatcher = EchoDispatcher(())
    server = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0)])
    async with Session(f"http://{LOCAL}:{server.ports[0]}") as http:
        assert (await post(http, "/anything", {"data": []}))[0] == 200
    await server.stop(1)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_a_wrong_method_is_405(http: Session, method: str) -> None:
    async with http.request(method, "/echo") as response:
        assert response.status == 405
        assert response.headers["allow"] == "POST"
        assert "detail" in await response.json()


async def test_posting_to_our_own_paths_is_405(http: Session) -> None:
    assert (await post(http, "/dry_run", {}))[0] == 405


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "multipart/form-data"}, {"content-encoding": "gzip"}, {"content-type": "x"}],
)
async def test_a_wrong_type_is_415(http: Session, headers: dict[str, str]) -> None:
    async with http.post("/echo", data=b"{}", headers={"content-type": "application/json"} | headers) as response:
        assert response.status == 415
        assert "detail" in await response.json()


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf", ""])
async def test_a_bad_timeout_header_is_422(http: Session, value: str) -> None:
    status, answer = await post(http, "/echo", {}, **{"X-Streamflow-Timeout-Ms": value})
    assert status == 422
    assert "x-streamflow-timeout-ms" in answer["detail"]


async def test_bad_target_executor_and_endless_ids_are_422(http: Session) -> None:
    assert "regular expression" in (await post(http, "/echo", {"targetExecutor": "("}))[1]["detail"]
    assert "request_id" in (await post(http, "/echo", {"header": {"requestId": "x" * 600}}))[1]["detail"]


async def test_a_body_above_the_limit_is_413_with_and_without_a_length(http: Session) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 8192

    for data in (b"x" * 70_000, chunks()):
        async with http.post("/echo", data=data, headers={"content-type": "application/json"}) as response:
            assert response.status == 413
            assert (await response.json())["code"] == "TOO_LARGE"


@pytest.mark.feature("ER-02", "ER-03", "ER-04")
@pytest.mark.parametrize(
    ("code", "http_status"),
    [
        (Code.EXECUTOR_ERROR, 500),
        (Code.INVALID_ARGUMENT, 422),
        (Code.DEADLINE_EXCEEDED, 504),
        (Code.UNAVAILABLE, 503),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.QUARANTINED, 500),
        (Code.CANCELLED, 499),
    ],
)
async def test_failures_carry_status_detail_and_header(http: Session, dispatcher: EchoDispatcher, code: Code, http_status: int) -> None:
    dispatcher.statuses["/echo"] = Status(code, "it went wrong", "SomeError", executor="enc")
    async with http.post("/echo", json={"header": {"requestId": "r7"}}) as response:
        answer = await response.json()
        assert response.status == http_status
        assert (response.headers.get("retry-after") is not None) == (code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE))
        assert response.headers["x-request-id"] == "r7"
    assert answer["detail"] == "it went wrong"
    assert answer["code"] == code.value
    assert answer["header"]["status"]["description"] == "it went wrong"
    assert answer["header"]["status"]["exception"]["executor"] == "enc"


@pytest.mark.feature("GW-13")
async def test_invalid_json_is_422_with_detail(http: Session) -> None:
    for body in (b'{"data": [', b'{"header": {"requestId": "x"}, "data": ['):
        async with http.post("/echo", data=body, headers={"content-type": "application/json"}) as response:
            assert response.status == 422
            assert "detail" in await response.json()


@pytest.mark.feature("QU-08")
async def test_a_client_that_leaves_cancels_its_request(http: Session, dispatcher: EchoDispatcher) -> None:
    request = asyncio.create_task(post(http, "/held", {"data": []}))
    await eventually(lambda: dispatcher.held, what="the request's arrival")
    request.cancel()
    await eventually(lambda: dispatcher.cancelled == 1, what="the cancellation")


async def test_a_slow_answer_still_arrives(http: Session, dispatcher: EchoDispatcher) -> None:
    request = asyncio.create_task(post(http, "/held", {"data": DOCS}))
    await eventually(lambda: dispatcher.held)
    await asyncio.sleep(0.35)  # long enough to be watched for a disconnect
    dispatcher.release()
    status, answer = await request
    assert (status, answer["data"], dispatcher.cancelled) == (200, DOCS, 0)


async def test_a_request_that_the_dispatcher_cancels_is_499(http: Session, dispatcher: EchoDispatcher) -> None:
    request = asyncio.create_task(post(http, "/held", {"data": DOCS}))
    await eventually(lambda: dispatcher.held)
    dispatcher.held[0][1].cancel()
    assert (await request)[0] == 499


async def test_a_crash_inside_the_gateway_is_500_without_a_traceback(
    http: Session, dispatcher: EchoDispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(call: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(dispatcher, "send", crash)
    status, answer = await post(http, "/echo", {"data": []})
    assert status == 500
    assert "secret" not in json.dumps(answer)
    assert "secret path" in caplog.text


@pytest.mark.feature("GW-17")
async def test_cors_covers_data_routes_only_when_asked_for(http: Session, dispatcher: EchoDispatcher) -> None:
    origin = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with http.post("/echo", json={}, headers={"Origin": "https://shop.example"}) as response:
        assert "access-control-allow-origin" not in response.headers
    settings = GatewaySettings(cors=True)
    server = await serve_http(create_app(dispatcher, settings), settings, [(LOCAL, 0)])
    async with Session(f"http://{LOCAL}:{server.ports[0]}") as allowed:
        async with allowed.options("/echo", headers=origin) as response:
            assert response.status == 200
            assert response.headers["access-control-allow-origin"] == "*"
        async with allowed.post("/echo", json={}, headers={"Origin": "https://shop.example"}) as response:
            assert response.headers["access-control-allow-origin"] == "*"
            assert "credentials" not in str(response.headers).lower()
    await server.stop(1)


async def test_many_requests_on_many_connections(http_server: HttpServer) -> None:
    async with Session(f"http://{LOCAL}:{http_server.ports[0]}", connector=aiohttp.TCPConnector(limit=20)) as http:
        bodies = [{"data": [{"id": str(number)}]} for number in range(200)]
        answers = await asyncio.gather(*(post(http, "/echo", body) for body in bodies))
    assert [answer["data"] for _, answer in answers] == [body["data"] for body in bodies]
