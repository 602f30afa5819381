"""The demonstrations as a new user starts them: they end well, and their figures are what the README says."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("PIL")

from .programs import Program, Programs

MINUTE_S = 60.0


def share(program: Program, pattern: str) -> float:
    """The percentage that `pattern` finds, in 0..1."""
    found = re.search(pattern, program.output)
    assert found, program.output
    return float(found[1]) / 100


def test_digits_in_three_shards_are_found_as_well_as_in_one(programs: Programs) -> None:
    program = programs.streamflow("hello", "digits")
    assert program.wait(MINUTE_S) == 0, program.output

    assert share(program, r"precision@10 ([\d.]+)%") > 0.94
    assert share(program, r"recall@10 ([\d.]+)%") > 0.06
    assert re.search(r"indexer +99 ", program.output), "each of three shards answers each of 33 searches"
    assert (programs.folder / "digits-result" / "index.html").stat().st_size > 100_000


@pytest.mark.slow
def test_pictures_and_captions_joined_are_better_than_either(programs: Programs) -> None:
    program = programs.streamflow("hello", "multimodal")
    assert program.wait(MINUTE_S) == 0, program.output

    caption, picture, both = (share(program, rf"{name} +([\d.]+)%") for name in ("caption", "picture", "both"))
    assert 0.5 < caption < picture < both and both > picture + 0.015
    assert "Searching by both beats each branch alone" in program.output
    assert (programs.folder / "multimodal-result" / "index.html").stat().st_size > 100_000


def test_a_kept_flow_is_searched_by_caption_by_picture_and_by_both(programs: Programs) -> None:
    program = programs.streamflow("hello", "multimodal", "--limit", "120", "--keep")
    program.wait_for("serving until Ctrl-C", MINUTE_S)
    url = program.wait_for(r"HTTP +(http://\S+)")[1]
    pixels = [[0] * 8] * 4 + [[240] * 8] * 4

    for card in ({"caption": "odd, above six"}, {"pixels": pixels}, {"caption": "even", "pixels": pixels}):
        matches = search(url, card)
        assert len(matches) == 3
        assert matches == sorted(matches, key=lambda hit: -hit["score"])
    assert {hit["label"] for hit in search(url, {"caption": "odd, above six"})} <= {"7", "9"}

    program.send(signal.SIGINT)
    program.wait()


def search(url: str, card: dict[str, Any]) -> list[dict[str, Any]]:
    body = json.dumps({"data": [card], "parameters": {"limit": 3}}).encode()
    request = urllib.request.Request(f"{url}/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"][0]["matches"]
    return found
