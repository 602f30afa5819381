"""The first things that somebody tries: a class behind a port, in Python, in YAML and from the command line."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Client, Deployment, Executor, Flow, requests
from streamflow.broker.server import free_port
from tests.e2e.programs import Programs, addresses_of, until

from .executors import BarExec, FooExec

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "fixtures" / "executors" / "package"
MY_EXEC = """
from docarray import DocList
from docarray.documents import TextDoc
from streamflow import Executor, requests

class MyExec(Executor):
    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        docs[0].text = 'executed MyExec'
        return docs
"""


class MyExecutor(Executor):
    @requests(on="/bar")
    def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        docs[0].text = "hello world"
        return docs


@pytest.mark.feature("DC-01", "DC-02", "DC-03", "EX-01", "EX-04", "EX-08", "DP-01", "DP-02", "DP-04")
def test_t01_a_deployment_answers_a_post() -> None:
    with Deployment(uses=MyExecutor) as dep:
        docs = dep.post(on="/bar", inputs=TextDoc(text="hello"), return_type=DocList[TextDoc])
    assert f"Text: {docs[0].text}" == "Text: hello world"


@pytest.mark.feature("FL-03", "FL-04", "FL-08", "SC-01", "SC-09", "YM-01", "EX-25")
@pytest.mark.parametrize("form", ["Python", "YAML"])
def test_t02_two_executors_with_replicas_in_python_and_yaml(form: str, tmp_path: Path) -> None:
    port = free_port()
    if form == "Python":
        flow = Flow(port=port).add(uses=FooExec, replicas=3).add(uses=BarExec, replicas=2)
    else:
        modules = f"py_modules: [{HERE / 'executors.py'}]"
        (tmp_path / "flow.yml").write_text(
            f"jtype: Flow\nwith: {{port: {port}}}\nexecutors:\n"
            f"  - {{uses: FooExec, {modules}, replicas: 3}}\n  - {{uses: BarExec, {modules}, replicas: 2}}\n"
        )
        flow = Flow.load_config(str(tmp_path / "flow.yml"))
    with flow, Client(port=port) as client:
        found = client.post(on="/", inputs=DocList[TextDoc]([TextDoc(text=""), TextDoc(text="")]), return_type=DocList[TextDoc])
    assert [doc.text for doc in found] == ["hello, world!goodbye!", "hello, world!goodbye!"]


@pytest.mark.feature("DP-01", "DP-09", "SC-01")
def test_t02_a_deployment_with_replicas_on_its_port() -> None:
    with Deployment(port=(port := free_port()), uses=FooExec, replicas=3) as dep, Client(port=port) as client:
        assert dep.port == port
        found = client.post(on="/", inputs=DocList[TextDoc]([TextDoc(text="")]), return_type=DocList[TextDoc])
    assert found.text == ["hello, world!"]


@pytest.mark.feature("FL-03", "FL-04", "FL-09")
def test_t03_the_same_executor_twice_in_a_chain() -> None:
    with Flow().add(uses=FooExec).add(uses=FooExec) as flow:
        found = flow.post("/", DocList[TextDoc]([TextDoc(), TextDoc()]), return_type=DocList[TextDoc])
    assert found.text == ["hello, world!hello, world!", "hello, world!hello, world!"]


def served_from_a_script(programs: Programs, port: int) -> None:
    """The executor's class is defined in the user's script."""
    script = programs.folder / "main.py"
    start = f"    with Deployment(uses=MyExec, port={port}, replicas=2) as dep:\n        print('open', flush=True)\n        dep.block()\n"
    script.write_text(MY_EXEC.replace("import Executor", "import Deployment, Executor") + "\nif __name__ == '__main__':\n" + start)
    programs.run("main", sys.executable, str(script)).wait_for("open")


def served_from_yaml(programs: Programs, port: int) -> None:
    """`Deployment(uses='executor.yml')` as a command line."""
    addresses_of(programs.streamflow("deployment", "--uses", deployment_file(programs.folder, port, "executor.yml")))


def served_from_a_class_name(programs: Programs, port: int) -> None:
    addresses_of(programs.streamflow("deployment", "--uses", deployment_file(programs.folder, port, "MyExec", "py_modules: [executor.py]")))


def served_from_the_command_line(programs: Programs, port: int) -> None:
    """Piece by piece: a broker, a gateway and the executor's own process."""
    folder, broker_port = programs.folder, free_port()
    (folder / "flow.yml").write_text("jtype: Flow\nexecutors: [{name: one}]\n")
    broker = ["--broker", f"nats://127.0.0.1:{broker_port}"]
    programs.streamflow("broker", "--port", str(broker_port))
    programs.streamflow(
        "gateway", "--uses", "flow.yml", "--flow", "pieces", *broker, "--protocol", "grpc", "--port", str(port), "--host", "127.0.0.1"
    ).wait_for("ready")
    programs.streamflow(
        "executor", "--uses", "MyExec", "--py-modules", "executor.py", "--flow", "pieces", "--name", "one", *broker
    ).wait_for("ready")


