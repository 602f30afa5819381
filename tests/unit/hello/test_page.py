"""The result page: complete in itself, and nothing in it that a folder name could inject."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from streamflow.hello.page import Found, Report, data_uri, render
from streamflow.hello.pictures import Sample
from streamflow.hello.scores import Timing, quality

EVIL = '"><script>alert(1)</script>$rows'


class Page(HTMLParser):
    """Collects tags, image sources and everything that would fetch from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alternatives: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.sources += [value for key in ("src", "href") if (value := values.get(key))]
        if tag == "img":
            self.alternatives.append(values.get("alt") or "")


def page() -> str:
    samples = {name: Sample(name, label, np.full((8, 8), 9, np.uint8)) for name, label in (("q", EVIL), ("a", EVIL), ("b", "2"))}
    report = Report(
        indexed=2,
        quality=quality([(EVIL, [EVIL, "2"])], [EVIL, "2"]),
        timings=[Timing("gateway", 1, 2.5, 3.5)],
        per_request=9,
        answers={"q": [Found("a", EVIL, 0.9), Found("b", "2", 0.5)]},
    )
    return render(report, samples)


def test_pictures_are_inside_the_page_and_nothing_is_fetched() -> None:
    text = page()
    parsed = Page(text)
    assert parsed.tags.count("img") == 3
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert "http:" not in text and "https:" not in text and "url(" not in text


def test_labels_are_escaped_and_not_read_as_placeholders() -> None:
    text = page()
    assert "script" not in Page(text).tags
    assert text.count("&lt;script&gt;") == 4  # alternative text and caption, of the query and of its first hit


def test_a_wrong_hit_is_marked_by_more_than_its_colour() -> None:
    parsed = Page(page())
    assert [text.rsplit(", ", 1)[-1] for text in parsed.alternatives[1:]] == ["right", "wrong"]
    assert "✕ 2" in page()


def test_the_page_is_made_for_narrow_screens_and_dark_mode() -> None:
    text = page()
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text


def test_a_data_uri_holds_the_same_pixels() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    raw = base64.b64decode(data_uri(Sample("x", "1", pixels)).partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(raw))), pixels)
