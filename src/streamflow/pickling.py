"""Executor classes as bytes, for the private pipe between a user's script and the processes of its flow. Never used on the network.

Classes of an importable module travel by name; those of a script, a notebook or a test by value (cloudpickle). docarray's generated
classes (`DocList[Doc]`, `NdArray[3]`) all claim the same importable name, so neither works: they travel as the subscription that made them.
"""

from __future__ import annotations

import io
import operator
import pickle
import re
import sys
import typing
from contextlib import ExitStack
from importlib.machinery import PathFinder
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import cloudpickle

_GENERATED_IN = "docarray.array.any_array"
_TEST_FILE = re.compile(r"(test_.*|.*_test|conftest)\.py\Z")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        made = getattr(obj, "__origin__", obj)  # on Python 3.11 and later DocList[Doc] is an alias of the generated class
        if isinstance(made, type):
            if made.__dict__.get("__unparametrizedcls__") is not None:
                return operator.getitem, (made.__dict__["__unparametrizedcls__"], made.__dict__["__docarray_target_shape__"])
            if "doc_type" in made.__dict__ and made.__module__ == _GENERATED_IN:
                subscription = operator.getitem, (made.__mro__[1], made.__dict__["doc_type"])
                return subscription if made is not obj else (_origin, subscription[1])
        return super().reducer_override(obj)


def _origin(container: Any, doc_type: type) -> Any:
    """The generated class behind `container[doc_type]`."""
    return container[doc_type].__origin__


def dumps(value: Any, *roots: type) -> bytes:
    """`value` as bytes for `loads` in another process with the same `sys.path`; modules of `roots` that it cannot import travel by value.

    Raises what pickle raises (`TypeError`, `pickle.PicklingError`) for locks, files and the like.
    """
    modules = {module for root in roots if (module := _by_value(root)) is not None}
    with ExitStack() as undo:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
            undo.callback(cloudpickle.unregister_pickle_by_value, module)
        for root in roots:
            _resolve_annotations(root, undo)
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
        return buffer.getvalue()


def loads(data: bytes) -> Any:
    """The value that `dumps` wrote. Only for bytes of the own supervisor's pipe."""
    return pickle.loads(data)


def _resolve_annotations(root: type, undo: ExitStack) -> None:
    """Replace annotations that are text (`from __future__ import annotations`) by what they mean, until `undo`.

    A function that travels by value takes along only the globals that its code uses, so the text would mean nothing where it arrives.
    """
    for function in [each for cls in root.__mro__ for each in vars(cls).values() if isinstance(each, FunctionType)]:
        written = function.__annotations__
        if any(isinstance(each, str) for each in written.values()):
            undo.callback(setattr, function, "__annotations__", written)
            function.__annotations__ = {name: _meaning(each, function) for name, each in written.items()}


def _meaning(annotation: Any, function: FunctionType) -> Any:
    names = dict(getattr(getattr(function, "__streamflow_marks__", None), "names", {}))
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, function.__globals__, names)["it"]
    except Exception:  # evaluating the user's text may raise anything; the worker says what is wrong with it
        return annotation


def _by_value(root: type) -> ModuleType | None:
    """The module of `root` when another process could not import it, or should not (a test); `__main__` is always by value."""
    module = sys.modules.get(root.__module__)
    if module is None or module.__name__ == "__main__" or _importable(module):
        return None
    return module


def _importable(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ in sys.builtin_module_names
    if _TEST_FILE.search(file.replace("\\", "/").rpartition("/")[2]):
        return False
    path: Any = None
    spec = None
    name = ""
    for part in module.__name__.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return spec is not None and spec.origin == file
