"""The executors of `hello multimodal` as plain objects: no flow, no broker."""

from __future__ import annotations

import numpy as np
import pytest
from docarray import DocList

pytest.importorskip("sklearn")

from streamflow.hello.branches import CaptionEncoder, Card, CardIndexer, PictureEncoder
from streamflow.hello.captions import FACTS_PER_CAPTION, Captioned, captioned, facts
from streamflow.hello.executors import Result
from streamflow.hello.features import WORD_DIMENSIONS, word_vector
from streamflow.hello.pictures import bundled, split
from streamflow.hello.scores import quality


def encoded(cards: list[Captioned], *, picture: bool = True, caption: bool = True) -> DocList[Card]:
    docs = DocList[Card](
        Card(id=one.sample.name, label=one.sample.label, pixels=one.sample.pixels if picture else None, caption=one.caption * caption)
        for one in cards
    )
    return CaptionEncoder().encode(PictureEncoder().encode(docs))


def indexer_of(docs: DocList[Card]) -> CardIndexer:
    indexer = CardIndexer()
    indexer.index(docs)
    return indexer


@pytest.fixture(scope="module")
def cards() -> list[Captioned]:
    return captioned(bundled())


def test_the_join_finds_more_than_each_branch_alone(cards: list[Captioned]) -> None:
    cut = len(split(bundled())[0])
    stored, asked = cards[:cut], cards[cut:]
    indexer = indexer_of(encoded(stored))

    def precision(**parts: bool) -> float:
        results: DocList[Result] = indexer.search(encoded(asked, **parts))
        rows = ((doc.label, [hit.label for hit in doc.matches]) for doc in results)
        return quality(rows, (one.sample.label for one in stored)).precision

    caption, picture, both = precision(picture=False), precision(caption=False), precision()
    assert 0.5 < caption < 0.7 and 0.93 < picture < 0.96
    assert both > picture + 0.015


def test_a_caption_is_true_says_two_things_and_never_names_the_number(cards: list[Captioned]) -> None:
    for card in cards:
        said = card.caption.split(", ")
        assert len(set(said)) == FACTS_PER_CAPTION
        assert set(said) <= set(facts(int(card.sample.label)))
    texts = {card.caption for card in cards}
    fitting = {text: {number for number in range(10) if set(text.split(", ")) <= set(facts(number))} for text in texts}
    assert sum(len(numbers) > 1 for numbers in fitting.values()) > len(texts) / 2


def test_captions_are_the_same_every_time() -> None:
    assert [one.caption for one in captioned(bundled()[:50])] == [one.caption for one in captioned(bundled()[:50])]


def test_each_branch_fills_its_own_vector_where_there_is_something(cards: list[Captioned]) -> None:
    both, text, picture = encoded(cards[:1])[0], encoded(cards[:1], picture=False)[0], encoded(cards[:1], caption=False)[0]
    assert np.asarray(both.picture_vector).shape == (32,) and np.asarray(both.caption_vector).shape == (WORD_DIMENSIONS,)
    assert text.picture_vector is None and text.caption_vector is not None
    assert picture.picture_vector is not None and picture.caption_vector is None


def test_cards_with_only_a_picture_or_only_a_caption_are_indexed_and_found_by_it(cards: list[Captioned]) -> None:
    first, second = cards[0], next(card for card in cards if card.caption != cards[0].caption)
    stored = DocList[Card]([*encoded([first], picture=False), *encoded([second], caption=False)])
    indexer = indexer_of(stored)
    assert indexer.search(encoded([first], picture=False))[0].matches[0].id == first.sample.name
    assert indexer.search(encoded([second], caption=False))[0].matches[0].id == second.sample.name


def test_the_weight_is_a_parameter(cards: list[Captioned]) -> None:
    indexer = indexer_of(encoded(cards[:200]))
    asked = encoded(cards[300:305])
    by_picture = indexer.search(encoded(cards[300:305], caption=False))
    assert [doc.matches.id for doc in indexer.search(asked, parameters={"picture_weight": 1.0})] == [doc.matches.id for doc in by_picture]


def test_an_empty_card_is_refused_by_its_id_and_an_empty_index_answers_without_hits() -> None:
    with pytest.raises(ValueError, match="'bare' has neither"):
        CardIndexer().search(DocList[Card]([Card(id="bare")]))
    assert len(CardIndexer().search(encoded(captioned(bundled()[:1])))[0].matches) == 0


def test_a_request_delivered_twice_is_indexed_once(cards: list[Captioned]) -> None:
    docs = encoded(cards[:7])
    assert [receipt.indexed for receipt in indexer_of(docs).index(docs)] == [7] * 7


def test_words_count_whatever_their_case_and_order() -> None:
    np.testing.assert_array_equal(word_vector("Odd, above six"), word_vector("above six: odd"))
    assert not word_vector("of the").any()
