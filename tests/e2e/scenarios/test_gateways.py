"""Gateways: classes of the user's own, several protocols on several ports, what the HTTP side shows and hides."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import grpc
import pytest
import yaml
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from pydantic import BaseModel, Field

from streamflow import Client, Deployment, Executor, Flow, requests
from streamflow.broker.server import free_port
from tests.e2e.programs import Programs, broker_of

from .gateways import AppGateway, ServiceGateway, Worker

HERE = Path(__file__).parent
GATEWAYS = HERE / "gateways.py"


def http(url: str, data: Any = None, method: str | None = None) -> tuple[int, Any]:
    body = None if data is None else json.dumps(data).encode()
    request = Request(url, body, {"content-type": "application/json"} if body else {}, method=method)
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except OSError as error:
        return getattr(error, "code", 0), None


def service_file(folder: Path, **arguments: Any) -> Path:
    """`config.yml` of a gateway class, beside its module."""
    file = folder / "config.yml"
    file.write_text("!ServiceGateway\n" + yaml.safe_dump({"py_modules": str(GATEWAYS), "with": {"arg": "from the file"}, **arguments}))
    return file


@pytest.mark.feature("GW-30", "GW-31", "GW-32", "GW-35")
def test_t41_a_gateway_class_serves_its_own_routes() -> None:
    flow = Flow(host="127.0.0.1").config_gateway(uses=ServiceGateway, protocol="http", title="Mine", uses_with={"arg": "value"})
    with flow.add(uses=Worker, uses_with={"word": "!"}, name="first"):
        url = f"http://127.0.0.1:{flow.port}"
        assert http(f"{url}/service?input=hello") == (200, {"result": "hello!"})
        about = {"host": "127.0.0.1", "port": flow.port, "ports": [flow.port], "protocols": ["http"], "name": "gateway"}
        assert http(f"{url}/about") == (200, {"arg": "value", "executors": ["first"], "same": True, "title": "Mine", **about})
        assert http(f"{url}/") == (200, {})
    assert http(f"{url}/") == (0, None)


SCRIPT = """
from docarray import DocList
from docarray.documents import TextDoc
from fastapi import FastAPI

from streamflow import Executor, Flow, requests
from streamflow.serve.runtimes.gateway.http.fastapi import FastAPIBaseGateway


