"""One flow file, exported for Compose and served: two encoders, and an index of two shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Client, Flow, StreamflowError
from streamflow.broker.server import free_port

from .served import port_of

ENCODER = """
import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from streamflow import Executor, requests

class Item(BaseDoc):
    text: str
    embedding: NdArray | None = None

class Encoder(Executor):
    @requests
    def encode(self, docs: DocList[Item], **kwargs) -> DocList[Item]:
        for doc in docs:
            number = int(doc.text.split()[-1])
            doc.embedding = np.array([np.cos(number), np.sin(number)])
        return docs
"""
INDEXER = """
from docarray import BaseDoc, DocList
from docarray.index import InMemoryExactNNIndex
from docarray.typing import NdArray
from streamflow import Executor, requests

class Item(BaseDoc):
    text: str
    embedding: NdArray[2] | None = None

class Found(Item):
    matches: DocList[Item] = DocList[Item]()

class Indexer(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.items = InMemoryExactNNIndex[Item]()

    @requests(on="/index")
    def index(self, docs: DocList[Item], **kwargs) -> DocList[Item]:
        self.items.index(docs)
        return docs

    @requests(on="/search")
    def search(self, docs: DocList[Item], **kwargs) -> DocList[Found]:
        found = self.items.find_batched(docs, search_field="embedding", limit=2).documents
        return DocList[Found]([Found(**doc.dict(), matches=each) for doc, each in zip(docs, found)])

    @requests(on="/size")
    def size(self, **kwargs) -> dict:
        return {"Indexed documents": len(self.items)}
"""
FLOW = """
jtype: Flow
with: {{protocol: http, port: {port}}}
executors:
  - {{name: encoder, uses: encoder/config.yml, replicas: 2}}
  - {{name: indexer, uses: indexer/config.yml, shards: 2, polling: {{/size: ALL}}}}
"""


class Item(BaseDoc):
    text: str
    embedding: NdArray | None = None  # type: ignore[type-arg]


class Found(Item):
    matches: DocList[Item] = DocList[Item]()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in (("encoder", ENCODER), ("indexer", INDEXER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "executor.py").write_text(code)
        (tmp_path / name / "config.yml").write_text(f"jtype: {name.title()}\npy_modules: [executor.py]\n")
    (tmp_path / "flow.yml").write_text(FLOW.format(port=free_port()))
    return tmp_path


@pytest.mark.feature("CN-01", "CI-06")
def test_t20_the_exported_file_has_a_service_for_every_role(folder: Path) -> None:
    """The original has six: a head before the shards, and one service a replica. Here: `--scale encoder=N`, and no head."""
    flow = Flow.load_config(folder / "flow.yml")
    flow.to_docker_compose_yaml(folder / "docker-compose.yml")
    services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    assert list(services) == ["nats", "gateway", "encoder", "indexer-0", "indexer-1"]
    assert services["encoder"]["deploy"]["replicas"] == 2
    assert [str(flow.port) in str(port) for port in services["gateway"]["ports"]] == [True]


@pytest.mark.feature("CN-12", "DC-07", "SC-02", "SC-03", "SC-04", "SC-06", "EX-20")
def test_t20_hundred_documents_are_indexed_and_ten_found_again(folder: Path) -> None:
    docs = DocList[Item]([Item(text=f"document {number}") for number in range(100)])
    with Flow.load_config(folder / "flow.yml") as flow, Client(port=port_of(flow), protocol="http") as client:
        client.post("/index", docs, request_size=10)
        sizes = client.post("/size", return_responses=True)[0].results
        held = [result["Indexed documents"] for result in sizes.values()]
        assert sum(held) == 100 and len(held) == 2 and min(held) > 0, sizes
        found = client.post("/search", docs[:10], return_type=DocList[Found])
    assert len(found) == 10
    for doc in found:
        assert len(doc.matches) == 4  # the best two of each shard
        assert doc.text in doc.matches.text


def test_an_image_is_refused_with_what_to_do_instead() -> None:
    """Images run as services of their own (`streamflow export docker-compose`), not under `Flow`."""
    with pytest.raises(StreamflowError, match="docker://my-image.*run the image as its own service"):
        Flow().add(uses="docker://my-image").start()
