"""`output_array_type`: `tensor` and `embedding` of what an executor gives out, as the array type that the next one wants."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from streamflow.broker.errors import FlowError

FIELDS = ("tensor", "embedding")


def converter(kind: str) -> Callable[[Iterable[Any]], None]:
    """A function that converts the fields of documents in place to `kind`: `numpy`, or `torch` where that is imported, else `FlowError`."""
    if kind not in _CONVERSIONS:
        raise FlowError(f"output_array_type: {kind!r} is none of {', '.join(_CONVERSIONS)}")
    if kind == "torch" and "torch" not in sys.modules:
        raise FlowError("output_array_type: torch: import torch where the executor is defined")
    convert = _CONVERSIONS[kind]

    def convert_all(docs: Iterable[Any]) -> None:
        for doc in docs:
            for name in FIELDS:
                value = getattr(doc, name, None)
                if value is not None and (converted := convert(value)) is not value:
                    setattr(doc, name, converted)

    return convert_all


def _to_numpy(value: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    plain = value.detach().cpu()
    return (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()  # numpy has no bfloat16


def _to_torch(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return sys.modules["torch"].from_numpy(np.array(value))  # a copy: the array may be a read-only view of the message


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"numpy": _to_numpy, "torch": _to_torch}