def deployment_file(folder: Path, port: int, uses: str, *lines: str) -> str:
    (folder / "executor.yml").write_text("jtype: MyExec\npy_modules:\n  - executor.py\n")
    file = folder / "deployment.yml"
    file.write_text("\n".join([f"jtype: Deployment\nwith:\n  port: {port}\nuses: {uses}", *lines, ""]))
    return str(file)


@pytest.mark.feature("EX-24", "EX-25", "EX-26", "EX-31", "EX-34", "YM-02", "YM-03", "CI-01", "CI-02", "CI-04", "QU-01")
@pytest.mark.parametrize("serve", [served_from_a_script, served_from_yaml, served_from_a_class_name, served_from_the_command_line])
def test_t50_the_same_executor_served_in_every_form(programs: Programs, serve: Any) -> None:
    (programs.folder / "executor.py").write_text(MY_EXEC)
    port = free_port()
    serve(programs, port)
    with Client(host="127.0.0.1", port=port) as client:
        until(client.is_flow_ready)
        docs = client.post(on="/foo", inputs=DocList[TextDoc]([TextDoc()]), return_type=DocList[TextDoc])
    assert docs.text == ["executed MyExec"]


@pytest.mark.feature("EX-24")
def test_t51_a_package_of_several_files_with_relative_imports(capfd: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=str(PACKAGE / "config.yml")) as dep:
        dep.post("/")
    assert "something" in capfd.readouterr().out


@pytest.mark.feature("YM-04", "YM-05", "YM-06", "FL-10", "EX-21")
def test_t58_variables_of_the_environment_the_context_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T58_PLACE", "here")
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\nversion: '1'\n"
        f"executors:\n  - name: ${{{{ CONTEXT.name }}}}\n    uses: Counted\n    py_modules: [{HERE / 'executors.py'}]\n"
        "    uses_with: {word: '${{ ENV.T58_PLACE }} v${{root.version}}'}\n"
    )
    with Flow.load_config(str(tmp_path / "flow.yml"), context={"name": "told"}) as flow:
        response = flow.post("/", return_type=DocList[TextDoc], return_responses=True)[0]
    assert response.docs.text == ["here v1 was here and got 0 document"] and response.routes[1].executor == "told"


@pytest.mark.feature("DP-03", "FL-08")
def test_t59_a_flow_in_a_thread_serves_until_an_event_is_set() -> None:
    stop, port = threading.Event(), free_port()

    def serve() -> None:
        with Flow(port=port).add(uses=FooExec) as flow:
            flow.block(stop_event=stop)

    thread = threading.Thread(target=serve)
    thread.start()
    with Client(port=port) as client:
        until(client.is_flow_ready)
        assert client.post("/", TextDoc(), return_type=DocList[TextDoc]).text == ["hello, world!"]
        stop.set()
        thread.join(20)
        assert not thread.is_alive() and not client.is_flow_ready()
