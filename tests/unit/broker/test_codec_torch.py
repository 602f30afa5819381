"""torch tensors in documents; runs where torch is installed (`pip install torch`), which is not a dependency."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from docarray import BaseDoc, DocList  # noqa: E402  (docarray looks for torch when it is imported)
from docarray.typing import AnyEmbedding, AnyTensor, NdArray, TorchTensor  # noqa: E402
from pydantic import create_model  # noqa: E402

from streamflow.broker.codec import decode, encode, tensors, transcode  # noqa: E402
from streamflow.broker.envelope import COLUMNS, JSON, PROTOBUF  # noqa: E402
from streamflow.broker.errors import InvalidInput  # noqa: E402

pytestmark = pytest.mark.feature("DC-04")

FORMS = {"columns": COLUMNS, "trusted": COLUMNS, "json": JSON, "protobuf": PROTOBUF}


def field(form: str, annotation: Any, value: Any, copies: int) -> Any:
    doc_type = create_model("Made", __base__=BaseDoc, x=(annotation, ...))
    docs = DocList[doc_type]([doc_type(x=value.clone()) for _ in range(copies)])
    made = decode(encode(docs, FORMS[form]), FORMS[form], doc_type, trusted=form == "trusted").docs
    assert all(type(doc.x) is type(docs[0].x) for doc in made) or form == "json"
    return made[-1].x


TENSORS = {
    "float32": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "int8": torch.tensor([-1, 2], dtype=torch.int8),
    "bool": torch.tensor([True, False]),
    "complex": torch.tensor([1 + 2j]),
    "0-d": torch.tensor(5.5),
    "empty": torch.zeros(0, 4),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "strided": torch.arange(20.0)[::3],
    "conjugated": torch.tensor([1 + 2j]).conj(),
}


@pytest.mark.parametrize("form", ["columns", "trusted", "protobuf"])
@pytest.mark.parametrize("annotation", [TorchTensor, AnyTensor, AnyEmbedding])
@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("copies", [1, 3])
def test_a_tensor_keeps_library_shape_dtype_and_values(form: str, annotation: Any, name: str, copies: int) -> None:
    value = TENSORS[name]
    made = field(form, annotation, value, copies)
    assert isinstance(made, TorchTensor)
    assert (made.shape, made.dtype) == (value.shape, value.dtype)
    assert torch.equal(made.unwrap(), value)
    made.zero_()  # writable


@pytest.mark.parametrize("form", ["columns", "trusted"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("copies", [1, 3])
def test_dtypes_that_numpy_lacks(form: str, dtype: Any, copies: int) -> None:
    value = torch.tensor([[1.5, -2.0], [0.25, 3.0]]).to(dtype)
    made = field(form, TorchTensor, value, copies)
    assert made.dtype == dtype
    assert made.float().tolist() == value.float().tolist()


def test_bfloat16_is_float32_where_the_form_or_the_receiver_has_no_such_type(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    assert field("protobuf", TorchTensor, value, 1).tolist() == [1.5, -2.0]
    assert field("json", AnyTensor, value, 1).tolist() == [1.5, -2.0]
    packed = tensors.pack(value)
    monkeypatch.setattr(tensors, "torch_module", lambda: None)
    made = tensors.unpack(packed, torch=True)
    assert isinstance(made, np.ndarray) and made.dtype == np.float32 and made.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_and_sparse_layouts_are_left_behind(form: str) -> None:
    class Made(BaseDoc):
        x: TorchTensor

    doc = Made(x=torch.tensor([1.5, 2.5], requires_grad=True))
    made = decode(encode([doc], FORMS[form]), FORMS[form], Made, trusted=form == "trusted").docs[0].x
    assert made.tolist() == [1.5, 2.5] and not made.requires_grad
    sparse = torch.tensor([[0.0, 1.5]]).to_sparse()
    assert tensors.unpack(tensors.pack(sparse), torch=True).tolist() == [[0.0, 1.5]]


@pytest.mark.parametrize("form", FORMS)
def test_a_numpy_field_receives_numpy_and_a_torch_field_torch(form: str) -> None:
    class Mixed(BaseDoc):
        array: NdArray
        tensor: TorchTensor
        maybe: Optional[TorchTensor] = None  # noqa: UP045  (as users write it)

    class Swapped(BaseDoc):
        array: TorchTensor
        tensor: NdArray

    docs = [Mixed(array=torch.tensor([1.5]), tensor=np.array([2.5])) for _ in range(2)]
    made = decode(encode(docs, FORMS[form]), FORMS[form], Mixed, trusted=form == "trusted").docs
    assert isinstance(made[1].array, NdArray) and isinstance(made[1].tensor, TorchTensor) and made[1].maybe is None
    other = decode(encode(docs, FORMS[form]), FORMS[form], Swapped, trusted=form == "trusted").docs[1]
    assert isinstance(other.array, TorchTensor) and isinstance(other.tensor, NdArray)
    assert (other.array.tolist(), other.tensor.tolist()) == ([1.5], [2.5])


def test_rows_of_a_stack_are_apart_and_tensors_pass_through() -> None:
    class Made(BaseDoc):
        x: TorchTensor

    docs = DocList[Made]([Made(x=torch.full((3,), float(index))) for index in range(3)])
    made = decode(encode(docs, COLUMNS), COLUMNS, Made, trusted=True).docs
    made[0].x[:] = 9
    assert made[1].x.tolist() == [1, 1, 1]
    again = decode(transcode(encode(docs, COLUMNS), COLUMNS, PROTOBUF), PROTOBUF, Made).docs
    assert again == docs and isinstance(again[0].x, TorchTensor)
    with pytest.raises(InvalidInput):
        tensors_body = encode(docs, COLUMNS).replace(b"<f4", b"<U1")
        decode(tensors_body, COLUMNS, Made)
