"""Postponed annotations: every name is text until it is needed."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

from streamflow.broker.errors import FlowError
from streamflow.workers.endpoints import bind_endpoints
from streamflow.workers.executor import Executor, requests


def test_names_of_the_enclosing_function_are_found() -> None:
    class Local(BaseDoc):
        text: str = ""

    class Options(BaseModel):
        n: int = 1

    class Exec(Executor):
        class Inner(BaseDoc):
            size: int = 0

        @requests(on="/called")
        def called(self, docs: DocList[Local], parameters: Options, **kwargs: Any) -> DocList[Inner]: ...

        @requests
        async def bare(self, doc: Local, **kwargs: Any) -> None: ...

    found = bind_endpoints(Exec())
    assert (found["/called"].request_type, found["/called"].response_type) == (Local, Exec.Inner)
    assert found["/called"].parameters_model is Options
    assert found["/default"].response_type is Local


def test_annotations_of_other_arguments_are_never_evaluated() -> None:
    class Exec(Executor):
        @requests
        def foo(self, docs: DocList[BaseDoc], tracing_context: NotImported | None = None, **kwargs: Any) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert bind_endpoints(Exec())["/default"].request_type is BaseDoc


def test_a_syntax_error_in_an_annotation_is_named() -> None:
    class Exec(Executor):
        @requests
        def foo(self, docs: DocList[BaseDoc], **kwargs: Any) -> None: ...

    Exec.foo.__annotations__["docs"] = "DocList["
    with pytest.raises(FlowError, match="Exec.foo: argument 'docs': annotation 'DocList\\['"):
        bind_endpoints(Exec())


SCRIPT = """
from __future__ import annotations
import sys
import cloudpickle
from docarray import BaseDoc, DocList
from streamflow.workers.executor import Executor, requests

class In(BaseDoc):
    text: str = ""

def make():
    class Out(BaseDoc):
        size: int = 0

    class Mine(Executor):
        @requests(on="/x")
        def foo(self, docs: DocList[In], **kwargs) -> DocList[Out]: ...

    return Mine

cloudpickle.dump(make(), sys.stdout.buffer)
"""
LOADER = """
import sys
import cloudpickle
from streamflow.workers.endpoints import bind_endpoints
spec = bind_endpoints(cloudpickle.load(sys.stdin.buffer)())["/x"]
print(spec.request_type.__name__, spec.response_type.__name__)
"""


def test_a_class_that_travels_takes_the_types_of_its_annotations_along() -> None:
    source = str(Path(__file__).parents[3] / "src")
    command = [sys.executable, "-W", "ignore", "-c"]
    sent = subprocess.run([*command, SCRIPT], env={"PYTHONPATH": source}, capture_output=True, timeout=60, check=True).stdout
    answer = subprocess.run([*command, LOADER], input=sent, env={"PYTHONPATH": source}, capture_output=True, timeout=60, check=True)
    assert answer.stdout.decode().split() == ["In", "Out"]
