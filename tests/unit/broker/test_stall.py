"""Which streams are told to be stalled, whatever the order of publishes and acknowledgements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.stall import STALL_S, TRY_S, Stalls, place_of


def test_a_place_is_the_stream_that_a_subject_belongs_to() -> None:
    assert place_of("sf.shop.encoder.now.r1") == place_of("sf.shop.encoder.bulk.r2") == "sf.shop.encoder"
    assert place_of("$KV.sf_shop.current") == "$KV.sf_shop.current"
    assert place_of("short") == "short"


@given(st.lists(st.tuples(st.sampled_from(["sf.f.a", "sf.f.b"]), st.booleans()), max_size=60))
def test_only_a_stream_whose_oldest_publish_stays_is_suspected(turns: list[tuple[str, bool]]) -> None:
    """`turns`: a publish, or an acknowledgement of the oldest one, at each look; looks are half a `STALL_S` apart."""
    stalls, waiting, number = Stalls(), list[tuple[bytes, str]](), 0
    since: dict[bytes, float] = {}
    for turn, (place, is_ack) in enumerate(turns):
        now = turn * STALL_S / 2
        oldest = next((item for item in waiting if item[1].startswith(place)), None)
        if is_ack and oldest:
            waiting.remove(oldest)
        else:
            number += 1
            waiting.append((b"%d" % number, f"{place}.now.r{number}"))
        heads = {each: next((ticket for ticket, subject in waiting if subject.startswith(each)), None) for each in ("sf.f.a", "sf.f.b")}
        for head in heads.values():
            if head is not None:
                since.setdefault(head, now)
        expected = {each: head for each, head in heads.items() if head is not None and now - since[head] >= STALL_S}
        assert stalls.suspects(waiting, now) == expected


def test_a_stalled_stream_refuses_but_one_try_a_second_until_one_is_acknowledged() -> None:
    stalls = Stalls()
    stalls.add("sf.f.a", 10.0)
    assert stalls.stalled and not stalls.refuses("sf.f.b.now.r", 10.1)
    assert [stalls.refuses("sf.f.a.now.r", 10.0 + TRY_S * part) for part in (0.5, 1.0, 1.5, 2.0)] == [True, False, True, False]
    stalls.ended("sf.f.a.now.r")
    assert not stalls.stalled and not stalls.refuses("sf.f.a.now.r", 13.0)
