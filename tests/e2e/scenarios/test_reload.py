"""T-45, EX-30, FL-17: hot reload of flow files, executor files and executor sources. Requests go on all the time and none fails.

K-20: the texts are those of the code in Jina's documentation, not those of its printed output.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ..meanwhile import Meanwhile
from ..programs import Program, Programs, addresses_of, environment_of, until

HEAD = "from docarray import DocList\nfrom docarray.documents import TextDoc\nfrom streamflow import Executor, requests\n"
SOURCE = """

class {name}(Executor):
    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        for doc in docs:
            doc.text += '{text}'
        return docs
"""
SAYS = """

class Says(Executor):
    def __init__(self, says: str, **kwargs):
        super().__init__(**kwargs)
        self.says = says

    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = self.says
        return docs
"""
SOON_S = 30.0


def executor(folder: Path, text: str, name: str = "MyExecutor") -> Path:
    file = folder / "my_executor.py"
    file.write_text(HEAD + SOURCE.format(name=name, text=text))
    return file


def write(file: Path, content: object) -> Path:
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def deployment(folder: Path, uses: object, **options: object) -> Path:
    gateway = {"protocol": "http", "host": "127.0.0.1"}
    return write(folder / "deployment.yml", {"jtype": "Deployment", "with": {"uses": uses, "name": "executor0", **gateway, **options}})


def flow(folder: Path, executors: list[dict[str, object]], **options: object) -> Path:
    gateway = {"protocol": "http", "host": "127.0.0.1"}
    return write(folder / "flow.yml", {"jtype": "Flow", "with": {**gateway, **options}, "executors": executors})


def meanwhile(program: Program) -> Meanwhile:
    return Meanwhile(addresses_of(program)["http"])


def comes(requests: Meanwhile, text: str) -> None:
    until(lambda: requests.last() == text, SOON_S, f"the answer {text!r}")


INLINE = {"jtype": "MyExecutor", "py_modules": ["my_executor.py"]}


@pytest.mark.feature("EX-30")
def test_t45_ex30_executor_source_under_load(programs: Programs, tmp_path: Path) -> None:
    """Three changes while requests go on: each answer is of one version, versions only go forward, and none fails."""
    file = executor(tmp_path, "version 0")
    program = programs.streamflow("deployment", "--uses", str(deployment(tmp_path, INLINE, replicas=2)), "--reload")
    with meanwhile(program) as requests:
        comes(requests, "version 0")
        for number in (1, 2, 3):
            executor(tmp_path, f"version {number}")
            comes(requests, f"version {number}")
            program.wait_for(rf"(?s)(everything new is ready.*){{{number}}}")
        seen = len(requests.answers)
        until(lambda: len(requests.answers) >= seen + 50, SOON_S)

    assert requests.failures == []
    assert requests.texts() == [f"version {number}" for number in range(4)]
    assert {text for _, text in requests.answers[seen:]} == {"version 3"}
    assert f"detected changes in: ['{file}']. Refreshing the Executor" in program.output


@pytest.mark.feature("EX-30")
def test_t45_ex30_executor_yaml(programs: Programs, tmp_path: Path) -> None:
    names = ("MyExecutorBeforeReload", "MyExecutorAfterReload")
    (tmp_path / "my_executor.py").write_text(HEAD + "".join(SOURCE.format(name=name, text=name) for name in names))
    config = write(tmp_path / "executor.yml", {"jtype": "MyExecutorBeforeReload", "py_modules": ["my_executor.py"]})
    program = programs.streamflow("deployment", "--uses", str(deployment(tmp_path, "executor.yml", reload=True)))
    with meanwhile(program) as requests:
        comes(requests, "MyExecutorBeforeReload")
        write(config, {"jtype": "MyExecutorAfterReload", "py_modules": ["my_executor.py"]})
        comes(requests, "MyExecutorAfterReload")

    assert requests.failures == []
    assert f"change in Executor configuration YAML {config} observed, restarting Executor deployment" in program.output


@pytest.mark.feature("FL-17")
def test_t45_fl17_flow_yaml(programs: Programs, tmp_path: Path) -> None:
    """An executor is added, then taken away again; the port stays, and so does the executor that did not change."""
    executor(tmp_path, " add text ")
    file = flow(tmp_path, [{"name": "exec1", "uses": INLINE}], reload=True)
    program = programs.streamflow("flow", "--uses", str(file))
    with meanwhile(program) as requests:
        comes(requests, " add text ")
        before = {process.pid for process in program.family()}
        flow(tmp_path, [{"name": "exec1", "uses": INLINE}, {"name": "exec2", "uses": INLINE}], reload=True)
        comes(requests, " add text  add text ")
        program.wait_for("everything new is ready")
        after = {process.pid for process in program.family()}
        flow(tmp_path, [{"name": "exec1", "uses": INLINE}], reload=True)
        comes(requests, " add text ")
        until(lambda: {process.pid for process in program.family()} == before, SOON_S, "only what was there at first")

    assert requests.failures == []
    assert before < after and len(after) == len(before) + 1
    assert f"change in Flow YAML {file} observed, restarting Flow" in program.output


@pytest.mark.feature("EX-30")
def test_t45_deployment_yaml(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "my_executor.py").write_text(HEAD + SAYS)
    uses = {"jtype": "Says", "py_modules": ["my_executor.py"], "with": {"says": "foo"}}
    file = deployment(tmp_path, uses, reload=True)
    program = programs.streamflow("deployment", "--uses", str(file))
    with meanwhile(program) as requests:
        comes(requests, "foo")
        deployment(tmp_path, {**uses, "with": {"says": "bar"}}, reload=True)
        comes(requests, "bar")

    assert requests.failures == []
    assert f"change in Deployment YAML {file} observed, restarting Deployment" in program.output


@pytest.mark.feature("EX-30")
def test_ex30_what_does_not_load_is_not_served(programs: Programs, tmp_path: Path) -> None:
    file = executor(tmp_path, "good")
    program = programs.streamflow("deployment", "--uses", str(deployment(tmp_path, INLINE, reload=True)))
    with meanwhile(program) as requests:
        comes(requests, "good")
        file.write_text(HEAD + "\nclass MyExecutor(Executor:\n    pass\n")
        program.wait_for(rf"{re.escape(str(file))}:5: .*SyntaxError.* is given up, what served before goes on")
        write(tmp_path / "deployment.yml", {"jtype": "Deployment", "with": {"uses": "Nowhere", "replicas": "two"}})
        program.wait_for(r"deployment.yml:\d+: .*replicas.*; what served before goes on")
        seen = len(requests.answers)
        until(lambda: len(requests.answers) >= seen + 50, SOON_S)
        assert requests.last() == "good"
        executor(tmp_path, "better")
        comes(requests, "better")

    assert requests.failures == [] and requests.texts() == ["good", "better"]


SCRIPT = """
from streamflow import Flow
flow = Flow(protocol="http", host="127.0.0.1", name="scripted", reload=True).add(name="e", uses="my_executor.MyExecutor")
with flow:
    print(f"127.0.0.1:{flow.port}", flush=True)
    flow.block()
"""


@pytest.mark.feature("FL-17")
def test_fl17_of_a_script(tmp_path: Path) -> None:
    file = executor(tmp_path, "one")
    log = tmp_path / "log"
    environment = environment_of({"PYTHONPATH": f"{environment_of({})['PYTHONPATH']}:{tmp_path}"})
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as script,
    ):
        try:
            assert script.stdout is not None
            with Meanwhile(script.stdout.readline().strip()) as requests:
                comes(requests, "one")
                executor(tmp_path, "two")
                comes(requests, "two")
        finally:
            script.terminate()
    assert requests.failures == []
    assert f"detected changes in: ['{file}']" in log.read_text()
