"""What the processes of a served flow write down, and what a wrong definition is told."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
import yaml

from ..programs import Programs, addresses_of, until

CODE = """
from docarray import DocList
from docarray.documents import TextDoc
from streamflow import Executor, requests

class Fails(Executor):
    @requests
    def run(self, docs: DocList[TextDoc], **kwargs) -> None:
        self.logger.warning("about to fail")
        raise ConnectionError("nobody there")
"""


def write(folder: Path, **executor: object) -> Path:
    (folder / "fails.py").write_text(CODE)
    uses = {"jtype": "Fails", "py_modules": ["fails.py"]}
    flow = {"jtype": "Flow", "with": {"protocol": "http", "host": "127.0.0.1"}, "executors": [{"name": "e", "uses": uses, **executor}]}
    file = folder / "flow.yml"
    file.write_text(yaml.safe_dump(flow, sort_keys=False))
    return file


@pytest.mark.feature("LG-02", "LG-03", "ER-05")
def test_an_executor_logs_into_its_own_file_with_request_and_attempt(programs: Programs, tmp_path: Path) -> None:
    handlers = {"FileHandler": {"output": str(tmp_path / "{name}.log"), "formatter": "JsonFormatter"}}
    (tmp_path / "log.yml").write_text(yaml.safe_dump({"handlers": ["FileHandler"], "level": "WARNING", "configs": handlers}))
    file = write(tmp_path, log_config="log.yml", retry_on=["ConnectionError"], retries=1, backoff_s=0.1)
    program = programs.streamflow("flow", "--uses", str(file), "--quiet-error")
    connection = http.client.HTTPConnection(addresses_of(program)["http"], timeout=20)
    connection.request("POST", "/x", json.dumps({"data": [{"text": "a"}]}), {"content-type": "application/json"})
    answer = connection.getresponse()
    told = answer.read()
    connection.close()

    assert answer.status == 500 and b"given up after 2 attempts of 2" in told
    until(lambda: (tmp_path / "e-rep-0.log").read_text().count("nobody there") == 2)
    lines = [json.loads(line) for line in (tmp_path / "e-rep-0.log").read_text().splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "streamflow.executor.e"] == ["about to fail"] * 2
    failures = [line for line in lines if "nobody there" in line["message"]]
    assert [line["attempt"] for line in failures] == [1, 2] and len({line["request_id"] for line in failures}) == 1
    assert "error" not in failures[0]  # its traceback
    assert "nobody there" not in program.output


def test_a_class_that_is_not_there_is_told_with_file_and_line(programs: Programs, tmp_path: Path) -> None:
    program = programs.streamflow("flow", "--uses", str(write(tmp_path, uses={"jtype": "Nowhere", "py_modules": ["fails.py"]})))

    assert program.wait() == 2
    assert f"{tmp_path}/flow.yml:6: executors[0]: uses" in program.output and "no executor class 'Nowhere'" in program.output
