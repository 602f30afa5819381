"""The executors of `hello digits` as plain objects: no flow, no broker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from docarray import DocList

pytest.importorskip("sklearn")

from streamflow.hello.executors import Encoder, Hit, Indexer, Picture, Reducer, Result
from streamflow.hello.pictures import Sample, bundled, split, to_matrix
from streamflow.hello.scores import quality


def documents(samples: list[Sample]) -> DocList[Picture]:
    return DocList[Picture]([Picture(id=one.name, pixels=one.pixels, label=one.label) for one in samples])


def searched(stored: list[Sample], asked: list[Sample]) -> DocList[Result]:
    encoder, indexer = Encoder(), Indexer()
    indexer.index(encoder.encode(documents(stored)))
    return indexer.search(encoder.encode(documents(asked)))


def test_ten_nearest_digits_carry_the_right_label() -> None:
    stored, asked = split(bundled())
    results = searched(stored, asked)
    found = quality(((doc.label, [hit.label for hit in doc.matches]) for doc in results), (one.label for one in stored))
    assert (len(stored), len(asked)) == (1500, 297)
    assert found.precision > 0.93
    assert 0.055 < found.recall <= found.recall_ceiling < 0.08


def test_two_replicas_give_the_same_vectors() -> None:
    docs = bundled()[:5]
    first, second = Encoder().encode(documents(docs)), Encoder().encode(documents(docs))
    for one, other in zip(first, second, strict=True):
        vector = np.asarray(one.embedding)
        np.testing.assert_array_equal(vector, np.asarray(other.embedding))
        assert vector.dtype == np.float32 and vector.shape == (32,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_an_indexed_picture_finds_itself_first() -> None:
    stored = bundled()[:200]
    for doc in searched(stored, stored[:20]):
        assert doc.matches[0].id == doc.id
        assert doc.matches[0].score == pytest.approx(1.0, abs=1e-5)


def test_a_request_delivered_twice_is_indexed_once() -> None:
    encoder, indexer = Encoder(), Indexer()
    docs = encoder.encode(documents(bundled()[:7]))
    indexer.index(docs)
    assert [receipt.indexed for receipt in indexer.index(docs)] == [7] * 7


def test_limit_is_a_parameter_and_an_empty_index_answers_without_hits() -> None:
    encoder, indexer = Encoder(), Indexer()
    docs = encoder.encode(documents(bundled()[:7]))
    assert [len(result.matches) for result in indexer.search(docs)] == [0] * 7
    indexer.index(docs)
    assert [len(result.matches) for result in indexer.search(docs, parameters={"limit": 3})] == [3] * 7


def test_the_encoder_can_be_fitted_on_pictures_of_another_size(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    samples = [Sample(f"s{at}", "x", random.integers(0, 255, (5, 4), dtype=np.uint8)) for at in range(40)]
    np.save(tmp_path / "fit.npy", to_matrix(samples))
    encoded = Encoder(fit_file=str(tmp_path / "fit.npy"), dimensions=8).encode(documents(samples))
    assert np.asarray(encoded[0].embedding).shape == (8,)


def merged(answers: list[DocList[Result]]) -> DocList[Result]:
    """The answers of all shards as the queue puts them together: the same id is one document, its matches are chained."""
    rows = zip(*answers, strict=True)
    return DocList[Result](
        [Result(id=row[0].id, label=row[0].label, matches=DocList[Hit](hit for one in row for hit in one.matches)) for row in rows]
    )


def test_three_shards_and_the_reducer_find_what_one_index_finds() -> None:
    encoder, shards = Encoder(), [Indexer() for _ in range(3)]
    stored, asked = split(bundled())
    docs, queries = encoder.encode(documents(stored)), encoder.encode(documents(asked[:40]))
    for number, shard in enumerate(shards):
        shard.index(docs[number::3])
    ranked = Reducer().rank(merged([shard.search(queries) for shard in shards]))
    alone = Reducer().rank(searched(stored, asked[:40]))
    assert [doc.matches.id for doc in ranked] == [doc.matches.id for doc in alone]


def test_the_reducer_keeps_as_many_as_were_asked_for_best_first_and_equal_scores_by_id() -> None:
    hits = DocList[Hit]([Hit(id=name, label="x", score=score) for name, score in (("c", 0.5), ("b", 0.9), ("a", 0.5))])
    assert Reducer().rank(DocList[Result]([Result(matches=hits)]))[0].matches.id == ["b", "a", "c"]
    assert Reducer().rank(DocList[Result]([Result(matches=hits)]), parameters={"limit": 1})[0].matches.id == ["b"]
