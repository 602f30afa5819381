"""What clients may ask of an answer, in each protocol's words."""

from __future__ import annotations

import pytest

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import InvalidInput
from streamflow.gateway.dispatch import Call
from streamflow.gateway.keeping import is_pending, keep_s_of, pending, read_headers, read_message
from streamflow.gateway.wishes import Wishes


@pytest.mark.parametrize("value", ["0", "-3", "0.5", "soon", "", "inf", "nan", "1e9", True, None, [60], {}])
def test_a_time_to_keep_is_a_number_of_seconds(value: object) -> None:
    with pytest.raises(InvalidInput, match="x-streamflow-keep"):
        keep_s_of(value)


def test_headers() -> None:
    call = Call("/run")
    read_headers(call, {})
    assert (call.keep_s, call.detached) == (0.0, False)
    read_headers(call, {b"x-streamflow-keep": b"1.5", b"prefer": b"handling=lenient, Respond-Async; foo"})
    assert (call.keep_s, call.detached) == (1.5, True)
    read_headers(call, {b"prefer": b"return=minimal"})
    assert not call.detached


def test_a_message_wins_over_the_headers_of_its_socket() -> None:
    call = Call("/run", keep_s=5.0, detached=True)
    read_message(call, b'{"data":[]}')
    assert (call.keep_s, call.detached) == (5.0, True)
    read_message(call, b'{"keep":60,"prefer":"","data":[{"keep":1}]}')
    assert (call.keep_s, call.detached) == (60.0, False)


def test_metadata() -> None:
    call = Wishes.of({"x-streamflow-keep": "60", "prefer": "respond-async"}).applied(Call("/run"))
    assert (call.keep_s, call.detached) == (60.0, False)
    with pytest.raises(InvalidInput, match="x-streamflow-keep"):
        Wishes.of({"x-streamflow-keep": "long"})


def test_what_stands_for_an_answer_holds_no_documents() -> None:
    envelope = Envelope("r", client_id="c", reply="sf.reply.f.o.r", record="online.x", body=b"secret")
    assert is_pending(pending(envelope)) and not is_pending(envelope)
    assert pending(envelope).body == b"" and pending(envelope).client_id == "c"
