"""The short forms of post(): index, search, update, delete, and documents out of arrays, tables and files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Client, Deployment, Executor, Flow, requests
from streamflow.client import AsyncClient


class Match(BaseDoc):
    score: float = 0.0


class Animal(BaseDoc):
    embedding: NdArray = np.zeros(2)  # type: ignore[assignment, type-arg]  # docarray's own generic base; converted when validated
    guardian: str = ""
    matches: DocList[Match] = DocList[Match]()


class Seen(BaseDoc):
    """What an executor saw of a document of any origin."""

    uri: str = ""
    text: str = ""
    mime_type: str = ""
    blob: bytes = b""
    tensor: NdArray | None = None  # type: ignore[type-arg]


class Indexer(Executor):
    """Keeps animals in memory and finds them by Euclidean distance."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kept: dict[str, Animal] = {}

    @requests(on=["/index", "/update"])
    def keep(self, docs: DocList[Animal], **kwargs: Any) -> None:
        self._kept |= {str(doc.id): doc for doc in docs}

    @requests(on="/delete")
    def forget(self, docs: DocList[Animal], **kwargs: Any) -> DocList[Animal]:
        return DocList[Animal](self._kept.pop(doc.id) for doc in docs if doc.id in self._kept)

    @requests(on="/search")
    def find(self, docs: DocList[Animal], parameters: dict[str, Any], **kwargs: Any) -> DocList[Animal]:
        for doc in docs:
            scored = [Match(id=kept.id, score=float(np.linalg.norm(kept.embedding - doc.embedding))) for kept in self._kept.values()]
            doc.matches = DocList[Match](sorted(scored, key=lambda match: match.score)[: int(parameters["top_k"])])
        return docs


class Reader(Executor):
    @requests(on=["/index", "/search"])
    def read(self, docs: DocList[Seen], **kwargs: Any) -> DocList[Seen]:
        return docs


@pytest.fixture(scope="module")
def reading() -> Iterator[Flow]:
    with Flow(protocol=["grpc", "http"], host="127.0.0.1").add(uses=Reader) as flow:
        yield flow


@pytest.mark.feature("J1-01")
def test_t62_create_read_update_delete_with_four_documents() -> None:
    names, vectors = ["dragon", "bird", "turtle", "tiger"], np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    docs = [Animal(id=name, embedding=vector, guardian=name.title()) for name, vector in zip(names, vectors, strict=True)]
    with Deployment(uses=Indexer, host="127.0.0.1") as served:

        def top() -> list[tuple[str, float]]:
            found = served.search(docs[0], top_k=3, return_type=DocList[Animal])
            return [(match.id, match.score) for match in found[0].matches]

        served.index(docs)
        assert top() == [("dragon", 0.0), ("bird", 1.0), ("turtle", 1.0)]
        served.update(Animal(id="bird", embedding=np.array([5, 5])))
        assert top() == [("dragon", 0.0), ("turtle", 1.0), ("tiger", pytest.approx(2**0.5))]
        gone = served.delete(["turtle", "dragon"], return_type=DocList[Animal])
        assert gone.guardian == ["Turtle", "Dragon"]
        assert [name for name, _ in top()] == ["tiger", "bird"]


@pytest.mark.feature("J1-02")
def test_t63_rows_of_an_array(reading: Flow) -> None:
    array = np.arange(8.0).reshape(4, 2)
    for found in (
        reading.index_ndarray(array, return_type=DocList[Seen]),
        reading.search_ndarray(array, return_type=DocList[Seen]),
        reading.index(array, return_type=DocList[Seen]),
    ):
        assert len(found) == 4
        np.testing.assert_array_equal([doc.tensor for doc in found], array)


@pytest.mark.feature("J1-02")
def test_t63_lines_of_a_table_with_columns_renamed(reading: Flow, tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["pic_url", "text"], ["a.png", "first, with a comma"], ["b.png", "two\nlines"]])
    for source in (path, str(path), path.read_text().splitlines(keepends=True)):
        found = reading.index_csv(source, field_resolver={"pic_url": "uri"}, return_type=DocList[Seen])
        assert (found.uri, found.text) == (["a.png", "b.png"], ["first, with a comma", "two\nlines"])
    with path.open(newline="") as file:
        assert len(reading.search_csv(file, reading={"size": 1}, return_type=DocList[Seen])) == 1


@pytest.mark.feature("J1-02")
def test_t63_lines_of_json_with_keys_renamed(reading: Flow, tmp_path: Path) -> None:
    path = tmp_path / "index.ndjson"
    path.write_text('{"question_id": "7", "text": "why"}\n\n{"question_id": "8"}\n')
    found = reading.index_ndjson(path, field_resolver={"question_id": "id"}, return_type=DocList[Seen])
    assert [(doc.id, doc.text) for doc in found] == [("7", "why"), ("8", "")]
    assert reading.search_ndjson(path, return_type=DocList[Seen], results_in_order=True).text == ["why", ""]


@pytest.mark.feature("J1-02")
def test_t63_files_by_pattern_over_both_protocols(reading: Flow, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("ä text")
    (tmp_path / "deep" / "b.png").write_bytes(b"\x89PNG\0")
    patterns = [f"{tmp_path}/*.txt", f"{tmp_path}/**/*.png"]
    assert isinstance(reading.port, list)
    for port, protocol in zip(reading.port, ("grpc", "http"), strict=True):
        with Client("127.0.0.1", port, protocol) as client:
            found = client.index_files(patterns, return_type=DocList[Seen])
            assert found.mime_type == ["text/plain", "image/png"]
            assert (found.text, found.blob) == (["ä text", ""], [b"", b"\x89PNG\0"])
            bare = client.search_files(patterns, reading={"content": False}, return_type=DocList[Seen])
            assert bare.uri == found.uri
            assert bare.blob == [b"", b""]


@pytest.mark.feature("J1-02")
async def test_t63_the_async_client_has_the_same_forms(reading: Flow) -> None:
    async with reading.client(asyncio=True) as client:
        assert isinstance(client, AsyncClient)
        assert [docs.text async for docs in client.index(["a", "b"], return_type=DocList[Seen])] == [["a", "b"]]
