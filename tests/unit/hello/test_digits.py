"""The command `hello digits` before it starts anything."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

pytest.importorskip("sklearn")

from streamflow.broker.errors import InvalidInput
from streamflow.hello import digits


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What `run` was called with."""
    calls: list[tuple[object, ...]] = []

    def run(*arguments: object) -> int:
        calls.append(arguments)
        return 3

    monkeypatch.setattr(digits, "run", run)
    return calls


def test_words_of_the_command_line_and_options_by_name_mean_the_same(ran: list[tuple[object, ...]]) -> None:
    assert digits.main(["--images", "pics", "--workdir", "out", "--open", "--keep", "--limit", "40"]) == 3
    assert digits.main(images=Path("pics"), workdir=Path("out"), open_page=True, keep=True, limit=40) == 3
    assert ran[0] == ran[1] == (Path("pics"), Path("out"), True, True, 40)


def test_defaults(ran: list[tuple[object, ...]]) -> None:
    digits.main()
    assert ran == [(None, Path("digits-result"), False, False, None)]


def test_an_unknown_word_or_too_small_a_limit_is_a_usage_error() -> None:
    for words in (["--imags", "x"], ["--limit", "3"]):
        with pytest.raises(click.UsageError):
            digits.main(words)


def test_a_folder_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: no such folder"):
        digits.main(["--images", str(tmp_path / "nowhere"), "--workdir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
