"""jina's `DataRequestProto.DataContentProto` by hand: it has two fields, and protobuf's registry need not hold it beside the gateway's.

`docs` = 1 is a docarray DocListProto. `docs_bytes` = 12 is `DocList.to_bytes()`, read in docarray's protocols `protobuf-array` (which jina
uses) and `protobuf`, uncompressed; pickle is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from docarray.proto import DocListProto, DocProto

from ..errors import InvalidInput
from ..limits import check_count

_DOCS, _DOCS_BYTES = 1, 12
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SKIP_BYTES = {_FIXED64: 8, _FIXED32: 4}
_ARRAY_MARK = _DOCS << 3 | _LENGTH  # first byte of a DocListProto
_STREAM_MARK = 2  # first byte of a stream: version 2, 8 bytes count, then 4 bytes length before each document


def write(docs: DocListProto) -> bytes:
    """The message with `docs`."""
    data = docs.SerializeToString()
    return b"".join((bytes([_ARRAY_MARK]), _varint(len(data)), data))


def read(message: bytes) -> list[DocProto]:
    """The documents in either field. Raises `InvalidInput`, or protobuf's `DecodeError` for a document that is none."""
    docs: list[DocProto] = []
    for number, data in _fields(message):
        if number == _DOCS:
            docs.extend(DocListProto.FromString(data).docs)
        elif number == _DOCS_BYTES:
            docs = list(_from_docs_bytes(data))
        check_count(len(docs))
    return docs


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the length-delimited fields of a message; others are skipped."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire_type = tag & 7
        if wire_type == _LENGTH:
            size, at = _read_varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        elif wire_type == _VARINT:
            _, at = _read_varint(message, at)
        elif wire_type in _SKIP_BYTES:
            at += _SKIP_BYTES[wire_type]
        else:
            raise InvalidInput(f"not a DataContentProto: wire type {wire_type}")
    if at != len(message):
        raise InvalidInput("not a DataContentProto: it ends inside a field")


def _from_docs_bytes(data: bytes) -> Iterator[DocProto]:
    if not data or data[0] == _ARRAY_MARK:
        yield from DocListProto.FromString(data).docs
        return
    if data[0] != _STREAM_MARK or len(data) < 9:
        raise InvalidInput("docs_bytes: only docarray's protocols protobuf-array and protobuf are read, uncompressed")
    count, at = int.from_bytes(data[1:9], "big"), 9
    check_count(count)
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise InvalidInput("docs_bytes: it ends inside a document")
        yield DocProto.FromString(data[start:at])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise InvalidInput("not a DataContentProto: it ends inside a number")