class Hello(Executor):
    @requests
    def hello(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        docs[0].text = f"hello, {docs[0].text}"


class MyGateway(FastAPIBaseGateway):
    @property
    def app(self):
        app = FastAPI()

        @app.get("/service")
        async def get(input: str):
            docs = await self.executor["hello"].post(on="/", inputs=TextDoc(text=input), return_type=TextDoc)
            return {"result": docs.text}

        return app


if __name__ == "__main__":
    from urllib.request import urlopen

    with Flow(host="127.0.0.1").config_gateway(uses=MyGateway, protocol="http").add(uses=Hello, name="hello") as flow:
        print(urlopen(f"http://127.0.0.1:{flow.port}/service?input=you").read().decode(), flow.is_flow_ready())
"""


@pytest.mark.feature("GW-30", "FL-08")
def test_t41_a_gateway_class_of_a_script_travels_to_its_process(programs: Programs) -> None:
    file = programs.folder / "script.py"
    file.write_text(SCRIPT)
    program = programs.run("script", sys.executable, str(file))
    assert program.wait() == 0, program.output
    assert '{"result":"hello, you"} True' in program.output


@pytest.mark.feature("GW-30", "GW-40", "YM-03")
@pytest.mark.parametrize("form", ["class name", "gateway file"])
def test_t41_a_gateway_class_in_a_flow_file(form: str, tmp_path: Path) -> None:
    if form == "class name":
        gateway = {"uses": "ServiceGateway", "py_modules": str(GATEWAYS), "with": {"arg": "value"}, "protocol": "http"}
    else:
        service_file(tmp_path, protocol="http", port=free_port())
        gateway = {"uses": "config.yml", "with": {"arg": "value"}}
    executors = [{"name": "first", "uses": "Worker", "py_modules": str(GATEWAYS), "uses_with": {"word": "!"}}]
    file = tmp_path / "flow.yml"
    file.write_text("!Flow\n" + yaml.safe_dump({"gateway": {**gateway, "host": "127.0.0.1"}, "executors": executors}))
    with Flow.load_config(str(file)) as flow:
        url = f"http://127.0.0.1:{flow.port}"
        assert http(f"{url}/service?input=hello") == (200, {"result": "hello!"})
        assert http(f"{url}/about")[1]["arg"] == "value"


@pytest.mark.feature("GW-40")
def test_t41_a_gateway_file_on_the_command_line(programs: Programs) -> None:
    executor = {"name": "first", "uses": {"jtype": "Worker", "py_modules": [str(GATEWAYS)], "with": {"word": "!"}}}
    definition = {"jtype": "Flow", "with": {"name": "shop", "protocol": "http", "host": "127.0.0.1"}, "executors": [executor]}
    file = programs.folder / "flow.yml"
    file.write_text(yaml.safe_dump(definition))
    flow, _ = programs.flow(file)
    port = free_port()
    config = service_file(programs.folder, protocol="http", port=port, host="127.0.0.1")
    gateway = programs.streamflow("gateway", "--uses", str(config), "--flow", "shop", "--broker", broker_of(flow))
    gateway.wait_for(r"(?m)^ready")
    assert http(f"http://127.0.0.1:{port}/service?input=hello") == (200, {"result": "hello!"})
    assert http(f"http://127.0.0.1:{port}/about")[1]["arg"] == "from the file"
    assert gateway.stop() == 0, gateway.output


@pytest.fixture(scope="module")
def app_gateway() -> Iterator[str]:
    flow = Flow(host="127.0.0.1").config_gateway(uses=AppGateway, protocol="http", cors=True)
    for number, word in ((1, " saw the first executor"), (2, " saw the second executor")):
        flow.add(uses=Worker, uses_with={"word": word, "seconds": 2}, name=f"executor{number}")
    with flow:
        assert flow.is_flow_ready()  # by the health routes that the class adds
        yield f"http://127.0.0.1:{flow.port}"


SEEN = ["hello saw the first executor", "hello saw the second executor"]


@pytest.mark.feature("GW-34")
def test_t42_two_executors_are_asked_in_turn_or_at_once(app_gateway: str) -> None:
    _, in_turn = http(f"{app_gateway}/in_turn?text=hello")
    assert in_turn["result"] == SEEN
    assert in_turn["time_taken"] > 4
    _, at_once = http(f"{app_gateway}/at_once?text=hello")
    assert at_once["result"] == SEEN
    assert at_once["time_taken"] < 2.5


@pytest.mark.feature("GW-33")
def test_t43_the_streamer_tells_errors_apart_from_documents(app_gateway: str) -> None:
    texts = ["good", "rotten", "fine", "rotten"]
    assert http(f"{app_gateway}/checked", {"texts": texts}) == (200, {"results": ["good", "fine"], "errors": ["ValueError"] * 2})
    assert http(f"{app_gateway}/checked", {"texts": texts, "size": 3}) == (200, {"results": [], "errors": ["ValueError"] * 2})
    assert http(f"{app_gateway}/raises") == (500, None)
    assert http(f"{app_gateway}/letters?text=abc") == (200, ["a", "b", "c"])


@pytest.mark.feature("GW-02", "GW-17", "DP-05", "DP-06")
def test_t44_a_flow_and_a_deployment_speak_several_protocols() -> None:
    ports = [free_port(), free_port(), free_port()]
    with Flow(protocol=["grpc", "http", "websocket"], port=ports, host="127.0.0.1").add(uses=Worker, uses_with={"word": "!"}) as flow:
        assert flow.port == ports
        assert [said(protocol, port) for protocol, port in zip(flow.protocol, ports, strict=True)] == ["hi!"] * 3
    with Deployment(uses=Worker, protocol=["grpc", "http"], port=ports[:2], host="127.0.0.1", uses_with={"word": "?"}) as deployment:
        assert deployment.protocol == ["grpc", "http"]
        assert [said(protocol, port) for protocol, port in zip(deployment.protocol, ports, strict=False)] == ["hi?"] * 2
        assert http(f"http://127.0.0.1:{ports[1]}/openapi.json")[0] == 200


@pytest.mark.feature("GW-02", "GW-21")
async def test_t44_http_and_websocket_on_one_port_with_typed_json() -> None:
    port = free_port()
    with Flow(protocol=["http", "websocket"], port=port, host="127.0.0.1").add(uses=Worker, uses_with={"word": "!"}) as flow:
        assert flow.port == [port, port]
        assert [said(protocol, port) for protocol in ("http", "websocket")] == ["hi!"] * 2
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{port}/") as socket:
            await socket.send_json({"execEndpoint": "/", "data": [{"text": "typed"}]})
            answer = await socket.receive_json(timeout=10)
            assert [doc["text"] for doc in answer["data"]] == ["typed!"]
            await socket.send_json({"execEndpoint": "/", "data": [{"text": ["no", "text"]}]})
            answer = await socket.receive_json(timeout=10)
            assert answer["code"] == "INVALID_ARGUMENT" and "data[0].text" in answer["detail"]


def said(protocol: str, port: int) -> str:
    with Client(host="127.0.0.1", port=port, protocol=protocol) as client:
        (doc,) = client.post("/", TextDoc(text="hi"), return_type=DocList[TextDoc])
    return str(doc.text)


class Prompt(BaseDoc):
    """Prompt Document to be input to a Language Model"""

    text: str = Field(description="The text of the prompt", examples=["Write me a short poem"])


class Generation(BaseDoc):
    """Document representing the generation of the Large Language Model"""

    prompt: str = Field(description="The original prompt that created this output")
    text: str = Field(description="The actual generated text")


class LLMCallingParams(BaseModel):
    """Calling parameters of the LLM model"""

    num_max_tokens: int = Field(
        default=5000, description="The limit of tokens the model can take, it can affect the memory consumption of the model"
    )


class MyLLMExecutor(Executor):
    @requests(on="/generate")
    def generate(self, doc: Prompt, parameters: LLMCallingParams, **kwargs: Any) -> Generation:
        """Complete a prompt."""
        return Generation(prompt=doc.text, text=f"{parameters.num_max_tokens}")


@pytest.mark.feature("GW-11", "GW-15", "DP-06")
def test_t53_the_documentation_shows_descriptions_examples_and_defaults() -> None:
    with Deployment(uses=MyLLMExecutor, protocol="http", host="127.0.0.1", title="LLM", description="It completes.") as deployment:
        url = f"http://127.0.0.1:{deployment.port}"
        _, document = http(f"{url}/openapi.json")
        assert http(f"{url}/generate", {"data": {"text": "hi"}})[1]["data"][0]["text"] == "5000"
        with urlopen(f"{url}/docs", timeout=10) as page:
            assert b"/openapi.json" in page.read()
    assert (document["info"]["title"], document["info"]["description"]) == ("LLM", "It completes.")
    operation = document["paths"]["/generate"]["post"]
    assert operation["description"] == "Complete a prompt."
    schemas = document["components"]["schemas"]
    assert schemas["Prompt"]["description"] == Prompt.__doc__ and schemas["Generation"]["description"] == Generation.__doc__
    text = schemas["Prompt"]["properties"]["text"]
    assert (text["description"], text["examples"]) == ("The text of the prompt", ["Write me a short poem"])
    assert schemas["Generation"]["properties"]["prompt"]["description"] == "The original prompt that created this output"
    assert schemas["LLMCallingParams"]["description"] == LLMCallingParams.__doc__
    tokens = schemas["LLMCallingParams"]["properties"]["num_max_tokens"]
    assert tokens["default"] == 5000 and tokens["description"].startswith("The limit of tokens")


class Fine(Executor):
    @requests(on=["/foo", "/bar", "/index", "/search"])
    def mark(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = f"{doc.text}!"
        return docs


@pytest.mark.feature("GW-04", "GW-12", "FL-16")
def test_t54_endpoints_are_exposed_and_hidden() -> None:
    flow = Flow(protocol="http", host="127.0.0.1").config_gateway(no_debug_endpoints=True, no_crud_endpoints=True).add(uses=Fine)
    flow.expose_endpoint("/foo", summary="my endpoint").expose_endpoint("/bar", summary="b", tags=["fine-tuning"], methods=["PUT"])
    flow.expose_endpoint("/search", path="/find", methods=["GET", "POST"])
    with flow:
        url = f"http://127.0.0.1:{flow.port}"
        _, document = http(f"{url}/openapi.json")
        paths = {path: set(item) for path, item in document["paths"].items() if not path.startswith(("/jobs", "/results"))}
        assert paths == {"/": {"get"}, "/dry_run": {"get"}, "/healthz": {"get"}, "/readyz": {"get"}} | {
            "/foo": {"post"}, "/bar": {"put"}, "/find": {"get", "post"}
        }  # fmt: skip
        assert document["paths"]["/foo"]["post"]["summary"] == "my endpoint"
        assert document["paths"]["/bar"]["put"]["tags"] == ["fine-tuning"]
        one = {"data": [{"text": "a"}]}
        for path, method in (("/foo", "POST"), ("/bar", "PUT"), ("/find", "POST")):
            assert http(url + path, one, method)[1]["data"][0]["text"] == "a!"
        assert http(f"{url}/find?text=a")[1]["data"][0]["text"] == "a!"
        refused = [http(f"{url}/foo", one, "PUT"), http(f"{url}/index", one), http(f"{url}/search", one), http(f"{url}/post", one)]
        assert [status for status, _ in [*refused, http(f"{url}/status")]] == [405, 404, 404, 404, 404]
        assert flow.post("/bar", TextDoc(text="a"), return_type=DocList[TextDoc]).text == ["a!"]  # what clients post arrives


@pytest.mark.feature("GW-27", "GW-28", "GW-29")
def test_operations_have_a_port_of_their_own() -> None:
    admin = free_port()
    flow = Flow(protocol=["http", "grpc"], host="127.0.0.1", admin_port=admin).add(uses=Worker)
    with flow:
        assert isinstance(flow.port, list)
        public, operations = f"http://127.0.0.1:{flow.port[0]}", f"http://127.0.0.1:{admin}"
        assert [http(public + path)[0] for path in ("/", "/dry_run", "/healthz", "/readyz", "/status")] == [200, 200, 404, 404, 404]
        assert [http(operations + path)[0] for path in ("/", "/dry_run", "/healthz", "/readyz", "/status")] == [200] * 5
        assert http(f"{operations}/default", {"data": [{"text": "a"}]})[0] == 404
        with grpc.insecure_channel(f"127.0.0.1:{flow.port[1]}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/jina.JinaInfoRPC/_status")(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert flow.is_flow_ready()
