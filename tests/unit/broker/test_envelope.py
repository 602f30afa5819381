"""Envelopes of all released versions are read for ever (promise P26), and what a newer one adds is passed on."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from streamflow.broker.envelope import VERSION, Envelope, decode, encode
from streamflow.broker.errors import InvalidInput

from .golden import VALUES, Golden, corpus, said

CORPUS = corpus()
WRONG: dict[type, Any] = {str: 5, int: "x", float: "x", bool: "x", tuple: "x", dict: "x"}


def message_of(header: dict[str, Any], body: bytes = b"") -> bytes:
    packed: bytes = msgpack.packb(header)
    return len(packed).to_bytes(4, "big") + packed + body


def header_of(message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgpack.unpackb(message[4 : 4 + int.from_bytes(message[:4], "big")])
    return found


@pytest.mark.parametrize(("name", "golden"), CORPUS, ids=[name for name, _ in CORPUS])
def test_a_message_of_the_corpus_says_what_it_said(name: str, golden: Golden) -> None:
    assert said(decode(golden.message)) == golden.fields, name


def test_the_corpus_has_every_field() -> None:
    """A field that is new is added by `python -m tests.unit.broker.golden`."""
    assert set(VALUES) == set(Envelope._fields)
    assert {field for _, golden in CORPUS for field in golden.fields} == set(Envelope._fields)
    assert len(CORPUS) >= 90


@pytest.mark.parametrize(("name", "golden"), CORPUS, ids=[name for name, _ in CORPUS])
def test_what_is_read_is_written_the_same(name: str, golden: Golden) -> None:
    """Old worker, new worker: a message that goes through both is unchanged, whatever the order of its keys."""
    again = encode(decode(golden.message))
    assert header_of(again) == header_of(golden.message), name
    assert decode(again).body == decode(golden.message).body


@pytest.mark.parametrize(("name", "golden"), CORPUS[:40], ids=[name for name, _ in CORPUS[:40]])
def test_what_a_newer_version_adds_is_passed_on(name: str, golden: Golden) -> None:
    """Keys that this version does not know, and elements behind those it knows, as an older worker meets them in a rolling change."""
    header = header_of(golden.message)
    later = {**header, "zz": {"new": [1]}}
    for key, width in (("tr", 6), ("cl", 3), ("st", 6)):
        if key in header:
            rows = header[key] if key == "tr" else [header[key]]
            longer = [[*row, "later"] for row in rows]
            assert all(len(row) == width + 1 for row in longer), name
            later[key] = longer if key == "tr" else longer[0]
    read = decode(message_of(later))
    assert read.extra["zz"] == {"new": [1]} and header_of(encode(read))["zz"] == {"new": [1]}
    assert read._replace(extra={}, body=b"") == decode(golden.message)._replace(extra={}, body=b"")


def test_a_version_above_ours_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=f"envelope version {VERSION + 1}, this worker reads up to {VERSION}"):
        decode(message_of({"v": VERSION + 1, "id": "1"}))


@pytest.mark.parametrize("field", [field for field in Envelope._fields if field not in ("extra", "body", "status", "claim")])
def test_a_field_of_another_type_is_refused_by_name(field: str) -> None:
    value = VALUES[field]
    alone = header_of(encode(Envelope(**{"request_id": "1", field: value})))
    (key,) = ["id"] if field == "request_id" else alone.keys() - {"v", "id"}
    with pytest.raises(InvalidInput, match=field):
        decode(message_of({"v": VERSION, "id": "1", key: WRONG[type(value)]}))


def test_a_message_without_an_id_or_with_a_broken_header_is_refused() -> None:
    for message in (b"", b"\0\0\0\x01", b"\0\0\0\x05abc", message_of({"v": 1}), message_of({"id": "1"}), b"\xff\xff\xff\xff" + b"x" * 10):
        with pytest.raises(InvalidInput):
            decode(message)
