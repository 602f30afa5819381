"""`gateway: uses:` with a file or mapping of its own, and the options of the gateway in flow files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamflow import Flow
from streamflow.broker.errors import FlowError
from streamflow.config.spec import GatewaySpec, ListenAt

pytestmark = pytest.mark.feature("GW-04", "GW-05", "GW-12", "GW-40", "YM-03")


def spec(text: str) -> GatewaySpec:
    return Flow.load_config(f"jtype: Flow\nexecutors: [{{name: a}}]\n{text}").spec().gateway


@pytest.mark.parametrize("head", ["!Front\n", "jtype: Front\n"])
def test_a_file_names_class_modules_arguments_and_ports(tmp_path: Path, head: str) -> None:
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "front.py").touch()
    (tmp_path / "front" / "config.yml").write_text(
        head + "py_modules: front.py\nwith: {a: 1, b: 2}\nport: 12345\nprotocol: http\ncors: true\n"
    )
    (tmp_path / "flow.yml").write_text("jtype: Flow\ngateway: {uses: front/config.yml, with: {b: 3}, cors: false}\n")
    flow = Flow.load_config(tmp_path / "flow.yml")
    found = flow.spec().gateway
    assert (found.uses, found.uses_with, found.py_modules) == ("Front", {"a": 1, "b": 3}, (str(tmp_path / "front" / "front.py"),))
    assert (found.listen, found.cors, flow.port) == ((ListenAt("http", 12345),), False, 12345)


def test_a_mapping_names_class_and_arguments() -> None:
    found = spec("gateway: {uses: {jtype: Front, with: {a: 1}, py_modules: front.py}}")
    assert (found.uses, found.uses_with, found.py_modules) == ("Front", {"a": 1}, ("front.py",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateway: {uses: nowhere.yml}", "gateway: uses: no file 'nowhere.yml'"),
        ("gateway: {uses: {jtype: Front, requests: {/a: b}}}", "gateway: uses: requests: a gateway has no such thing"),
        ("gateway: {compression: zip}", "gateway.compression: Input should be 'none', 'gzip' or 'deflate'"),
        ("gateway: {expose_endpoints: {/a: {sumary: x}}}", "expose_endpoints./a.sumary: unknown key; did you mean 'summary'?"),
        ("gateway: {admin_port: 70000}", "gateway.admin_port: "),
        ("gateway: {protocol: [grpc, http], port: [5, 5]}", "the same port twice \\(only http and websocket can share one\\)"),
    ],
)
def test_what_a_gateway_cannot_have_is_named(text: str, said: str) -> None:
    with pytest.raises(FlowError, match=said):
        spec(text)


def test_http_and_websocket_share_a_port() -> None:
    both = (ListenAt("http", 5), ListenAt("websocket", 5))
    assert spec("gateway: {protocol: [http, websocket], port: 5}").listen == both
    assert spec("gateway: {protocol: [http, websocket], port: [5, 5]}").listen == both


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("compression: Gzip", {"compression": "gzip"}),
        ("compression: NoCompression", {"compression": "none"}),
        ("admin_port: 9000", {"admin_port": 9000}),
        ("expose_endpoints: {/a: null}", {"expose_endpoints": {"/a": {}}}),
        (
            """expose_endpoints: '{"/a": {"http_path": "/b", "methods": "PUT"}}'""",
            {"expose_endpoints": {"/a": {"path": "/b", "methods": ["PUT"]}}},
        ),
        ("grpc_server_options: {grpc.max_send_message_length: 9}", {"grpc_server_options": {"grpc.max_send_message_length": 9}}),
    ],
)
def test_options_are_kept(written: str, kept: dict[str, Any]) -> None:
    found = spec(f"gateway:\n  {written}\n")
    assert {name: getattr(found, name) for name in kept} == kept
