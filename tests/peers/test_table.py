"""jina's client and ours, jina's gateway and ours: equal but for what is listed with its reason, and `docs/compatibility.md` says so."""

from __future__ import annotations

import pytest

from tests.peers.sides import ROOT, Answers, has_jina
from tests.peers.table import measure, page, unexplained

pytestmark = [
    pytest.mark.feature("CL-03", "CL-04", "CL-05", "CL-06", "CL-08", "CL-09", "CL-10", "CL-13", "CL-14", "CL-15", "CL-16", "CL-18"),
    pytest.mark.feature("PR-01", "PR-02", "PR-03", "PR-04", "PR-06", "ER-02", "ER-03", "ER-04", "DC-05"),
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not has_jina(), reason="no jina in .peers/jina"),
]


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Answers]:
    return measure()


def test_every_difference_has_a_reason(found: dict[tuple[str, str], Answers]) -> None:
    assert unexplained(found) == []


def test_the_page_is_up_to_date(found: dict[tuple[str, str], Answers]) -> None:
    assert (ROOT / "docs" / "compatibility.md").read_text() == page(found)
