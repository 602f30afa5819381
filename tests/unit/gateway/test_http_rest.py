"""Health, status and documentation routes."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from fastapi import APIRouter

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import serve_http

from .conftest import LOCAL
from .echoing import TEXT_DOC, EchoDispatcher
from .test_schemas import assert_complete

Session = aiohttp.ClientSession


async def get(http: Session, path: str) -> tuple[int, Any]:
    async with http.get(path) as response:
        return response.status, await response.json()


@pytest.mark.feature("GW-10", "GW-27", "GW-28", "HC-02")
async def test_health_routes_of_a_ready_flow(http: Session) -> None:
    assert await get(http, "/") == (200, {})
    assert await get(http, "/healthz") == (200, {"status": "ok"})
    assert await get(http, "/readyz") == (200, {"status": "ready"})
    assert await get(http, "/dry_run") == (200, {"code": 0, "description": "", "exception": None})


@pytest.mark.feature("GW-28", "HC-03")
async def test_readiness_names_what_is_missing(http: Session, dispatcher: EchoDispatcher) -> None:
    dispatcher.connected = False
    status, answer = await get(http, "/readyz")
    assert (status, "broker" in answer["detail"]) == (503, True)
    dispatcher.connected = True
    dispatcher.catalog._heard.clear()
    status, answer = await get(http, "/dry_run")
    assert (status, answer["code"]) == (200, 1)
    assert "deployment encoder" in answer["description"]
    assert answer["exception"]["name"] == "InternalNetworkError"
    assert await get(http, "/healthz") == (200, {"status": "ok"})


@pytest.mark.feature("GW-29")
async def test_status_masks_secrets(http: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_API_TOKEN", "s3cret")
    monkeypatch.setenv("STREAMFLOW_BROKER_URL", "nats://user:s3cret@host:4222")
    status, answer = await get(http, "/status")
    assert status == 200
    assert set(answer) == {"jina", "envs"}
    assert answer["jina"]["python"]
    assert answer["envs"]["STREAMFLOW_FLOW"] == "(unset)"
    assert answer["envs"]["STREAMFLOW_BROKER_URL"] == "nats://***@host:4222"
    assert "s3cret" not in str(answer)


@pytest.mark.feature("GW-15", "DP-06")
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_pages_are_there(http: Session, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 200
        assert "/openapi.json" in await response.text()


@pytest.mark.feature("GW-11", "GW-15", "DP-06")
async def test_openapi_shows_the_announced_endpoints_and_follows_them(http: Session, dispatcher: EchoDispatcher) -> None:
    _, document = await get(http, "/openapi.json")
    assert_complete(document)
    assert (document["info"]["title"], document["info"]["description"]) == ("Shop", "A shop.")
    assert document["components"]["schemas"]["TextDoc"] == TEXT_DOC
    posts = {path for path, item in document["paths"].items() if "post" in item}
    assert posts == {"/echo", "/a/b", "/held", "/hello", "/post"}
    assert "get" in document["paths"]["/dry_run"]
    dispatcher.announce((EndpointInfo("/other"),))
    _, document = await get(http, "/openapi.json")
    assert "/other" in document["paths"]
    assert "/echo" not in document["paths"]


async def test_an_unknown_page_is_404(http: Session) -> None:
    assert (await get(http, "/nothing"))[0] == 404


async def test_further_routers_win_over_data_routes(dispatcher: EchoDispatcher) -> None:
    router = APIRouter()

    @router.post("/echo")
    async def own() -> dict[str, str]:
        return {"by": "router"}

    @router.post("/jobs/{name}")
    async def jobs(name: str) -> dict[str, str]:
        return {"job": name}

    settings = GatewaySettings()
    app = create_app(dispatcher, settings, routers=[router], info=lambda: {"broker": "nats 2.15"})
    server = await serve_http(app, settings, [(LOCAL, 0)])
    async with Session(f"http://{LOCAL}:{server.ports[0]}") as http:
        for path, expected in (("/echo", {"by": "router"}), ("/jobs/7", {"job": "7"})):
            async with http.post(path) as response:
                assert await response.json() == expected
        assert (await get(http, "/status"))[1]["jina"]["broker"] == "nats 2.15"
    await server.stop(1)
