"""The form of gRPC, read and written both ways by docarray's own classes."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any, Optional
from uuid import UUID

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.base_doc import AnyDoc
from docarray.documents import TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.proto import DocListProto, DocProto, NodeProto
from docarray.typing import AnyTensor, ImageUrl, NdArray
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streamflow.broker.codec import decode, encode
from streamflow.broker.envelope import PROTOBUF
from streamflow.broker.errors import InvalidInput, StreamflowError

pytestmark = pytest.mark.feature("DC-05")


class Leaf(BaseDoc):
    name: str
    vector: Optional[NdArray] = None  # noqa: UP045  (as users write it)


class Full(BaseDoc):
    text: str = "t"
    number: int = 5
    negative: int = -5
    ratio: float = 0.5
    flag: bool = True
    blob: bytes = b"\xff"
    nothing: Optional[str] = None  # noqa: UP045
    url: ImageUrl = ImageUrl("http://example.org/a.png")
    vector: NdArray = NdArray._docarray_from_native(np.arange(6, dtype="f4").reshape(2, 3))
    scalar: AnyTensor = NdArray._docarray_from_native(np.array(1.5))
    leaf: Leaf = Leaf(name="a")
    leaves: DocList[Leaf] = DocList[Leaf]([Leaf(name="b", vector=np.ones(2)), Leaf(name="c")])
    listed: list[int] = [1, 2]
    marked: set[str] = {"a"}
    paired: tuple[int, str] = (1, "a")
    tags: dict[str, Any] = {"a": 1, "b": [1.5, {"c": None}], "t": (1,), "s": {2}}


def content_type() -> Any:
    """jina's message as the gateway's generated code would have it, with `docs` as a field of docarray's type."""
    file = descriptor_pb2.FileDescriptorProto(name="content_test.proto", package="test", dependency=["docarray.proto"], syntax="proto3")
    message = file.message_type.add(name="Content")
    message.oneof_decl.add(name="documents")
    message.field.add(name="docs", number=1, label=1, type=11, type_name=".docarray.DocListProto", oneof_index=0)
    message.field.add(name="docs_bytes", number=12, label=1, type=12, oneof_index=0)
    pool = descriptor_pool.DescriptorPool()
    for known in (DocListProto.DESCRIPTOR.file.dependencies[0], DocListProto.DESCRIPTOR.file):
        copied = descriptor_pb2.FileDescriptorProto()
        known.CopyToProto(copied)
        pool.Add(copied)
    file.dependency[0] = DocListProto.DESCRIPTOR.file.name
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Content"))


Content = content_type()


def sent_by_docarray(docs: Any) -> bytes:
    message = Content()
    message.docs.ParseFromString(docs.to_protobuf().SerializeToString())
    message.docs.SetInParent()
    return bytes(message.SerializeToString())


def read_by_docarray(body: bytes, doc_type: Any) -> Any:
    message = Content.FromString(body)
    assert message.WhichOneof("documents") == "docs"
    return DocList[doc_type].from_protobuf(DocListProto.FromString(message.docs.SerializeToString()))


@pytest.mark.parametrize("doc_type", [Full, LegacyDocument, TextDoc])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_docarray_reads_what_we_write_and_we_read_what_it_writes(doc_type: Any, count: int) -> None:
    docs = DocList[doc_type]([doc_type() for _ in range(count)])
    assert read_by_docarray(encode(docs, PROTOBUF), doc_type) == docs
    assert decode(sent_by_docarray(docs), PROTOBUF, doc_type).docs == docs


def test_our_message_is_the_one_docarray_makes() -> None:
    docs = DocList[Full]([Full(id="a")])
    ours, theirs = Content.FromString(encode(docs, PROTOBUF)), Content.FromString(sent_by_docarray(docs))
    assert ours == theirs


def test_a_class_without_schema_sees_the_types_by_their_tags() -> None:
    docs = DocList[Full]([Full()])
    made = DocList[AnyDoc].from_protobuf(DocListProto.FromString(Content.FromString(encode(docs, PROTOBUF)).docs.SerializeToString()))[0]
    assert isinstance(made.url, ImageUrl) and isinstance(made.vector, NdArray)


@pytest.mark.feature("DC-06")
@pytest.mark.parametrize("protocol", ["protobuf-array", "protobuf"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_docs_bytes_in_a_protobuf_protocol(protocol: Any, count: int) -> None:
    docs = DocList[Full]([Full() for _ in range(count)])
    assert decode(Content(docs_bytes=docs.to_bytes(protocol=protocol)).SerializeToString(), PROTOBUF, Full).docs == docs


@pytest.mark.feature("DC-06")
@pytest.mark.parametrize("protocol", ["pickle-array", "pickle", "json-array"])
def test_docs_bytes_in_any_other_protocol_are_refused(protocol: Any) -> None:
    data = DocList[Leaf]([Leaf(name="a")]).to_bytes(protocol=protocol)
    with pytest.raises(InvalidInput):
        decode(Content(docs_bytes=data).SerializeToString(), PROTOBUF, Leaf)


def test_a_pickle_is_never_loaded(tmp_path: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "exploded"), "w"))

    bomb = pickle.dumps(Bomb())
    for data in (bomb, b"\x02" + (1).to_bytes(8, "big") + len(bomb).to_bytes(4, "big") + bomb):
        with pytest.raises(InvalidInput):
            decode(Content(docs_bytes=data).SerializeToString(), PROTOBUF, Leaf)
    assert not (tmp_path / "exploded").exists()


