"""Repairs to docarray 0.41, applied when it is imported: `install` at `import streamflow`, `apply` by itself.

docarray has had no release since 2025-03. Each repair asks first whether the fault is there, so a mended docarray is left alone.

| fault | repair |
|---|---|
| Python >= 3.12: a field `DocList[X]` raises at class creation: typing subscripts the finished alias again | that gives the alias |
| numpy >= 2: `DocVec` of numpy tensors raises, since arrays have a `device` ("cpu") now | "cpu" is no device |
| `AnyTensor[128]`, `AnyEmbedding[128]`, `ImageTensor[..]` raise "metaclass conflict" | the metaclass derives from ABCMeta |
| the JSON schema of a tensor with a named dimension, `NdArray["x", 3]`, raises | it is one without an example |
| a number given to an `NdArray` field makes an array of that many uninitialised numbers | it makes a 0-d tensor |
| a value that no tensor can be made of is printed to stdout | it is not |
| about 30 pydantic deprecation warnings at import and use | hidden, for docarray's own modules only |
"""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import warnings
from abc import ABCMeta
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import GenericAlias, ModuleType
from typing import Any, get_origin

_NAME = "docarray"
_lock = threading.RLock()
_applied: set[int] = set()


def install() -> None:
    """Have docarray repaired when it is imported, or now if it is. May be called twice."""
    module = sys.modules.get(_NAME)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        apply()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def apply() -> None:
    """Repair the docarray of this process. May be called twice."""
    import docarray  # 0.3 s: only processes that open documents come here

    with _lock:
        if id(docarray) not in _applied:
            _applied.add(id(docarray))
            hide_warnings()
            for repair in (_containers, _numpy_device, _tensor_metaclass, _tensor_schema, _tensor_from_number, _silent_tensor):
                repair()


def hide_warnings() -> None:
    """Hide pydantic's deprecation warnings about docarray's own code; those about anybody else's stay."""
    from pydantic.warnings import PydanticDeprecatedSince20  # docarray imports pydantic anyway

    warnings.filterwarnings("ignore", category=PydanticDeprecatedSince20, module=r"docarray(\.|$)")


class _Finder(MetaPathFinder):
    """Finds docarray as Python would, and has its loader apply the repairs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _NAME:
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((candidate for candidate in found if candidate is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _RepairingLoader(spec.loader)
        return spec


class _RepairingLoader(Loader):
    """docarray's own loader, and the repairs after it. Everything else is asked of the original (resources, source for tracebacks)."""

    def __init__(self, original: Loader) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._original.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        hide_warnings()
        self._original.exec_module(module)
        apply()


def _containers() -> None:
    from docarray import BaseDoc, DocList, DocVec

    class Probe(BaseDoc):
        pass

    for container in (DocList, DocVec):
        if sys.version_info >= (3, 12) and not _subscripts_twice(container, Probe):
            _let_subscript_twice(container)


def _subscripts_twice(container: Any, item: Any) -> bool:
    try:
        get_origin(container[item])[(item,)]
    except (TypeError, AssertionError, ValueError):
        return False
    return True


def _let_subscript_twice(container: Any) -> None:
    from docarray.base_doc import AnyDoc

    first_time = container.__class_getitem__.__func__

    def __class_getitem__(cls: Any, item: Any) -> Any:
        if isinstance(item, tuple) and len(item) == 1:
            (item,) = item  # typing hands the arguments over as it keeps them
        if cls.doc_type is not AnyDoc and cls.doc_type is item:
            return GenericAlias(cls, item)
        return first_time(cls, item)

    container.__class_getitem__ = classmethod(__class_getitem__)


def _numpy_device() -> None:
    from docarray.computation.numpy_backend import NumpyCompBackend

    try:
        NumpyCompBackend.empty((1,), device="cpu")
    except NotImplementedError:
        original = NumpyCompBackend.empty.__func__  # type: ignore[attr-defined]  # the function of a class method

        def empty(cls: Any, shape: Any, dtype: Any = None, device: Any = None) -> Any:
            return original(cls, shape, dtype, None if device == "cpu" else device)

        NumpyCompBackend.empty = classmethod(empty)  # type: ignore[method-assign, assignment]  # the repair


def _tensor_metaclass() -> None:
    from docarray.typing import AnyTensor
    from docarray.typing.tensor.abstract_tensor import AbstractTensor

    try:
        AnyTensor.__class_getitem__(1)
    except TypeError:
        by_shape: Any = AbstractTensor.__parametrized_meta__
        # NdArray and TorchTensor bring a metaclass like this one, the union types were forgotten
        AbstractTensor.__parametrized_meta__ = type(by_shape.__name__, (by_shape, ABCMeta), {})


def _tensor_schema() -> None:
    from docarray.typing import NdArray
    from docarray.typing.tensor.abstract_tensor import AbstractTensor

    kind: Any = AbstractTensor
    probe: Any = NdArray
    try:
        probe["x", 3].__get_pydantic_json_schema__({}, None)  # it looks at neither argument
    except TypeError:
        original = kind.__get_pydantic_json_schema__.__func__

        def __get_pydantic_json_schema__(cls: Any, core_schema: Any, handler: Any) -> dict[str, Any]:
            shape = cls.__docarray_target_shape__
            if shape is None or all(isinstance(size, int) for size in shape):
                return dict(original(cls, core_schema, handler))
            text = f"[{', '.join(map(str, shape))}]"
            return {"type": "array", "items": {"type": "number"}, "tensor/array shape": text}

        kind.__get_pydantic_json_schema__ = classmethod(__get_pydantic_json_schema__)


def _tensor_from_number() -> None:
    import numpy as np
    import orjson
    from docarray.typing import NdArray

    if NdArray._docarray_validate(3).shape == ():
        return
    original = NdArray._docarray_validate.__func__  # type: ignore[attr-defined]  # the function of a class method

    def _docarray_validate(cls: Any, value: Any) -> Any:
        if isinstance(value, str):
            value = orjson.loads(value)
        return original(cls, np.asarray(value) if isinstance(value, int | float | complex | np.number) else value)

    NdArray._docarray_validate = classmethod(_docarray_validate)  # type: ignore[method-assign, assignment]  # the repair


def _silent_tensor() -> None:
    import docarray.typing.tensor.tensor as module

    module.print = lambda *values: None  # type: ignore[attr-defined]  # hides the built-in from this module
