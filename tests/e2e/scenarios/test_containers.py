"""An executor in a container: a folder with its file, its YAML and its own packages, and one command that serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import AnyTensor

from streamflow import Client
from streamflow.broker.server import free_port
from tests.e2e.programs import Programs

EXECUTOR = """
import {library}
from docarray import BaseDoc, DocList
from docarray.typing import AnyTensor
from streamflow import Executor, requests


class Boxed(BaseDoc):
    text: str = ""
    embedding: AnyTensor | None = None


class ContainerizedEncoder(Executor):
    @requests
    def foo(self, docs: DocList[Boxed], **kwargs) -> DocList[Boxed]:
        for doc in docs:
            doc.text = "This Document is embedded by ContainerizedEncoder"
            doc.embedding = {ten_numbers}
        return docs
"""
LIBRARIES = {"numpy": "numpy.random.default_rng().random(10)", "torch": "torch.randn(10)"}


class Boxed(BaseDoc):
    text: str = ""
    embedding: AnyTensor | None = None


@pytest.mark.feature("CN-03")
@pytest.mark.parametrize("library", LIBRARIES)
def test_t49_an_executor_served_as_its_container_does_it(programs: Programs, library: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The gateway's process never sees the executor's code, and the worker's has nothing but its own folder and the broker's address."""
    if library == "torch":
        pytest.importorskip("torch")
    ports = [str(free_port()) for _ in range(2)]
    broker, folder = f"nats://127.0.0.1:{ports[0]}", programs.folder / "image"
    folder.mkdir()
    (folder / "my_executor.py").write_text(EXECUTOR.format(library=library, ten_numbers=LIBRARIES[library]))
    (folder / "config.yml").write_text("jtype: ContainerizedEncoder\npy_modules:\n  - my_executor.py\n")
    programs.streamflow("broker", "--port", ports[0])
    file = Path(programs.folder / "flow.yml")
    file.write_text("jtype: Flow\nwith: {name: boxes}\nexecutors: [{name: encoder}]\n")
    gateway = programs.streamflow(
        "gateway", "--uses", str(file), "--flow", "boxes", "--broker", broker, "--host", "127.0.0.1", "--port", ports[1]
    )
    gateway.wait_for("ready")
    worker = programs.streamflow(
        "worker", "--uses", str(folder / "config.yml"), "--flow", "boxes", "--name", "encoder", "--broker", broker
    )  # fmt: skip
    worker.wait_for("ready")
    docs = Client(port=int(ports[1])).post("/", DocList[Boxed]([Boxed()]), return_type=DocList[Boxed])
    print(docs[0].text)
    print(docs[0].embedding.shape)
    shape = "torch.Size([10])" if library == "torch" else "(10,)"
    assert capsys.readouterr().out == f"This Document is embedded by ContainerizedEncoder\n{shape}\n"
    assert len(np.unique(np.asarray(docs[0].embedding))) == 10
