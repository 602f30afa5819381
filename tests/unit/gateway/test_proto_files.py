"""The published .proto files and what is made from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docarray.proto import DocProto, NodeProto
from google.protobuf.descriptor import Descriptor

from streamflow.gateway.jina_wire import data_content, docs_of
from streamflow.gateway.proto import generate
from streamflow.gateway.proto.registry import POOL, message

pytestmark = pytest.mark.feature("PR-01", "PR-02", "PR-03", "PR-04", "PR-05")


def test_the_committed_files_are_what_the_sources_give(tmp_path: Path) -> None:
    generate.descriptors(tmp_path / "descriptors.binpb")
    generate.stubs(tmp_path)
    for made in tmp_path.iterdir():
        assert made.read_bytes() == (generate.FOLDER / made.name).read_bytes(), (
            f"{made.name}: run python -m streamflow.gateway.proto.generate"
        )


def shape(descriptor: Descriptor) -> dict[str, Any]:
    return {field.name: (field.number, field.type, field.message_type and field.message_type.full_name) for field in descriptor.fields}


@pytest.mark.parametrize("file", sorted(POOL.FindFileByName("docarray.proto").message_types_by_name))
def test_our_docarray_messages_are_docarrays(file: str) -> None:
    theirs = DocProto.DESCRIPTOR.file.message_types_by_name[file]
    assert shape(POOL.FindMessageTypeByName(f"docarray.{file}")) == shape(theirs)


@pytest.mark.parametrize(
    "name", ["DataRequest", "SingleDocumentRequest", "DataRequestList", "Header", "Route", "Status", "Exc", "Endpoints", "Info"]
)
def test_shallow_messages_have_the_numbers_of_the_real_ones(name: str) -> None:
    real = {"Exc": "StatusProto.ExceptionProto", "Info": "JinaInfoProto"}.get(name, f"{name}Proto")
    full = POOL.FindMessageTypeByName(f"jina.{real}")
    shallow = POOL.FindMessageTypeByName(f"streamflow.shallow.{name}")
    assert {field.name: field.number for field in shallow.fields} == {field.name: field.number for field in full.fields}


def test_bytes_of_real_messages_are_read_and_written_shallowly() -> None:
    documents = [DocProto(data={"text": NodeProto(text=str(number))}).SerializeToString() for number in range(3)]
    real = message("jina.DataRequestProto").FromString(
        message("streamflow.shallow.DataRequest")(header={"request_id": "r"}, data=data_content(documents)).SerializeToString()
    )
    assert [document.data["text"].text for document in real.data.docs.docs] == ["0", "1", "2"]
    assert docs_of(real.data.SerializeToString()) == documents


@pytest.mark.parametrize("first", ["docarray.proto", "streamflow.gateway.proto.registry"])
def test_a_process_may_hold_docarrays_own_descriptors_too(first: str) -> None:
    modules = [first, "docarray.proto", "streamflow.gateway.proto.registry", "streamflow.gateway.proto.shallow_pb2"]
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in modules)
    path = str(generate.FOLDER.parents[2])
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env={"PYTHONPATH": path}, timeout=60)
