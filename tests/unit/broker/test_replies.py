"""Answers that find nobody."""

from __future__ import annotations

from streamflow.broker.replies import GIVE_UP_S, LONGEST_RETRY_S, RETRY_S, pause_s


def test_an_answer_is_sent_again_soon_at_first_and_not_thousands_of_times() -> None:
    age_s, tries = 0.0, []
    while age_s < GIVE_UP_S:
        tries.append(pause_s(age_s))
        age_s += tries[-1]
    assert tries[:4] == [RETRY_S] * 4 and tries == sorted(tries) and tries[-1] == LONGEST_RETRY_S
    assert len(tries) < 80
