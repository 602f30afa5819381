"""Each repair to docarray, on every Python that we support; those about imports run in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  (the spellings that users write)

import numpy as np
import pytest
from docarray import BaseDoc, DocList, DocVec
from docarray.computation.numpy_backend import NumpyCompBackend
from docarray.documents import ImageDoc, TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.typing import AnyEmbedding, AnyTensor, ImageTensor, NdArray
from pydantic import TypeAdapter, ValidationError

from streamflow import _docarray

pytestmark = pytest.mark.feature("DC-01", "DC-02")

SOURCE = Path(__file__).parents[2] / "src"


def run(program: str, *options: str) -> str:
    """What `program` prints in a fresh interpreter with the package on its path."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Holder(BaseDoc):
    docs: DocList[TextDoc]
    maybe: Optional[DocList[TextDoc]] = None  # noqa: UP045
    listed: List[DocList[TextDoc]] = []  # noqa: UP006
    named: Dict[str, DocList[TextDoc]] = {}  # noqa: UP006


def test_fields_that_hold_lists_of_documents() -> None:
    texts = [TextDoc(text="a"), TextDoc(text="b")]
    made = Holder(docs=texts, maybe=texts[:1], listed=[texts], named={"x": texts})
    assert made.docs.text == made.listed[0].text == made.named["x"].text == ["a", "b"]
    assert isinstance(made.maybe, DocList) and Holder(docs=[]).maybe is None
    assert "docs" in Holder.model_json_schema()["properties"]
    with pytest.raises(ValidationError):
        Holder(docs=[{"text": []}])
    again = DocList[Holder].from_protobuf(DocList[Holder]([made]).to_protobuf())
    assert again[0].docs == made.docs


def test_a_document_that_holds_itself() -> None:
    made = LegacyDocument(chunks=[LegacyDocument(text="a")])
    assert made.chunks is not None and made.chunks[0].text == "a"


def test_a_typed_list_of_one_class_is_one_type() -> None:
    assert DocList[TextDoc] is DocList[TextDoc]
    assert isinstance(DocList[TextDoc]([TextDoc()]), DocList)
    with pytest.raises(TypeError):
        DocList[TextDoc][ImageDoc]
    with pytest.raises((TypeError, ValueError)):
        DocList[5]


class Vector(BaseDoc):
    tensor: NdArray


def test_a_docvec_of_numpy_tensors() -> None:
    made = DocVec[Vector]([Vector(tensor=np.arange(3)), Vector(tensor=np.arange(3))])
    assert made.tensor.shape == (2, 3) and len(made.to_doc_list()) == 2
    assert NumpyCompBackend.empty((2,), dtype=np.int8).dtype == np.int8
    with pytest.raises(NotImplementedError):
        NumpyCompBackend.empty((2,), device="cuda")


SHAPED = [(AnyTensor, (2, 3)), (AnyTensor, (4,)), (AnyEmbedding, (4,)), (ImageTensor, (2, 2, 3))]


@pytest.mark.parametrize(("annotation", "shape"), SHAPED)
def test_tensor_types_that_take_any_library_take_a_shape(annotation: Any, shape: tuple[int, ...]) -> None:
    shaped: Any = annotation[shape]
    adapter = TypeAdapter(shaped)
    assert adapter.validate_python(np.ones(shape)).shape == shape
    with pytest.raises(ValidationError), pytest.warns(UserWarning, match="Reshaping"):
        adapter.validate_python(np.ones(5))
    assert annotation[shape] == shaped and annotation[(5,)] != shaped
    assert issubclass(shaped, annotation)


def test_a_named_dimension_has_a_json_schema() -> None:
    class Picture(BaseDoc):
        tensor: NdArray["x", 3]  # type: ignore[name-defined, valid-type]  # noqa: F821, UP037
        fixed: NdArray[2]  # type: ignore[valid-type]

    found = Picture.model_json_schema()["properties"]
    assert found["tensor"] == {"title": "Tensor", "type": "array", "items": {"type": "number"}, "tensor/array shape": "[x, 3]"}
    assert found["fixed"]["tensor/array shape"] == "[2]" and "example" in found["fixed"]


@pytest.mark.parametrize("number", [5, 2.5, "5", np.int64(5), True])
def test_a_number_is_a_tensor_without_dimensions(number: Any) -> None:
    made = Vector(tensor=number).tensor
    assert isinstance(made, NdArray) and made.shape == () and float(made) == float(number)


def test_what_is_no_tensor_is_refused_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((TypeError, ValidationError)):
        ImageDoc(tensor={})
    with pytest.raises(TypeError):
        TypeAdapter(AnyTensor).validate_python({})
    assert capfd.readouterr() == ("", "")


def test_repairs_change_nothing_the_second_time() -> None:
    _docarray.apply()
    before = [DocList.__class_getitem__.__func__, NumpyCompBackend.empty.__func__, NdArray._docarray_validate.__func__]
    metaclass = AnyTensor.__parametrized_meta__
    finders = list(sys.meta_path)
    for again in (_docarray.apply, _docarray.install, _docarray._containers, _docarray._numpy_device):
        again()
    for again in (_docarray._tensor_metaclass, _docarray._tensor_from_number):
        again()
    assert before == [DocList.__class_getitem__.__func__, NumpyCompBackend.empty.__func__, NdArray._docarray_validate.__func__]
    assert AnyTensor.__parametrized_meta__ is metaclass and sys.meta_path == finders


PROBE = "from docarray.typing import AnyTensor; import docarray; AnyTensor[5]; print(docarray.__name__)"


@pytest.mark.parametrize("first", ["import streamflow;", "import docarray, streamflow;", "import streamflow, docarray.typing;"])
def test_repairs_come_whichever_is_imported_first(first: str) -> None:
    assert run(first + PROBE) == "docarray"


def test_docarray_keeps_its_loader_and_resources() -> None:
    program = (
        "import streamflow, docarray, importlib.resources as r; spec = docarray.__spec__;"
        "print(r.files(docarray).joinpath('py.typed').is_file(), 'DocList' in spec.loader.get_source('docarray'),"
        " spec.origin == docarray.__file__)"
    )
    assert run(program) == "True True True"


def test_a_missing_docarray_is_the_usual_error() -> None:
    program = (
        "import streamflow, sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "try: import docarray\nexcept ModuleNotFoundError as error: print(error)"
    )
    assert run(program) == "No module named 'docarray'"


def test_deprecation_noise_of_docarray_is_hidden_and_that_of_others_is_not() -> None:
    quiet = "import streamflow; from docarray.documents import TextDoc; TextDoc(text='a').json; import docarray.documents.legacy"
    assert run(quiet, "-W", "error::pydantic.warnings.PydanticDeprecatedSince20") == ""
    loud = (
        "import streamflow, warnings; from docarray.documents import TextDoc\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always'); import streamflow._docarray as d; d.hide_warnings(); TextDoc(text='a').dict()\n"
        "print([w.filename for w in seen])"
    )
    assert run(loud) == "['<string>']"
