"""The page of `hello multimodal`: complete in itself, made for a phone as well, and honest about which way finds more."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")

from streamflow.hello.captions import Captioned
from streamflow.hello.gallery import SHOWN, Gallery, Way, render_gallery, verdict
from streamflow.hello.page import Found
from streamflow.hello.pictures import Sample
from streamflow.hello.scores import Quality, Timing

from .test_page import EVIL, Page


def way(name: str, precision: float, number: int = 1) -> Way:
    answers = {f"q{at}": [Found("a", EVIL, 0.9), Found("b", "2", 0.5)] for at in range(number)}
    return Way(name, Quality(number, precision, 0.1, 0.2), answers)


def page(number: int = 1) -> str:
    names = [*(f"q{at}" for at in range(number)), "a", "b"]
    cards = {name: Captioned(Sample(name, "2" if name == "b" else EVIL, np.full((8, 8), 9, np.uint8)), EVIL) for name in names}
    ways = [way("caption", 0.5, number), way("picture", 0.9, number), way("both", 0.95, number)]
    return render_gallery(Gallery(2, ways, [Timing("gateway", 1, 2.5, 3.5)], 9), cards)


def test_each_way_to_ask_has_its_hits_and_its_figure() -> None:
    text = page()
    assert Page(text).tags.count("img") == 1 + 3 * 2
    assert all(figure in text for figure in ("50.0%", "90.0%", "95.0%"))
    assert [text.count(f"by {name}") >= 2 for name in ("caption", "picture", "both")] == [True] * 3


def test_nothing_is_fetched_and_captions_are_escaped() -> None:
    text = page()
    assert all(source.startswith("data:image/png;base64,") for source in Page(text).sources)
    assert "http:" not in text and "https:" not in text and "url(" not in text
    assert "script" not in Page(text).tags


def test_the_page_is_made_for_narrow_screens_and_dark_mode() -> None:
    text = page()
    assert "width=device-width" in text and "prefers-color-scheme: dark" in text
    assert "@media (max-width: 40rem)" in text


def test_a_long_list_of_queries_is_cut_and_says_so() -> None:
    text = page(SHOWN + 5)
    assert text.count('class="row tall"') == SHOWN
    assert f"The first {SHOWN} of {SHOWN + 5} queries." in text


def test_the_verdict_follows_the_figures() -> None:
    assert "beats each branch alone: 5.0% of the hits are wrong instead of 10.0% by picture alone" in verdict(
        [way("caption", 0.5), way("picture", 0.9), way("both", 0.95)]
    )
    assert "no more than searching by picture alone" in verdict([way("caption", 0.5), way("picture", 0.9), way("both", 0.9)])
