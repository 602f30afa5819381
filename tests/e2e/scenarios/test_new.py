"""`streamflow new`: the projects serve, answer, pass their own tests, and take one more endpoint."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from docarray import DocList
from docarray.documents.legacy import LegacyDocument

from streamflow import Client
from tests.e2e.programs import Program, Programs, addresses_of

CRUNCH = """
    @requests(on="/crunch-numbers")
    def bar(self, docs, **kwargs):
        for doc in docs:
            doc.tensor = np.random.random([10, 2])
"""


def made(programs: Programs, template: str) -> Path:
    """The folder of a new project."""
    program = programs.streamflow("new", "hello-there", "--template", template)
    assert program.wait() == 0, program.output
    return programs.folder / "hello-there"


def passing(program: Program) -> str:
    """Its output, once it ended well."""
    assert program.wait(60) == 0, program.output
    return program.output


def python(programs: Programs, folder: Path, *arguments: str) -> Program:
    return programs.run("python", "env", "--chdir", str(folder), sys.executable, *arguments)


@pytest.mark.feature("CI-07")
def test_t52_a_new_project_answers_its_client_and_takes_one_more_endpoint(programs: Programs) -> None:
    folder = made(programs, "flow")
    executor = folder / "executor1" / "executor.py"
    flow, addresses = programs.flow(folder / "flow.yml", "--protocol", "grpc", "--port", "0", "--host", "127.0.0.1")
    host = f"grpc://{addresses['grpc']}"
    assert passing(python(programs, folder, "client.py", host)) == "['hello, world!', 'goodbye, world!']\n"
    flow.stop()

    executor.write_text(executor.read_text().replace("from typing import Any\n", "from typing import Any\n\nimport numpy as np\n") + CRUNCH)
    flow, addresses = programs.flow(folder / "flow.yml", "--protocol", "grpc", "--port", "0", "--host", "127.0.0.1")
    with Client(host=f"grpc://{addresses['grpc']}") as client:
        docs = client.post(
            "/crunch-numbers", DocList[LegacyDocument]([LegacyDocument(), LegacyDocument()]), return_type=DocList[LegacyDocument]
        )
    tensor = np.stack([np.asarray(doc.tensor) for doc in docs])
    assert tensor.shape == (2, 10, 2)
    assert tensor.dtype == np.float64
    flow.stop()


@pytest.mark.slow
@pytest.mark.feature("CI-07", "HB-01")
def test_a_new_executor_answers_its_client(programs: Programs) -> None:
    folder = made(programs, "executor")
    deployment = programs.streamflow(
        "deployment", "--uses", str(folder / "deployment.yml"), "--protocol", "grpc", "--port", "0", "--host", "127.0.0.1"
    )
    host = f"grpc://{addresses_of(deployment)['grpc']}"
    assert passing(python(programs, folder, "client.py", host)) == "['hello, world!', 'goodbye, world!']\n"


@pytest.mark.feature("CI-07")
@pytest.mark.parametrize(
    "template", [pytest.param("flow", marks=pytest.mark.slow), pytest.param("executor", marks=pytest.mark.slow), "batch"]
)
def test_a_new_project_passes_its_own_tests(programs: Programs, template: str) -> None:
    folder = made(programs, template)
    said = passing(
        python(programs, folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::pytest.PytestUnraisableExceptionWarning")
    )
    assert not re.search(r"\d+ failed", said)
    assert "skipped" not in said
    assert " passed" in said