class Wide(BaseDoc):
    number: int
    any: Any = None


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_integers_beyond_int32_are_exact_in_fields_declared_int(number: int) -> None:
    body = encode([Wide(number=number)], PROTOBUF)
    assert decode(body, PROTOBUF, Wide).docs[0].number == number
    assert read_by_docarray(body, Wide)[0].number == number


def test_what_protobuf_has_no_type_for_is_text_for_docarray() -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)

    class Dated(BaseDoc):
        at: datetime
        key: UUID
        named: dict[int, str]

    doc = Dated(at=now, key=UUID(int=5), named={5: "a"})
    body = encode([doc], PROTOBUF)
    assert read_by_docarray(body, Dated)[0] == doc == decode(body, PROTOBUF, Dated).docs[0]


def test_an_empty_tensor_keeps_its_dtype_and_a_named_dtype_is_understood() -> None:
    body = encode([Leaf(name="a", vector=np.zeros((0, 4), "f4"))], PROTOBUF)
    assert decode(body, PROTOBUF, Leaf).docs[0].vector.dtype == "f4"
    proto = DocProto(data={"name": NodeProto(text="a")})
    proto.data["vector"].ndarray.dense.buffer = np.ones(2, "f4").tobytes()
    proto.data["vector"].ndarray.dense.shape.extend([2])
    proto.data["vector"].ndarray.dense.dtype = "float32"
    body = Content(docs_bytes=DocListProto(docs=[proto]).SerializeToString()).SerializeToString()
    assert decode(body, PROTOBUF, Leaf).docs[0].vector.tolist() == [1, 1]


class Narrow(BaseDoc):
    text: str


def test_unknown_fields_are_kept_and_put_back() -> None:
    docs = DocList[Full]([Full(), Full(text="u")])
    made = decode(encode(docs, PROTOBUF), PROTOBUF, Narrow)
    assert made.docs.text == ["t", "u"] and "leaves" in made.unknown
    assert decode(encode(made.docs, PROTOBUF, extra_columns=made.unknown), PROTOBUF, Full).docs == docs
    assert read_by_docarray(encode(made.docs, PROTOBUF, extra_columns=made.unknown), Full) == docs


@pytest.mark.parametrize(
    "dense", [{"dtype": "<f4", "shape": [2**31, 2**31]}, {"dtype": "|O", "shape": [1], "buffer": b"\0" * 8}, {"dtype": "<f4"}]
)
def test_tensors_that_do_not_fit_their_data_are_refused(dense: dict[str, Any]) -> None:
    proto = DocProto(data={"name": NodeProto(text="a")})
    for name, value in dense.items():
        target = proto.data["vector"].ndarray.dense
        target.shape.extend(value) if name == "shape" else setattr(target, name, value)
    proto.data["vector"].ndarray.dense.SetInParent()
    body = Content(docs_bytes=DocListProto(docs=[proto]).SerializeToString()).SerializeToString()
    with pytest.raises(InvalidInput):
        decode(body, PROTOBUF, Leaf)


def test_an_error_names_the_document_and_the_field() -> None:
    docs = DocList[Leaf]([Leaf(name="a"), Leaf.model_construct(id="b", name=None)])
    with pytest.raises(InvalidInput, match=r"data\[1\].name: Input should be a valid string"):
        decode(encode(docs, PROTOBUF), PROTOBUF, Leaf)
    with pytest.raises(StreamflowError, match="document 1, field any: cannot be sent as"):
        encode([Wide(number=1), Wide(number=1, any=object())], PROTOBUF)
    cyclic = Wide(number=1)
    cyclic.any = {"self": cyclic}
    with pytest.raises(StreamflowError, match="document 0, field any"):
        encode([cyclic], PROTOBUF)


def test_other_fields_of_the_message_are_skipped() -> None:
    body = encode([Leaf(id="i", name="a")], PROTOBUF)
    extra = b"\x28\x05" + b"\x31" + b"\0" * 8 + b"\x3d" + b"\0" * 4 + b"\x42\x01x"
    assert decode(extra + body + extra, PROTOBUF, Leaf).docs.name == ["a"]
    for broken in (b"\x0b", b"\x0a\x05", b"\x80" * 20, body[:-1]):
        with pytest.raises(InvalidInput):
            decode(broken, PROTOBUF, Leaf)
